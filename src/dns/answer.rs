//! What a question is answered with, before it is encoded.

use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Record;

use super::forward::{Explanations, Trouble};
use crate::registry::{Service, ServiceKey};

/// An answer before it is encoded.
#[derive(Debug, Default)]
pub struct Answer {
    /// The code.
    pub rcode: ResponseCode,
    /// Whether we speak for the zone.
    pub is_authoritative: bool,
    /// What was asked for.
    pub answers: Vec<Record>,
    /// The SOA of negative answers.
    pub authority: Vec<Record>,
    /// Addresses of SRV targets; may be left out.
    pub additional: Vec<Record>,
    /// What clients that sent EDNS are told besides (RFC 8914).
    pub extended: Option<ExtendedError>,
    /// What upstreams have said of that kind.
    pub passed_on: Explanations,
    /// The service of which alone the answer is made, when that is followed.
    pub source: Option<Arc<Service>>,
    /// Where the instance that stands first stands in it; to be counted when the answer is given.
    pub first: Option<usize>,
    /// Whether the name is none of ours, so that somebody else may know it.
    pub is_out_of_zone: bool,
    /// Whether others were asked, or can be (RA).
    pub is_recursive: bool,
    /// Whether others have validated it (AD).
    pub is_authentic: bool,
    /// The service whose instances it is about, when these are not followed: they must be asked for.
    pub wanted: Option<ServiceKey>,
}

/// An extended DNS error (RFC 8914 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtendedError {
    /// 3: the view may be behind the ensemble.
    StaleAnswer,
    /// 19: the same, and the name is not in it.
    StaleNxDomain,
    /// 22: no ensemble was ever reached.
    NoReachableAuthority,
    /// 22: the service is known, and its instances could not be read in time.
    NotRead,
    /// 14, 22, 23: upstreams gave no answer.
    Forwarding(Trouble),
}

impl ExtendedError {
    /// The INFO-CODE.
    pub const fn code(self) -> u16 {
        match self {
            Self::StaleAnswer => 3,
            Self::StaleNxDomain => 19,
            Self::NoReachableAuthority | Self::NotRead => 22,
            Self::Forwarding(trouble) => trouble.code(),
        }
    }
}

/// How far the view can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It follows the ensemble.
    Current,
    /// It may be behind.
    Stale,
}
