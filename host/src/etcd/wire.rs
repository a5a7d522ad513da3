//! The gateway's JSON: bytes are base64, 64-bit numbers are text, and what is zero is left out.
//!
//! Owns the form only.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Condition, Entries, Entry, Error, Write, unreadable};

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn decode(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => Some(Vec::new()),
        value => STANDARD.decode(value.as_str()?).ok(),
    }
}

/// The first key after all that begin so, which no key of ours is beyond: a prefix ends with `/`.
pub(super) fn end_of(prefix: &str) -> String {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    encode(&end)
}

/// A number, whether it is written as one or as text; 0 if it is left out.
pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Null => Some(0),
        Value::String(text) => text.parse().ok(),
        value => value.as_i64(),
    }
}

/// A key with what is known of it.
pub(super) fn entry(value: &Value) -> Option<(String, Entry)> {
    let key = String::from_utf8(decode(&value["key"])?).ok()?;
    let entry = Entry {
        value: decode(&value["value"])?,
        create_revision: number(&value["create_revision"])?,
        mod_revision: number(&value["mod_revision"])?,
    };
    Some((key, entry))
}

/// What a range is, and the state of the store.
pub(super) fn range(answer: Value) -> Result<(i64, Entries), Error> {
    let read = || {
        let revision = number(&answer["header"]["revision"]).filter(|revision| *revision > 0)?;
        let found = answer["kvs"].as_array().map_or(&[][..], Vec::as_slice);
        Some((revision, found.iter().map(entry).collect::<Option<Entries>>()?))
    };
    read().ok_or_else(|| unreadable(&answer))
}

pub(super) fn transaction(conditions: &[Condition], writes: &[Write]) -> Value {
    let compare = |condition: &Condition| match condition {
        Condition::Created(key, revision) => json!({
            "key": encode(key.as_bytes()), "target": "CREATE", "result": "EQUAL", "create_revision": revision.to_string(),
        }),
        Condition::Written(key, revision) => json!({
            "key": encode(key.as_bytes()), "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string(),
        }),
    };
    let write = |write: &Write| match write {
        Write::Put(key, value, lease) => json!({ "request_put": {
            "key": encode(key.as_bytes()), "value": encode(value), "lease": lease.to_string(),
        } }),
        Write::Delete(key) => json!({ "request_delete_range": { "key": encode(key.as_bytes()) } }),
        Write::DeleteAll(prefix) => json!({ "request_delete_range": {
            "key": encode(prefix.as_bytes()), "range_end": end_of(prefix),
        } }),
    };
    let compare: Vec<Value> = conditions.iter().map(compare).collect();
    let success: Vec<Value> = writes.iter().map(write).collect();
    json!({ "compare": compare, "success": success })
}
