//! What upstreams are asked, and the packet that asks it. Pure.

use std::sync::Arc;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

use crate::dns::plain::wishes;

/// A question of class IN; what is alike in all of it has one answer. Letter case does not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// The name, in whatever letters.
    pub name: Name,
    /// The type.
    pub kind: RecordType,
    /// Whether signatures are wanted with it (DO, RFC 3225).
    pub dnssec_ok: bool,
    /// Whether what does not validate is wanted all the same (CD, RFC 4035 section 3.2.2).
    pub checking_disabled: bool,
}

/// Random octets for one packet: its id, and a bit for each letter of its name.
pub(super) type Randomness = [u8; RANDOM_OCTETS];

/// A packet to an upstream, and what its answer must repeat.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    /// The id.
    pub(super) id: u16,
    /// The name in the letters in which it is sent.
    pub(super) name: Name,
    /// Whether the answer must repeat these letters.
    pub(super) is_case_checked: bool,
    /// All of it.
    pub(super) packet: Vec<u8>,
}

/// Which letters a name is sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    /// Each in a case of its own, which whoever forges an answer would have to guess
    /// (draft-vixie-dnsext-dns0x20).
    Random,
    /// Small ones.
    Lower,
}

/// Whether a packet says what its sender can do beyond RFC 1035.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WithEdns {
    /// With an OPT record (RFC 6891).
    Yes,
    /// Without, for upstreams that take it for an error.
    No,
}

impl Question {
    /// What every resolver has the answer to, and nobody need be asked for but itself: who serves the root, by which CoreDNS, too, sees
    /// whether one is well.
    pub(super) fn of_our_own() -> Self {
        Self { name: Name::root(), kind: RecordType::NS, dnssec_ok: false, checking_disabled: false }
    }

    /// What it is found by: what [`PlainQuery::key_with_wishes`](crate::dns::plain::PlainQuery::key_with_wishes) says of the same question.
    pub(super) fn key(&self) -> Arc<[u8]> {
        let mut key = Vec::with_capacity(self.name_octets() + 3);
        for label in self.name.iter() {
            key.push(u8::try_from(label.len()).expect("a label has at most 63 octets"));
            key.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        key.push(0);
        key.extend_from_slice(&u16::from(self.kind).to_be_bytes());
        key.push(wishes(self.dnssec_ok, self.checking_disabled));
        key.into()
    }

    /// Octets of the name in a packet.
    pub(super) fn name_octets(&self) -> usize {
        self.name.iter().map(|label| label.len() + 1).sum::<usize>() + 1
    }

    /// The packet that asks it.
    ///
    /// AD is set, by which upstreams that validate say whether they did (RFC 6840 section 5.7).
    ///
    /// # Errors
    ///
    /// When the name cannot be encoded, which no name can be that was decoded.
    pub(super) fn outgoing(
        &self,
        random: &Randomness,
        letters: Letters,
        with_edns: WithEdns,
    ) -> Result<Outgoing, ProtoError> {
        let [high, low, bits @ ..] = random;
        let id = u16::from_be_bytes([*high, *low]);
        let name = match letters {
            Letters::Random => in_letters(&self.name, bits)?,
            Letters::Lower => self.name.to_lowercase(),
        };
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.authentic_data = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.add_query(Query::query(name.clone(), self.kind));
        if with_edns == WithEdns::Yes {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_OCTETS).set_version(0).set_dnssec_ok(self.dnssec_ok);
            message.set_edns(edns);
        }
        Ok(Outgoing { id, name, is_case_checked: letters == Letters::Random, packet: message.to_vec()? })
    }
}

impl Outgoing {
    /// Whether the name is sent with a capital. Without letters there is none, and with few the draw may have none.
    pub(super) fn has_capitals(&self) -> bool {
        self.name.iter().flatten().any(u8::is_ascii_uppercase)
    }
}

/// The name with each letter in the case that its bit says.
fn in_letters(name: &Name, bits: &[u8]) -> Result<Name, ProtoError> {
    let mut index = 0;
    let mut turned = |octet: &u8| {
        let is_upper = bits.get(index / 8).is_some_and(|bits| bits >> (index % 8) & 1 == 1);
        index += 1;
        if is_upper { octet.to_ascii_uppercase() } else { octet.to_ascii_lowercase() }
    };
    let labels: Vec<Vec<u8>> = name.iter().map(|label| label.iter().map(&mut turned).collect()).collect();
    let mut name = Name::from_labels(labels.iter().map(Vec::as_slice))?;
    name.set_fqdn(true);
    Ok(name)
}

/// Two for the id, and 255 bits: no name has more octets.
pub(super) const RANDOM_OCTETS: usize = 2 + 32;
/// What upstreams may send over UDP, so that nothing is fragmented (RFC 9715 section 3).
pub(super) const UDP_OCTETS: u16 = 1232;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::plain::PlainQuery;

    #[test]
    fn a_packet_asks_for_recursion_in_the_letters_of_its_bits() {
        let question = sample("www.Example.com.");
        let mut random = [0; RANDOM_OCTETS];
        (random[0], random[1], random[2]) = (0x12, 0x34, 0b0000_0101);
        let outgoing = question.outgoing(&random, Letters::Random, WithEdns::Yes).unwrap();
        let sent = Message::from_vec(&outgoing.packet).unwrap();
        assert_eq!((outgoing.id, sent.metadata.id), (0x1234, 0x1234));
        assert_eq!(sent.queries[0].name().to_string(), "WwW.example.com.");
        assert!(sent.queries[0].name().eq_case(&outgoing.name));
        assert!(sent.metadata.recursion_desired && sent.metadata.authentic_data);
        assert!(!sent.metadata.checking_disabled);
        let edns = sent.edns.unwrap();
        assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (UDP_OCTETS, false));
    }

    #[test]
    fn what_the_client_wants_of_dnssec_is_passed_on() {
        let question = Question { dnssec_ok: true, checking_disabled: true, ..sample("a.") };
        let packet = question.outgoing(&[0; RANDOM_OCTETS], Letters::Lower, WithEdns::Yes).unwrap().packet;
        let sent = Message::from_vec(&packet).unwrap();
        assert!(sent.metadata.checking_disabled && sent.edns.unwrap().flags().dnssec_ok);
        let packet = question.outgoing(&[0; RANDOM_OCTETS], Letters::Lower, WithEdns::No).unwrap().packet;
        assert!(Message::from_vec(&packet).unwrap().edns.is_none());
    }

    #[test]
    fn the_longest_name_has_a_bit_for_each_letter() {
        let label = "a".repeat(61);
        let text = format!("{label}.{label}.{label}.{label}.");
        let outgoing =
            sample(&text).outgoing(&[0xff; RANDOM_OCTETS], Letters::Random, WithEdns::Yes).unwrap();
        assert_eq!(outgoing.name.to_string(), text.to_uppercase());
    }

    #[test]
    fn letters_make_no_other_question() {
        assert_eq!(sample("A.example."), sample("a.EXAMPLE."));
        assert_ne!(sample("a.example."), Question { dnssec_ok: true, ..sample("a.example.") });
    }

    #[test]
    fn a_question_has_one_key_however_it_was_read() {
        let odd = Name::from_labels([&b"a.b\x00\xff"[..], b"Example"]).unwrap();
        for (name, checking_disabled, dnssec_ok) in
            [(Name::root(), false, false), (sample("wWw.Example.com.").name, true, false), (odd, false, true)]
        {
            let question = Question { name, checking_disabled, dnssec_ok, ..sample(".") };
            let name = &question.name;
            let packet =
                question.outgoing(&[0xa5; RANDOM_OCTETS], Letters::Random, WithEdns::Yes).unwrap().packet;
            let plain = PlainQuery::read(&packet).unwrap();
            assert_eq!(plain.key_with_wishes(), &*question.key(), "{name}");
            assert_eq!(plain.end(), 12 + question.name_octets() + 4, "{name}");
        }
    }

    fn sample(name: &str) -> Question {
        let name = Name::from_ascii(name).unwrap();
        Question { name, kind: RecordType::A, dnssec_ok: false, checking_disabled: false }
    }
}
