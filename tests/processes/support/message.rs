//! DNS messages octet by octet: nothing reads them here that is read by what is tested.

use std::fmt;

/// What a server has answered. Names are spelled out, in small letters, wherever they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// As it stands in the packet.
    pub(crate) question: Vec<u8>,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) has_edns: bool,
    /// The code of the first extended error (RFC 8914).
    pub(crate) extended_error: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) data: Vec<u8>,
    pub(crate) ttl: u32,
}

pub(crate) const CNAME: u16 = 5;
pub(crate) const SOA: u16 = 6;
const OPT: u16 = 41;

impl Message {
    /// Reads a packet; `None` when it is none that can be read.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        let mut reader = Reader { packet, at: 0 };
        let [id, flags, questions, answers, authorities, additionals] =
            [(); 6].map(|()| reader.number().unwrap_or(u16::MAX));
        let start = reader.at;
        for _ in 0..questions {
            reader.name()?;
            reader.take(4)?;
        }
        let question = packet.get(start..reader.at)?.to_vec();
        let mut section = |count| (0..count).map(|_| reader.record()).collect::<Option<Vec<_>>>();
        let (answers, authority, additional) =
            (section(answers)?, section(authorities)?, section(additionals)?);
        let edns = additional.iter().find(|record| record.kind == OPT);
        let extended_error = edns.and_then(|record| extended_error(&record.data));
        let has_edns = edns.is_some();
        let message = Self { id, flags, question, answers, authority, has_edns, extended_error };
        (reader.at == packet.len()).then_some(message)
    }

    pub(crate) const fn rcode(&self) -> u16 {
        self.flags & 0x0f
    }

    pub(crate) const fn is_truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flags {:04x}", self.flags)?;
        for (section, records) in [("", &self.answers), ("authority ", &self.authority)] {
            for Record { name, kind, data, ttl, .. } in records.iter().take(20) {
                let (name, data) = (name.escape_ascii(), data.escape_ascii());
                write!(f, " | {section}{name} {ttl} {kind} {data}")?;
            }
        }
        Ok(())
    }
}

struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, octets: usize) -> Option<&[u8]> {
        let taken = self.packet.get(self.at..self.at + octets)?;
        self.at += octets;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
    }

    fn name(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        let (mut at, mut end) = (self.at, None);
        loop {
            let length = usize::from(*self.packet.get(at)?);
            if length >= 0xc0 {
                end.get_or_insert(at + 2);
                let target = (length & 0x3f) << 8 | usize::from(*self.packet.get(at + 1)?);
                if target >= at {
                    return None;
                }
                at = target;
                continue;
            }
            name.extend(self.packet.get(at..=at + length)?.iter().map(u8::to_ascii_lowercase));
            at += length + 1;
            if length == 0 {
                self.at = end.unwrap_or(at);
                return Some(name);
            }
        }
    }

    fn record(&mut self) -> Option<Record> {
        let (name, kind, class) = (self.name()?, self.number()?, self.number()?);
        let ttl = u32::from(self.number()?) << 16 | u32::from(self.number()?);
        let length = usize::from(self.number()?);
        let end = self.at + length;
        let mut data = Vec::new();
        // What stands before, between and behind names of the types in which they may be compressed or were once (RFC 3597 section 4).
        let (before, names) = match kind {
            2..=5 | 7..=9 | 12 | 39 => (0, 1),
            6 | 14 | 17 => (0, 2),
            15 | 18 | 21 | 36 => (2, 1),
            33 => (6, 1),
            _ => (length, 0),
        };
        data.extend_from_slice(self.take(before)?);
        for _ in 0..names {
            data.extend(self.name()?);
        }
        let rest = end.checked_sub(self.at)?;
        data.extend_from_slice(self.take(rest)?);
        Some(Record { name, kind, class, data, ttl })
    }
}

/// The code of the first extended error among EDNS options.
fn extended_error(options: &[u8]) -> Option<u16> {
    const EXTENDED_ERROR: u16 = 15;
    let mut reader = Reader { packet: options, at: 0 };
    loop {
        let (option, length) = (reader.number()?, reader.number()?);
        if option == EXTENDED_ERROR {
            return reader.number();
        }
        reader.take(usize::from(length))?;
    }
}

/// A question as stub resolvers send it, for a name in octets.
pub(crate) fn query(id: u16, name: &[u8], kind: u16, edns_octets: Option<u16>) -> Vec<u8> {
    let additionals = u16::from(edns_octets.is_some());
    let mut message = [id, 0x0100, 1, 0, 0, additionals].map(u16::to_be_bytes).concat();
    message.extend_from_slice(name);
    message.extend([kind, 1].map(u16::to_be_bytes).concat());
    if let Some(octets) = edns_octets {
        // The root.
        message.push(0);
        message.extend([OPT, octets].map(u16::to_be_bytes).concat());
        message.extend([0; 6]);
    }
    message
}

/// A name as it stands in a zone file (RFC 1035 section 5.1), in octets.
pub(crate) fn name_octets(text: &str) -> Vec<u8> {
    let mut name = Vec::new();
    let mut label = Vec::new();
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        match octet {
            b'.' => {
                name.push(u8::try_from(label.len()).expect("a label is short"));
                name.append(&mut label);
            }
            b'\\' => {
                let first = octets.next().expect("something is escaped");
                if first.is_ascii_digit() {
                    let digits = [first, octets.next().unwrap_or(b'0'), octets.next().unwrap_or(b'0')];
                    let number = digits.iter().fold(0_u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
                    label.push(u8::try_from(number).expect("an octet"));
                } else {
                    label.push(first);
                }
            }
            _ => label.push(octet),
        }
    }
    assert!(label.is_empty(), "{text} ends with a dot");
    name.push(0);
    name
}

#[test]
fn a_message_is_read_with_its_names_spelled_out() {
    let mut packet = query(7, &name_octets("Www.a\\.b\\255.test."), 15, None);
    packet[2..8].copy_from_slice(&[0x81, 0x83, 0, 1, 0, 1]);
    // An MX record with 10 and `mail.` below the question's `test.`, which is 9 octets into its name.
    packet.extend([0xc0, 12, 0, 15, 0, 1, 0, 0, 1, 0, 0, 9, 0, 10, 4, b'm', b'A', b'i', b'l', 0xc0, 21]);
    let message = Message::read(&packet).expect("it can be read");
    assert_eq!((message.id, message.rcode(), message.is_truncated()), (7, 3, false));
    let record = &message.answers[0];
    assert_eq!((&*record.name, record.ttl), (&b"\x03www\x04a.b\xff\x04test\0"[..], 256));
    assert_eq!(record.data, b"\0\x0a\x04mail\x04test\0");
    assert_eq!(Message::read(&packet[..packet.len() - 1]), None);
}

#[test]
fn an_extended_error_is_found_behind_other_options() {
    // A cookie of eight octets, and a stale answer with a text.
    let options = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 15, 0, 5, 0, 3, b'o', b'l', b'd'];
    assert_eq!(extended_error(&options), Some(3));
    assert_eq!(extended_error(&options[..12]), None);
    assert_eq!(extended_error(&options[..14]), None);
}
