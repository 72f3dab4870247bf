//! Why a forwarded question has no answer, as clients are told.

use hickory_proto::op::ResponseCode;

use super::explanation::Explanations;
use crate::dns::answer::{Answer, ExtendedError};

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody is known who could be asked.
    NoUpstream,
    /// No upstream answered in time.
    Unreachable,
    /// No upstream could be sent anything.
    Network,
    /// Upstreams answer, and say that they cannot, or will not, answer this.
    Refused,
    /// Upstreams answer, and nobody can read that.
    Unreadable,
    /// So many queries wait that no more may.
    Busy,
    /// So many queries of this client wait that no more of it may.
    BusyWithClient,
}

impl Trouble {
    /// The INFO-CODE (RFC 8914 section 4): 0 Other Error, 14 Not Ready, 22 No Reachable Authority, 23 Network Error.
    pub const fn code(self) -> u16 {
        match self {
            Self::Unreadable => 0,
            Self::Busy | Self::BusyWithClient => 14,
            Self::NoUpstream | Self::Unreachable | Self::Refused => 22,
            Self::Network => 23,
        }
    }

    /// What it says to people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoUpstream => "no upstream is known",
            Self::Unreachable => "no upstream answered in time",
            Self::Network => "no upstream can be sent anything",
            Self::Refused => "the upstreams do not answer this",
            Self::Unreadable => "what the upstreams answer to this cannot be read",
            Self::Busy => "too many queries wait for upstreams",
            Self::BusyWithClient => "too many of your queries wait for upstreams",
        }
    }
}

/// That there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why.
    pub trouble: Trouble,
    /// What an upstream says about it.
    pub explanations: Explanations,
}

impl Failed {
    /// What the client gets: what an upstream says goes before what can be said here.
    pub(super) fn answer(self) -> Answer {
        let Self { trouble, explanations } = self;
        Answer {
            rcode: ResponseCode::ServFail,
            is_recursive: true,
            extended: explanations.is_empty().then_some(ExtendedError::Forwarding(trouble)),
            passed_on: explanations,
            ..Answer::default()
        }
    }
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self { trouble, explanations: Explanations::default() }
    }
}
