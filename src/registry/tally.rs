//! Who stood first in the answers of one service, beside who should have by the weights.
//!
//! Only services that are looked up have one: it is begun at the first change, or within 15 s, after the first lookup. Readers
//! count; the counts of one plan stay with it, and [`Tally::next`] takes them on to the next, so that they survive every
//! change of the service. What is counted in a view that was already replaced is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::select::shares;
use super::view::{Instance, Service, View};

/// The first places of a service's instances, in their order. Counting costs one atomic addition.
#[derive(Debug, Default)]
pub struct Tally {
    places: Box<[Place]>,
}

#[derive(Debug)]
struct Place {
    /// Whose it is.
    instance: Arc<Instance>,
    /// Which part of the lookups it should get under this plan.
    share: f64,
    /// How many it got under this plan.
    firsts: AtomicU64,
    before: Before,
}

/// What an instance got, and should have got, under earlier plans.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    firsts: u64,
    planned: f64,
}

impl Tally {
    /// Whether anything can be counted yet.
    pub(super) fn is_begun(&self) -> bool {
        !self.places.is_empty()
    }

    /// Notes that the instance at `index` of the service stood first in an answer.
    pub fn count(&self, index: usize) {
        if let Some(place) = self.places.get(index) {
            place.firsts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The tally of `service` from now on. Instances that have left are forgotten.
    pub(super) fn next(&self, service: &Service) -> Self {
        let (mut known, lookups) = (self.places.iter().peekable(), self.lookups());
        let place = |(instance, share): (&Arc<Instance>, Option<f64>)| {
            // Both are in the order of their ids.
            while known.next_if(|place| place.instance.id < instance.id).is_some() {}
            let before = known.next_if(|place| place.instance.id == instance.id);
            Place {
                instance: instance.clone(),
                share: share.unwrap_or_default(),
                firsts: AtomicU64::new(0),
                before: before.map_or_else(Before::default, |place| place.sum(lookups)),
            }
        };
        Self { places: service.instances.iter().zip(shares(service)).map(place).collect() }
    }

    /// The largest deviation of an instance's first places from those planned, relative to these, among instances for
    /// which chance alone makes little of it.
    fn skew(&self) -> Option<f64> {
        let lookups = self.lookups();
        let sums = self.places.iter().map(|place| place.sum(lookups));
        let known = sums.filter(|sum| sum.planned >= PLANNED_MIN);
        known.map(|sum| (as_f64(sum.firsts) - sum.planned).abs() / sum.planned).reduce(f64::max)
    }

    fn lookups(&self) -> u64 {
        self.places.iter().map(|place| place.firsts.load(Ordering::Relaxed)).sum()
    }
}

impl Place {
    fn sum(&self, lookups: u64) -> Before {
        Before {
            firsts: self.before.firsts + self.firsts.load(Ordering::Relaxed),
            planned: self.before.planned + as_f64(lookups) * self.share,
        }
    }
}

impl View {
    /// The largest deviation of any instance's first places in answers from what its weight and its zone gave it, relative to
    /// that; `None` while no instance was to stand first a thousand times. Chance makes it small, and smaller with
    /// every answer: some 3 % at a thousand first places, a tenth of that at a hundred thousand.
    pub fn skew(&self) -> Option<f64> {
        self.services.values().filter_map(|service| service.tally.skew()).reduce(f64::max)
    }
}

/// First places from which on one standard deviation is at most 3 %.
const PLANNED_MIN: f64 = 1_000.0;

#[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 may lose their last digits")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::sample::{instance, key, view_from};
    use crate::registry::select::select;

    #[test]
    fn answers_by_the_plan_have_next_to_no_skew_over_all_changes() {
        let mut view = looked_up(view_from("a", &[("app", APP), ("web", WEB)]));
        let mut rng = fastrand::Rng::with_seed(5);
        look_up(&view, 500, &mut rng);
        assert_eq!(view.skew(), None, "too few to tell");
        for round in 0..40 {
            look_up(&view, 500, &mut rng);
            let web = Arc::make_mut(view.services.get_mut(&key("web")).unwrap());
            match round % 4 {
                0 => drop(web.instances.take_nth(0)),
                1 => web.instances.put(Arc::new(instance(0, (Some("a"), 7)))),
                2 => Arc::make_mut(&mut web.instances[2]).record.weight = round,
                _ => web.settings.prefer_zone ^= true,
            }
            view.plan(&[key("web")].into());
        }
        let skew = view.skew().unwrap();
        assert!(skew < 0.1, "four standard deviations of the least: {skew}");
        let places = &view.services[&key("web")].tally.places;
        assert!(places.iter().skip(1).map(|place| place.before.firsts).sum::<u64>() > 15_000, "kept");
    }

    #[test]
    fn answers_against_the_plan_show() {
        let rows = &[(None, 3), (None, 3), (None, 2), (None, 2)];
        let view = looked_up(view_from("a", &[("web", rows)]));
        let web = &view.services[&key("web")];
        let count = |index, times| (0..times).for_each(|_| web.tally.count(index));
        count(0, 1_000);
        count(1, 1_000);
        assert_eq!(view.skew(), None, "none of them was to have a thousand");
        count(0, 4_000);
        let skew = view.skew().unwrap();
        assert!((skew - 3_200.0 / 1_800.0).abs() < 1e-9, "5000 instead of 1800: {skew}");
        web.tally.count(4);
    }

    /// The view after a lookup, and a change.
    fn looked_up(mut view: View) -> View {
        view.look_up(&key("web")).unwrap();
        view.plan(&[key("web")].into());
        view
    }

    fn look_up(view: &View, times: u32, rng: &mut fastrand::Rng) {
        let web = &view.services[&key("web")];
        (0..times).for_each(|_| web.tally.count(select(web, rng).first_index().unwrap()));
    }

    const APP: &[crate::registry::sample::Row<'_>] = &[(Some("a"), 5), (Some("b"), 3)];
    const WEB: &[crate::registry::sample::Row<'_>] =
        &[(Some("a"), 3), (Some("a"), 3), (Some("b"), 4), (Some("b"), 4)];
}
