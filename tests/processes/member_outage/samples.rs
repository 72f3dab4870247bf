//! What a sidecar tells of `web` while it is asked all the time, half over DNS and half over HTTP.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rollcall::clock;

use super::{INSTANCES, NAME};
use crate::support::dns::{A, ask_udp};
use crate::support::message::{Message, name_octets, query};
use crate::support::{Sidecar, http};

/// A thousand lookups a second, by as many threads as there are here, each of which waits for its answers.
const EVERY: Duration = Duration::from_millis(1);
const SAMPLERS: [Asked; 4] = [Asked::Dns, Asked::Http, Asked::Dns, Asked::Http];
/// Of RFC 8914: the answer may be behind.
const STALE_ANSWER: u16 = 3;

/// How a lookup is made.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// For addresses, over UDP and with EDNS.
    Dns,
    /// For the instances, of which those count that are selected.
    Http,
}

/// Asks all the time and remembers what was not the right answer.
pub(super) struct Sampler {
    began: Instant,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Samples>>,
}

/// What came back.
#[derive(Default)]
pub(super) struct Samples {
    count: u32,
    /// How many answers over DNS said that they may be behind.
    pub(super) stale: u32,
    gaps: Vec<String>,
    took: Duration,
}

impl Sampler {
    pub(super) fn start(sidecar: &Sidecar) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let began = clock::now();
        let start = |(asked, number)| {
            let (end, first) = (Arc::clone(&is_over), began + EVERY * number);
            let port = match asked {
                Asked::Dns => sidecar.dns.number(),
                Asked::Http => sidecar.http.number(),
            };
            thread::spawn(move || sample_until(&end, first, asked, port))
        };
        let threads = SAMPLERS.into_iter().zip(0..).map(start).collect();
        Self { began, is_over, threads }
    }

    pub(super) fn stop(self) -> Samples {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().map(|thread| thread.join().expect("the sampler ends well"));
        let mut all = ended.fold(Samples::default(), |mut all, samples| {
            all.count += samples.count;
            all.stale += samples.stale;
            all.gaps.extend(samples.gaps);
            all
        });
        all.took = clock::now() - self.began;
        all
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, stale, gaps, took } = self;
        write!(f, "{count} answers in {took:?}, {stale} of them said to be stale, {} gaps", gaps.len())
    }
}

impl Samples {
    /// Every lookup that was made was answered. One in ten of those that were due is enough where the machine has other things to do.
    pub(super) fn expect_no_gap(&self) {
        assert!(self.gaps.is_empty(), "{} of {}: {:?}", self.gaps.len(), self.count, self.gaps);
        let least = self.took.as_millis() / EVERY.as_millis() / 10;
        assert!(u128::from(self.count) > least, "only {} of {least} lookups were made", self.count);
    }
}

/// Asks when it is due, and what is late at once.
fn sample_until(end: &AtomicBool, first: Instant, asked: Asked, port: u16) -> Samples {
    let every = EVERY * u32::try_from(SAMPLERS.len()).expect("a few");
    let expected: Vec<_> = (1..=INSTANCES).map(|number| format!("127.0.0.{number}")).collect();
    let (mut samples, mut due) = (Samples::default(), first);
    while !end.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(clock::now()));
        due += every;
        let told = match asked {
            Asked::Dns => by_dns(port),
            Asked::Http => by_http(port),
        };
        samples.count += 1;
        match told {
            Ok(told) if told.addresses == expected => samples.stale += u32::from(told.has_stale_error),
            Ok(told) => samples.gaps.push(format!("{asked:?} {}: {:?}", samples.count, told.addresses)),
            Err(what) => samples.gaps.push(format!("{asked:?} {}: {what}", samples.count)),
        }
    }
    samples
}

/// One answer.
struct Told {
    /// Sorted.
    addresses: Vec<String>,
    has_stale_error: bool,
}

/// What was told, or what came instead.
fn by_dns(port: u16) -> Result<Told, String> {
    let question = query(1, &name_octets(&format!("{NAME}.")), A, Some(1232));
    let packet = ask_udp(port, &question, Duration::from_secs(1)).ok_or("silence")?;
    let message = Message::read(&packet).ok_or("no message")?;
    if message.rcode() != 0 {
        return Err(message.to_string());
    }
    let address = |data: &[u8]| <[u8; 4]>::try_from(data).map(Ipv4Addr::from);
    let addresses = message.answers.iter().filter_map(|record| address(&record.data).ok());
    let mut addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
    addresses.sort();
    Ok(Told { addresses, has_stale_error: message.extended_error == Some(STALE_ANSWER) })
}

/// What was told, or what came instead.
fn by_http(port: u16) -> Result<Told, String> {
    let answer =
        http::get(port, "/api/v1/services/default/web").map_err(|error| format!("silence: {error}"))?;
    if answer.status != 200 {
        return Err(format!("status {}", answer.status));
    }
    let service = answer.json();
    let selected =
        service["instances"].as_array().into_iter().flatten().filter(|one| one["selected"] == true);
    let mut addresses: Vec<_> =
        selected.filter_map(|one| Some(one["addresses"][0].as_str()?.to_owned())).collect();
    addresses.sort();
    Ok(Told { addresses, has_stale_error: false })
}

/// Looks all the time how old the view is said to be while it is said to be stale.
pub(super) struct Ages {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Ages {
    pub(super) fn start(port: u16) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let end = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut oldest = Duration::ZERO;
            while !end.load(Ordering::Relaxed) {
                let service = http::get(port, "/api/v1/services/default/web").expect("it answers").json();
                if service["stale"] == true {
                    let age_ms = service["age_ms"].as_u64().expect("its age is known");
                    oldest = oldest.max(Duration::from_millis(age_ms));
                }
                thread::sleep(Duration::from_millis(100));
            }
            oldest
        });
        Self { is_over, thread }
    }

    /// How old a stale view was at most.
    pub(super) fn stop(self) -> Duration {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it ends well")
    }
}
