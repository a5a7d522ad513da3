//! A client that sends exactly the bytes it is given and shows exactly what came back.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{DEADLINE, within};

/// One connection to a server.
#[derive(Debug)]
pub struct Client<S = TcpStream> {
    /// The socket, for what has no method here.
    pub stream: S,
    unread: Vec<u8>,
}

/// A response as it was on the wire.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Status line and fields, the empty line included.
    pub head: String,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: String,
    /// Whether the body came to its end as its framing says. A body that ends with the connection counts as complete
    /// when the connection was closed in order.
    pub is_complete: bool,
}

impl Response {
    /// The value of the first field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

impl<S> From<S> for Client<S> {
    fn from(stream: S) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.expect("a connection")
    }

    /// Connects with a small window, so that a server soon notices that nothing is read.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 << 10).expect("a buffer");
        let stream = within("connecting", DEADLINE, socket.connect(address)).await;
        stream.expect("a connection").into()
    }

    /// Connects, or says why not.
    ///
    /// # Errors
    /// What the system says.
    pub async fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = within("connecting", DEADLINE, TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(stream.into())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends all of it. A server that closed meanwhile is seen when reading.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("sending", DEADLINE, self.stream.write_all(bytes.as_ref())).await;
    }

    /// Reads some more; false at the end, an error on a reset.
    async fn more(&mut self) -> std::io::Result<bool> {
        let mut buffer = vec![0; 64 << 10];
        let count = within("a response", DEADLINE, self.stream.read(&mut buffer)).await?;
        self.unread.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }

    /// Everything up to the end of the connection.
    ///
    /// # Errors
    /// When it ends in a reset.
    pub async fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        while self.more().await? {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// Waits until the server has closed the connection, and gives what it sent before.
    pub async fn until_closed(&mut self) -> String {
        // A reset is an end, too.
        while self.more().await.unwrap_or(false) {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    async fn line(&mut self) -> std::io::Result<String> {
        loop {
            if let Some(at) = self.unread.windows(2).position(|window| window == b"\r\n") {
                let line = self.unread.drain(..at + 2).collect::<Vec<_>>();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if !self.more().await? {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn bytes(&mut self, count: usize, into: &mut Vec<u8>) -> std::io::Result<bool> {
        let mut missing = count;
        loop {
            let now = missing.min(self.unread.len());
            into.extend(self.unread.drain(..now));
            missing -= now;
            if missing == 0 {
                return Ok(true);
            }
            if !self.more().await? {
                return Ok(false);
            }
        }
    }

    /// Reads exactly so many bytes, or what comes before the end.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut taken = Vec::with_capacity(count);
        // A reset is an end, too.
        let _ = self.bytes(count, &mut taken).await;
        taken
    }

    /// Reads a response's head.
    ///
    /// # Errors
    /// When the connection ends before it does.
    pub async fn head(&mut self) -> std::io::Result<Response> {
        let mut head = self.line().await?;
        let status = head.get(9..12).and_then(|digits| digits.parse().ok());
        let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
        loop {
            let line = self.line().await?;
            head.push_str(&line);
            if line == "\r\n" {
                break;
            }
        }
        Ok(Response {
            status,
            head,
            ..Response::default()
        })
    }

    /// Reads the next response to a request that is not a HEAD.
    ///
    /// # Errors
    /// When the connection ends before its head does.
    pub async fn try_response(&mut self) -> std::io::Result<Response> {
        let mut response = self.head().await?;
        let length = response.field("content-length").map(str::parse::<usize>);
        let is_empty = response.status < 200 || matches!(response.status, 204 | 304);
        // From here on a broken connection is a broken body.
        let read = if is_empty {
            Ok(true)
        } else if let Some(Ok(length)) = length {
            self.bytes(length, &mut response.body).await
        } else if response.field("transfer-encoding").is_some() {
            self.chunks(&mut response).await
        } else {
            let rest = self.rest().await;
            rest.map(|rest| {
                response.body = rest;
                true
            })
        };
        response.is_complete = read.unwrap_or(false);
        Ok(response)
    }

    async fn chunks(&mut self, response: &mut Response) -> std::io::Result<bool> {
        loop {
            let size = self.line().await?;
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or(usize::MAX);
            if size == 0 {
                break;
            }
            if !self.bytes(size, &mut response.body).await? || self.line().await? != "\r\n" {
                return Ok(false);
            }
        }
        loop {
            let line = self.line().await?;
            if line == "\r\n" {
                return Ok(true);
            }
            response.trailers.push_str(&line);
        }
    }

    /// Reads the next response.
    ///
    /// # Panics
    /// When none comes.
    pub async fn response(&mut self) -> Response {
        self.try_response().await.expect("a response")
    }

    /// Sends a request and reads its response.
    pub async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Response {
        self.send(bytes).await;
        self.response().await
    }

    /// Asks for a path on this connection.
    pub async fn get(&mut self, path: &str) -> Response {
        self.ask(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"))
            .await
    }
}

/// Asks for a path on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Response {
    Client::connect(address).await.get(path).await
}

/// Asks an admin listener, which wants to be called by its address.
pub async fn ask_admin(address: SocketAddr, path: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    Client::connect(address).await.ask(request).await
}

/// The same as [`get`] with more fields, each ended with CRLF.
pub async fn get_with(address: SocketAddr, path: &str, fields: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n{fields}\r\n");
    Client::connect(address).await.ask(request).await
}
