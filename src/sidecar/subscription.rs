//! The settings of what a sidecar follows, and the sources that they make.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

#[cfg(test)]
use crate::config::schema;
use crate::config::{Mistake, Scalar};
use crate::registry::formats::Format;
use crate::registry::mirror::service_name;
use crate::registry::{Adopted, Label, Layout, Source, reserved};
use crate::znode::ZnodePath;

/// What of the registry is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SubscribeSettings {
    /// How much is followed: `all`, `namespaces` or `on-demand`. Default: `all`.
    pub mode: SubscribeMode,
    /// With `namespaces`: which, beside those of the sidecar itself and its services. Danger: others are unknown, as if they did not
    /// exist.
    #[cfg_attr(test, schemars(with = "Vec<schema::Label>"))]
    pub namespaces: Vec<String>,
    /// With `on-demand`: for how long nobody may look a service up before it is followed no more, `1m` to `1d`. Default `10m`. Danger: what
    /// is looked up less often is read anew each time, and cannot be had while the ensemble is away.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub idle: Option<Scalar>,
}

/// How much is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SubscribeMode {
    /// Everything.
    #[default]
    All,
    /// Some namespaces.
    Namespaces,
    /// All names, and the instances of the sidecar's own services and of what is looked up.
    OnDemand,
}

impl SubscribeSettings {
    /// The idle time by default.
    pub const IDLE: Duration = Duration::from_secs(10 * 60);
    /// The shortest and the longest: a shorter one reads again and again what is looked up every now and then, and a longer one follows for
    /// ever what was looked up once.
    pub const IDLE_BOUNDS: (Duration, Duration) =
        (Duration::from_secs(60), Duration::from_secs(24 * 60 * 60));

    /// Where what is looked up is followed, for how long nobody may look it up.
    pub(super) fn plan_idle(&self, mistakes: &mut Vec<Mistake>) -> Option<Duration> {
        let path = "subscribe.idle";
        if self.mode != SubscribeMode::OnDemand {
            if self.idle.is_some() {
                let message = "everything that is followed is followed always";
                let remedy = "leave it out, or set subscribe.mode to on-demand";
                mistakes.push(Mistake::new(path, message, remedy));
            }
            return None;
        }
        match &self.idle {
            Some(text) => text.to_duration_within(path, Self::IDLE_BOUNDS, mistakes),
            None => Some(Self::IDLE),
        }
    }
}

/// A part of the tree that others write, as the settings file has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AdoptSettings {
    /// In which format: `curator`, `spring`, `serverset`, `nerve`.
    pub format: Format,
    /// Where: for `curator` and `spring` the znode above all services (default `/services`), for the others that of one service.
    #[serde(default)]
    pub root: Option<String>,
    /// The namespace that it is shown in. Default: the format's name. Danger: the registry's own services of that name are not shown.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Label>"))]
    pub namespace: Option<String>,
    /// `serverset` and `nerve`: the service's name. Default: the last name of the root.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Label>"))]
    pub service: Option<String>,
}

/// Adopted parts: each has a watch and a task of its own.
const ADOPTED_MAX: usize = 64;
/// Namespaces, each of which has a watch and a task of its own.
const NAMESPACES_MAX: usize = 256;

/// Decides what is followed: `own` are the namespaces of the sidecar and its services.
pub(super) fn plan_sources(
    subscribe: &SubscribeSettings,
    adopt: &[AdoptSettings],
    layout: &Layout,
    own: BTreeSet<Label>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Source> {
    if adopt.len() > ADOPTED_MAX {
        let message = format!("{} parts are more than the {ADOPTED_MAX} that are followed", adopt.len());
        mistakes.push(Mistake::new("adopt", message, "leave some out"));
    }
    let adopted = plan_adopted(adopt, layout, mistakes);
    let mut sources = match subscribe.mode {
        SubscribeMode::All | SubscribeMode::OnDemand if subscribe.namespaces.is_empty() => {
            vec![Source::Registry { layout: layout.clone(), adopted: adopted.clone() }]
        }
        SubscribeMode::All => {
            mistakes.push(Mistake::new(
                "subscribe.namespaces",
                "all namespaces are followed already",
                "leave them out, or set subscribe.mode to namespaces",
            ));
            Vec::new()
        }
        SubscribeMode::OnDemand => {
            mistakes.push(Mistake::new(
                "subscribe.namespaces",
                "what is followed is decided by what is looked up, in all namespaces",
                "leave them out, or set subscribe.mode to namespaces",
            ));
            Vec::new()
        }
        SubscribeMode::Namespaces => plan_namespaces(subscribe, layout, own, mistakes),
    };
    let shadowed = |namespace: &Label| adopted.iter().any(|adopted| adopted.namespace == *namespace);
    sources.retain(|source| !matches!(source, Source::Namespace { namespace, .. } if shadowed(namespace)));
    sources.extend(adopted.into_iter().map(Source::Adopted));
    sources
}

fn plan_namespaces(
    subscribe: &SubscribeSettings,
    layout: &Layout,
    mut namespaces: BTreeSet<Label>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Source> {
    for (index, text) in subscribe.namespaces.iter().enumerate() {
        let path = format!("subscribe.namespaces[{index}]");
        if let Some(namespace) = plan_label(&path, text, mistakes) {
            namespaces.insert(namespace);
        }
    }
    if namespaces.len() > NAMESPACES_MAX {
        mistakes.push(Mistake::new(
            "subscribe.namespaces",
            format!(
                "{} namespaces are more than the {NAMESPACES_MAX} that are followed one by one",
                namespaces.len()
            ),
            "set subscribe.mode to all",
        ));
    }
    let source = |namespace| Source::Namespace { layout: layout.clone(), namespace };
    namespaces.into_iter().map(source).collect()
}

fn plan_adopted(adopt: &[AdoptSettings], layout: &Layout, mistakes: &mut Vec<Mistake>) -> Vec<Adopted> {
    let mut shown: BTreeMap<(Label, Option<Label>), String> = BTreeMap::new();
    let mut adopted = Vec::new();
    for (index, settings) in adopt.iter().enumerate() {
        let path = format!("adopt[{index}]");
        let Some(one) = settings.plan(&path, layout, mistakes) else { continue };
        let whole = shown.get(&(one.namespace.clone(), None));
        let same = shown.get(&(one.namespace.clone(), one.service.clone()));
        let in_it =
            shown.iter().find(|((namespace, _), _)| *namespace == one.namespace && one.service.is_none());
        if let Some(first) = whole.or(same).or(in_it.map(|(_, first)| first)) {
            mistakes.push(Mistake::new(
                format!("{path}.namespace"),
                format!("{first} is shown there, too"),
                "give each a namespace of its own",
            ));
            continue;
        }
        shown.insert((one.namespace.clone(), one.service.clone()), path);
        adopted.push(one);
    }
    adopted
}

impl AdoptSettings {
    fn plan(&self, path: &str, layout: &Layout, mistakes: &mut Vec<Mistake>) -> Option<Adopted> {
        let before = mistakes.len();
        let has_names = matches!(self.format, Format::Curator | Format::Spring);
        let root = match (&self.root, has_names) {
            (Some(root), _) => root.as_str(),
            (None, true) => "/services",
            (None, false) => {
                let message = format!("{} has no usual place", self.format);
                mistakes.push(Mistake::new(path, message, "add root, the znode of the service"));
                return None;
            }
        };
        let root = ZnodePath::parse(root).map_err(|error| {
            mistakes.push(Mistake::new(format!("{path}.root"), error.to_string(), "write a znode path"));
        });
        if root.as_ref().is_ok_and(|root| is_within(root.as_str(), layout.root())) {
            let message = format!("the registry itself is at {}", layout.root());
            mistakes.push(Mistake::new(format!("{path}.root"), message, "name what others write"));
        }
        let namespace = self.namespace.as_deref().unwrap_or(self.format.as_str());
        let namespace = plan_label(&format!("{path}.namespace"), namespace, mistakes);
        let service = match (&self.service, &root) {
            (Some(_), _) if has_names => {
                let message = format!("{} has the names of its services in the tree", self.format);
                mistakes.push(Mistake::new(format!("{path}.service"), message, "leave it out"));
                None
            }
            (Some(name), _) => plan_label(&format!("{path}.service"), name, mistakes),
            (None, _) if has_names => None,
            (None, Ok(root)) => {
                let name = service_name(root.as_str().rsplit('/').next().unwrap_or_default());
                if name.is_none() {
                    let message = "the root's last name makes no name for a service";
                    mistakes.push(Mistake::new(path, message, "add service"));
                }
                name
            }
            (None, Err(())) => None,
        };
        if mistakes.len() > before {
            return None;
        }
        Some(Adopted { format: self.format, root: root.ok()?, namespace: namespace?, service })
    }
}

/// Whether one of them holds the other.
fn is_within(one: &str, other: &str) -> bool {
    let holds = |outer: &str, inner: &str| {
        inner
            .strip_prefix(outer.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    holds(one, other) || holds(other, one)
}

/// The namespace or service that `text` names, or a mistake at `path`.
pub(super) fn plan_label(path: &str, text: &str, mistakes: &mut Vec<Mistake>) -> Option<Label> {
    let label = Label::parse(text).map_err(|error| Mistake::new(path, error.to_string(), ""));
    match label.map(|label| reserved(path, &label).map_or(Ok(label), Err)) {
        Ok(Ok(label)) => Some(label),
        Ok(Err(mistake)) | Err(mistake) => {
            mistakes.push(mistake);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_everything_is_followed() {
        let sources = planned(&SubscribeSettings::default(), &[]).unwrap();
        assert_eq!(sources, [Source::all(Layout::default())]);
    }

    #[test]
    fn namespaces_are_followed_one_by_one_with_the_sidecars_own() {
        let subscribe = SubscribeSettings {
            mode: SubscribeMode::Namespaces,
            namespaces: vec!["shop".to_owned(), "own".to_owned()],
            idle: None,
        };
        let sources = planned(&subscribe, &[]).unwrap();
        let roots: Vec<_> = sources.iter().map(Source::root).collect();
        assert_eq!(roots, ["/rollcall/services/own", "/rollcall/services/shop"]);
    }

    #[test]
    fn what_others_write_has_a_namespace_or_a_service_of_its_own() {
        let adopt = [
            of(Format::Curator, None, None),
            of(Format::Serverset, Some("/aurora/www/prod/hello"), Some("aurora")),
            of(Format::Nerve, Some("/nerve/My_Pay"), Some("aurora")),
        ];
        let sources = planned(&SubscribeSettings::default(), &adopt).unwrap();
        let Source::Registry { adopted, .. } = &sources[0] else { panic!("everything else") };
        let names: Vec<_> = adopted
            .iter()
            .map(|one| (one.namespace.to_string(), one.service.as_ref().map(ToString::to_string)))
            .collect();
        let expected = [("curator", None), ("aurora", Some("hello")), ("aurora", Some("my-pay"))];
        assert_eq!(names, expected.map(|(namespace, name)| (namespace.to_owned(), name.map(str::to_owned))));
        assert_eq!(sources.len(), 4);
    }

    #[test]
    fn what_cannot_be_is_told_with_its_path() {
        let adopt = [
            of(Format::Serverset, None, None),
            of(Format::Curator, Some("/rollcall"), None),
            of(Format::Curator, Some("/services"), Some("primary")),
            of(Format::Curator, Some("services"), None),
            AdoptSettings { service: Some("a".to_owned()), ..of(Format::Spring, None, None) },
            of(Format::Curator, Some("/one"), Some("same")),
            of(Format::Nerve, Some("/two"), Some("same")),
        ];
        let mistakes = planned(&SubscribeSettings::default(), &adopt).unwrap_err();
        let paths: Vec<_> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "adopt[0]",
                "adopt[1].root",
                "adopt[2].namespace",
                "adopt[3].root",
                "adopt[4].service",
                "adopt[6].namespace"
            ]
        );
        for mode in [SubscribeMode::All, SubscribeMode::OnDemand] {
            let listed = SubscribeSettings { mode, namespaces: vec!["a".to_owned()], idle: None };
            assert_eq!(planned(&listed, &[]).unwrap_err()[0].path, "subscribe.namespaces");
        }
    }

    #[test]
    fn on_demand_follows_the_whole_registry_and_has_an_idle_time_as_no_other_mode_has() {
        let settings = |mode, idle: Option<&str>| SubscribeSettings {
            mode,
            namespaces: Vec::new(),
            idle: idle.map(|text| Scalar(text.to_owned())),
        };
        let planned_idle = |mode, idle| {
            let mut mistakes = Vec::new();
            let plan = settings(mode, idle).plan_idle(&mut mistakes);
            if mistakes.is_empty() { Ok(plan) } else { Err(mistakes.remove(0).path) }
        };
        assert_eq!(planned_idle(SubscribeMode::OnDemand, None), Ok(Some(SubscribeSettings::IDLE)));
        assert_eq!(planned_idle(SubscribeMode::OnDemand, Some("2m")), Ok(Some(Duration::from_secs(120))));
        assert_eq!(planned_idle(SubscribeMode::All, None), Ok(None));
        for (mode, idle) in [
            (SubscribeMode::OnDemand, "59s"),
            (SubscribeMode::OnDemand, "2d"),
            (SubscribeMode::All, "2m"),
            (SubscribeMode::Namespaces, "2m"),
        ] {
            assert_eq!(planned_idle(mode, Some(idle)), Err("subscribe.idle".to_owned()), "{mode:?} {idle}");
        }
        let sources = planned(&settings(SubscribeMode::OnDemand, None), &[]).unwrap();
        assert_eq!(sources, [Source::all(Layout::default())]);
    }

    fn planned(subscribe: &SubscribeSettings, adopt: &[AdoptSettings]) -> Result<Vec<Source>, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let own = [Label::parse("own").unwrap()].into();
        let sources = plan_sources(subscribe, adopt, &Layout::default(), own, &mut mistakes);
        if mistakes.is_empty() { Ok(sources) } else { Err(mistakes) }
    }

    fn of(format: Format, root: Option<&str>, namespace: Option<&str>) -> AdoptSettings {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        AdoptSettings { format, root: owned(root), namespace: owned(namespace), service: None }
    }
}
