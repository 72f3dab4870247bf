//! All sidecars and sessions together: how they come, restart and go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::super::failure::Failure;
use super::counts::Counts;
use super::light_sidecar::{Expected, LIMITS_REMEDY, LightSidecar, Site};
use crate::client::Client;

/// What is alive, and what is counted of what was.
#[derive(Debug)]
pub(super) struct Crowd {
    site: Site,
    /// By their numbers.
    sidecars: BTreeMap<u32, LightSidecar>,
    sessions: Vec<Client>,
    /// Counts of sidecars that are gone.
    retired: Counts,
}

/// Sidecars and sessions that come at a time: as many as servers accept in a row by custom.
const COMING_MAX: usize = 64;
/// How many go at a time: the servers have nothing else to do then.
const GOING_MAX: usize = 256;
/// How long opening a session may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one view is waited for before it is looked at anew what it should show.
const EXPECT_AGAIN: Duration = Duration::from_secs(2);
/// How long after the last registration views may show something else.
const AGREE_TIMEOUT: Duration = Duration::from_secs(120);

impl Crowd {
    pub(super) const fn new(site: Site) -> Self {
        Self { site, sidecars: BTreeMap::new(), sessions: Vec::new(), retired: Counts::ZERO }
    }

    pub(super) const fn sidecars(&self) -> &BTreeMap<u32, LightSidecar> {
        &self.sidecars
    }

    pub(super) fn sessions(&self) -> usize {
        self.sidecars.len() + self.sessions.len()
    }

    /// What all have counted, those that are gone as well.
    pub(super) fn counts(&self) -> Counts {
        let sidecars = self.sidecars.values().map(LightSidecar::counts);
        let sessions = self.sessions.iter().map(|client| Counts::of_client(client.stats()));
        sidecars.chain(sessions).fold(self.retired, |sum, counts| sum.plus(&counts))
    }

    /// Opens sessions that do nothing; `done` counts them.
    ///
    /// # Errors
    ///
    /// When one cannot be opened.
    pub(super) async fn open_sessions(&mut self, count: u32, done: &AtomicU64) -> Result<(), Failure> {
        let mut coming = JoinSet::new();
        let mut wanted = 0..count;
        loop {
            while coming.len() < COMING_MAX && wanted.next().is_some() {
                coming.spawn(open(Client::start(self.site.client.clone())));
            }
            let Some(opened) = coming.join_next().await else { return Ok(()) };
            self.sessions.push(opened.expect("opening does not panic and nobody aborts it")?);
            done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Starts sidecars and waits until each has registered; `done` counts them.
    ///
    /// # Errors
    ///
    /// When one cannot register.
    pub(super) async fn register(&mut self, count: u32, done: &AtomicU64) -> Result<(), Failure> {
        let mut coming = JoinSet::new();
        let mut wanted = 0..count;
        loop {
            while let Some(number) = (coming.len() < COMING_MAX).then(|| wanted.next()).flatten() {
                coming.spawn(start(self.site.clone(), number));
            }
            let Some(started) = coming.join_next().await else { return Ok(()) };
            let (number, sidecar) = started.expect("starting does not panic and nobody aborts it")?;
            self.sidecars.insert(number, sidecar);
            done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until every view shows every instance, and nothing else; `done` counts the views.
    ///
    /// # Errors
    ///
    /// When that takes too long.
    pub(super) async fn agree(&self, done: &AtomicU64) -> Result<(), Failure> {
        let all = async {
            let mut expected = self.expected().await;
            for sidecar in self.sidecars.values() {
                // Who has lost its session meanwhile registers with another.
                while timeout(EXPECT_AGAIN, sidecar.shows(&expected)).await.is_err() {
                    expected = self.expected().await;
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        timeout(AGREE_TIMEOUT, all).await.map_err(|_late| {
            let (shown, views) = (done.load(Ordering::Relaxed), self.sidecars.len());
            Failure::failed(format!(
                "only {shown} of {views} views showed all instances within {AGREE_TIMEOUT:?}; lower --sidecars, or look at the \
                 servers' logs"
            ))
        })
    }

    /// Every instance, once all sidecars have a session.
    async fn expected(&self) -> Expected {
        let mut expected = Expected::new();
        for sidecar in self.sidecars.values() {
            let (service, id, session) = sidecar.instance().await;
            expected.entry(service).or_default().insert(id, session);
        }
        expected
    }

    /// Has sidecars leave in order and come back as new ones, `parallel` at a time; `done` counts them. Returns how many could not
    /// leave in order.
    ///
    /// # Errors
    ///
    /// When one cannot register again.
    pub(super) async fn restart(
        &mut self,
        count: u32,
        parallel: usize,
        done: &AtomicU64,
    ) -> Result<u64, Failure> {
        let mut restarting = JoinSet::new();
        let numbers: Vec<_> = self.sidecars.keys().copied().collect();
        let mut chosen = spread(numbers.len(), count).map(|place| numbers[place]);
        let mut not_in_order = 0;
        loop {
            while let Some(number) = (restarting.len() < parallel).then(|| chosen.next()).flatten() {
                let Some(sidecar) = self.sidecars.remove(&number) else { continue };
                restarting.spawn(restart(self.site.clone(), number, sidecar));
            }
            let Some(restarted) = restarting.join_next().await else { return Ok(not_in_order) };
            let (number, (counts, is_in_order), sidecar) =
                restarted.expect("restarting does not panic and nobody aborts it")?;
            self.retired = self.retired.plus(&counts);
            not_in_order += u64::from(!is_in_order);
            self.sidecars.insert(number, sidecar);
            done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Closes all sessions; `done` counts them.
    pub(super) async fn end(&mut self, done: &AtomicU64) {
        // None of them is to follow how the others go.
        self.sidecars.values().for_each(LightSidecar::stop_following);
        let mut going = JoinSet::new();
        let mut sidecars = std::mem::take(&mut self.sidecars).into_values();
        let mut sessions = std::mem::take(&mut self.sessions).into_iter();
        loop {
            while going.len() < GOING_MAX {
                if let Some(sidecar) = sidecars.next() {
                    going.spawn(async move { sidecar.end().await });
                } else if let Some(client) = sessions.next() {
                    going.spawn(close(client));
                } else {
                    break;
                }
            }
            let Some(gone) = going.join_next().await else { return };
            let counts = gone.expect("closing does not panic and nobody aborts it");
            self.retired = self.retired.plus(&counts);
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn open(client: Client) -> Result<Client, Failure> {
    match timeout(OPEN_TIMEOUT, client.connected()).await {
        Ok(Ok(_session)) => Ok(client),
        // Nobody closes it here.
        Ok(Err(_)) | Err(_) => Err(Failure::failed(format!(
            "a session could not be opened within {OPEN_TIMEOUT:?} ({:?}); {LIMITS_REMEDY}",
            *client.state().borrow()
        ))),
    }
}

async fn close(client: Client) -> Counts {
    // A session that cannot be closed expires.
    let _expires = client.clone().close().await;
    Counts::of_client(client.stats())
}

async fn start(site: Site, number: u32) -> Result<(u32, LightSidecar), Failure> {
    let sidecar = LightSidecar::start(&site, number);
    sidecar.registered().await?;
    Ok((number, sidecar))
}

async fn restart(
    site: Site,
    number: u32,
    sidecar: LightSidecar,
) -> Result<(u32, (Counts, bool), LightSidecar), Failure> {
    let left = sidecar.leave().await;
    let (number, sidecar) = start(site, number).await?;
    Ok((number, left, sidecar))
}

/// `count` of `all` places, evenly spread.
fn spread(all: usize, count: u32) -> impl Iterator<Item = usize> {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(all);
    (0..count).map(move |index| index * all / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_spread_and_none_is_taken_twice() {
        let places = |all, count| spread(all, count).collect::<Vec<_>>();
        assert_eq!(places(10, 3), [0, 3, 6]);
        assert_eq!(places(4, 4), [0, 1, 2, 3]);
        assert_eq!(places(2, 5), [0, 1]);
        assert!(places(0, 5).is_empty() && places(5, 0).is_empty());
    }
}
