//! The services of a view.

use std::fmt;
use std::iter::Map;
use std::ops::Index;
use std::sync::Arc;

use super::chunked::{self, Chunked, Difference, Keyed};
use super::name::ServiceKey;
use super::view::Service;

/// Services by their names, which views share in chunks: see [`Chunked`].
#[derive(Clone, Default)]
pub struct Services(Chunked<Service>);

impl Keyed for Service {
    type Key = ServiceKey;

    fn key(&self) -> &ServiceKey {
        &self.key
    }
}

impl Services {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one of this name.
    pub fn contains_key(&self, key: &ServiceKey) -> bool {
        self.get(key).is_some()
    }

    /// The one of this name.
    pub fn get(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.0.find(key)
    }

    /// The same, to be changed in this view alone, which costs a copy of its chunk: only for who has something to change.
    pub fn get_mut(&mut self, key: &ServiceKey) -> Option<&mut Arc<Service>> {
        self.get_mut_if(key, |_| true)
    }

    /// The same, if `is_to_change` says so; else nothing is copied.
    pub fn get_mut_if(
        &mut self,
        key: &ServiceKey,
        is_to_change: impl FnOnce(&Service) -> bool,
    ) -> Option<&mut Arc<Service>> {
        self.0.find_mut_if(key, |service| is_to_change(service))
    }

    /// Puts one in the place of that of its name, or adds it.
    pub fn insert(&mut self, service: Arc<Service>) {
        self.0.put(service);
    }

    /// Takes the one of this name out.
    pub fn remove(&mut self, key: &ServiceKey) -> Option<Arc<Service>> {
        self.0.take(key)
    }

    /// All of them with their names, in the order of these.
    pub fn iter(&self) -> Iter<'_> {
        self.0.iter().map(|service| (&service.key, service))
    }

    /// Their names, in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &ServiceKey> + Clone {
        self.0.iter().map(|service| &service.key)
    }

    /// All of them, in the order of their names.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> + Clone {
        self.0.iter()
    }

    #[cfg(test)]
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Arc<Service>> {
        self.0.iter_mut()
    }

    /// Those whose names are not less than this, in order.
    pub fn starting_at(&self, key: &ServiceKey) -> impl Iterator<Item = &Arc<Service>> {
        self.0.starting_at(key)
    }

    /// What is not the same in `after`, in the order of names: see [`Chunked::differences`].
    pub(super) fn differences<'a>(
        &'a self,
        after: &'a Self,
    ) -> impl Iterator<Item = Difference<'a, Service>> {
        self.0.differences(&after.0)
    }
}

/// See [`Services::iter`].
pub(super) type Iter<'a> =
    Map<chunked::Iter<'a, Service>, fn(&'a Arc<Service>) -> (&'a ServiceKey, &'a Arc<Service>)>;

impl<'a> IntoIterator for &'a Services {
    type Item = (&'a ServiceKey, &'a Arc<Service>);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl Index<&ServiceKey> for Services {
    type Output = Arc<Service>;

    fn index(&self, key: &ServiceKey) -> &Arc<Service> {
        self.get(key).expect("there is a service of this name")
    }
}

impl FromIterator<Arc<Service>> for Services {
    /// In any order. Of several with one name the last counts.
    fn from_iter<I: IntoIterator<Item = Arc<Service>>>(services: I) -> Self {
        Self(services.into_iter().collect())
    }
}

impl<const N: usize> From<[Arc<Service>; N]> for Services {
    fn from(services: [Arc<Service>; N]) -> Self {
        services.into_iter().collect()
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::sample::key;

    #[test]
    fn there_is_one_of_each_name_in_their_order() {
        let service = |name: &str, min_healthy| {
            let mut service = Service::new(key(name));
            service.settings.min_healthy = min_healthy;
            Arc::new(service)
        };
        let mut services: Services = [service("web", 1), service("api", 1), service("web", 2)].into();
        let names = |services: &Services| services.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&services), ["api.default", "web.default"]);
        assert_eq!(services[&key("web")].settings.min_healthy, 2);

        let before = services.clone();
        Arc::make_mut(services.get_mut(&key("web")).unwrap()).settings.min_healthy = 3;
        services.insert(service("db", 1));
        assert!(services.remove(&key("api")).is_some() && services.remove(&key("api")).is_none());
        assert_eq!(names(&services), ["db.default", "web.default"]);
        assert_eq!((names(&before).len(), before[&key("web")].settings.min_healthy), (2, 2));
        let differences: Vec<_> = before.differences(&services).collect();
        let [Difference::Gone(api), Difference::New(db), Difference::Changed(_, web)] = differences[..]
        else {
            panic!("{differences:?}");
        };
        assert_eq!([api, db, web].map(|service| service.key.clone()), [key("api"), key("db"), key("web")]);
        assert_eq!(web.settings.min_healthy, 3);
        let from: Vec<_> = services.starting_at(&key("e")).map(|service| service.key.clone()).collect();
        assert_eq!(from, [key("web")]);
    }
}
