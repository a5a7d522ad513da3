//! trimtab's admin interface, as far as measurements need it.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Asks, and takes only a good answer.
pub(crate) fn call(port: u16, method: &str, path: &str, (kind, body): (&str, &[u8])) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("no answer")?;
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let is_good = head.starts_with(b"HTTP/1.1 2");
    ensure!(
        is_good,
        "{method} {path}: {} {}",
        String::from_utf8_lossy(head),
        String::from_utf8_lossy(body)
    );
    Ok(body.to_vec())
}

pub(crate) fn json(port: u16, method: &str, path: &str, body: &Value) -> Result<Vec<u8>> {
    call(
        port,
        method,
        path,
        ("application/json", body.to_string().as_bytes()),
    )
}

/// Uploads a component for a pool; its digest.
pub(crate) fn upload(port: u16, pool: &str, component: &[u8]) -> Result<String> {
    let answer = call(
        port,
        "POST",
        &format!("/v1/policies?pool={pool}"),
        ("application/wasm", component),
    )?;
    let answer: Value = serde_json::from_slice(&answer)?;
    Ok(answer["digest"].as_str().context("no digest")?.to_owned())
}

/// The sum of a metric over all its series.
pub(crate) fn metric(port: u16, name: &str) -> Result<f64> {
    let text = String::from_utf8(call(port, "GET", "/metrics", ("text/plain", b""))?)?;
    let of = text.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '{']))
    });
    Ok(of
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}
