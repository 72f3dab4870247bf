//! `dig` of BIND, and what it prints.

use std::process::Command;

/// One answer as dig shows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dig {
    /// `NOERROR`, `NXDOMAIN`, …; empty when nobody answered.
    pub(crate) status: String,
    /// The header's flags, such as `qr aa rd`.
    pub(crate) flags: Vec<String>,
    pub(crate) answer: Vec<Resource>,
    pub(crate) authority: Vec<Resource>,
    pub(crate) additional: Vec<Resource>,
    /// Everything, for failure messages.
    pub(crate) text: String,
}

/// One resource record as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) name: String,
    pub(crate) ttl: u32,
    pub(crate) kind: String,
    pub(crate) data: String,
}

impl Dig {
    /// The data of the answers of one kind, sorted.
    pub(crate) fn answers(&self, kind: &str) -> Vec<String> {
        let mut found: Vec<String> =
            self.answer.iter().filter(|r| r.kind == kind).map(|r| r.data.clone()).collect();
        found.sort();
        found
    }
}

/// Asks the server on `port` of loopback; `arguments` go to dig as they are (`+tcp`, a type, a name).
///
/// # Panics
///
/// When dig is not installed.
pub(crate) fn dig(port: u16, arguments: &[&str]) -> Dig {
    let server = ["@127.0.0.1", "-p", &port.to_string(), "+nosearch"];
    dig_with(Command::new("dig").args(server).args(arguments))
}

/// Runs a command line of dig.
///
/// # Panics
///
/// When dig is not installed.
pub(crate) fn dig_with(command: &mut Command) -> Dig {
    let output = command
        .args(["+tries=1", "+time=2"])
        .output()
        .unwrap_or_else(|error| panic!("cannot run dig: {error}; install Debian's package bind9-dnsutils"));
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(text: &str) -> Dig {
    let mut dig = Dig { text: text.to_owned(), ..Dig::default() };
    let mut section = "";
    for line in text.lines() {
        if let Some((_, status)) = line.split_once("status: ") {
            dig.status = status.split(',').next().unwrap_or_default().to_owned();
        } else if let Some((_, flags)) = line.split_once(";; flags: ") {
            let flags = flags.split(';').next().unwrap_or_default();
            dig.flags = flags.split_whitespace().map(str::to_owned).collect();
        } else if line.starts_with(";; ") {
            section = ["ANSWER SECTION", "AUTHORITY SECTION", "ADDITIONAL SECTION"]
                .into_iter()
                .find(|name| line.contains(name))
                .unwrap_or_default();
        } else if !line.starts_with(';')
            && let Some(record) = parse_record(line)
        {
            match section {
                "ANSWER SECTION" => dig.answer.push(record),
                "AUTHORITY SECTION" => dig.authority.push(record),
                "ADDITIONAL SECTION" => dig.additional.push(record),
                _ => {}
            }
        }
    }
    dig
}

fn parse_record(line: &str) -> Option<Resource> {
    let mut fields = line.split_whitespace();
    let name = fields.next()?.to_owned();
    let ttl = fields.next()?.parse().ok()?;
    let _class = fields.next()?;
    let kind = fields.next()?.to_owned();
    Some(Resource { name, ttl, kind, data: fields.collect::<Vec<_>>().join(" ") })
}

#[test]
fn what_dig_prints_is_understood() {
    let dig = parse(
        "; <<>> DiG 9.18 <<>> x\n;; Got answer:\n;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 1\n\
         ;; flags: qr aa rd; QUERY: 1, ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 2\n\n\
         ;; OPT PSEUDOSECTION:\n; EDNS: version: 0, flags:; udp: 1232\n;; QUESTION SECTION:\n;x.y. IN SRV\n\n\
         ;; ANSWER SECTION:\nx.y.\t2\tIN\tSRV\t1 2 80 a.x.y.\n\n;; ADDITIONAL SECTION:\na.x.y.\t2\tIN\tA\t10.0.0.1\n\n\
         ;; Query time: 0 msec\n",
    );
    assert_eq!(dig.status, "NOERROR");
    assert_eq!(dig.flags, ["qr", "aa", "rd"]);
    assert_eq!(dig.answers("SRV"), ["1 2 80 a.x.y."]);
    assert_eq!(dig.additional[0].data, "10.0.0.1");
    assert_eq!(dig.additional[0].ttl, 2);
}
