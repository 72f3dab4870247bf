//! Replies, decoded by hand and strictly: what RFC 1035 section 4 demands of every message is asserted of each that comes by here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::query::{A, AAAA, HINFO, NS, OPT, PTR, QR, SOA, SRV, TXT};

/// A reply.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) octets: Vec<u8>,
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) questions: Vec<Question>,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    /// Without the OPT record.
    pub(crate) additionals: Vec<Record>,
    pub(crate) opt: Option<OptRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) class: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// In the letters that it is written in, with the last dot.
    pub(crate) owner: String,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Data,
    /// Octets that its owner takes here.
    pub(crate) owner_octets: usize,
}

/// What a record says, as far as the server has such records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Address(IpAddr),
    Srv { priority: u16, weight: u16, port: u16, target: String, is_compressed: bool },
    Name(String),
    Soa { server: String, mailbox: String, numbers: [u32; 5] },
    Texts(Vec<String>),
    Other(Vec<u8>),
}

/// An OPT record (RFC 6891 section 6.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OptRecord {
    pub(crate) size: u16,
    pub(crate) rcode_high: u8,
    pub(crate) version: u8,
    pub(crate) flags: u16,
    pub(crate) options: Vec<(u16, Vec<u8>)>,
}

impl Message {
    /// Decodes a reply.
    ///
    /// # Panics
    ///
    /// When it is none, or its layout is not what RFC 1035 demands: octets before or behind what the header counts, a pointer that does
    /// not point backwards, an OPT record that is not the only one.
    pub(crate) fn decode(octets: &[u8]) -> Self {
        let mut reader = Reader { octets, at: 0 };
        let [id, flags] = [reader.u16(), reader.u16()];
        let counts = [reader.u16(), reader.u16(), reader.u16(), reader.u16()];
        assert!(flags & QR != 0, "a reply has QR: {octets:?}");
        let questions = (0..counts[0]).map(|_| reader.question()).collect();
        let [answers, authorities, additionals] =
            [1, 2, 3].map(|section| (0..counts[section]).map(|_| reader.record()).collect::<Vec<_>>());
        assert_eq!(reader.at, octets.len(), "nothing stands behind the last record");
        assert!(answers.iter().chain(&authorities).all(|record| record.kind != OPT));
        let (opts, additionals): (Vec<_>, Vec<_>) =
            additionals.into_iter().partition(|record| record.kind == OPT);
        assert!(opts.len() <= 1, "RFC 6891 section 6.1.1: one OPT record at most");
        let opt = opts.first().map(OptRecord::of);
        Self { octets: octets.to_vec(), id, flags, questions, answers, authorities, additionals, opt }
    }

    /// The code, with its upper bits where there is an OPT record.
    pub(crate) fn rcode(&self) -> u16 {
        let high = self.opt.as_ref().map_or(0, |opt| u16::from(opt.rcode_high));
        high << 4 | self.flags & 0xf
    }

    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The addresses of the answer section, in their order.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.answers.iter().map(|record| record.address().to_string()).collect()
    }

    /// The same, sorted.
    pub(crate) fn addresses_sorted(&self) -> Vec<String> {
        let mut addresses = self.addresses();
        addresses.sort();
        addresses
    }

    /// Priority, weight, port and target of the answer section, sorted.
    pub(crate) fn services(&self) -> Vec<(u16, u16, u16, String)> {
        let mut services: Vec<_> = self.answers.iter().map(Record::service).collect();
        services.sort();
        services
    }

    /// The option with this code, if there is one and no more.
    pub(crate) fn option(&self, code: u16) -> Option<&[u8]> {
        let options = &self.opt.as_ref()?.options;
        let mut found = options.iter().filter(|(known, _)| *known == code);
        let first = found.next().map(|(_, data)| &data[..]);
        assert!(found.next().is_none(), "option {code} stands there twice");
        first
    }

    /// The SOA of a negative answer: alone in the authority section, with a TTL that is its last number at most.
    pub(crate) fn soa(&self) -> (&Record, [u32; 5]) {
        let [soa] = &self.authorities[..] else { panic!("no SOA alone: {self:?}") };
        let Data::Soa { numbers, .. } = &soa.data else { panic!("no SOA: {soa:?}") };
        (soa, *numbers)
    }
}

impl Record {
    pub(crate) fn address(&self) -> IpAddr {
        let Data::Address(address) = self.data else { panic!("no address: {self:?}") };
        address
    }

    pub(crate) fn service(&self) -> (u16, u16, u16, String) {
        let Data::Srv { priority, weight, port, target, .. } = &self.data else { panic!("no SRV: {self:?}") };
        (*priority, *weight, *port, target.clone())
    }
}

impl OptRecord {
    fn of(record: &Record) -> Self {
        assert_eq!(record.owner, ".", "RFC 6891 section 6.1.2: the root owns it");
        let [rcode_high, version, flags @ ..] = record.ttl.to_be_bytes();
        let Data::Other(data) = &record.data else { panic!("{record:?}") };
        let mut reader = Reader { octets: data, at: 0 };
        let mut options = Vec::new();
        while reader.at < data.len() {
            let (code, length) = (reader.u16(), reader.u16());
            options.push((code, reader.take(length.into()).to_vec()));
        }
        Self { size: record.class, rcode_high, version, flags: u16::from_be_bytes(flags), options }
    }
}

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let taken = self.octets.get(self.at..self.at + count);
        self.at += count;
        taken.unwrap_or_else(|| panic!("the message ends within a field: {:?}", self.octets))
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two"))
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four"))
    }

    fn question(&mut self) -> Question {
        Question { name: self.name(), kind: self.u16(), class: self.u16() }
    }

    fn record(&mut self) -> Record {
        let begin = self.at;
        let owner = self.name();
        let owner_octets = self.at - begin;
        let (kind, class, ttl, length) = (self.u16(), self.u16(), self.u32(), usize::from(self.u16()));
        let end = self.at + length;
        let data = self.data(kind, length);
        assert_eq!(self.at, end, "RFC 1035 section 4.1.3: RDLENGTH is what the data take");
        Record { owner, kind, class, ttl, data, owner_octets }
    }

    fn data(&mut self, kind: u16, length: usize) -> Data {
        match kind {
            A => Data::Address(Ipv4Addr::from(self.u32()).into()),
            AAAA => Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(self.take(16)).expect("16")).into()),
            SRV => {
                let [priority, weight, port] = [self.u16(), self.u16(), self.u16()];
                let begin = self.at;
                let target = self.name();
                let is_compressed = self.at - begin != target.len() + 1;
                Data::Srv { priority, weight, port, target, is_compressed }
            }
            NS | PTR => Data::Name(self.name()),
            SOA => {
                let (server, mailbox) = (self.name(), self.name());
                Data::Soa { server, mailbox, numbers: [(); 5].map(|()| self.u32()) }
            }
            TXT | HINFO => {
                let (end, mut texts) = (self.at + length, Vec::new());
                while self.at < end {
                    let length = self.u8();
                    texts.push(String::from_utf8(self.take(length.into()).to_vec()).expect("text"));
                }
                Data::Texts(texts)
            }
            _ => Data::Other(self.take(length).to_vec()),
        }
    }

    /// A name, with the last dot. RFC 1035 section 4.1.4: a pointer means a prior occurrence.
    fn name(&mut self) -> String {
        let (mut text, mut octets_in_all) = (String::new(), 1);
        let (mut at, mut bound, mut end) = (self.at, self.at, None);
        loop {
            let length = usize::from(self.octets[at]);
            match length {
                0 => break,
                1..=63 => {
                    text += std::str::from_utf8(&self.octets[at + 1..=at + length]).expect("text");
                    text.push('.');
                    octets_in_all += 1 + length;
                    at += 1 + length;
                }
                0xc0.. => {
                    let target = (length & 0x3f) << 8 | usize::from(self.octets[at + 1]);
                    assert!(target < bound, "a pointer to {target} from a name at {bound}");
                    end.get_or_insert(at + 2);
                    (at, bound) = (target, target);
                }
                _ => panic!("a label type that nobody uses: {length}"),
            }
        }
        assert!(octets_in_all <= 255, "RFC 1035 section 2.3.4");
        self.at = end.unwrap_or(at + 1);
        if text.is_empty() { ".".to_owned() } else { text }
    }
}
