//! Where things stand in the tree: `<root>/<namespace>/<service>/<instance>`.

use super::name::{Label, ServiceKey};
use crate::znode::{PathError, ZnodePath};

/// The registry's root, and the paths below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: ZnodePath,
}

/// What a path below the root is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A service's own znode.
    Service(ServiceKey),
    /// An instance's.
    Instance(ServiceKey, Label),
}

impl Layout {
    /// The root by default.
    pub const ROOT: &'static str = "/rollcall/services";

    /// The layout below `root`.
    ///
    /// # Errors
    ///
    /// When that is no path.
    pub fn new(root: &str) -> Result<Self, PathError> {
        Ok(Self { root: ZnodePath::parse(root)? })
    }

    /// The root.
    pub fn root(&self) -> &str {
        self.root.as_str()
    }

    /// The znode of a namespace.
    pub fn namespace(&self, namespace: &Label) -> String {
        format!("{}/{namespace}", self.prefix())
    }

    /// The znode of a service.
    pub fn service(&self, service: &ServiceKey) -> String {
        format!("{}/{}/{}", self.prefix(), service.namespace, service.name)
    }

    /// The znode of an instance.
    pub fn instance(&self, service: &ServiceKey, id: &Label) -> String {
        format!("{}/{id}", self.service(service))
    }

    /// The namespace whose znode is at `path`, if one is.
    pub fn namespace_at(&self, path: &str) -> Option<Label> {
        Label::parse(path.strip_prefix(self.prefix())?.strip_prefix('/')?).ok()
    }

    /// What stands at `path`; `None` for the root, namespaces, what is deeper than an instance, and names that are
    /// no labels.
    pub fn place(&self, path: &str) -> Option<Place> {
        let mut names = path.strip_prefix(self.prefix())?.strip_prefix('/')?.split('/');
        let namespace = Label::parse(names.next()?).ok()?;
        let name = Label::parse(names.next()?).ok()?;
        let service = ServiceKey { namespace, name };
        match (names.next(), names.next()) {
            (None, _) => Some(Place::Service(service)),
            (Some(id), None) => Some(Place::Instance(service, Label::parse(id).ok()?)),
            (Some(_), Some(_)) => None,
        }
    }

    fn prefix(&self) -> &str {
        if self.root.is_root() { "" } else { self.root.as_str() }
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self::new(Self::ROOT).expect("a path")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_places_and_back() {
        let label = |text: &str| Label::parse(text).unwrap();
        let service = ServiceKey { namespace: label("shop"), name: label("web") };
        for root in ["/", "/a", "/a/b"] {
            let layout = Layout::new(root).unwrap();
            let instance = layout.instance(&service, &label("web-1"));
            assert_eq!(layout.place(&instance), Some(Place::Instance(service.clone(), label("web-1"))));
            assert_eq!(layout.place(&layout.service(&service)), Some(Place::Service(service.clone())));
            assert_eq!(layout.namespace_at(&layout.namespace(&service.namespace)), Some(label("shop")));
            assert_eq!(layout.namespace_at(&layout.service(&service)).or(layout.namespace_at(root)), None);
            for other in
                [root, &layout.namespace(&service.namespace), &format!("{instance}/deeper"), "/ab/c/d"]
            {
                assert!(root == "/" && other == "/ab/c/d" || layout.place(other).is_none(), "{root} {other}");
            }
        }
        assert_eq!(Layout::default().place("/rollcall/services/shop/no_label"), None);
    }
}
