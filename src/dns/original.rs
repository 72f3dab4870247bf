//! What an answer repeats of its query.

use hickory_proto::op::{Edns, Metadata, Query};
use hickory_server::server::Request;

use super::answer::Answer;
use super::forward::{Asked, Question};
use super::reply::{Limit, Reply, answer_edns};

/// What an answer repeats of its query, and keeps to.
#[derive(Debug)]
pub(super) struct Original {
    pub(super) metadata: Metadata,
    pub(super) query: Query,
    pub(super) edns: Option<Edns>,
    pub(super) cookie: Option<Vec<u8>>,
    pub(super) limit: Limit,
}

impl Original {
    pub(super) fn reply(self, answer: Answer) -> Reply {
        let Self { metadata, query, edns, cookie, limit } = self;
        let edns = edns.as_ref().map(|asked| answer_edns(asked, &answer, cookie));
        Reply::new(metadata, query, answer, edns, limit)
    }

    pub(super) fn to_forward(&self, request: &Request) -> Asked {
        let dnssec_ok = self.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        let Metadata { checking_disabled, recursion_desired, authentic_data, .. } = request.metadata;
        let (name, kind) = (self.query.name().clone(), self.query.query_type());
        Asked {
            question: Question { name, kind, dnssec_ok, checking_disabled },
            is_recursion_desired: recursion_desired,
            wants_authentic: authentic_data || dnssec_ok, // RFC 6840 section 5.8
            client: request.src().ip(),
        }
    }
}
