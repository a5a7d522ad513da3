//! All ways to forward do the same.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    thread,
};

use clap::ValueEnum;

use super::{Place, Way, on};

/// More than buffers of sockets and pipes hold.
const LARGE: usize = 20 << 20;

/// The port of a floor in front of a backend that gives back what it gets, reversed, when it has all of it.
fn floor(way: Way) -> u16 {
    let backend = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let place = Place {
        port: 0,
        backends: backend.local_addr().unwrap().port(),
        count: 1,
    };
    thread::spawn(move || {
        for stream in backend.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 8];
            // A connection of a client that says nothing.
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut bytes = vec![0; u64::from_be_bytes(length) as usize];
            stream.read_exact(&mut bytes).unwrap();
            bytes.reverse();
            stream.write_all(&bytes).unwrap();
        }
    });
    let listener = way.listen(0).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || on(place, way, listener));
    port
}

fn exchange(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.write_all(&(bytes.len() as u64).to_be_bytes()).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn every_way_forwards_all_bytes_and_ends_with_the_backend() {
    for way in Way::value_variants() {
        let port = floor(*way);
        let large: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
        for bytes in [&b"little"[..], &large, b"again"] {
            let answer = exchange(port, bytes);
            let is_reversed = answer.iter().eq(bytes.iter().rev());
            assert!(is_reversed, "{way:?}: {} of {} bytes", answer.len(), bytes.len());
        }
    }
}

#[test]
fn every_way_ends_with_the_client() {
    for way in Way::value_variants() {
        let port = floor(*way);
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "{way:?}");
        // And goes on for others.
        assert_eq!(exchange(port, b"ab"), b"ba", "{way:?}");
    }
}
