//! What a mirror shows: the registry, a namespace of it, or what others write in a format of theirs.
//!
//! Where things stand in the tree, what they are called in the view, and how their data are read. Sources are disjoint: what is
//! adopted has a namespace, or a service, that the registry's own tree is not asked for.

use bytes::Bytes;

use super::state::ReadOutcome;
use crate::registry::formats::{Format, FormatError};
use crate::registry::layout::{Layout, Place};
use crate::registry::name::{Label, ServiceKey};
use crate::registry::view::View;
use crate::znode::ZnodePath;

/// One part of the tree that is mirrored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// All namespaces of the registry, but for what is adopted.
    Registry {
        /// Where it is.
        layout: Layout,
        /// What others write.
        adopted: Vec<Adopted>,
    },
    /// One namespace of the registry.
    Namespace {
        /// Where the registry is.
        layout: Layout,
        /// Which one.
        namespace: Label,
    },
    /// What others write.
    Adopted(Adopted),
}

/// A part of the tree that others write in a format of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The format.
    pub format: Format,
    /// Where it begins.
    pub root: ZnodePath,
    /// The namespace that it is shown in.
    pub namespace: Label,
    /// The only service that is there; `None` where the tree has their names.
    pub service: Option<Label>,
}

impl Source {
    /// Everything below `layout`'s root.
    pub const fn all(layout: Layout) -> Self {
        Self::Registry { layout, adopted: Vec::new() }
    }

    /// The znode below which everything is.
    pub fn root(&self) -> String {
        match self {
            Self::Registry { layout, .. } => layout.root().to_owned(),
            Self::Namespace { layout, namespace } => layout.namespace(namespace),
            Self::Adopted(adopted) => adopted.root.as_str().to_owned(),
        }
    }

    /// Where services have znodes with settings of ours, if this shows such.
    pub const fn layout(&self) -> Option<&Layout> {
        match self {
            Self::Registry { layout, .. } | Self::Namespace { layout, .. } => Some(layout),
            Self::Adopted(_) => None,
        }
    }

    /// Whether a service is this source's to show.
    pub fn shows(&self, service: &ServiceKey) -> bool {
        match self {
            Self::Registry { adopted, .. } => !adopted.iter().any(|adopted| adopted.shows(service)),
            Self::Namespace { namespace, .. } => service.namespace == *namespace,
            Self::Adopted(adopted) => adopted.shows(service),
        }
    }

    /// What of a view is this source's.
    pub fn part_of(&self, view: &View) -> View {
        let shown = view.services.iter().filter(|(key, _)| self.shows(key));
        let services = shown.map(|(_, service)| service.clone()).collect();
        View { services, home: view.home.clone(), ..*view }
    }

    /// What stands at `path`, if this source shows it.
    pub fn place(&self, path: &str) -> Option<Place> {
        let place = match self {
            Self::Registry { layout, .. } | Self::Namespace { layout, .. } => layout.place(path)?,
            Self::Adopted(adopted) => adopted.place(path)?,
        };
        let (Place::Service(service) | Place::Instance(service, _)) = &place;
        self.shows(service).then_some(place)
    }

    /// The instance that a child of a service's znode is, if it is one.
    pub fn instance_id(&self, name: &str) -> Option<Label> {
        match self {
            Self::Registry { .. } | Self::Namespace { .. } => Label::parse(name).ok(),
            Self::Adopted(adopted) => adopted.instance_id(name),
        }
    }

    /// Whether a service's own stat reveals every change below it: what our registrars write is never set in place.
    pub const fn is_revealed_by_stat(&self) -> bool {
        match self {
            Self::Registry { .. } | Self::Namespace { .. } => true,
            Self::Adopted(_) => false,
        }
    }

    /// What was read at `path`, in our own format.
    pub fn translate(&self, place: &Place, path: &str, outcome: ReadOutcome) -> ReadOutcome {
        match (self, place, outcome) {
            // Their services have no settings of ours.
            (Self::Adopted(_), Place::Service(_), ReadOutcome::Found { stat, .. }) => {
                ReadOutcome::Found { data: None, stat }
            }
            (Self::Adopted(adopted), Place::Instance(..), ReadOutcome::Found { data, stat }) => {
                match adopted.format.decode(path, data.as_deref().unwrap_or_default()) {
                    Ok(record) => {
                        let data =
                            record.encode().expect("a record that was read is one that can be written");
                        ReadOutcome::Found { data: Some(Bytes::from(data)), stat }
                    }
                    Err(FormatError::OtherName { .. }) => ReadOutcome::Missing,
                    Err(error) => ReadOutcome::NotUnderstood(error.to_string()),
                }
            }
            (_, _, outcome) => outcome,
        }
    }
}

impl Adopted {
    fn shows(&self, service: &ServiceKey) -> bool {
        service.namespace == self.namespace && self.service.as_ref().is_none_or(|name| *name == service.name)
    }

    fn place(&self, path: &str) -> Option<Place> {
        let prefix = if self.root.is_root() { "" } else { self.root.as_str() };
        let below = path.strip_prefix(prefix)?;
        let mut names = below.strip_prefix('/').into_iter().flat_map(|below| below.split('/'));
        let service = match &self.service {
            Some(name) => name.clone(),
            None => service_name(names.next()?)?,
        };
        let service = ServiceKey { namespace: self.namespace.clone(), name: service };
        match (names.next(), names.next()) {
            (None, _) if below.is_empty() || below.starts_with('/') => Some(Place::Service(service)),
            (Some(name), None) => Some(Place::Instance(service, self.instance_id(name)?)),
            (None | Some(_), _) => None,
        }
    }

    /// A label for the znode's name. Names that hold more than a name go by their number.
    fn instance_id(&self, name: &str) -> Option<Label> {
        match self.format {
            Format::Serverset if !name.starts_with("member_") => None,
            Format::Nerve if name.starts_with("base64_") => {
                Label::parse(&format!("base64-{}", name.rsplit_once('_')?.1)).ok()
            }
            Format::Curator | Format::Spring | Format::Serverset | Format::Nerve => service_name(name),
        }
    }
}

/// The label that a name of others is shown as: in lower case, and with a hyphen for what no label may have.
pub fn service_name(name: &str) -> Option<Label> {
    let letter = |letter: char| {
        let letter = letter.to_ascii_lowercase();
        if letter.is_ascii_alphanumeric() { letter } else { '-' }
    };
    Label::parse(&name.chars().map(letter).collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::Stat;

    #[test]
    fn names_of_others_become_labels() {
        let curator = adopted(Format::Curator, "/services", None);
        assert_eq!(place(&curator, "/services/Pay.Ments"), Some(("pay-ments".into(), None)));
        assert_eq!(
            place(&curator, "/services/pay/06c0af4c-03c4"),
            Some(("pay".into(), Some("06c0af4c-03c4".into())))
        );
        for other in ["/services", "/services/pay/id/deeper", "/servicesx/pay", "/services/-"] {
            assert_eq!(place(&curator, other), None, "{other}");
        }
    }

    #[test]
    fn a_path_that_is_one_service_has_its_members_below_it() {
        let serverset = adopted(Format::Serverset, "/aurora/www/prod/hello", Some("hello"));
        assert_eq!(place(&serverset, "/aurora/www/prod/hello"), Some(("hello".into(), None)));
        let member = "/aurora/www/prod/hello/member_0000000007";
        assert_eq!(place(&serverset, member), Some(("hello".into(), Some("member-0000000007".into()))));
        for other in ["/aurora/www/prod/hello/vector_0000000001", "/aurora/www/prod/hello2"] {
            assert_eq!(place(&serverset, other), None, "{other}");
        }
        let nerve = adopted(Format::Nerve, "/nerve/pay", Some("pay"));
        let long = format!("/nerve/pay/base64_90_{}_0000000012", "a".repeat(90));
        assert_eq!(place(&nerve, &long), Some(("pay".into(), Some("base64-0000000012".into()))));
    }

    #[test]
    fn the_registry_does_not_show_what_is_adopted() {
        let Source::Adopted(serverset) = adopted(Format::Serverset, "/a/b", Some("hello")) else {
            unreachable!("it was made as one")
        };
        let registry = Source::Registry { layout: Layout::default(), adopted: vec![serverset] };
        assert!(registry.place("/rollcall/services/others/hello").is_none());
        assert!(registry.place("/rollcall/services/others/other").is_some());
        let namespace = Source::Namespace { layout: Layout::default(), namespace: label("shop") };
        assert_eq!(namespace.root(), "/rollcall/services/shop");
        assert!(namespace.place("/rollcall/services/shop/web/a").is_some());
        assert!(namespace.place("/rollcall/services/default/web/a").is_none());
    }

    #[test]
    fn instances_of_others_are_translated_and_what_is_none_is_told() {
        let nerve = adopted(Format::Nerve, "/nerve/pay", Some("pay"));
        let path = "/nerve/pay/i-1_0000000001";
        let place = nerve.place(path).unwrap();
        let read = |data: &str| {
            let outcome = ReadOutcome::Found {
                data: Some(Bytes::copy_from_slice(data.as_bytes())),
                stat: Stat::default(),
            };
            nerve.translate(&place, path, outcome)
        };
        let ReadOutcome::Found { data: Some(data), .. } = read(r#"{"host":"10.0.0.1","port":7}"#) else {
            panic!("it is an instance")
        };
        assert_eq!(crate::registry::Record::decode(&data).unwrap().ports[0].port, 7);
        let ReadOutcome::NotUnderstood(reason) = read(r#"{"host":"web","port":7}"#) else {
            panic!("a host name")
        };
        assert!(reason.contains("host names are not resolved"), "{reason}");
    }

    fn adopted(format: Format, root: &str, service: Option<&str>) -> Source {
        Source::Adopted(Adopted {
            format,
            root: ZnodePath::parse(root).unwrap(),
            namespace: label("others"),
            service: service.map(label),
        })
    }

    fn place(source: &Source, path: &str) -> Option<(String, Option<String>)> {
        match source.place(path)? {
            Place::Service(service) => Some((service.name.to_string(), None)),
            Place::Instance(service, id) => Some((service.name.to_string(), Some(id.to_string()))),
        }
    }

    fn label(text: &str) -> Label {
        Label::parse(text).unwrap()
    }
}
