//! State as a row of numbers, which is what most policies keep: cursors, averages (`f64::to_bits`), ids. Eight bytes each,
//! little-endian.

/// The bytes for [`Stateful::export_state`](crate::Stateful::export_state).
#[must_use]
pub fn write(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    numbers.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// The numbers of the bytes that [`Stateful::import_state`](crate::Stateful::import_state) is given.
///
/// # Errors
/// When they are not a whole number of numbers.
pub fn read(bytes: &[u8]) -> Result<Vec<u64>, String> {
    let (words, rest) = bytes.as_chunks::<8>();
    if rest.is_empty() {
        Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
    } else {
        Err(format!("{} bytes of state are no row of numbers", bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::{read, write};

    #[test]
    fn what_is_written_is_read() {
        for numbers in [vec![], vec![0, 1, u64::MAX]] {
            assert_eq!(read(&write(numbers.clone())), Ok(numbers));
        }
        assert!(read(&[1, 2, 3]).is_err());
    }
}
