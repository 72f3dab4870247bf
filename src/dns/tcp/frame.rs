//! Queries in a stream of octets: each behind its length (RFC 1035 section 4.2.2). Pure.

use bytes::BufMut;

/// Octets that have arrived, and what of them is whole.
#[derive(Debug, Default)]
pub struct Frames {
    octets: Vec<u8>,
    /// Where the next frame begins.
    begin: usize,
}

/// What stands next in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole message.
    Whole(&'a [u8]),
    /// The header of one that is longer than any query; where the next one begins is not known.
    TooLong(&'a [u8]),
}

impl Frames {
    /// The next frame, if it has arrived.
    #[expect(clippy::should_implement_trait, reason = "what it gives borrows from it")]
    pub fn next(&mut self) -> Option<Frame<'_>> {
        let (length, is_too_long) = self.length()?;
        let begin = self.begin + PREFIX_OCTETS;
        self.begin = begin + length;
        let message = &self.octets[begin..self.begin];
        Some(if is_too_long { Frame::TooLong(message) } else { Frame::Whole(message) })
    }

    /// Whether [`Self::next`] has one.
    pub fn has_next(&self) -> bool {
        self.length().is_some()
    }

    /// Whether nothing has arrived that was not taken.
    pub fn is_empty(&self) -> bool {
        self.begin == self.octets.len()
    }

    /// Where what arrives is put: some of a query that is not whole, and at most [`READ_OCTETS`] behind it.
    pub fn room(&mut self) -> impl BufMut + '_ {
        self.octets.drain(..self.begin);
        self.begin = 0;
        self.octets.reserve(READ_OCTETS);
        (&mut self.octets).limit(READ_OCTETS)
    }

    /// Gives its memory back, if nothing is in it.
    pub fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// How many octets of the next message are taken, if they are there; and whether there are more than of any query.
    fn length(&self) -> Option<(usize, bool)> {
        let rest = &self.octets[self.begin..];
        let (prefix, rest) = rest.split_first_chunk::<PREFIX_OCTETS>()?;
        let whole = usize::from(u16::from_be_bytes(*prefix));
        let is_too_long = whole > QUERY_OCTETS_MAX;
        let taken = if is_too_long { HEADER_OCTETS } else { whole };
        (rest.len() >= taken).then_some((taken, is_too_long))
    }
}

/// Writes a message behind its length.
///
/// # Panics
///
/// When it is longer than 65 535 octets.
pub(super) fn push(output: &mut Vec<u8>, message: &[u8]) {
    let length = u16::try_from(message.len()).expect("the handler keeps to 65 535 octets");
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(message);
}

const PREFIX_OCTETS: usize = 2;
const HEADER_OCTETS: usize = 12;
/// Octets of the longest query, as over UDP: one with more than a name and a few EDNS options is none that we could answer.
pub const QUERY_OCTETS_MAX: usize = 4096;
/// Octets that are read at a time.
const READ_OCTETS: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole_however_they_arrive() {
        let stream = [&[0, 3][..], b"abc", &[0, 0], &[0, 1], b"d", &[0, 9], b"e"].concat();
        for step in 1..=stream.len() {
            let mut frames = Frames::default();
            let mut taken = Vec::new();
            for octets in stream.chunks(step) {
                frames.room().put_slice(octets);
                while let Some(frame) = frames.next() {
                    let Frame::Whole(message) = frame else { panic!("{frame:?}") };
                    taken.push(message.to_vec());
                }
            }
            assert_eq!(taken, [&b"abc"[..], b"", b"d"], "{step} octets at a time");
            assert!(!frames.is_empty() && !frames.has_next());
        }
    }

    #[test]
    fn of_a_frame_that_is_too_long_the_header_is_enough() {
        let mut frames = Frames::default();
        frames.room().put_slice(&[0x10, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert!(!frames.has_next());
        frames.room().put_slice(&[12, 13]);
        assert_eq!(frames.next(), Some(Frame::TooLong(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])));
    }

    #[test]
    fn the_longest_query_fits_and_memory_is_given_back() {
        let mut frames = Frames::default();
        frames.room().put_slice(&[0x10, 0x00]);
        while !frames.has_next() {
            frames.room().put_bytes(7, 1024);
            assert!(frames.octets.len() <= PREFIX_OCTETS + QUERY_OCTETS_MAX + READ_OCTETS);
        }
        assert_eq!(frames.next(), Some(Frame::Whole(&[7; QUERY_OCTETS_MAX])));
        assert!(frames.is_empty());
        frames = Frames::default();
        frames.room().put_slice(&[0, 0]);
        assert!(frames.next().is_some());
        frames.rest();
        assert_eq!(frames.octets.capacity(), 0);
    }
}
