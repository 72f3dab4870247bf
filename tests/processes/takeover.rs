//! The application of a primary dies, the checks of its sidecar notice it, and lookups at a third sidecar move to the standby; and back, once,
//! when it has been well for as long as it is to be, or when somebody says so. (`tests/answers` has it in virtual time.)

mod told;

use std::time::{Duration, Instant};

use rollcall::clock;

use self::told::{Asked, Told};
use crate::support::{Fleet, Instance, Kind, Sidecar, WebServer, http, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
/// How long a primary is to be well before it takes its tier again.
const FAILBACK_AFTER: Duration = Duration::from_secs(3);
/// How long it is looked on where nothing is to happen: longer than what happens by itself takes.
const LOOK: Duration = Duration::from_secs(5);
/// The longest from a death to the result of the check that is one too many.
const FALL_TIME: Duration = Instance::CHECK_INTERVAL.saturating_mul(Instance::FALL);
const RISE_TIME: Duration = Instance::CHECK_INTERVAL.saturating_mul(Instance::RISE);
/// From a verdict to the last answer that goes by it.
const REACTION: Duration = Duration::from_millis(100);
/// Times that any of these may take where other processes have the processors.
const BUSY: u32 = 10;
/// The last tier.
const HELD: u64 = 65_535;

#[test]
fn lookups_leave_a_primary_whose_application_dies_and_return_once_on_rollcall() {
    leave_and_return_once(Kind::Rollcall);
}

#[test]
fn lookups_leave_a_primary_whose_application_dies_and_return_once_on_apache() {
    leave_and_return_once(Kind::Apache);
}

#[test]
fn lookups_stay_with_the_standby_until_they_are_told_to_return_on_rollcall() {
    stay_until_told(Kind::Rollcall);
}

#[test]
fn lookups_stay_with_the_standby_until_they_are_told_to_return_on_apache() {
    stay_until_told(Kind::Apache);
}

/// What becomes of the application.
#[derive(Clone, Copy, Debug)]
enum Outage {
    /// Its process ends.
    Death,
    /// It takes connections, and says nothing.
    Hang,
    /// It says that it is not well.
    Illness,
}

impl Outage {
    fn begin(self, web: &mut WebServer) {
        match self {
            Self::Death => web.kill(),
            Self::Hang => web.hang(),
            Self::Illness => web.fall_ill(),
        }
    }

    /// Returns once it is well.
    fn end(self, web: &mut WebServer) {
        match self {
            Self::Death => web.restart(),
            Self::Hang => web.go_on(),
            Self::Illness => web.recover(),
        }
    }

    /// The longest that the check may take to notice.
    fn fall_time(self) -> Duration {
        match self {
            Self::Death | Self::Illness => FALL_TIME,
            // The last check that fails is waited for, too.
            Self::Hang => FALL_TIME + Instance::CHECK_INTERVAL,
        }
    }
}

fn leave_and_return_once(kind: Kind) {
    let mut trio = Trio::start(kind, &["--failback-after", "3s"]);
    let written = trio.writes();
    let outages = [Outage::Death, Outage::Hang, Outage::Illness];
    for outage in outages {
        let died_at = clock::now();
        trio.begin(outage);
        for told in trio.all_told() {
            let took = told.wait_for("127.0.0.2", LIMIT) - died_at;
            eprintln!("{outage:?}: {} went to the standby after {took:?}", told.by());
            assert!(took <= BUSY * (outage.fall_time() + REACTION), "{outage:?}, {}: {took:?}", told.by());
            assert!(took > Instance::CHECK_INTERVAL, "by a single check: {took:?}");
        }
        let well_from = clock::now();
        trio.end(outage);
        trio.expect_return(well_from, clock::now());
    }
    // One that fails again while it is held off has to be well for as long anew, and nobody is sent there and back meanwhile.
    trio.begin(Outage::Illness);
    wait_until("the standby takes over", LIMIT, || {
        trio.all_told().iter().all(|told| told.latest() == "127.0.0.2")
    });
    trio.end(Outage::Illness);
    wait_until("it is held off", LIMIT, || trio.state_of("one") == ("up".to_owned(), HELD));
    trio.begin(Outage::Illness);
    wait_until("it fails again", LIMIT, || trio.state_of("one").0 == "failing");
    let well_from = clock::now();
    trio.end(Outage::Illness);
    trio.expect_return(well_from, clock::now());

    let there_and_back = ["127.0.0.2", "127.0.0.1"].repeat(outages.len() + 1);
    trio.expect_moves(&there_and_back);
    // It failed, was back, and took its tier again; it was back and failed once more in the last round.
    assert_eq!(trio.writes() - written, 3 * there_and_back.len() as u64 / 2 + 2, "records of the primary");
    trio.expect_calm();
}

fn stay_until_told(kind: Kind) {
    let mut trio = Trio::start(kind, &["--failback", "manual", "--failback-after", "1s"]);
    trio.begin(Outage::Death);
    wait_until("the standby takes over", LIMIT, || {
        trio.all_told().iter().all(|told| told.latest() == "127.0.0.2")
    });
    assert_eq!(trio.fail_back(), "no instance of this sidecar is held off\n", "it is not well yet");
    trio.end(Outage::Death);
    wait_until("it is held off", LIMIT, || trio.state_of("one") == ("up".to_owned(), HELD));
    trio.expect_moves(&["127.0.0.2"]);

    let said_at = clock::now();
    assert_eq!(trio.fail_back(), "1 instance takes its tier again\n");
    for told in trio.all_told() {
        let took = told.wait_for("127.0.0.1", LIMIT) - said_at;
        eprintln!("{} came back {took:?} after it was said", told.by());
        assert!(took <= BUSY * REACTION, "{}: {took:?}", told.by());
    }
    trio.expect_moves(&["127.0.0.2", "127.0.0.1"]);
    assert_eq!(trio.fail_back(), "no instance of this sidecar is held off\n");
    trio.expect_calm();
}

/// A primary at 127.0.0.1, its standby at 127.0.0.2, and a sidecar that only reads, which is asked all the time.
struct Trio {
    fleet: Fleet,
    reader: Sidecar,
    by_dns: Told,
    by_http: Told,
}

impl Trio {
    /// Returns once lookups are told of the primary, and both are known.
    fn start(kind: Kind, settings: &[&str]) -> Self {
        let mut fleet = Fleet::start_on(kind, settings);
        fleet.grow("two", "127.0.0.2", "priority: 10");
        let reader = fleet.reader();
        wait_until("both are known", LIMIT, || {
            ["one", "two"].map(|id| state_of(&reader, id)) == [("up".to_owned(), 0), ("up".to_owned(), 10)]
        });
        let [by_dns, by_http] = [Asked::Dns, Asked::Http].map(|asked| Told::by_asking(asked, &reader, "web"));
        let trio = Self { fleet, reader, by_dns, by_http };
        for told in trio.all_told() {
            told.wait_for("127.0.0.1", LIMIT);
        }
        trio
    }

    fn begin(&mut self, outage: Outage) {
        outage.begin(&mut self.fleet.instances[0].web);
    }

    fn end(&mut self, outage: Outage) {
        outage.end(&mut self.fleet.instances[0].web);
    }

    fn all_told(&self) -> [&Told; 2] {
        [&self.by_dns, &self.by_http]
    }

    /// The status and the tier of an instance at the reader.
    fn state_of(&self, id: &str) -> (String, u64) {
        state_of(&self.reader, id)
    }

    /// What the command prints.
    fn fail_back(&self) -> String {
        self.fleet.instances[0].tell(&["failback", "web"])
    }

    /// Txns that the primary's sidecar has written its record with.
    fn writes(&self) -> u64 {
        let primary = &self.fleet.instances[0].sidecar;
        primary.metric("rollcall_registry_writes_total").expect("it counts them")
    }

    /// Waits until lookups are told of the primary again, which was well at some time between these.
    fn expect_return(&self, well_from: Instant, well_by: Instant) {
        for told in self.all_told() {
            let back_at = told.wait_for("127.0.0.1", LIMIT);
            let took = back_at - well_by;
            eprintln!("{} came back after {took:?}", told.by());
            assert!(back_at - well_from >= FAILBACK_AFTER, "{}: {took:?}", told.by());
            assert!(took <= FAILBACK_AFTER + BUSY * (RISE_TIME + REACTION), "{}: {took:?}", told.by());
        }
    }

    /// Looks on for a while, and demands that answers went these ways since the start, and no others.
    fn expect_moves(&self, moves: &[&str]) {
        std::thread::sleep(LOOK);
        let expected = [&["127.0.0.1"], moves].concat();
        for told in self.all_told() {
            assert_eq!(told.all(), expected, "{}", told.by());
        }
    }

    /// Nothing went wrong that lookups do not tell.
    fn expect_calm(&self) {
        assert_eq!(self.reader.metric("rollcall_registry_defects_total"), Some(0));
        let instances = self.fleet.instances.iter().map(|instance| &instance.sidecar);
        for sidecar in instances.chain([&self.reader]) {
            assert!(!sidecar.log().contains("panicked"), "{}", sidecar.log());
        }
    }
}

fn state_of(reader: &Sidecar, id: &str) -> (String, u64) {
    let find = || {
        let answer = http::get(reader.http.number(), "/api/v1/services/default/web").ok()?.json();
        let one = answer["instances"].as_array()?.iter().find(|one| one["id"] == id)?.clone();
        Some((one["status"].as_str()?.to_owned(), one["effective_priority"].as_u64()?))
    };
    find().unwrap_or_default()
}
