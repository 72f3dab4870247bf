//! What is asked: read from the command line or a file, encoded once, and compared with what answers say was asked.

use std::io::Read;
use std::path::Path;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

use super::super::super::failure::Failure;

/// A name and a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli::bench) struct QuestionArgument {
    pub(super) name: Name,
    pub(super) kind: RecordType,
}

/// A question as it goes over the wire.
#[derive(Debug)]
pub(super) struct Question {
    /// The whole query; its first two octets are its id, and whoever sends it sets them.
    packet: Vec<u8>,
    /// Where the question ends, which begins behind the header.
    end: usize,
}

/// Octets of a DNS header (RFC 1035, 4.1.1).
pub(super) const HEADER_OCTETS: usize = 12;
/// Octets of type and class behind a question's name.
const TYPE_AND_CLASS_OCTETS: usize = 4;
/// Octets of a query: header, the longest name, type and class, OPT.
#[cfg(test)]
const QUERY_OCTETS_MAX: usize = HEADER_OCTETS + 255 + TYPE_AND_CLASS_OCTETS + 11;
/// Of an OPT record without options (RFC 6891, 6.1.2): the root, type 41, then the size in place of the class, no flags, no options.
const OPT_TYPE: u8 = 41;
const ADDITIONAL_COUNT_AT: usize = 11;
/// Octets of a file of names, and questions in it: all of them are encoded and held in memory.
const FILE_OCTETS_MAX: u64 = 64 << 20;
const QUESTIONS_MAX: usize = 1_000_000;

impl Question {
    /// Encodes it, asking for recursion as stub resolvers do, with EDNS unless `edns_octets` is 0.
    ///
    /// # Errors
    ///
    /// When the name is too long.
    pub(super) fn encode(asked: &QuestionArgument, edns_octets: u16) -> Result<Self, Failure> {
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(asked.name.clone(), asked.kind));
        let mut packet = message.to_vec().map_err(|error| {
            Failure::usage(format!("{} cannot be asked for: {error}; give another name", asked.name))
        })?;
        let end = packet.len();
        if edns_octets > 0 {
            let [high, low] = edns_octets.to_be_bytes();
            packet.extend([0, 0, OPT_TYPE, high, low, 0, 0, 0, 0, 0, 0]);
            packet[ADDITIONAL_COUNT_AT] = 1;
        }
        Ok(Self { packet, end })
    }

    /// The query with this id.
    pub(super) fn with_id(&mut self, id: u16) -> &[u8] {
        self.packet[..2].copy_from_slice(&id.to_be_bytes());
        &self.packet
    }

    /// Whether a message of one question, whole header included, has this one: same octets, but letters of the name may be of
    /// the other case (RFC 4343).
    pub(super) fn is_in(&self, message: &[u8]) -> bool {
        let (Some(own), Some(other)) =
            (self.packet.get(HEADER_OCTETS..self.end), message.get(HEADER_OCTETS..self.end))
        else {
            return false;
        };
        let name_end = own.len() - TYPE_AND_CLASS_OCTETS;
        // Lengths of labels are below 64 and no letters.
        own[name_end..] == other[name_end..] && own[..name_end].eq_ignore_ascii_case(&other[..name_end])
    }
}

/// `NAME` or `NAME:TYPE`.
pub(super) fn question_argument(text: &str) -> Result<QuestionArgument, String> {
    let (name, kind) = text.rsplit_once(':').unwrap_or((text, "A"));
    question(name, kind)
}

/// Reads a file of questions.
///
/// # Errors
///
/// When it cannot be read, is too long, has none, or a line is none; the first such line is named.
pub(super) fn read_names(path: &Path) -> Result<Vec<QuestionArgument>, Failure> {
    let told = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot read the names: {error}; give a file with a line NAME TYPE each"))
    };
    let file = fs_err::File::open(path).map_err(|error| told(&error))?;
    let mut text = String::new();
    // Read that far and no further: it may be a pipe.
    file.take(FILE_OCTETS_MAX + 1).read_to_string(&mut text).map_err(|error| told(&error))?;
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(told(&format!("{} has more than {FILE_OCTETS_MAX} bytes", path.display())));
    }
    names_of(&text).map_err(|error| told(&format!("{}:{error}", path.display())))
}

fn names_of(text: &str) -> Result<Vec<QuestionArgument>, String> {
    let mut questions = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split_whitespace();
        let Some(name) = words.next().filter(|word| !word.starts_with(['#', ';'])) else { continue };
        let kind = words.next().unwrap_or("A");
        if let Some(more) = words.next() {
            return Err(format!("{number}: {more:?} follows name and type"));
        }
        questions.push(question(name, kind).map_err(|error| format!("{number}: {error}"))?);
        if questions.len() > QUESTIONS_MAX {
            return Err(format!("{number}: there are more than {QUESTIONS_MAX} names"));
        }
    }
    if questions.is_empty() { Err("1: there is no name".to_owned()) } else { Ok(questions) }
}

fn question(name: &str, kind: &str) -> Result<QuestionArgument, String> {
    if name.is_empty() {
        return Err("the name is empty; write . for the root".to_owned());
    }
    let mut parsed =
        Name::from_ascii(name).map_err(|error| format!("{name:?} is no name of DNS: {error}"))?;
    parsed.set_fqdn(true);
    Ok(QuestionArgument { name: parsed, kind: record_type(kind)? })
}

/// A type by its word, or by its number as RFC 3597 writes it: `TYPE65`.
fn record_type(text: &str) -> Result<RecordType, String> {
    let upper = text.to_ascii_uppercase();
    if let Some(number) = upper.strip_prefix("TYPE").and_then(|number| number.parse::<u16>().ok()) {
        return Ok(RecordType::from(number));
    }
    upper.parse().map_err(|_unknown| {
        format!("{text:?} is no type of DNS; give one such as A, AAAA, SRV, or a number such as TYPE65")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_its_addresses_unless_told_otherwise() {
        let parsed = |text| question_argument(text).map(|asked| (asked.name.to_string(), asked.kind));
        assert_eq!(parsed("web.test"), Ok(("web.test.".to_owned(), RecordType::A)));
        assert_eq!(
            parsed("_http._tcp.web.test.:srv"),
            Ok(("_http._tcp.web.test.".to_owned(), RecordType::SRV))
        );
        assert_eq!(parsed(".:NS"), Ok((".".to_owned(), RecordType::NS)));
        assert_eq!(parsed("web.test:TYPE65"), Ok(("web.test.".to_owned(), RecordType::HTTPS)));
        for wrong in [":A", "web.test:", "web.test:B", "web..test", "web.test:TYPE65536"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_has_a_name_and_a_type_a_line() {
        let names = names_of("# all\nweb.test A\n\n  db.test\tAAAA\n; old\nplain.test\r\n").unwrap();
        let kinds: Vec<_> = names.iter().map(|asked| asked.kind).collect();
        assert_eq!(kinds, [RecordType::A, RecordType::AAAA, RecordType::A]);
        assert!(names_of("web.test A\nweb.test B\n").unwrap_err().starts_with("2: "));
        assert!(names_of("web.test A IN\n").unwrap_err().starts_with("1: \"IN\""));
        assert!(names_of("# nothing\n").is_err());
    }

    #[test]
    fn queries_are_what_a_decoder_takes_them_for() {
        let asked = question_argument("web.test:SRV").unwrap();
        for octets in [0, 512, 1232] {
            let mut question = Question::encode(&asked, octets).unwrap();
            let message = Message::from_vec(question.with_id(0xabcd)).unwrap();
            assert_eq!((message.metadata.id, message.metadata.message_type), (0xabcd, MessageType::Query));
            assert!(message.metadata.recursion_desired);
            let [query] = &message.queries[..] else { panic!("{message:?}") };
            assert_eq!((query.name(), query.query_type()), (&asked.name, RecordType::SRV));
            assert_eq!(message.edns.as_ref().map(|edns| edns.max_payload()), (octets > 0).then_some(octets));
        }
    }

    #[test]
    fn the_longest_name_fits() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        let question = Question::encode(&question_argument(&longest).unwrap(), 1232).unwrap();
        assert_eq!(question.packet.len(), QUERY_OCTETS_MAX);
    }

    #[test]
    fn an_answer_has_the_same_question_in_any_case_of_letters() {
        let mut asked = Question::encode(&question_argument("web.test:A").unwrap(), 1232).unwrap();
        let answer = asked.with_id(1).to_vec();
        assert!(asked.is_in(&answer));
        let changed = |at: usize, octet: u8| {
            let mut answer = answer.clone();
            answer[at] = octet;
            answer
        };
        assert!(asked.is_in(&changed(13, b'W')), "the case of a letter");
        assert!(!asked.is_in(&changed(13, b'x')), "another letter");
        assert!(!asked.is_in(&changed(asked.end - 3, 33)), "another type");
        assert!(!asked.is_in(&changed(asked.end - 1, 3)), "another class");
        assert!(!asked.is_in(&answer[..asked.end - 1]), "cut");
        assert!(!asked.is_in(&[]), "nothing");
    }
}
