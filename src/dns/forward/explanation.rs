//! Why an upstream says what it says: its extended errors (RFC 8914), which are passed on to clients that sent EDNS. Pure.
//!
//! They are for people and for statistics; nothing here or at the client depends on them (RFC 8914 section 6). Bounded in number and in
//! octets, so that an answer always has room for them.

use std::sync::Arc;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::EdnsOption;

/// The extended errors of one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanations(Arc<[Explanation]>);

/// A code, and what is said to people.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Explanation {
    code: u16,
    text: Box<str>,
}

impl Explanations {
    /// Those in a message, as many as may be.
    pub(super) fn of(message: &Message) -> Self {
        let options = message.edns.iter().flat_map(|edns| &edns.options().options);
        let data = options.filter_map(|(_, option)| {
            let EdnsOption::Unknown(OPTION_EXTENDED_ERROR, data) = option else { return None };
            Some(&**data)
        });
        Self(data.filter_map(Explanation::read).take(COUNT_MAX).collect())
    }

    /// Whether nothing is explained.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What stands for them in an OPT record.
    pub fn options(&self) -> impl Iterator<Item = EdnsOption> {
        self.0.iter().map(|one| EdnsOption::Unknown(OPTION_EXTENDED_ERROR, one.data()))
    }

    /// The same in octets.
    pub(super) fn encoded(&self) -> Box<[u8]> {
        let mut octets = Vec::new();
        for one in &*self.0 {
            let data = one.data();
            octets.extend_from_slice(&OPTION_EXTENDED_ERROR.to_be_bytes());
            octets.extend_from_slice(&u16::try_from(data.len()).expect("a short text").to_be_bytes());
            octets.extend_from_slice(&data);
        }
        octets.into()
    }
}

impl Explanation {
    /// Code and text, cut to what may be; a text that is none is left out.
    fn read(data: &[u8]) -> Option<Self> {
        let (code, text) = data.split_first_chunk()?;
        // RFC 8914 section 2: it may end with a NUL.
        let text = std::str::from_utf8(text).unwrap_or_default().trim_end_matches('\0');
        let end = (0..=text.len().min(TEXT_OCTETS_MAX)).rfind(|end| text.is_char_boundary(*end));
        let text = text[..end.unwrap_or(0)].into();
        Some(Self { code: u16::from_be_bytes(*code), text })
    }

    fn data(&self) -> Vec<u8> {
        [&self.code.to_be_bytes(), self.text.as_bytes()].concat()
    }
}

/// The option's code (RFC 8914 section 5.2).
const OPTION_EXTENDED_ERROR: u16 = 15;
/// Extended errors that are passed on.
const COUNT_MAX: usize = 3;
/// Octets of a text that are. All of them with a cookie are less than half of the smallest packet.
const TEXT_OCTETS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns, MessageType, OpCode};

    use super::*;

    #[test]
    fn they_are_passed_on_as_they_came() {
        let given = Explanations::of(&message(&[b"\0\x06bogus", b"\0\x12\0", b"\xc0\0"]));
        let again = given.options().map(|option| {
            let EdnsOption::Unknown(15, data) = option else { panic!("{option:?}") };
            data
        });
        assert_eq!(again.collect::<Vec<_>>(), [&b"\0\x06bogus"[..], b"\0\x12", b"\xc0\0"]);
        assert_eq!(*given.encoded(), *b"\0\x0f\0\x07\0\x06bogus\0\x0f\0\x02\0\x12\0\x0f\0\x02\xc0\0");
    }

    #[test]
    fn what_is_too_much_is_cut_and_what_cannot_be_read_is_left_out() {
        let long = [&b"\0\x01"[..], "ä".repeat(200).as_bytes()].concat();
        let odd = [&b"\0\x01x"[..], "ä".repeat(200).as_bytes()].concat();
        let given = Explanations::of(&message(&[b"", b"\0", &long, &odd, b"\0\x02\xff\xfe", b"\0\x03"]));
        let texts: Vec<_> = given.0.iter().map(|one| (one.code, one.text.len())).collect();
        assert_eq!(texts, [(1, 64), (1, 63), (2, 0)]);
        assert!(given.encoded().len() <= COUNT_MAX * (6 + TEXT_OCTETS_MAX));
        assert!(Explanations::of(&message(&[])).is_empty());
    }

    fn message(options: &[&[u8]]) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        let mut edns = Edns::new();
        for data in options {
            edns.options_mut().insert(EdnsOption::Unknown(OPTION_EXTENDED_ERROR, data.to_vec()));
        }
        message.set_edns(edns);
        message
    }
}
