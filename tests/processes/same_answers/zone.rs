//! A zone of every kind of name and type that an authority can serve, always the same, and what to ask about it.

use std::fmt::Write as _;

/// The zone's name. Unbound has to be told that it is nobody's own.
pub(crate) const APEX: &str = "zoo.test.";

/// A zone file, and questions for names and types in it.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    pub(crate) text: String,
    /// Names with all their labels, and types.
    pub(crate) questions: Vec<(String, u16)>,
}

/// Types by their names in zone files.
const TYPES: [(&str, u16); 42] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("HINFO", 13),
    ("MINFO", 14),
    ("MX", 15),
    ("TXT", 16),
    ("RP", 17),
    ("AFSDB", 18),
    ("RT", 21),
    ("AAAA", 28),
    ("LOC", 29),
    ("SRV", 33),
    ("NAPTR", 35),
    ("KX", 36),
    ("CERT", 37),
    ("DNAME", 39),
    ("APL", 42),
    ("DS", 43),
    ("SSHFP", 44),
    ("IPSECKEY", 45),
    ("DHCID", 49),
    ("TLSA", 52),
    ("SMIMEA", 53),
    ("OPENPGPKEY", 61),
    ("CSYNC", 62),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("SPF", 99),
    ("NID", 104),
    ("L32", 105),
    ("L64", 106),
    ("LP", 107),
    ("EUI48", 108),
    ("EUI64", 109),
    ("URI", 256),
    ("CAA", 257),
    ("TYPE65280", 65_280),
    ("TYPE65281", 65_281),
    ("TYPE731", 731),
];

/// One of each type that has none of its own below. A number takes the place of `%`.
const ODD_TYPES: [(&str, &str); 41] = [
    ("HINFO", r#""PDP-11/%" "UNIX""#),
    ("MINFO", "Admin.host-% errors.Example.NET."),
    ("RP", "Admin.host-% text-%"),
    ("AFSDB", "1 host-%"),
    ("RT", "10 host-%"),
    ("LOC", "52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m"),
    ("SRV", "10 20 80 host-%"),
    ("SRV", "65535 0 65535 Www.Example.NET."),
    ("SRV", "0 0 0 ."),
    ("NAPTR", r#"100 10 "u" "E2U+sip" "!^.*$!sip:info@example.com!" ."#),
    ("NAPTR", r#"102 % "s" "" "" _sip._udp.Example.com."#),
    ("KX", "10 host-%"),
    ("CERT", "PKIX 1 8 AQIDBAUGBwg="),
    ("APL", "1:192.168.32.0/21 !1:192.168.38.0/28 2:FF00:0:0:0:0:0:0:0/8"),
    ("SSHFP", "4 2 123456789abcdef67890123456789abcdef67890123456789abcdef123456789"),
    ("IPSECKEY", "10 1 2 192.0.2.38 AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ=="),
    ("DHCID", "AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA="),
    ("TLSA", "3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
    ("SMIMEA", "0 0 0 00"),
    ("OPENPGPKEY", "AQIDBAUGBwgJCgsMDQ4PEA=="),
    ("CSYNC", "66 3 A NS AAAA"),
    ("SVCB", "0 host-%"),
    ("SVCB", r#"1 svc.Example.NET. mandatory=alpn,port alpn="bar,f\\092oo\\044baz" port=% key65333=hello"#),
    (
        "HTTPS",
        r#"1 . alpn="h2,h3" no-default-alpn port=8443 ipv4hint=192.0.2.1,192.0.2.% ipv6hint=2001:db8::%"#,
    ),
    ("HTTPS", r#"2 host-% key667="\003\255" ech="AEX+DQBB""#),
    ("SPF", r#""v=spf1 -all" "%""#),
    ("NID", "10 0014:4fff:ff20:ee64"),
    ("L32", "10 10.1.2.%"),
    ("L64", "10 2001:0DB8:1140:1000"),
    ("LP", "10 host-%"),
    ("EUI48", "00-00-5e-00-53-2a"),
    ("EUI64", "00-00-5e-ef-10-00-00-2a"),
    ("URI", r#"10 1 "https://example.com/%""#),
    ("CAA", r#"0 issue "ca.example; policy=%""#),
    ("CAA", r#"128 Iodef "mailto:a@example.net""#),
    ("CAA", r#"7 unknown9 """#),
    ("PTR", "Host-%"),
    ("TYPE65280", r"\# 5 01020304ff"),
    ("TYPE65281", r"\# 0"),
    ("TYPE731", r"\# 300 @"),
    ("DS", "12345 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
];

impl Zone {
    /// All of it.
    pub(crate) fn new() -> Self {
        let mut zone = Self::default();
        let _infallible = writeln!(zone.text, "$ORIGIN {APEX}\n$TTL 3600");
        zone.add("@", "SOA", "ns Admin.Zoo.test. 1 3600 600 86400 60");
        zone.add("@", "NS", "ns");
        zone.add("ns", "A", "192.0.2.53");
        for (kind, data) in
            [("MX", "10 host-1"), ("MX", "0 Backup.Example.net."), ("TXT", r#""v=spf1" "-all""#)]
        {
            zone.add("@", kind, data);
        }
        zone.ask("@", 257);
        zone.hosts();
        zone.aliases();
        zone.circles();
        zone.wildcards();
        zone.trees();
        zone.lame();
        zone.texts();
        zone.letters();
        zone.odd_types();
        zone
    }

    /// How many names are asked for.
    pub(crate) fn names(&self) -> usize {
        let mut names: Vec<_> = self.questions.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort();
        names.dedup();
        names.len()
    }

    /// Adds a record, and a question for it.
    fn add(&mut self, owner: &str, kind: &str, data: &str) {
        let data = match data.strip_suffix('@') {
            Some(start) => format!("{start}{}", "5a".repeat(300)),
            None => data.to_owned(),
        };
        let _infallible = writeln!(self.text, "{owner} {kind} {data}");
        let number = TYPES.iter().find(|(name, _)| *name == kind).expect("it is in the table").1;
        self.ask(owner, number);
    }

    fn ask(&mut self, owner: &str, kind: u16) {
        let name = if owner == "@" { APEX.to_owned() } else { format!("{owner}.{APEX}") };
        if !self.questions.contains(&(name.clone(), kind)) {
            self.questions.push((name, kind));
        }
    }

    /// Ordinary names, some with sets that do not fit into a packet.
    fn hosts(&mut self) {
        for index in 0..120 {
            let host = format!("host-{index}");
            for address in 0..1 + index % 5 {
                self.add(&host, "A", &format!("198.51.{address}.{index}"));
            }
            for address in 0..index % 3 {
                self.add(&host, "AAAA", &format!("2001:db8:{address}::{index}"));
            }
            match index % 4 {
                0 => self.add(&host, "MX", &format!("{index} host-{}", index + 1)),
                1 => self.add(&host, "TXT", &format!(r#""host {index}""#)),
                // There is none.
                2 => self.ask(&host, 15),
                _ => self.ask(&host, 28),
            }
        }
        for (index, count) in [20, 29, 30, 31, 60, 75, 90, 200, 400].into_iter().enumerate() {
            for address in 0..count {
                self.add(&format!("big-{index}"), "A", &format!("203.0.{}.{}", address / 200, address % 200));
            }
        }
        for index in 0..60 {
            self.add("servers", "SRV", &format!("{index} 1 80 a-rather-long-name-of-a-server-{index}"));
        }
    }

    /// Chains of aliases of all lengths to all kinds of ends, and loops.
    fn aliases(&mut self) {
        for length in (1..=9).chain([14, 22]) {
            for link in 0..length {
                let target = if link + 1 == length {
                    "host-4".to_owned()
                } else {
                    format!("Chain-{length}-{}", link + 1)
                };
                self.add(&format!("chain-{length}-{link}"), "CNAME", &target);
            }
            self.ask(&format!("chain-{length}-0"), 1);
            self.ask(&format!("chain-{length}-0"), 28);
            // The end has none of these.
            self.ask(&format!("chain-{length}-0"), 33);
        }
        for index in 0..10 {
            for (name, target) in [
                ("dangling", "no-such-host"),
                ("barren", "host-3"),
                ("hollow", "ent-1"),
                ("wild", "x.wild-1"),
            ] {
                let name = format!("to-{name}-{index}");
                self.add(
                    &name,
                    "CNAME",
                    &if index == 0 {
                        target.to_owned()
                    } else {
                        format!("{}-{}", name.rsplit_once('-').expect("a number").0, index - 1)
                    },
                );
                self.ask(&name, 1);
                self.ask(&name, 28);
            }
        }
    }

    /// Aliases that lead nowhere.
    fn circles(&mut self) {
        for (name, target) in [
            ("circle", "circle"),
            ("to-1", "to-2"),
            ("to-2", "to-1"),
            ("into", "to-1"),
            ("outside", "www.elsewhere.example."),
        ] {
            self.add(
                &format!("lost-{name}"),
                "CNAME",
                &if name == "outside" { target.to_owned() } else { format!("lost-{target}") },
            );
            self.ask(&format!("lost-{name}"), 1);
        }
    }

    /// Names that stand for many, and those that stand in their way.
    fn wildcards(&mut self) {
        for index in 0..12 {
            let owner = format!("*.wild-{index}");
            self.add(&owner, "A", &format!("192.0.2.{index}"));
            self.add(&owner, "TXT", r#""anything""#);
            self.add(&format!("taken.wild-{index}"), "MX", "1 host-1");
            for (below, kind) in [("x", 1), ("X.Y.z", 16), ("x", 15), ("taken", 1), ("below.taken", 1)] {
                self.ask(&format!("{below}.wild-{index}"), kind);
            }
            self.ask(&format!("wild-{index}"), 1);
            self.add(&format!("*.alias-{index}"), "CNAME", &format!("host-{index}"));
            for (below, kind) in [("x", 1), ("x.y", 28), ("z", 5)] {
                self.ask(&format!("{below}.alias-{index}"), kind);
            }
        }
    }

    /// Names with nothing but others below them, names that are none, and what is another's.
    fn trees(&mut self) {
        for index in 0..12 {
            self.add(&format!("leaf.of.ent-{index}"), "A", &format!("192.0.2.{index}"));
            for name in ["ent", "of.ent", "none.ent", "below.leaf.of.ent"] {
                self.ask(&format!("{name}-{index}"), 1);
            }
            for name in ["no-such-name", "nor.this.one", "below.host"] {
                self.ask(&format!("{name}-{index}"), [1, 28, 15, 16][index % 4]);
            }
        }
        self.add("elsewhere", "DNAME", &format!("wild-2.{APEX}"));
        self.ask("x.elsewhere", 1);
    }

    /// Names for which bad upstreams are asked, too, elsewhere.
    fn lame(&mut self) {
        for domain in ["refused", "failing", "unsure", "slow"] {
            for index in 0..6 {
                self.add(&format!("host-{index}.{domain}"), "A", &format!("192.0.2.{index}"));
            }
            self.add(&format!("alias.{domain}"), "CNAME", &format!("host-0.{domain}"));
            self.ask(&format!("alias.{domain}"), 1);
            self.ask(&format!("none.{domain}"), 1);
        }
    }

    /// Texts of many strings, empty ones, and any octet.
    fn texts(&mut self) {
        for index in 0..24_usize {
            let mut strings: Vec<String> =
                (0..index * 2).map(|number| format!("\"string {number}\"")).collect();
            match index % 4 {
                0 => strings.push(r#""""#.to_owned()),
                1 => strings.push(format!("\"{}\"", "x".repeat(255))),
                2 => strings.extend((0..=25).map(|tens| format!("\"{}\"", octets(tens * 10)))),
                _ => strings.insert(0, r#""\"quoted\" \\ \; semicolon""#.to_owned()),
            }
            self.add(&format!("text-{index}"), "TXT", &strings.join(" "));
        }
    }

    /// Names of unusual letters, in all cases.
    fn letters(&mut self) {
        let odd = [
            r"dot\.in",
            r"sp\032ace",
            r"nul\000",
            r"high\255\128",
            r"semi\;colon",
            r#"quo\"te"#,
            r"a\@t",
            r"back\\slash",
            r"dol\$lar",
            r"par\(en\)s",
            "_under_score",
            "-",
            "0",
            "1.2.3.4",
            r"tab\009",
            r"\*",
            "xn--bcher-kva",
        ];
        for (index, name) in odd.into_iter().enumerate() {
            self.add(name, "A", &format!("192.0.2.{index}"));
            self.add(&format!("to.{name}.x"), "CNAME", name);
            self.ask(&format!("to.{name}.x"), 1);
        }
        let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(51)].join(".");
        self.add(&longest, "A", "192.0.2.200");
        for index in 0..20 {
            self.add(&format!("MiXeD-{index}"), "A", &format!("192.0.2.{index}"));
            for name in ["mixed", "MIXED", "mIxEd"] {
                self.ask(&format!("{name}-{index}"), if index % 2 == 0 { 1 } else { 28 });
            }
        }
    }

    fn odd_types(&mut self) {
        for (place, (kind, data)) in ODD_TYPES.into_iter().enumerate() {
            for index in 1..=2 {
                let owner = format!("odd-{place}-{index}");
                if kind == "DS" {
                    let _infallible = writeln!(self.text, "{owner} NS ns.{owner}\nns.{owner} A 192.0.2.54");
                }
                self.add(&owner, kind, &data.replace('%', &index.to_string()));
            }
        }
        for index in 0..30 {
            self.add(&format!("{index}.reverse"), "PTR", &format!("host-{index}"));
        }
    }
}

/// Ten octets from this one on, escaped.
fn octets(first: u32) -> String {
    (first..(first + 10).min(256)).map(|octet| format!("\\{octet:03}")).collect()
}
