//! Which instances of a service a name asks for. Pure.
//!
//! What is left is chosen from as if the service had no others: the tier rule, the zone preference and the weights are the
//! same as for the whole.

use std::borrow::Cow;

use crate::registry::{Instance, LAST_RESORT, Label, Service, View};

/// Conditions that all hold; by default none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those that have the tag.
    pub tag: Option<Label>,
    /// Those in the zone whose name, in lower case, is this.
    pub zone: Option<Label>,
    /// Those of some tiers.
    pub tiers: Tiers,
}

/// Tiers of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tiers {
    /// The one that is offered, see [`crate::registry::select`].
    #[default]
    Offered,
    /// Tier 0.
    Primary,
    /// All others.
    Standby,
    /// Every one, side by side.
    All,
}

impl Filter {
    /// The service of `view` as it would be with the instances alone that are meant.
    pub fn apply<'a>(&self, service: &'a Service, view: &View) -> Cow<'a, Service> {
        if *self == Self::default() {
            return Cow::Borrowed(service);
        }
        Cow::Owned(view.narrowed(service, |instance| self.is_meant(instance)))
    }

    fn is_meant(&self, instance: &Instance) -> bool {
        let record = &instance.record;
        let has_tag = self.tag.as_ref().is_none_or(|tag| record.tags.contains(tag));
        let is_in_zone =
            |zone: &Label| record.zone.as_ref().is_some_and(|of| of.eq_ignore_ascii_case(zone.as_str()));
        let is_of_tier = match self.tiers {
            Tiers::Offered | Tiers::All => true,
            Tiers::Primary => instance.tier() == 0,
            Tiers::Standby => instance.tier() > 0 && instance.tier() < LAST_RESORT,
        };
        has_tag && is_of_tier && self.zone.as_ref().is_none_or(is_in_zone)
    }
}
