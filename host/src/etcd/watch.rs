//! What a member says of changes, line by line.
//!
//! Owns the lines. Waiting for the next one can be given up and taken up again.

use bytes::BytesMut;
use http_body_util::BodyExt;
use serde_json::Value;

use super::{Entry, Error, exchange::Stream, unreadable, wire};

/// Of one line: the largest change is one of all keys at once.
const LINE_BYTES_MAX: usize = 32 << 20;

/// A change of a key; without an entry it is gone.
pub(super) type Change = (String, Option<Entry>);

pub(super) struct Watch {
    stream: Stream,
    read: BytesMut,
}

impl Watch {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
        }
    }

    /// The next changes; none at the first answer. An error ends it.
    pub(super) async fn next(&mut self) -> Result<Vec<Change>, Error> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                return changes(&line);
            }
            if self.read.len() > LINE_BYTES_MAX {
                return Err(Error::Refused(format!(
                    "more than {LINE_BYTES_MAX} bytes of changes at once"
                )));
            }
            match self.stream.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Error::Away(error.to_string())),
                None => return Err(Error::Away("the member ended the watch".to_owned())),
            }
        }
    }
}

fn changes(line: &[u8]) -> Result<Vec<Change>, Error> {
    let answer: Value = serde_json::from_slice(line).map_err(|error| Error::Refused(error.to_string()))?;
    if let Some(text) = answer["error"]["message"].as_str() {
        return Err(Error::Away(text.to_owned()));
    }
    let result = &answer["result"];
    if result["canceled"] == true {
        let reason = result["cancel_reason"].as_str().unwrap_or("the history is gone");
        return Err(Error::Away(reason.to_owned()));
    }
    let events = result["events"].as_array().map_or(&[][..], Vec::as_slice);
    let change = |event: &Value| {
        let (key, entry) = wire::entry(&event["kv"])?;
        Some((key, (event["type"] != "DELETE").then_some(entry)))
    };
    let found: Option<Vec<_>> = events.iter().map(change).collect();
    found.ok_or_else(|| unreadable(&answer))
}
