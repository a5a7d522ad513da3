//! The answers of our own backends, as balancers pass them on.

const HEAD_MAX: usize = 16 << 10;

/// What has been received of an answer.
pub(super) enum Parsed {
    Partial,
    Wrong,
    Whole {
        status: u16,
        /// Bytes of the body that have not come; `None` if there are too many.
        missing: Option<u64>,
        backend: usize,
    },
}

/// Our backends say how long an answer is, and their numbers in its first bytes.
pub(super) fn parse(input: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(input) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if input.len() < HEAD_MAX => return Parsed::Partial,
        _ => return Parsed::Wrong,
    };
    let field = (response.headers.iter()).find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let size: Option<u64> = field.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    let Some(size) = size else { return Parsed::Wrong };
    let body = &input[length..];
    if body.len() < 5 && size >= 5 {
        return Parsed::Partial;
    }
    let name = body
        .get(1..5)
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Parsed::Whole {
        status: response.code.unwrap_or_default(),
        missing: size.checked_sub(body.len() as u64),
        backend: name.unwrap_or_default(),
    }
}
