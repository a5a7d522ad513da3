//! A DNS server that says what a test says, by UDP and TCP on one port (RFC 1035; SRV: RFC 2782).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
};

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;
/// Answers above this go by TCP, as a server without EDNS has it.
const UDP_BYTES_MAX: usize = 512;

/// A target of a service: priority, weight, port, name.
pub type Target = (u16, u16, u16, &'static str);

/// What is wrong with the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// It fails (SERVFAIL).
    ServerFailure,
    /// It knows no name (NXDOMAIN).
    NoSuchName,
    /// It knows every name, and nothing of any.
    NoRecords,
    /// It says nothing at all.
    Silent,
}

/// A name server, until it is dropped.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Zone>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug, Default)]
struct Zone {
    records: Mutex<Records>,
    asked: AtomicU64,
    asked_by_tcp: AtomicU64,
}

#[derive(Debug, Default)]
struct Records {
    trouble: Trouble,
    ttl: u32,
    addresses: BTreeMap<String, Vec<IpAddr>>,
    services: BTreeMap<String, Vec<Target>>,
}

impl Zone {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dns {
    /// Listens on a port of the system's choice.
    ///
    /// # Panics
    /// When there is no port that is free for both.
    pub async fn start() -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = tcp.local_addr().expect("an address");
            // Somebody else may have it for the other protocol.
            if let Ok(udp) = UdpSocket::bind(address).await {
                break (udp, tcp);
            }
        };
        let address = tcp.local_addr().expect("an address");
        let zone = Arc::new(Zone::default());
        let by_udp = tokio::spawn(serve_udp(udp, zone.clone()));
        let by_tcp = tokio::spawn(serve_tcp(tcp, zone.clone()));
        Self {
            address,
            zone,
            tasks: [by_udp, by_tcp],
        }
    }

    /// `address:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on a name has these addresses.
    ///
    /// # Panics
    /// When one is none.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        let parsed = addresses.iter().map(|text| text.parse().expect("an address"));
        let name = name.to_ascii_lowercase();
        self.zone.records().addresses.insert(name, parsed.collect());
    }

    /// From now on a service has these targets.
    pub fn set_service(&self, name: &str, targets: &[Target]) {
        let name = name.to_ascii_lowercase();
        self.zone.records().services.insert(name, targets.to_vec());
    }

    /// Seconds that answers are good for; 0 unless set.
    pub fn set_ttl(&self, seconds: u32) {
        self.zone.records().ttl = seconds;
    }

    /// From now on this is wrong with it.
    pub fn set_trouble(&self, trouble: Trouble) {
        self.zone.records().trouble = trouble;
    }

    /// Questions up to now.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.zone.asked.load(Ordering::SeqCst)
    }

    /// Those of them that came by TCP.
    #[must_use]
    pub fn asked_by_tcp(&self) -> u64 {
        self.zone.asked_by_tcp.load(Ordering::SeqCst)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>) {
    let mut question = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut question).await {
        if let Some(answer) = answer(&zone, &question[..length], UDP_BYTES_MAX) {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(converse(stream, zone.clone()));
    }
}

async fn converse(mut stream: TcpStream, zone: Arc<Zone>) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut question).await?;
        zone.asked_by_tcp.fetch_add(1, Ordering::SeqCst);
        if let Some(answer) = answer(&zone, &question, usize::from(u16::MAX)) {
            let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
            stream
                .write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())
                .await?;
        }
    }
}

/// The answer's bytes; `None` if there is none.
fn answer(zone: &Zone, question: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    zone.asked.fetch_add(1, Ordering::SeqCst);
    let (name, end) = read_name(question, 12)?;
    let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
    let asked = question.get(12..end + 4)?;
    let records = zone.records();
    let (code, found) = match records.trouble {
        Trouble::Silent => return None,
        Trouble::ServerFailure => (2, Vec::new()),
        Trouble::NoSuchName => (3, Vec::new()),
        Trouble::NoRecords => (0, Vec::new()),
        Trouble::None => match records.find(&name, kind) {
            Some(found) => (0, found),
            None => (3, Vec::new()),
        },
    };
    let mut answer = header(question, code, found.len());
    answer.extend(asked);
    for data in &found {
        // The name is that of the question.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend(1_u16.to_be_bytes());
        answer.extend(records.ttl.to_be_bytes());
        answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        answer.extend(data);
    }
    if answer.len() > bytes_max {
        // Truncated: come again by TCP.
        let mut answer = header(question, 0, 0);
        answer[2] |= 2;
        answer.extend(asked);
        return Some(answer);
    }
    Some(answer)
}

/// An answer to this question, with so many records.
fn header(question: &[u8], code: u8, count: usize) -> Vec<u8> {
    let count = u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes();
    let id = [question[0], question[1]];
    // A response with authority; recursion was desired, and is available.
    let flags = [0x84 | (question[2] & 1), 0x80 | code];
    [id, flags, [0, 1], count, [0, 0], [0, 0]].concat()
}

impl Records {
    /// `None` if there is no such name.
    fn find(&self, name: &str, kind: u16) -> Option<Vec<Vec<u8>>> {
        if let Some(targets) = self.services.get(name) {
            let data = |(priority, weight, port, target): &Target| {
                let numbers = [priority, weight, port].map(|number| number.to_be_bytes());
                [numbers.concat(), write_name(target)].concat()
            };
            let is_asked = kind == SRV;
            return Some(targets.iter().filter(|_| is_asked).map(data).collect());
        }
        let addresses = self.addresses.get(name)?.iter();
        let data = |address: &IpAddr| match (address, kind) {
            (IpAddr::V4(address), A) => Some(address.octets().to_vec()),
            (IpAddr::V6(address), AAAA) => Some(address.octets().to_vec()),
            _ => None,
        };
        Some(addresses.filter_map(data).collect())
    }
}

/// In lower case and without the last dot, and where it ends.
fn read_name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        let label = bytes.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
    }
}

fn write_name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()))
        .collect();
    bytes.push(0);
    bytes
}
