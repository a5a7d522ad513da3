//! Two workers, each with a listener of its own on one port: the kernel deals connections out by their addresses, or a program in
//! the kernel gives each to the worker that has fewer.
//!
//! Owns that program (eBPF, `BPF_PROG_TYPE_SK_REUSEPORT`). It counts what it gave to whom, and workers count down what ended; a
//! client that gives up before its connection is complete stays counted, which a balancer would have to mend.

#![allow(
    unsafe_code,
    reason = "calls and an option that no crate here knows, each with its reason"
)]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
};

use socket2::{Domain, Socket, Type};

use super::{Place, Way, forward};

const WORKERS: usize = 2;
static CONNECTIONS: [AtomicU32; WORKERS] = [const { AtomicU32::new(0) }; WORKERS];

pub(super) fn run(place: Place, way: Way, first: TcpListener) -> io::Result<()> {
    let port = first.local_addr()?.port();
    let listeners = [first, listen(port)?];
    let connections: &[AtomicU32; WORKERS] = match way {
        Way::Steered => steer(&listeners)?,
        _ => &CONNECTIONS,
    };
    let workers = listeners.into_iter().zip(connections).map(|(listener, count)| {
        thread::spawn(move || {
            forward(place, way, &listener, &|| {
                count.fetch_sub(1, Relaxed);
            })
        })
    });
    let workers: Vec<_> = workers.collect();
    for worker in workers {
        worker
            .join()
            .map_err(|_| io::Error::other("a worker panicked"))??;
    }
    Ok(())
}

/// One of several on a port.
pub(super) fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Numbers of the kernel's that crates here do not have (`linux/bpf.h`).
mod bpf {
    pub(super) const MAP_CREATE: libc::c_int = 0;
    pub(super) const MAP_UPDATE: libc::c_int = 2;
    pub(super) const PROG_LOAD: libc::c_int = 5;
    pub(super) const MAP_ARRAY: u32 = 2;
    pub(super) const MAP_REUSEPORT: u32 = 20;
    pub(super) const MAPPABLE: u32 = 1 << 10;
    pub(super) const PROG_SK_REUSEPORT: u32 = 21;
    pub(super) const SELECT_REUSEPORT: i32 = 82;
    pub(super) const PASS: i32 = 1;
    pub(super) const ATTACH: libc::c_int = 52;
}

#[repr(C)]
struct Map {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Program {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
}

/// One instruction: what it does, the registers (the source's number in the upper half), an offset and a number.
#[repr(C)]
struct Instruction(u8, u8, i16, i32);

fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the attributes live as long as the call, as does what they point to; the kernel is told their size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as RawFd)
}

fn owned<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    let file = call(command, attributes)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// Has the kernel give each connection to the listener that has fewer. What it counts is counted down by whoever ends one.
fn steer(listeners: &[TcpListener; WORKERS]) -> io::Result<&'static [AtomicU32; WORKERS]> {
    let counts = owned(
        bpf::MAP_CREATE,
        &Map {
            kind: bpf::MAP_ARRAY,
            key_bytes: 4,
            value_bytes: size_of::<[AtomicU32; WORKERS]>() as u32,
            entries: 1,
            flags: bpf::MAPPABLE,
        },
    )?;
    let sockets = owned(
        bpf::MAP_CREATE,
        &Map {
            kind: bpf::MAP_REUSEPORT,
            key_bytes: 4,
            value_bytes: 8,
            entries: WORKERS as u32,
            flags: 0,
        },
    )?;
    for (place, listener) in (0_u32..).zip(listeners) {
        let socket = listener.as_raw_fd() as u64;
        let element = Element {
            map: sockets.as_raw_fd() as u32,
            key: ptr::from_ref(&place) as u64,
            value: ptr::from_ref(&socket) as u64,
            flags: 0,
        };
        call(bpf::MAP_UPDATE, &element)?;
    }
    let program = load(&counts, &sockets)?;
    let number = program.as_raw_fd();
    // SAFETY: the option is a number, which lives as long as the call.
    let result = unsafe {
        libc::setsockopt(
            listeners[0].as_raw_fd(),
            libc::SOL_SOCKET,
            bpf::ATTACH,
            (&raw const number).cast(),
            size_of::<RawFd>() as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new mapping of one page of the map, which is that large and stays until the process ends.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            counts.as_raw_fd(),
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page begins with the map's one value, which has this size, and is only changed atomically.
    Ok(unsafe { &*page.cast::<[AtomicU32; WORKERS]>() })
}

fn load(counts: &OwnedFd, sockets: &OwnedFd) -> io::Result<OwnedFd> {
    let (counts, sockets) = (counts.as_raw_fd(), sockets.as_raw_fd());
    let code = [
        Instruction(0xbf, 0x16, 0, 0),       // r6 = the context
        Instruction(0x18, 0x21, 0, counts),  // r1 = address of the counts
        Instruction(0x00, 0x00, 0, 0),       // (its other half)
        Instruction(0x61, 0x12, 0, 0),       // r2 = the first worker's
        Instruction(0x61, 0x13, 4, 0),       // r3 = the second worker's
        Instruction(0xb7, 0x07, 0, 0),       // r7 = 0
        Instruction(0xbd, 0x32, 1, 0),       // unless r2 <= r3
        Instruction(0xb7, 0x07, 0, 1),       //   r7 = 1
        Instruction(0xbf, 0x78, 0, 0),       // r8 = r7 * 4
        Instruction(0x67, 0x08, 0, 2),       //
        Instruction(0x0f, 0x81, 0, 0),       // r1 += r8
        Instruction(0xb7, 0x09, 0, 1),       // one more there, atomically
        Instruction(0xc3, 0x91, 0, 0),       //
        Instruction(0x63, 0x7a, -4, 0),      // the key: r7, on the stack
        Instruction(0xbf, 0x61, 0, 0),       // r1 = the context
        Instruction(0x18, 0x12, 0, sockets), // r2 = the sockets
        Instruction(0x00, 0x00, 0, 0),       // (its other half)
        Instruction(0xbf, 0xa3, 0, 0),       // r3 = address of the key
        Instruction(0x07, 0x03, 0, -4),      //
        Instruction(0xb7, 0x04, 0, 0),       // r4 = no flags
        Instruction(0x85, 0x00, 0, bpf::SELECT_REUSEPORT),
        Instruction(0xb7, 0x00, 0, bpf::PASS), // whatever came of it
        Instruction(0x95, 0x00, 0, 0),
    ];
    let mut log = vec![0_u8; 65_536];
    let program = Program {
        kind: bpf::PROG_SK_REUSEPORT,
        count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_bytes: log.len() as u32,
        log: log.as_mut_ptr() as u64,
    };
    owned(bpf::PROG_LOAD, &program).map_err(|error| {
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        io::Error::other(format!("{error}: {}", String::from_utf8_lossy(&log[..end])))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn each_worker_is_given_as_many_and_what_ended_is_made_up_for() {
        let first = listen(0).unwrap();
        let address = first.local_addr().unwrap();
        let listeners = [first, listen(address.port()).unwrap()];
        let counts = steer(&listeners).unwrap();
        let accepted = || {
            let count = |listener: &TcpListener| std::iter::from_fn(|| listener.accept().ok()).count();
            [count(&listeners[0]), count(&listeners[1])]
        };
        let connect =
            |count| -> Vec<_> { (0..count).map(|_| TcpStream::connect(address).unwrap()).collect() };
        let _some = connect(20);
        assert_eq!(accepted(), [10, 10]);
        counts[1].fetch_sub(6, Relaxed);
        let _more = connect(6);
        assert_eq!(accepted(), [0, 6]);
    }
}
