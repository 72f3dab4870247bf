//! What a seed draws before anything happens: how many members, how fast, and which faults.
//!
//! Many seeds with few kinds of faults each find more than every seed with all of them (swarm testing). Limits are tiny, so
//! that snapshots, truncations and purges happen all the time.

use std::fmt;

use fastrand::Rng;

use crate::network::Latency;
use crate::time::{MS, Nanos, SECOND};

/// A sequence of random numbers of its own for each purpose, so that what one kind of decision draws shifts no other.
pub(crate) fn stream(seed: u64, purpose: &str) -> Rng {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in purpose.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    Rng::with_seed(hash)
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A process dies; what it has written stays.
    Kill,
    /// A machine loses its power; what was not synced may be gone.
    PowerFailure,
    /// A process is stopped for a while.
    Pause,
    /// What one member sends to another does not arrive.
    CutOneWay,
    /// Two members do not reach each other.
    CutBothWays,
    /// A member reaches nobody.
    Isolate,
    /// The members fall into two groups; sometimes one of them is in both.
    Split,
    /// A link comes and goes.
    Flap,
    /// A connection breaks.
    BreakConnection,
    /// A sync reports an error.
    FailedSync,
    /// A disk is full.
    FullDisk,
    /// A disk is slow for a while.
    SlowDisk,
    /// A member comes back with an empty disk.
    Wipe,
    /// A bit of a file changes while its member is down.
    BitRot,
    /// A wall clock jumps.
    WallClock,
    /// A client and a member do not reach each other.
    CutClient,
}

impl Fault {
    pub(crate) const ALL: [Self; 16] = [
        Self::Kill,
        Self::PowerFailure,
        Self::Pause,
        Self::CutOneWay,
        Self::CutBothWays,
        Self::Isolate,
        Self::Split,
        Self::Flap,
        Self::BreakConnection,
        Self::FailedSync,
        Self::FullDisk,
        Self::SlowDisk,
        Self::Wipe,
        Self::BitRot,
        Self::WallClock,
        Self::CutClient,
    ];
}

/// A moment in a member's life at which a fault finds the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    Proposes,
    Acks,
    Commits,
    ProposesEpoch,
    AcceptsEpoch,
    SendsNewLeader,
    AdoptsEpoch,
    AcksNewLeader,
    Leads,
    Follows,
    Truncates,
    InstallsSnapshot,
    BeginsSnapshot,
    FinishesSnapshot,
}

impl Moment {
    const ALL: [Self; 14] = [
        Self::Proposes,
        Self::Acks,
        Self::Commits,
        Self::ProposesEpoch,
        Self::AcceptsEpoch,
        Self::SendsNewLeader,
        Self::AdoptsEpoch,
        Self::AcksNewLeader,
        Self::Leads,
        Self::Follows,
        Self::Truncates,
        Self::InstallsSnapshot,
        Self::BeginsSnapshot,
        Self::FinishesSnapshot,
    ];
}

/// A fault that strikes at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trigger {
    pub(crate) moment: Moment,
    pub(crate) fault: Fault,
    /// One in how many such moments.
    pub(crate) one_in: u32,
}

/// The families of profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// Any faults, then quiet.
    Swarm,
    /// A majority is never at fault and has to stay available while the rest misbehaves.
    Core,
    /// One member is left behind while others write, again and again: what is needed to see histories diverge.
    Diverge,
}

/// Everything that a seed draws.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) seed: u64,
    pub(crate) family: Family,
    pub(crate) voters: usize,
    pub(crate) observers: usize,
    pub(crate) clients: usize,
    pub(crate) tick: Nanos,
    /// How long the last vote is waited for, and the first is repeated after.
    pub(crate) finalize_wait: Nanos,
    pub(crate) window_entries: usize,
    pub(crate) snapshot_txns: u64,
    pub(crate) snapshots_kept: usize,
    /// Whether sessions are local until they create an ephemeral znode.
    pub(crate) has_local_sessions: bool,
    /// Whether members without a leader serve reads, and write down what is committed for that.
    pub(crate) is_read_only_mode_on: bool,
    pub(crate) preallocate_bytes: u64,
    pub(crate) storm: Nanos,
    pub(crate) latency: Latency,
    /// Votes lost, doubled: each one in so many; 0 for none.
    pub(crate) one_vote_lost_in: u32,
    pub(crate) one_vote_doubled_in: u32,
    pub(crate) sync_max: Nanos,
    pub(crate) drift_ppm_max: i64,
    pub(crate) faults: Vec<(Fault, Nanos)>,
    pub(crate) triggers: Vec<Trigger>,
    /// The mean pause between two requests of a client.
    pub(crate) request_pause: Nanos,
    pub(crate) pipeline: usize,
}

/// What differs from what the seed draws: how a failure is made smaller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    pub(crate) storm_ms: Option<u64>,
    pub(crate) clients: Option<usize>,
    pub(crate) plain_network: bool,
    /// Faults that do not happen, by kind and count.
    pub(crate) skipped: Vec<(Fault, u32)>,
    /// Kinds of faults that do not happen at all; triggered ones neither.
    pub(crate) without: Vec<Fault>,
    pub(crate) without_triggers: bool,
}

impl Profile {
    pub(crate) fn draw(seed: u64, family: Family, overrides: &Overrides) -> Self {
        let mut rng = stream(seed, "profile");
        let voters = match family {
            Family::Core => rng.choice([3, 5]).expect("some"),
            Family::Swarm => rng.choice([1, 3, 3, 3, 3, 3, 3, 5]).expect("some"),
            Family::Diverge => 3,
        };
        let observers = usize::from(rng.u8(0..5) == 0);
        let is_plain = rng.u8(0..3) == 0;
        let latency = Latency {
            min: rng.u64(50_000..2 * MS),
            max: rng.u64(2 * MS..20 * MS),
            one_slow_in: if is_plain { 0 } else { rng.u32(20..500) },
        };
        let mut profile = Self {
            seed,
            family,
            voters,
            observers,
            clients: rng.usize(1..4),
            tick: 200 * MS,
            finalize_wait: 100 * MS,
            window_entries: rng.choice([1, 3, 10, 10, 40]).expect("some"),
            snapshot_txns: rng.choice([5, 12, 20, 20, 1_000]).expect("some"),
            snapshots_kept: rng.usize(1..4),
            has_local_sessions: stream(seed, "local sessions").u8(0..8) == 0,
            is_read_only_mode_on: stream(seed, "read-only mode").bool(),
            preallocate_bytes: rng.choice([0, 512, 2_048]).expect("some"),
            storm: rng.u64(4 * SECOND..16 * SECOND),
            latency,
            one_vote_lost_in: if is_plain { 0 } else { rng.u32(3..60) },
            one_vote_doubled_in: if is_plain { 0 } else { rng.u32(3..60) },
            sync_max: rng.choice([MS, 5 * MS, 30 * MS, 200 * MS]).expect("some"),
            drift_ppm_max: if rng.u8(0..4) == 0 { 50_000 } else { 200 },
            faults: Vec::new(),
            triggers: Vec::new(),
            request_pause: rng.u64(8 * MS..60 * MS),
            pipeline: rng.usize(1..6),
        };
        profile.draw_faults(&mut rng);
        profile.apply(overrides);
        profile
    }

    fn draw_faults(&mut self, rng: &mut Rng) {
        for fault in Fault::ALL {
            let (is_on, mean) = (rng.u8(0..3) == 0, rng.u64(300 * MS..6 * SECOND));
            if is_on {
                self.faults.push((fault, mean));
            }
        }
        for _ in 0..rng.usize(0..4) {
            let faults =
                [Fault::Kill, Fault::PowerFailure, Fault::Pause, Fault::Isolate, Fault::BreakConnection];
            let trigger = Trigger {
                moment: rng.choice(Moment::ALL).expect("some"),
                fault: rng.choice(faults).expect("some"),
                one_in: rng.choice([1, 2, 5, 20]).expect("some"),
            };
            self.triggers.push(trigger);
        }
        if self.family == Family::Diverge {
            self.faults.retain(|(fault, _)| !matches!(fault, Fault::Wipe | Fault::BitRot | Fault::FullDisk));
            self.faults.push((Fault::Isolate, rng.u64(300 * MS..2 * SECOND)));
            self.faults.push((Fault::Kill, rng.u64(300 * MS..2 * SECOND)));
            self.faults.push((Fault::PowerFailure, rng.u64(300 * MS..2 * SECOND)));
            self.request_pause = rng.u64(3 * MS..15 * MS);
        }
    }

    fn apply(&mut self, overrides: &Overrides) {
        if let Some(storm_ms) = overrides.storm_ms {
            self.storm = storm_ms * MS;
        }
        self.clients = overrides.clients.unwrap_or(self.clients);
        if overrides.plain_network {
            self.latency = Latency { min: MS, max: MS, one_slow_in: 0 };
            (self.one_vote_lost_in, self.one_vote_doubled_in) = (0, 0);
            self.drift_ppm_max = 0;
        }
        self.faults.retain(|(fault, _)| !overrides.without.contains(fault));
        if overrides.without_triggers {
            self.triggers.clear();
        }
    }

    pub(crate) fn members(&self) -> usize {
        self.voters + self.observers
    }

    pub(crate) fn sites(&self) -> usize {
        self.members() + self.clients
    }

    /// How many voters make a quorum.
    pub(crate) fn majority(&self) -> usize {
        self.voters / 2 + 1
    }

    /// Whether a member is never at fault.
    pub(crate) fn is_core(&self, site: usize) -> bool {
        self.family == Family::Core && site < self.majority()
    }

    /// How many members may lose their disks: a minority, once each.
    pub(crate) fn wipes_max(&self) -> usize {
        (self.voters - 1) / 2
    }
}

impl fmt::Display for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(storm_ms) = self.storm_ms {
            write!(f, ",storm={storm_ms}")?;
        }
        if let Some(clients) = self.clients {
            write!(f, ",clients={clients}")?;
        }
        if self.plain_network {
            write!(f, ",plain")?;
        }
        if self.without_triggers {
            write!(f, ",untriggered")?;
        }
        self.without.iter().try_for_each(|fault| write!(f, ",without={fault:?}"))?;
        self.skipped.iter().try_for_each(|(fault, number)| write!(f, ",skip={fault:?}.{number}"))
    }
}

/// What `ROLLCALL_SEED` names: a seed, its family and what differs from it, as in `17,core,storm=900,skip=Kill.2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Story {
    pub(crate) seed: u64,
    pub(crate) family: Family,
    pub(crate) overrides: Overrides,
}

impl Story {
    pub(crate) fn new(seed: u64, family: Family) -> Self {
        Self { seed, family, overrides: Overrides::default() }
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = text.trim().split(',');
        let seed = parts.next().and_then(|seed| seed.parse().ok()).expect("a story begins with its seed");
        let mut story = Self::new(seed, Family::Swarm);
        let overrides = &mut story.overrides;
        let fault = |name: &str| {
            Fault::ALL
                .into_iter()
                .find(|fault| format!("{fault:?}") == name)
                .expect("the name of a kind of fault")
        };
        for part in parts {
            match part.split_once('=') {
                None if part == "core" => story.family = Family::Core,
                None if part == "diverge" => story.family = Family::Diverge,
                None if part == "plain" => overrides.plain_network = true,
                None if part == "untriggered" => overrides.without_triggers = true,
                Some(("storm", ms)) => overrides.storm_ms = Some(ms.parse().expect("ms")),
                Some(("clients", count)) => overrides.clients = Some(count.parse().expect("a count")),
                Some(("without", name)) => overrides.without.push(fault(name)),
                Some(("skip", which)) => {
                    let (name, number) = which.split_once('.').expect("a fault and its number");
                    overrides.skipped.push((fault(name), number.parse().expect("a number")));
                }
                None | Some(_) => panic!("a story has no part {part:?}"),
            }
        }
        story
    }

    pub(crate) fn profile(&self) -> Profile {
        Profile::draw(self.seed, self.family, &self.overrides)
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::Swarm => "",
            Family::Core => ",core",
            Family::Diverge => ",diverge",
        };
        write!(f, "{}{family}{}", self.seed, self.overrides)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_reads_back() {
        let mut story = Story::new(17, Family::Core);
        story.overrides = Overrides {
            storm_ms: Some(900),
            clients: Some(1),
            plain_network: true,
            skipped: vec![(Fault::Kill, 2), (Fault::Wipe, 0)],
            without: vec![Fault::Pause],
            without_triggers: true,
        };
        assert_eq!(Story::parse(&story.to_string()), story);
        assert_eq!(Story::parse("4"), Story::new(4, Family::Swarm));
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |seed, purpose| stream(seed, purpose).u64(..);
        assert_eq!(draw(1, "kill"), draw(1, "kill"));
        assert_ne!(draw(1, "kill"), draw(1, "pause"));
        assert_ne!(draw(1, "kill"), draw(2, "kill"));
    }
}
