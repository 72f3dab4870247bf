use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::registry::check::{HealthState, Standings};
use crate::registry::name::{Label, ServiceKey};
use crate::registry::report::Verdict;

#[test]
fn the_rate_does_not_drift_and_jitter_only_shortens() {
    let (start, second) = (crate::clock::now(), Duration::from_secs(1));
    let slow = start + Duration::from_millis(900);
    assert_eq!(next_due(start, slow, second, Duration::ZERO), start + second);
    assert_eq!(next_due(start, start, second, second / 10), start + second * 9 / 10);
    let behind = start + Duration::from_millis(1_500);
    assert_eq!(next_due(start, behind, second, Duration::ZERO), start + second, "starts at once");
    let suspended = start + second * 100;
    assert_eq!(next_due(start, suspended, second, Duration::ZERO), suspended);
}

#[test]
fn in_virtual_time_a_dead_target_is_failing_within_interval_times_fall() {
    let (start, interval, fall) = (crate::clock::now(), Duration::from_secs(1), 3);
    let mut rng = fastrand::Rng::with_seed(7);
    for died_after_ms in (0..2_000).step_by(7) {
        let died = start + Duration::from_millis(died_after_ms);
        let (mut due, mut health) = (start, Health::new(1, fall));
        let fell = loop {
            // A connection is refused at once; one that is accepted takes its time.
            let answered = if due < died { due + interval / 3 } else { due };
            if health.on_result(due < died) == Some(HealthState::Failing) {
                break answered;
            }
            due = next_due(due, answered, interval, interval.mul_f64(0.1 * rng.f64()));
        };
        assert!(
            fell - died <= interval * fall,
            "died after {died_after_ms} ms, found {:?} later",
            fell - died
        );
    }
}

#[tokio::test]
async fn a_hang_fails_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = http::sample(listener.local_addr().unwrap());
    let result = Asker::new(CheckTarget::Http(Box::new(target))).ask_within(Duration::from_millis(50)).await;
    assert!(matches!(result, Err(CheckFailure::Timeout { .. })), "{result:?}");
}

#[tokio::test]
async fn a_server_that_dies_is_found_failing_within_interval_times_fall() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = CheckTarget::Tcp { server: listener.local_addr().unwrap() };
    let interval = Duration::from_millis(100);
    let check = sample(target, interval);
    let board = HealthBoard::default();
    let slot = board.add();
    let mut health = board.subscribe();
    let task = tokio::spawn(run(check, sample_key(), board, slot, TtlReports::default()));
    wait_for(&mut health, slot, HealthState::Passing).await;
    let died = crate::clock::now();
    drop(listener);
    wait_for(&mut health, slot, HealthState::Failing).await;
    let took = died.elapsed();
    // The promise is 300 ms and the time to be scheduled; the margin is for a busy machine.
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop(health);
    tokio::time::timeout(LONG, task).await.expect("ends when nobody listens").unwrap();
}

const LONG: Duration = Duration::from_secs(10);

async fn wait_for(health: &mut watch::Receiver<Standings>, slot: CheckSlot, state: HealthState) {
    let reached = health.wait_for(|now| now[&slot].state == state);
    tokio::time::timeout(LONG, reached).await.expect("in time").unwrap();
}

#[tokio::test]
async fn the_first_check_starts_after_the_delay() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = CheckTarget::Tcp { server: listener.local_addr().unwrap() };
    let delay = Duration::from_millis(300);
    let check = Check { start_delay: delay, rise: 1, ..sample(target, Duration::from_millis(100)) };
    let board = HealthBoard::default();
    let slot = board.add();
    let mut health = board.subscribe();
    let started = crate::clock::now();
    let task = tokio::spawn(run(check, sample_key(), board, slot, TtlReports::default()));
    wait_for(&mut health, slot, HealthState::Passing).await;
    assert!(started.elapsed() >= delay, "{:?}", started.elapsed());
    task.abort();
}

#[tokio::test]
async fn an_application_that_reports_passes_until_it_says_otherwise_or_nothing() {
    let ttl = Duration::from_millis(300);
    let source = CheckSource::Reported { ttl };
    let check = Check {
        name: label("app"),
        is_critical: true,
        source,
        start_delay: Duration::ZERO,
        rise: 1,
        fall: 1,
    };
    let (board, reports) = (HealthBoard::default(), TtlReports::default());
    let slot = board.add();
    let mut health = board.subscribe();
    let task = tokio::spawn(run(check, sample_key(), board, slot, reports.clone()));
    let report = async |verdict| {
        while reports.report(&sample_key(), verdict, "", crate::clock::now()).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    report(Verdict::Pass).await;
    wait_for(&mut health, slot, HealthState::Passing).await;
    report(Verdict::Fail).await;
    wait_for(&mut health, slot, HealthState::Failing).await;
    let passed = crate::clock::now();
    report(Verdict::Pass).await;
    wait_for(&mut health, slot, HealthState::Passing).await;
    wait_for(&mut health, slot, HealthState::Failing).await;
    assert!(passed.elapsed() >= ttl, "{:?}", passed.elapsed());
    drop(health);
    tokio::time::timeout(LONG, task).await.expect("ends when nobody listens").unwrap();
    assert!(reports.report(&sample_key(), Verdict::Pass, "", crate::clock::now()).is_err());
}

fn sample_key() -> CheckKey {
    let service = ServiceKey { namespace: label("default"), name: label("web") };
    CheckKey { service, id: label("web-0"), check: label("sample") }
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

/// Half the interval to answer, rise 2 and fall 3.
fn sample(target: CheckTarget, interval: Duration) -> Check {
    let asking = Asking { target, interval, timeout: interval / 2, jitter: interval / 10 };
    let source = CheckSource::Asked(asking);
    Check { name: label("sample"), is_critical: true, source, start_delay: Duration::ZERO, rise: 2, fall: 3 }
}
