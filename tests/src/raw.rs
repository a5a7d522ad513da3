//! Origins that record every byte and answer exactly what a test tells them to.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{DEADLINE, wait_until};

/// A scripted origin.
#[derive(Debug)]
pub struct RawOrigin {
    address: SocketAddr,
    record: Arc<Record>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Record {
    /// What each connection has received, by its number.
    received: Mutex<Vec<Vec<u8>>>,
    /// Connections that the other side has closed.
    closed: AtomicUsize,
}

impl Record {
    fn received(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The origin's end of one connection.
#[derive(Debug)]
pub struct Peer {
    /// From 0, in the order of their acceptance.
    pub number: usize,
    /// The socket, for what has no method here.
    pub stream: TcpStream,
    record: Arc<Record>,
    unread: Vec<u8>,
}

impl RawOrigin {
    /// Listens on a port of the system's choice; every connection runs `script`.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start<F>(script: impl Fn(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_at("127.0.0.1:0", script).await.expect("a port")
    }

    /// The same at an address of the test's choice.
    ///
    /// # Errors
    /// When somebody else has it.
    pub async fn start_at<F>(
        address: &str,
        script: impl Fn(Peer) -> F + Send + 'static,
    ) -> std::io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let record = Arc::new(Record::default());
        let shared = record.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut received = shared.received();
                    received.push(Vec::new());
                    received.len() - 1
                };
                let peer = Peer {
                    number,
                    stream,
                    record: shared.clone(),
                    unread: Vec::new(),
                };
                tokio::spawn(script(peer));
            }
        });
        Ok(Self {
            address,
            record,
            accepting,
        })
    }

    /// An origin that answers every request on every connection with `response`.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn answering(response: impl Into<Vec<u8>>) -> Self {
        Self::answering_at("127.0.0.1:0", response).await.expect("a port")
    }

    /// The same at an address of the test's choice.
    ///
    /// # Errors
    /// When somebody else has it.
    pub async fn answering_at(address: &str, response: impl Into<Vec<u8>>) -> std::io::Result<Self> {
        let response: Arc<[u8]> = response.into().into();
        Self::start_at(address, move |mut peer| {
            let response = response.clone();
            async move {
                while peer.request().await.is_some() {
                    peer.send(&response).await;
                }
            }
        })
        .await
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        self.address
    }

    /// `address:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How many connections were accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.record.received().len()
    }

    /// How many connections the other side has closed.
    #[must_use]
    pub fn closed(&self) -> usize {
        self.record.closed.load(Ordering::SeqCst)
    }

    /// Everything received so far, all connections after one another.
    #[must_use]
    pub fn received(&self) -> String {
        String::from_utf8_lossy(&self.received_bytes()).into_owned()
    }

    /// Connections that have not ended.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.connections() - self.closed()
    }

    /// The same as it was.
    #[must_use]
    pub fn received_bytes(&self) -> Vec<u8> {
        self.record.received().concat()
    }

    /// The same, connection by connection.
    #[must_use]
    pub fn received_by_connection(&self) -> Vec<Vec<u8>> {
        self.record.received().clone()
    }

    /// How many requests arrived, by their request lines.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.received().matches(" HTTP/1.1\r\n").count()
    }

    /// Waits until this text was received.
    pub async fn wait_for(&self, text: &str) {
        wait_until(&format!("origin receives {text:?}"), DEADLINE, || {
            self.received().contains(text)
        })
        .await;
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Peer {
    /// Reads some more. False at the end.
    pub async fn more(&mut self) -> bool {
        let mut buffer = vec![0; 64 << 10];
        match self.stream.read(&mut buffer).await {
            Ok(count) if count > 0 => {
                self.unread.extend_from_slice(&buffer[..count]);
                self.record.received()[self.number].extend_from_slice(&buffer[..count]);
                true
            }
            _ => {
                self.record.closed.fetch_add(1, Ordering::SeqCst);
                false
            }
        }
    }

    /// Reads up to and including `end`; `None` if the connection ends before.
    pub async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            let found = self
                .unread
                .windows(end.len())
                .position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let taken = self.unread.drain(..at + end.len()).collect::<Vec<_>>();
                return Some(String::from_utf8_lossy(&taken).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Whatever came, at least one byte; `None` at the end.
    pub async fn bytes(&mut self) -> Option<Vec<u8>> {
        if self.unread.is_empty() && !self.more().await {
            return None;
        }
        Some(std::mem::take(&mut self.unread))
    }

    /// Reads a request's head.
    pub async fn head(&mut self) -> Option<String> {
        self.until("\r\n\r\n").await
    }

    /// Reads exactly so many bytes.
    pub async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.unread.drain(..count).collect())
    }

    /// Reads a whole request, and gives its head.
    pub async fn request(&mut self) -> Option<String> {
        let head = self.head().await?;
        let lower = head.to_ascii_lowercase();
        if let Some((_, rest)) = lower.split_once("content-length: ") {
            let length = rest.split("\r\n").next().and_then(|text| text.parse().ok());
            self.exactly(length.unwrap_or(0)).await?;
        } else if lower.contains("transfer-encoding: chunked") {
            // Chunks and trailers of the tests contain no empty line but the last.
            let mut line = self.until("\r\n").await?;
            while line != "0\r\n" {
                line = self.until("\r\n").await?;
            }
            while line != "\r\n" {
                line = self.until("\r\n").await?;
            }
        }
        Some(head)
    }

    /// Sends. That the other side has gone is seen at the next read.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads until the other side closes.
    pub async fn until_closed(&mut self) {
        while self.more().await {}
    }
}

/// A response with a length.
#[must_use]
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
