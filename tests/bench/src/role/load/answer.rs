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
        /// The connection ends with this answer.
        closes: bool,
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
    let value = |name: &str| {
        let field = (response.headers.iter()).find(|field| field.name.eq_ignore_ascii_case(name));
        field.and_then(|field| std::str::from_utf8(field.value).ok())
    };
    let Some(size) = value("content-length").and_then(|text| text.parse::<u64>().ok()) else {
        return Parsed::Wrong;
    };
    let closes = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
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
        closes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> (u16, Option<u64>, usize, bool) {
        match parse(text.as_bytes()) {
            Parsed::Whole {
                status,
                missing,
                backend,
                closes,
            } => (status, missing, backend, closes),
            Parsed::Partial => panic!("partial"),
            Parsed::Wrong => panic!("wrong"),
        }
    }

    #[test]
    fn an_answer_tells_its_backend_and_what_is_missing() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nB0042";
        assert_eq!(whole(text), (200, Some(5), 42, false));
    }

    #[test]
    fn an_answer_tells_whether_its_connection_ends() {
        let text = "HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 5\r\n\r\nB0001";
        assert_eq!(whole(text), (200, Some(0), 1, true));
    }

    #[test]
    fn an_answer_of_unknown_length_is_wrong() {
        assert!(matches!(parse(b"HTTP/1.1 200 OK\r\n\r\nB0001"), Parsed::Wrong));
    }

    #[test]
    fn an_answer_without_its_first_bytes_is_partial() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nB00";
        assert!(matches!(parse(text), Parsed::Partial));
    }
}
