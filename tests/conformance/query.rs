//! Queries, octet by octet; also such as no library would write.

/// Types (RFC 1035 section 3.2.2, 3596, 2782, 6891).
pub(crate) const A: u16 = 1;
pub(crate) const NS: u16 = 2;
pub(crate) const SOA: u16 = 6;
pub(crate) const PTR: u16 = 12;
pub(crate) const HINFO: u16 = 13;
pub(crate) const MX: u16 = 15;
pub(crate) const TXT: u16 = 16;
pub(crate) const AAAA: u16 = 28;
pub(crate) const SRV: u16 = 33;
pub(crate) const OPT: u16 = 41;
pub(crate) const IXFR: u16 = 251;
pub(crate) const AXFR: u16 = 252;
pub(crate) const ANY: u16 = 255;

pub(crate) const CLASS_IN: u16 = 1;

/// Bits of the header's flags (RFC 1035 section 4.1.1, RFC 4035 section 3).
pub(crate) const QR: u16 = 0x8000;
pub(crate) const AA: u16 = 0x0400;
pub(crate) const TC: u16 = 0x0200;
pub(crate) const RD: u16 = 0x0100;
pub(crate) const RA: u16 = 0x0080;
pub(crate) const Z: u16 = 0x0040;
pub(crate) const AD: u16 = 0x0020;
pub(crate) const CD: u16 = 0x0010;

/// The DO bit of an OPT record's flags (RFC 3225).
pub(crate) const DO: u16 = 0x8000;

/// A query under construction.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// Each as it stands on the wire.
    pub(crate) questions: Vec<Vec<u8>>,
    pub(crate) answers: Vec<Vec<u8>>,
    pub(crate) authorities: Vec<Vec<u8>>,
    pub(crate) additionals: Vec<Vec<u8>>,
}

/// An OPT record under construction.
#[derive(Clone, Debug)]
pub(crate) struct Opt {
    pub(crate) owner: Vec<u8>,
    pub(crate) size: u16,
    pub(crate) rcode_high: u8,
    pub(crate) version: u8,
    pub(crate) flags: u16,
    pub(crate) options: Vec<u8>,
}

impl Query {
    /// One question of class IN and nothing else; the name is written without the last dot.
    pub(crate) fn of(name: &str, kind: u16) -> Self {
        Self { questions: vec![question(&wire_name(name), kind, CLASS_IN)], ..Self::empty() }
    }

    /// A header alone.
    pub(crate) fn empty() -> Self {
        let id = fastrand::u16(..);
        let (questions, answers) = (Vec::new(), Vec::new());
        Self { id, flags: 0, questions, answers, authorities: Vec::new(), additionals: Vec::new() }
    }

    pub(crate) fn flags(self, flags: u16) -> Self {
        Self { flags, ..self }
    }

    /// With an OPT record that offers this size.
    pub(crate) fn edns(self, size: u16) -> Self {
        self.opt(&Opt::of(size))
    }

    pub(crate) fn opt(mut self, opt: &Opt) -> Self {
        self.additionals.push(opt.to_octets());
        self
    }

    pub(crate) fn to_octets(&self) -> Vec<u8> {
        let sections = [&self.questions, &self.answers, &self.authorities, &self.additionals];
        let counts = sections.map(|section| u16::try_from(section.len()).expect("few"));
        let header = [&[self.id, self.flags][..], &counts].concat();
        let mut octets: Vec<u8> = header.into_iter().flat_map(u16::to_be_bytes).collect();
        octets.extend(sections.into_iter().flatten().flatten());
        octets
    }
}

impl Opt {
    /// Version 0, no flags, no options, owned by the root.
    pub(crate) fn of(size: u16) -> Self {
        Self { owner: vec![0], size, rcode_high: 0, version: 0, flags: 0, options: Vec::new() }
    }

    pub(crate) fn option(mut self, code: u16, data: &[u8]) -> Self {
        let length = u16::try_from(data.len()).expect("short");
        self.options.extend([code, length].into_iter().flat_map(u16::to_be_bytes));
        self.options.extend(data);
        self
    }

    pub(crate) fn to_octets(&self) -> Vec<u8> {
        let [flags_high, flags_low] = self.flags.to_be_bytes();
        let ttl = u32::from_be_bytes([self.rcode_high, self.version, flags_high, flags_low]);
        record(&self.owner, (OPT, self.size), ttl, &self.options)
    }
}

/// A question whose name is on the wire as given.
pub(crate) fn question(name: &[u8], kind: u16, class: u16) -> Vec<u8> {
    [name, &kind.to_be_bytes(), &class.to_be_bytes()].concat()
}

/// A record.
pub(crate) fn record(owner: &[u8], (kind, class): (u16, u16), ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("short");
    let ends = [kind.to_be_bytes(), class.to_be_bytes()].concat();
    [owner, &ends, &ttl.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

/// The labels of a name behind their lengths; the root for an empty text.
pub(crate) fn wire_name(name: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        octets.push(u8::try_from(label.len()).expect("short"));
        octets.extend(label.as_bytes());
    }
    octets.push(0);
    octets
}
