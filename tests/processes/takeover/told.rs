//! What a sidecar tells of a service over a time: it is asked over and over, and every change is written down.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rollcall::clock;

use crate::support::dns::{A, ask_udp, question};
use crate::support::message::Message;
use crate::support::{Sidecar, http, wait_for};

/// From one answer to the next question.
const PAUSE: Duration = Duration::from_millis(5);

/// How it is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// For addresses, over UDP.
    Dns,
    /// For the instances, of which those count that are selected.
    Http,
}

/// The answers so far; it is asked until this is dropped.
#[derive(Debug)]
pub(super) struct Told {
    asked: Asked,
    answers: Arc<Mutex<Vec<Answer>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Answer {
    /// When it had come for the first time.
    at: Instant,
    /// The addresses in their order, or what was told instead.
    text: String,
}

impl Told {
    /// Asks `sidecar` for a service of the namespace `default` from now on.
    pub(super) fn by_asking(asked: Asked, sidecar: &Sidecar, service: &str) -> Self {
        let (answers, is_over) = (Arc::<Mutex<Vec<Answer>>>::default(), Arc::<AtomicBool>::default());
        let (written, end) = (Arc::clone(&answers), Arc::clone(&is_over));
        let (dns, http, service) = (sidecar.dns.number(), sidecar.http.number(), service.to_owned());
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let text = match asked {
                    Asked::Dns => by_dns(dns, &service),
                    Asked::Http => by_http(http, &service),
                };
                let at = clock::now();
                let mut answers = lock(&written);
                if answers.last().is_none_or(|last| last.text != text) {
                    answers.push(Answer { at, text });
                }
                drop(answers);
                thread::sleep(PAUSE);
            }
        });
        Self { asked, answers, is_over, thread: Some(thread) }
    }

    /// How it is asked, for messages.
    pub(super) fn by(&self) -> &'static str {
        match self.asked {
            Asked::Dns => "DNS",
            Asked::Http => "HTTP",
        }
    }

    /// The last answer.
    pub(super) fn latest(&self) -> String {
        lock(&self.answers).last().map(|last| last.text.clone()).unwrap_or_default()
    }

    /// Waits until this is the answer, and returns since when it is.
    ///
    /// # Panics
    ///
    /// When it is not within `limit`.
    pub(super) fn wait_for(&self, text: &str, limit: Duration) -> Instant {
        wait_for(&format!("{} tells {text}", self.by()), limit, || {
            lock(&self.answers).last().filter(|last| last.text == text).map(|last| last.at)
        })
    }

    /// All answers, one after the other.
    pub(super) fn all(&self) -> Vec<String> {
        lock(&self.answers).iter().map(|answer| answer.text.clone()).collect()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "it was asked to the end");
    }
}

fn lock(answers: &Mutex<Vec<Answer>>) -> MutexGuard<'_, Vec<Answer>> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn by_dns(port: u16, service: &str) -> String {
    let question = question(1, &format!("{service}.default.rollcall.internal"), A, 1);
    let packet = ask_udp(port, &question, Duration::from_secs(1));
    let Some(message) = packet.as_deref().and_then(Message::read) else { return "silence".to_owned() };
    if message.rcode() != 0 {
        return format!("code {}", message.rcode());
    }
    let address = |data: &[u8]| <[u8; 4]>::try_from(data).map(|octets| Ipv4Addr::from(octets).to_string());
    let addresses = message.answers.iter().map(|record| address(&record.data));
    sorted(addresses.map(|address| address.unwrap_or_else(|_| "no address".to_owned())))
}

fn by_http(port: u16, service: &str) -> String {
    let Ok(answer) = http::get(port, &format!("/api/v1/services/default/{service}")) else {
        return "silence".to_owned();
    };
    if answer.status != 200 {
        return format!("status {}", answer.status);
    }
    let service = answer.json();
    let instances = service["instances"].as_array().into_iter().flatten();
    let selected = instances.filter(|one| one["selected"] == true);
    sorted(selected.map(|one| one["addresses"][0].as_str().unwrap_or("no address").to_owned()))
}

fn sorted(addresses: impl Iterator<Item = String>) -> String {
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_unstable();
    addresses.join(" ")
}
