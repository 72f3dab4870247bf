//! Deliberate mistakes, by which the simulation shows that it would notice them.
//!
//! They exist only in builds with `--cfg rollcall_mutations`, one at a time, chosen at run time; in every other build
//! [`is_on`] is a constant.

/// A mistake that an implementation of Zab could make; `tests/mutations` names the invariant that each one breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the text is the variant's meaning: see `Mutation::meaning`")]
pub enum Mutation {
    M1 = 1,
    M2,
    M3,
    M4,
    M5,
    M6,
    M7,
    M8,
    M9,
    M10,
    M11,
    M12,
    M13,
    M14,
    M15,
    M16,
    M17,
    M18,
    M19,
    M20,
    M21,
    M22,
    M23,
    M24,
    M25,
    M26,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::M1,
        Self::M2,
        Self::M3,
        Self::M4,
        Self::M5,
        Self::M6,
        Self::M7,
        Self::M8,
        Self::M9,
        Self::M10,
        Self::M11,
        Self::M12,
        Self::M13,
        Self::M14,
        Self::M15,
        Self::M16,
        Self::M17,
        Self::M18,
        Self::M19,
        Self::M20,
        Self::M21,
        Self::M22,
        Self::M23,
        Self::M24,
        Self::M25,
        Self::M26,
    ];

    /// What is done wrongly.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::M1 => "a follower acks a proposal before it is durable",
            Self::M2 => "a proposal is committed with one ack less than a quorum",
            Self::M3 => "a leader counts its own ack before its log is durable",
            Self::M4 => "packets of an older epoch are accepted",
            Self::M5 => "a leader leads before a quorum has acked NEWLEADER",
            Self::M6 => "a diverging tail is not truncated",
            Self::M7 => "the accepted epoch is not written down",
            Self::M8 => "NEWLEADER is acked before the history is durable",
            Self::M9 => "an epoch older than the accepted one is accepted",
            Self::M10 => "votes and discovery ignore how long the histories are",
            Self::M11 => "a learner that is being synchronized is not sent what is outstanding",
            Self::M12 => "UPTODATE comes before what the learner was told is committed is known",
            Self::M13 => "a new leader goes on with zxids of the epoch before",
            Self::M14 => "a snapshot beyond the truncation point is kept",
            Self::M15 => "the committed window has a hole",
            Self::M16 => "sessions do not get their whole timeout from a new leader",
            Self::M17 => "the end of a session leaves ephemerals whose creation is in flight",
            Self::M18 => "a sync is answered without asking the leader",
            Self::M19 => "watches that are set again after a reconnect ignore what was missed",
            Self::M20 => "the log's records are not checked by checksum",
            Self::M21 => "a bad checksum in the middle of a log counts as its end",
            Self::M22 => "a failed sync of the log counts as a good one",
            Self::M23 => "a leader goes on leading without hearing of a quorum",
            Self::M24 => "the folder is not synced after files were created or renamed",
            Self::M25 => "a leader commits proposals of an earlier epoch by counting acks",
            Self::M26 => "what is logged is written down as committed",
        }
    }
}

#[cfg(rollcall_mutations)]
static CHOSEN: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Makes one mistake from now on, in the whole process, or none.
#[cfg(rollcall_mutations)]
pub fn choose(mutation: Option<Mutation>) {
    CHOSEN.store(mutation.map_or(0, |mutation| mutation as u8), std::sync::atomic::Ordering::Relaxed);
}

/// Whether this mistake is to be made.
#[cfg(rollcall_mutations)]
pub fn is_on(mutation: Mutation) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == mutation as u8
}

/// Whether this mistake is to be made: never.
#[cfg(not(rollcall_mutations))]
pub const fn is_on(_mutation: Mutation) -> bool {
    false
}
