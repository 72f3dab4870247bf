//! jute, the encoding of every ZooKeeper packet and file record: primitives with bounded reads.
//!
//! All numbers are big-endian. A buffer or string is an `i32` length and that many bytes, `-1` for
//! null; a vector is an `i32` count and its items; a record is its fields one after the other.
//!
//! A [`Reader`] never reads or allocates beyond the bytes it was given, whatever lengths those bytes
//! claim: a vector's count is checked against what is left before anything is reserved for it.
//! Trailing bytes are allowed, as in ZooKeeper, which lets old peers accept records that grew.
//!
//! Source: `BinaryInputArchive.java`, `BinaryOutputArchive.java` of Apache ZooKeeper.

use std::borrow::Cow;

/// Why bytes are not the record they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end inside a field.
    #[error("{field} needs {needed} bytes, {left} are left")]
    Truncated {
        /// What was being read.
        field: &'static str,
        /// Bytes that the field takes.
        needed: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// A length or count below -1, or a null where a value is required.
    #[error("{field} has length {length}")]
    BadLength {
        /// What was being read.
        field: &'static str,
        /// The length as it stood there.
        length: i32,
    },
    /// A number that names nothing.
    #[error("{field} has no meaning for value {value}")]
    BadValue {
        /// What was being read.
        field: &'static str,
        /// The value as it stood there.
        value: i64,
    },
    /// A text that breaks the rules of what it stands for.
    #[error("{field} is not valid")]
    BadText {
        /// What was being read.
        field: &'static str,
    },
}

/// Reads jute fields off a slice, in order.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not read yet.
    pub const fn remaining(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all bytes were read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes `count` raw bytes.
    ///
    /// # Errors
    ///
    /// [`CodecError::Truncated`] when fewer are left; as for every read below.
    pub fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CodecError::Truncated {
            field,
            needed: count,
            left: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads one byte; any value but 0 is true.
    ///
    /// # Errors
    ///
    /// As [`Reader::take`].
    pub fn bool(&mut self, field: &'static str) -> Result<bool, CodecError> {
        Ok(self.take(1, field)?[0] != 0)
    }

    /// Reads one byte.
    ///
    /// # Errors
    ///
    /// As [`Reader::take`].
    pub fn byte(&mut self, field: &'static str) -> Result<u8, CodecError> {
        Ok(self.take(1, field)?[0])
    }

    /// Reads a 32-bit number.
    ///
    /// # Errors
    ///
    /// As [`Reader::take`].
    pub fn int(&mut self, field: &'static str) -> Result<i32, CodecError> {
        let bytes = self.take(4, field)?;
        Ok(i32::from_be_bytes(bytes.try_into().expect("took four bytes")))
    }

    /// Reads a 64-bit number.
    ///
    /// # Errors
    ///
    /// As [`Reader::take`].
    pub fn long(&mut self, field: &'static str) -> Result<i64, CodecError> {
        let bytes = self.take(8, field)?;
        Ok(i64::from_be_bytes(bytes.try_into().expect("took eight bytes")))
    }

    /// Reads a buffer, `None` for null.
    ///
    /// # Errors
    ///
    /// As [`Reader::take`]; [`CodecError::BadLength`] for a length below -1.
    pub fn buffer(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, CodecError> {
        match self.length(field)? {
            None => Ok(None),
            Some(length) => self.take(length, field).map(Some),
        }
    }

    /// Reads a string, `None` for null. Bytes that are not UTF-8 become U+FFFD, as in ZooKeeper: its
    /// writer encodes supplementary characters as two surrogates, and a peer must not be dropped for it.
    ///
    /// # Errors
    ///
    /// As [`Reader::buffer`].
    pub fn string(&mut self, field: &'static str) -> Result<Option<Cow<'a, str>>, CodecError> {
        Ok(self.buffer(field)?.map(String::from_utf8_lossy))
    }

    /// Reads a string that must not be null.
    ///
    /// # Errors
    ///
    /// As [`Reader::buffer`]; [`CodecError::BadLength`] for null.
    pub fn text(&mut self, field: &'static str) -> Result<Cow<'a, str>, CodecError> {
        self.string(field)?.ok_or(CodecError::BadLength { field, length: -1 })
    }

    /// Reads a vector of items, each at least `item_bytes_min` bytes long; null reads as empty.
    ///
    /// # Errors
    ///
    /// As the items; [`CodecError::BadLength`] for a count below -1;
    /// [`CodecError::Truncated`] when the bytes left cannot hold that many items.
    pub fn vector<T>(
        &mut self,
        field: &'static str,
        item_bytes_min: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let Some(count) = self.length(field)? else { return Ok(Vec::new()) };
        let needed = count.saturating_mul(item_bytes_min.max(1));
        if needed > self.rest.len() {
            return Err(CodecError::Truncated { field, needed, left: self.rest.len() });
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn length(&mut self, field: &'static str) -> Result<Option<usize>, CodecError> {
        match self.int(field)? {
            -1 => Ok(None),
            length => {
                usize::try_from(length).map(Some).map_err(|_negative| CodecError::BadLength { field, length })
            }
        }
    }
}

/// Appends jute fields to a byte vector. Writing cannot fail; lengths are bounded by the callers.
pub trait WriteJute {
    /// Writes one byte, 0 or 1.
    fn put_bool(&mut self, value: bool);
    /// Writes a 32-bit number.
    fn put_int(&mut self, value: i32);
    /// Writes a 64-bit number.
    fn put_long(&mut self, value: i64);
    /// Writes a buffer, null for `None`.
    ///
    /// # Panics
    ///
    /// When the buffer is 2 GiB or longer, which every frame bound excludes; as for every length below.
    fn put_buffer(&mut self, value: Option<&[u8]>);
    /// Writes a string.
    fn put_text(&mut self, value: &str);
    /// Writes a vector's count; the items follow.
    fn put_count(&mut self, count: usize);
}

impl WriteJute for Vec<u8> {
    fn put_bool(&mut self, value: bool) {
        self.push(u8::from(value));
    }

    fn put_int(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_long(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_buffer(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.put_int(-1),
            Some(bytes) => {
                self.put_count(bytes.len());
                self.extend_from_slice(bytes);
            }
        }
    }

    fn put_text(&mut self, value: &str) {
        self.put_buffer(Some(value.as_bytes()));
    }

    fn put_count(&mut self, count: usize) {
        self.put_int(i32::try_from(count).expect("frame bounds keep lengths below 2 GiB"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            flag: bool, number: i32, long: i64, data: Option<Vec<u8>>, text: String, items: Vec<i32>,
        ) {
            let mut bytes = Vec::new();
            bytes.put_bool(flag);
            bytes.put_int(number);
            bytes.put_long(long);
            bytes.put_buffer(data.as_deref());
            bytes.put_text(&text);
            bytes.put_count(items.len());
            items.iter().for_each(|item| bytes.put_int(*item));

            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.bool("flag"), Ok(flag));
            prop_assert_eq!(reader.int("number"), Ok(number));
            prop_assert_eq!(reader.long("long"), Ok(long));
            prop_assert_eq!(reader.buffer("data"), Ok(data.as_deref()));
            prop_assert_eq!(reader.text("text"), Ok(Cow::Borrowed(text.as_str())));
            prop_assert_eq!(reader.vector("items", 4, |r| r.int("item")), Ok(items));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic_or_over_read(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            let _ = reader.vector("outer", 4, |r| r.string("inner").map(drop));
            prop_assert!(reader.remaining().len() <= bytes.len());
        }
    }

    #[test]
    fn a_count_that_the_bytes_cannot_hold_reserves_nothing() {
        let mut bytes = Vec::new();
        bytes.put_int(i32::MAX);
        let result = Reader::new(&bytes).vector("paths", 4, |r| r.int("path"));
        let needed = usize::try_from(i32::MAX).unwrap() * 4;
        assert_eq!(result, Err(CodecError::Truncated { field: "paths", needed, left: 0 }));
    }

    #[test]
    fn a_length_below_minus_one_is_an_error() {
        let mut bytes = Vec::new();
        bytes.put_int(-2);
        assert_eq!(
            Reader::new(&bytes).buffer("data"),
            Err(CodecError::BadLength { field: "data", length: -2 })
        );
    }

    #[test]
    fn null_and_empty_stay_distinct() {
        let mut bytes = Vec::new();
        bytes.put_buffer(None);
        bytes.put_buffer(Some(&[]));
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.buffer("null"), Ok(None));
        assert_eq!(reader.buffer("empty"), Ok(Some(&[][..])));
    }

    #[test]
    fn broken_utf8_is_replaced_not_refused() {
        let mut bytes = Vec::new();
        bytes.put_buffer(Some(&[b'a', 0xed, 0xa0, 0x80]));
        assert!(Reader::new(&bytes).text("id").unwrap().starts_with('a'));
    }
}
