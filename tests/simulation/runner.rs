//! Telling many stories, and one that fails until it is small.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::alarm::Listener;
use crate::coverage::Coverage;
use crate::profile::{Fault, Story};
use crate::time::SECOND;
use crate::trace::Trace;
use crate::world::{self, Outcome};

/// What did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) text: String,
    /// Where the assertion stands.
    place: String,
}

impl Violation {
    /// The invariant, or the place of an assertion of the code under test.
    pub(crate) fn name(&self) -> &str {
        let name = self.text.split(':').next().unwrap_or_default();
        if is_invariant(name) { name } else { &self.place }
    }

    /// Whether it is an invariant, rather than an assertion of the code under test.
    #[cfg(rollcall_mutations)]
    pub(crate) fn is_named(&self) -> bool {
        self.name() != self.place
    }
}

fn is_invariant(name: &str) -> bool {
    name.strip_prefix('I').is_some_and(|number| number.parse::<u8>().is_ok())
}

thread_local! {
    static PANIC: RefCell<Option<Violation>> = const { RefCell::new(None) };
}

/// Tells a story; a panic is a violation.
pub(crate) fn attempt(story: &Story, trace: &Trace, level: LevelFilter) -> Result<Outcome, Violation> {
    keep_panics_quiet();
    PANIC.set(None);
    let _old = (crate::alarm::take_alarms(), crate::alarm::take_lines());
    let told = tracing::subscriber::with_default(Listener { level }, || {
        panic::catch_unwind(AssertUnwindSafe(|| world::tell(story, trace)))
    });
    told.map_err(|_payload| PANIC.take().expect("the hook has seen it"))
}

/// Panics of this thread are kept instead of printed, once.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some(TELLER) {
                return usual(info);
            }
            let payload = info.payload();
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
            // Of a comparison the name comes behind what the standard library says.
            let text = text.unwrap_or_default();
            let text = text.strip_prefix("assertion `left == right` failed: ").unwrap_or(&text).to_owned();
            let place = place.unwrap_or_default();
            PANIC.set(Some(Violation { text, place }));
        }));
    });
}

/// The name of threads that tell stories.
const TELLER: &str = "teller";
const THREADS: usize = 2;

/// Runs `act` on a thread on which panics are violations.
pub(crate) fn on_teller<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name(TELLER.to_owned());
        builder.spawn_scoped(scope, act).expect("a thread").join().expect("violations are caught")
    })
}

/// Runs `act` on as many threads as stories are told on.
pub(crate) fn on_tellers(act: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            std::thread::Builder::new().name(TELLER.to_owned()).spawn_scoped(scope, &act).expect("a thread");
        }
    });
}

/// What a story comes to.
pub(crate) fn outcome(story: &Story) -> Outcome {
    let told = on_teller(|| attempt(story, &Trace::off(), LevelFilter::WARN));
    told.unwrap_or_else(|violation| panic!("{}\ntold again by ROLLCALL_SEED={story}", violation.text))
}

/// Tells all stories, on all cores; the first that fails is made small and shown.
pub(crate) fn tell_all(stories: Vec<Story>) -> Coverage {
    let began = rollcall::clock::now();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let totals = Mutex::new((Coverage::new(), 0_u64, 0_u64));
    let failures_max =
        std::env::var("ROLLCALL_SIM_FAILURES").ok().and_then(|count| count.parse().ok()).unwrap_or(1);
    let tell = || {
        let mut coverage = Coverage::new();
        let (mut events, mut slowest) = (0, 0);
        while let Some(story) = stories.get(next.fetch_add(1, Ordering::Relaxed)) {
            match attempt(story, &Trace::off(), LevelFilter::WARN) {
                Ok(outcome) => {
                    coverage.add(&outcome.coverage);
                    events += outcome.events;
                    slowest = slowest.max(outcome.settled_in);
                }
                Err(violation) => {
                    let mut found = found.lock().expect("nobody panics holding it");
                    println!("{story}: {}", violation.text);
                    found.push((story.clone(), violation));
                    if found.len() >= failures_max {
                        next.store(stories.len(), Ordering::Relaxed);
                    }
                }
            }
        }
        let mut totals = totals.lock().expect("nobody panics holding it");
        totals.0.add(&coverage);
        totals.1 += events;
        totals.2 = totals.2.max(slowest);
    };
    on_tellers(tell);
    let mut found = found.into_inner().expect("nobody panicked holding it");
    found.sort_by_key(|(story, _)| story.seed);
    let (coverage, events, slowest) = totals.into_inner().expect("nobody panicked holding it");
    let took = rollcall::clock::now().saturating_duration_since(began);
    println!(
        "{} stories, {events} events in {:.1} s; settled within {} ms\n{coverage}",
        stories.len(),
        took.as_secs_f64(),
        slowest / crate::time::MS
    );
    assert!(found.len() <= 1, "{} stories fail", found.len());
    if let Some((story, violation)) = found.first() {
        let smaller = on_teller(|| shrink(story, violation));
        tell_again(&smaller);
    }
    coverage
}

/// Tells a story with its trace, and fails if it does.
pub(crate) fn tell_again(story: &Story) {
    let told = on_teller(|| {
        let trace = Trace::on();
        attempt(story, &trace, LevelFilter::DEBUG).map_err(|violation| (violation, trace.last_lines()))
    });
    match told {
        Ok(outcome) => println!("all is well: {} events\n{}", outcome.events, outcome.coverage),
        Err((violation, lines)) => {
            println!("{}", lines.join("\n"));
            panic!("{} (at {})\ntold again by ROLLCALL_SEED={story}", violation.text, violation.place);
        }
    }
}

/// Makes a story that fails smaller, as long as the same invariant fails, for a minute at most.
fn shrink(story: &Story, violation: &Violation) -> Story {
    const TIME_MAX: Duration = Duration::from_secs(60);
    let began = rollcall::clock::now();
    let mut smallest = story.clone();
    let try_out = |candidate: Story, smallest: &mut Story| {
        let is_in_time = rollcall::clock::now().saturating_duration_since(began) < TIME_MAX;
        let fails = || attempt(&candidate, &Trace::off(), LevelFilter::WARN).err();
        if is_in_time && fails().is_some_and(|found| found.name() == violation.name()) {
            *smallest = candidate;
        }
    };
    let with = |story: &Story, change: &dyn Fn(&mut Story)| {
        let mut story = story.clone();
        change(&mut story);
        story
    };
    for clients in [1, 2] {
        let is_set = smallest.overrides.clients.is_some();
        if !is_set {
            try_out(with(&smallest, &|story| story.overrides.clients = Some(clients)), &mut smallest);
        }
    }
    try_out(with(&smallest, &|story| story.overrides.plain_network = true), &mut smallest);
    try_out(with(&smallest, &|story| story.overrides.without_triggers = true), &mut smallest);
    for fault in Fault::ALL {
        if smallest.profile().faults.iter().any(|(on, _)| *on == fault) {
            try_out(with(&smallest, &|story| story.overrides.without.push(fault)), &mut smallest);
        }
    }
    // The shortest storm, by halves.
    let mut step = smallest.profile().storm / 2;
    while step > SECOND / 10 {
        let storm = smallest.profile().storm.saturating_sub(step);
        let before = smallest.clone();
        try_out(
            with(&smallest, &|story| story.overrides.storm_ms = Some(storm / crate::time::MS)),
            &mut smallest,
        );
        if smallest == before {
            step /= 2;
        }
    }
    for (fault, _) in smallest.profile().faults {
        for number in (0..12).rev() {
            try_out(with(&smallest, &|story| story.overrides.skipped.push((fault, number))), &mut smallest);
        }
    }
    // What never came needs no skipping.
    for skipped in smallest.overrides.skipped.clone() {
        try_out(
            with(&smallest, &|story| story.overrides.skipped.retain(|other| *other != skipped)),
            &mut smallest,
        );
    }
    smallest
}
