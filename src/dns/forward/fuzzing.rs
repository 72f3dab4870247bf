//! What the fuzz targets see of the forwarder; only they are built with `--cfg fuzzing`.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, MessageType, Metadata, OpCode, Query};

use super::cache::{Cache, CacheLimits, Lookup, Rules};
use super::encoded::Encoded;
use super::pending::{Asked, Given};
use super::question::{Letters, Outgoing, Question, RANDOM_OCTETS, WithEdns};
use super::reply::{Reply, read};
use crate::clock;
use crate::dns::answer::Answer;
use crate::dns::reply::{self, Limit, answer_edns};
use crate::dns::transport::Transport;

/// A question, as a client and as an upstream see it.
#[derive(Debug)]
pub struct Rehearsal {
    asked: Asked,
    sent: Outgoing,
    cache: Cache,
    now: Instant,
}

impl Rehearsal {
    /// One that was sent in random letters.
    pub fn new(question: Question) -> Self {
        let sent = question.outgoing(&[0x5a; RANDOM_OCTETS], Letters::Random, WithEdns::Yes).expect("a name");
        let client = [127, 0, 0, 1].into();
        let asked = Asked { question, is_recursion_desired: true, wants_authentic: true, client };
        let hour = Duration::from_secs(60 * 60);
        let limits = CacheLimits { entries_max: 4, octets_max: 64 * 1024, stale_max: hour };
        Self { asked, sent, cache: Cache::new(limits, RandomState::new()), now: clock::now() }
    }

    /// The packet that asks it.
    pub fn sent(&self) -> &[u8] {
        &self.sent.packet
    }

    /// What clients get after an upstream has sent `packet`: at once, from the cache, and when its time is over; as far as it is
    /// the answer, and may be kept.
    pub fn tell(&mut self, packet: &[u8], transport: Transport, edns_octets: Option<u16>) -> Vec<Vec<u8>> {
        let Ok(Reply::Found(found)) = read(packet, &self.asked.question, &self.sent) else {
            return Vec::new();
        };
        let found = Arc::new(found);
        let mut answers = vec![self.asked.answer(&found, Given::Fresh { age: Duration::ZERO })];
        let encoded = Encoded::new(&self.asked.question, &found);
        self.cache.insert(&self.asked.question, (found, encoded), self.now);
        for seconds in [0, 1, 30, 3_000, 90_000, 100_000] {
            let now = self.now + Duration::from_secs(seconds);
            match self.cache.look_up(&self.asked.question, |_| Some(RULES), now) {
                Lookup::Fresh { found, age, .. } => {
                    answers.push(self.asked.answer(&found, Given::Fresh { age }))
                }
                Lookup::Stale { found, .. } => answers.push(self.asked.answer(&found, Given::Stale)),
                Lookup::Failed(_) | Lookup::Unknown => {}
            }
        }
        answers.into_iter().map(|answer| self.encoded(answer, transport, edns_octets)).collect()
    }

    fn encoded(&self, answer: Answer, transport: Transport, edns_octets: Option<u16>) -> Vec<u8> {
        let Question { name, kind, .. } = &self.asked.question;
        let query = Query::query(name.clone(), *kind);
        let asked = Metadata::new(ID, MessageType::Query, OpCode::Query);
        let edns = edns_octets.map(|_| answer_edns(&Edns::new(), &answer, None));
        let limit = Limit::of(transport, edns_octets);
        let metadata = Metadata::response_from_request(&asked);
        let mut out = Vec::new();
        reply::Reply::new(metadata, query, answer, edns, limit).encode(&mut out).expect("it can be encoded");
        assert!(out.len() <= usize::from(limit.octets()), "{} octets", out.len());
        out
    }
}

/// By which the question is one for upstreams.
const RULES: Rules = Rules(1);
/// The id of the client's query.
pub const ID: u16 = 7;
