//! Follows all names, and the instances of services that are looked up.
//!
//! ```text
//! root, each namespace: a persistent watch ──► its list is read again ──► names
//! lookup ──► Demand ──► Following (pure) ──► each service: a persistent recursive watch, read whole once, then as any other
//!                                        └─► the watch is ended
//! ```
//!
//! - What happens to instances of services that are not followed is not told by the server, so that it costs nothing. The settings of
//!   a service come with its instances: nobody reads them before.
//! - All these watches feed one queue, so that events and what the [`Subscriber`](super::subscriber) is asked keep their order. A member
//!   counts this client as a follower of what it has a recursive watch on, so that a barrier waits for it there and nowhere else.
//! - While there is no connection nothing lapses: what is known then cannot be had again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{debug, info};

use super::following::Following;
use super::walk::{
    Listed, Scope, list_namespaces, list_services_of, pipelined, walk_instances, walk_services,
};
use super::{Mirror, PUBLISH_GAP, ReadOutcome, Source, WALK_CHUNK};
use crate::client::{ClientError, Watcher};
use crate::clock;
use crate::registry::demand::Demand;
use crate::registry::layout::{Layout, Place};
use crate::registry::name::{Label, ServiceKey};
use crate::znode::{AddWatchMode, WatchedEvent};

/// What a mirror knows that follows what is looked up.
#[derive(Debug)]
pub(super) struct OnDemand {
    demand: Arc<Demand>,
    layout: Layout,
    following: Following,
    /// Services that are watched.
    services: BTreeSet<ServiceKey>,
    /// Namespaces whose lists are watched.
    namespaces: BTreeSet<Label>,
    /// Lists that have changed since they were read.
    dirty: DirtyNames,
    /// Paths that are watched and need not be any more.
    unwatch: BTreeSet<String>,
}

/// Which lists of names have changed.
#[derive(Debug, Default)]
struct DirtyNames {
    /// That of the namespaces.
    is_root: bool,
    namespaces: BTreeSet<Label>,
}

impl DirtyNames {
    fn is_empty(&self) -> bool {
        !self.is_root && self.namespaces.is_empty()
    }
}

impl OnDemand {
    fn has_work(&self) -> bool {
        !self.dirty.is_empty() || !self.unwatch.is_empty() || self.following.unread().next().is_some()
    }
}

/// Waits until a lookup asks for something.
pub(super) async fn stirred(on_demand: Option<&OnDemand>) {
    match on_demand {
        Some(on_demand) => on_demand.demand.stirred().await,
        None => std::future::pending().await,
    }
}

impl Mirror {
    /// The same mirror, which follows all names, and the instances of those services alone that are the sidecar's own by its view settings,
    /// or that `demand` asks for, until nobody has looked them up for the `idle` time. Its source must be a whole registry.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[must_use]
    pub fn on_demand(mut self, idle: Duration, demand: Arc<Demand>) -> Self {
        let Source::Registry { layout, .. } = &self.source else {
            panic!("only a whole registry has names that can be followed")
        };
        let (layout, now) = (layout.clone(), clock::now());
        let own = self.upkeep.settings().home.services().clone();
        let mut following = Following::new(idle, own, self.state.view(), now);
        // A view that was saved by a sidecar that followed everything may have more than is followed here.
        for surplus in following.lapse(self.state.view(), now) {
            self.state.on_unfollowed(&surplus);
        }
        let on_demand = OnDemand {
            demand,
            layout,
            following,
            services: BTreeSet::new(),
            namespaces: BTreeSet::new(),
            dirty: DirtyNames::default(),
            unwatch: BTreeSet::new(),
        };
        Self { on_demand: Some(on_demand), ..self }
    }

    /// Takes that the sidecar has these services of its own.
    pub(super) fn on_own_services(&mut self, own: &BTreeSet<ServiceKey>) {
        if let Some(on_demand) = &mut self.on_demand {
            on_demand.following.set_always(own.clone(), self.state.view(), clock::now());
        }
    }

    /// Takes note of what lookups asked for, and of what nobody has looked up for long.
    pub(super) fn hear_demand(&mut self) {
        let Some(on_demand) = &mut self.on_demand else { return };
        let (view, now) = (self.state.view(), clock::now());
        for service in on_demand.demand.take() {
            on_demand.following.on_asked(service, view, now);
        }
        if self.is_connected && !self.must_walk {
            let lapsed = on_demand.following.lapse(view, now);
            for service in &lapsed {
                debug!(%service, "followed no more");
                self.stats.lapses.fetch_add(1, Ordering::Relaxed);
                self.unfollow(service);
            }
            if !lapsed.is_empty() {
                info!(services = lapsed.len(), "nobody looks them up, followed no more");
                // Before the watch is ended: what is shown is followed.
                self.publish();
            }
        }
    }

    /// Whether there is something to do that lookups, or their absence, or new names ask for.
    pub(super) fn has_demand(&self) -> bool {
        self.on_demand.as_ref().is_some_and(OnDemand::has_work)
    }

    /// Whether a list of names was told to have changed and was not read since.
    pub(super) fn has_untold_names(&self) -> bool {
        self.on_demand.as_ref().is_some_and(|on_demand| !on_demand.dirty.is_empty())
    }

    /// Whether events about `place` are to be looked at: one of a service that has just lapsed may still be on its way.
    pub(super) fn is_watched(&self, place: &Place) -> bool {
        let (Place::Service(service) | Place::Instance(service, _)) = place;
        self.on_demand.as_ref().is_none_or(|on_demand| on_demand.services.contains(service))
    }

    /// Whether a list of names that was not read yet may tell of `place`.
    pub(super) fn is_told_by_name(&self, place: &Place) -> bool {
        let (Place::Service(service) | Place::Instance(service, _)) = place;
        self.on_demand.as_ref().is_some_and(|on_demand| {
            on_demand.dirty.is_root || on_demand.dirty.namespaces.contains(&service.namespace)
        })
    }

    /// Takes an event that is about no service.
    pub(super) fn on_name_event(&mut self, event: &WatchedEvent) {
        let Some(on_demand) = &mut self.on_demand else { return };
        if event.path == on_demand.layout.root() {
            on_demand.dirty.is_root = true;
        } else if let Some(namespace) = on_demand.layout.namespace_at(&event.path)
            && on_demand.namespaces.contains(&namespace)
        {
            on_demand.dirty.namespaces.insert(namespace);
        }
    }

    /// Ends watches, reads lists of names that have changed, and services that are to be followed.
    pub(super) async fn meet_demand(&mut self, watcher: &Watcher) -> Result<(), ClientError> {
        if let Some(published_at) = self.published_at {
            // What else is asked for meanwhile is read together.
            tokio::time::sleep_until((published_at + PUBLISH_GAP).into()).await;
            self.hear_demand();
        }
        self.end_watches().await?;
        self.read_names(watcher).await?;
        self.read_wanted(watcher).await?;
        self.publish();
        Ok(())
    }

    /// Everything by name, for a walk; what is followed is watched, and to be read.
    pub(super) async fn list_followed(&mut self, watcher: &Watcher) -> Result<Listed, ClientError> {
        self.end_watches().await?;
        let Some(on_demand) = &mut self.on_demand else { return Ok(Listed::default()) };
        // What is told from here on is told of lists that are read later.
        on_demand.dirty = DirtyNames::default();
        let namespaces = self.watched_namespaces(watcher).await?;
        let mut listed = self.list_names(namespaces).await?;
        let Some(on_demand) = &self.on_demand else { return Ok(listed) };
        let (services, names): (Vec<_>, Vec<_>) = std::mem::take(&mut listed.services)
            .into_iter()
            .partition(|(service, _)| on_demand.following.includes(service));
        listed.services = services;
        listed.names = names.into_iter().map(|(service, _)| service).collect();
        self.watch_services(watcher, &listed.services).await?;
        Ok(listed)
    }

    /// Takes what became of services that were to be read.
    pub(super) fn settle_demand<'a>(&mut self, read: impl IntoIterator<Item = &'a ServiceKey>) {
        let Some(on_demand) = &mut self.on_demand else { return };
        let view = self.state.view();
        let mut unfollowed = Vec::new();
        for service in read {
            match view.services.get(service) {
                Some(known) if known.is_followed => on_demand.following.on_read(service),
                // Its list was refused; the next lookup tries again.
                Some(_) => unfollowed.push(service.clone()),
                None => {}
            }
        }
        unfollowed.extend(on_demand.services.iter().filter(|it| !view.services.contains_key(it)).cloned());
        for service in unfollowed {
            self.unfollow(&service);
        }
    }

    /// From now on no more than its name is known of a service, if that.
    fn unfollow(&mut self, service: &ServiceKey) {
        let Some(on_demand) = &mut self.on_demand else { return };
        on_demand.following.on_gone(service);
        if on_demand.services.remove(service) {
            on_demand.unwatch.insert(on_demand.layout.service(service));
        }
        self.dirty.retain(|place, _| {
            let (Place::Service(of) | Place::Instance(of, _)) = place;
            of != service
        });
        self.state.on_unfollowed(service);
    }

    async fn end_watches(&mut self) -> Result<(), ClientError> {
        let Some(on_demand) = &mut self.on_demand else { return Ok(()) };
        if on_demand.unwatch.is_empty() {
            return Ok(());
        }
        let client = &self.client;
        let ended = pipelined(on_demand.unwatch.clone(), |path| {
            let (client, path) = (client.clone(), path.clone());
            async move {
                match client.unwatch(path).await {
                    // The client has forgotten it, and a server that knows of none has, too.
                    Err(error) if error.op_error().is_none() => Err(error),
                    Ok(()) | Err(_) => Ok(()),
                }
            }
        });
        ended.await?;
        on_demand.unwatch.clear();
        Ok(())
    }

    /// Lists the namespaces, watches those that are new, and forgets those that are gone.
    async fn watched_namespaces(&mut self, watcher: &Watcher) -> Result<Vec<Label>, ClientError> {
        let Some(on_demand) = &mut self.on_demand else { return Ok(Vec::new()) };
        let (client, layout) = (&self.client, &on_demand.layout);
        let namespaces = list_namespaces(client, layout).await?;
        let new: Vec<_> = namespaces.iter().filter(|it| !on_demand.namespaces.contains(*it)).collect();
        let watched = pipelined(new, |namespace| {
            client.watch_also(watcher, layout.namespace(namespace), AddWatchMode::Persistent)
        });
        let watched = watched.await?;
        on_demand.namespaces.extend(watched.into_iter().map(|(namespace, ())| namespace.clone()));
        let is_there: BTreeSet<_> = namespaces.iter().collect();
        let gone = on_demand.namespaces.iter().filter(|namespace| !is_there.contains(namespace));
        on_demand.unwatch.extend(gone.map(|namespace| layout.namespace(namespace)));
        on_demand.namespaces.retain(|namespace| is_there.contains(namespace));
        Ok(namespaces)
    }

    async fn list_names(&self, namespaces: Vec<Label>) -> Result<Listed, ClientError> {
        let Some(on_demand) = &self.on_demand else { return Ok(Listed::default()) };
        list_services_of(&self.client, &self.source, &on_demand.layout, namespaces).await
    }

    async fn watch_services(
        &mut self,
        watcher: &Watcher,
        services: &[(ServiceKey, String)],
    ) -> Result<(), ClientError> {
        let Some(on_demand) = &mut self.on_demand else { return Ok(()) };
        let client = &self.client;
        let new = services.iter().filter(|(service, _)| !on_demand.services.contains(service));
        let watched = pipelined(new.collect::<Vec<_>>(), |(_, path)| {
            client.watch_also(watcher, path.clone(), AddWatchMode::PersistentRecursive)
        });
        let watched = watched.await?;
        on_demand.services.extend(watched.into_iter().map(|((service, _), ())| service.clone()));
        Ok(())
    }

    /// Reads the lists of names that have changed.
    async fn read_names(&mut self, watcher: &Watcher) -> Result<(), ClientError> {
        let Some(on_demand) = &mut self.on_demand else { return Ok(()) };
        if on_demand.dirty.is_empty() {
            return Ok(());
        }
        let told = std::mem::take(&mut on_demand.dirty);
        let read = self.read_names_of(watcher, &told).await;
        if let (Err(_), Some(on_demand)) = (&read, &mut self.on_demand) {
            // They are to be read still.
            on_demand.dirty.is_root |= told.is_root;
            on_demand.dirty.namespaces.extend(told.namespaces);
        }
        read
    }

    async fn read_names_of(&mut self, watcher: &Watcher, told: &DirtyNames) -> Result<(), ClientError> {
        let mut namespaces = told.namespaces.clone();
        let mut gone = BTreeSet::new();
        if told.is_root {
            let before = self.on_demand.as_ref().map(|it| it.namespaces.clone()).unwrap_or_default();
            let listed: BTreeSet<_> = self.watched_namespaces(watcher).await?.into_iter().collect();
            namespaces.extend(listed.difference(&before).cloned());
            namespaces.retain(|namespace| listed.contains(namespace));
            let known = self.state.view().services.keys().map(|service| &service.namespace);
            gone = known.filter(|namespace| !listed.contains(*namespace)).cloned().collect();
        }
        let lists = u64::try_from(namespaces.len()).unwrap_or(u64::MAX);
        self.stats.reads.fetch_add(lists.saturating_add(u64::from(told.is_root)), Ordering::Relaxed);
        let Listed { services, refused, .. } = self.list_names(namespaces.iter().cloned().collect()).await?;
        let listed: BTreeSet<_> = services.into_iter().map(|(service, _)| service).collect();
        let is_listed =
            |namespace: &Label| namespaces.contains(namespace) && !refused.contains_key(namespace);
        let missing = self.state.view().services.keys().filter(|service| {
            gone.contains(&service.namespace) || (is_listed(&service.namespace) && !listed.contains(*service))
        });
        let missing: Vec<_> = missing.cloned().collect();
        let now = clock::now();
        for service in &missing {
            self.state.on_read(&Place::Service(service.clone()), &ReadOutcome::Missing, now);
        }
        for service in &listed {
            self.state.on_name(service);
        }
        let Some(on_demand) = &mut self.on_demand else { return Ok(()) };
        for service in &listed {
            let known = self.state.view().services.get(service);
            on_demand.following.on_name(service, known.is_some_and(|known| known.is_followed));
        }
        debug!(names = listed.len(), gone = missing.len(), "read names");
        self.settle_demand(&missing);
        Ok(())
    }

    /// Begins to follow some of the services that are wanted: watches them, then reads all of each.
    async fn read_wanted(&mut self, watcher: &Watcher) -> Result<(), ClientError> {
        let Some(on_demand) = &self.on_demand else { return Ok(()) };
        let wanted = on_demand.following.unread().take(WALK_CHUNK);
        let services: Vec<_> =
            wanted.map(|service| (service.clone(), on_demand.layout.service(service))).collect();
        if services.is_empty() {
            return Ok(());
        }
        self.watch_services(watcher, &services).await?;
        let listed = Listed { services: services.clone(), ..Listed::default() };
        let (walk, changed) =
            walk_services(&self.client, &self.source, listed, &self.state, Scope::Changed).await?;
        let walked = walk_instances(&self.client, &self.source, &walk, changed).await?;
        let now = clock::now();
        for (service, _) in &services {
            match walked.get(service) {
                Some(walked) => {
                    self.stats.walk_reads.fetch_add(walked.reads(), Ordering::Relaxed);
                    self.state.on_walked(service, walked, now);
                    self.stats.follows.fetch_add(1, Ordering::Relaxed);
                }
                None if walk.has(service) => {}
                None => self.state.on_read(&Place::Service(service.clone()), &ReadOutcome::Missing, now),
            }
        }
        self.settle_demand(services.iter().map(|(service, _)| service));
        Ok(())
    }
}
