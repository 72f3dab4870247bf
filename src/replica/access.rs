//! Whether an ACL grants what is asked.
//!
//! Only `world:anyone` can match so far, since no authentication is offered yet: entries of other schemes
//! grant nothing to anybody, and nobody can write new ones, so that no ACL promises what is not enforced.
//!
//! Source: `ZooKeeperServer.checkACL`, `PrepRequestProcessor.fixupACL`, `FinalRequestProcessor` (getACL) of Apache ZooKeeper.

use std::collections::BTreeSet;

use crate::znode::{Acl, OpError, Permissions};

/// Grants or refuses `wanted` on a znode with this ACL; an empty ACL grants everything.
pub(super) fn check(acl: &[Acl], wanted: Permissions) -> Result<(), OpError> {
    let is_granted = acl.is_empty()
        || acl.iter().any(|entry| entry.principal.is_anyone() && entry.permissions.grants(wanted));
    if is_granted { Ok(()) } else { Err(OpError::NoAuth) }
}

/// An ACL as a client may see it: whoever may not change it is not shown the digests of passwords, which could be tried
/// out elsewhere.
pub(super) fn shown(acl: &[Acl]) -> Vec<Acl> {
    let mut shown = acl.to_vec();
    if check(acl, Permissions::ADMIN).is_err() {
        for entry in shown.iter_mut().filter(|entry| entry.principal.scheme == "digest") {
            if let Some((user, _digest)) = entry.principal.id.split_once(':') {
                entry.principal.id = format!("{user}:x");
            }
        }
    }
    shown
}

/// Checks an ACL that a client wants to write, and drops repeated entries.
pub(super) fn fix_up(acl: Vec<Acl>) -> Result<Vec<Acl>, OpError> {
    // Entries that are left differ in nothing else; a request has room for tens of thousands.
    let mut seen = BTreeSet::new();
    let mut fixed: Vec<Acl> = Vec::with_capacity(acl.len());
    for entry in acl {
        if !entry.principal.is_anyone() {
            return Err(OpError::InvalidAcl);
        }
        if seen.insert(entry.permissions) {
            fixed.push(entry);
        }
    }
    if fixed.is_empty() { Err(OpError::InvalidAcl) } else { Ok(fixed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::Principal;

    #[test]
    fn only_what_is_granted_to_anyone_is_granted() {
        let read_only = [Acl::anyone(Permissions::READ)];
        assert_eq!(check(&read_only, Permissions::READ), Ok(()));
        assert_eq!(check(&read_only, Permissions::WRITE), Err(OpError::NoAuth));
        let principal = Principal { scheme: "digest".into(), id: "alice:x".into() };
        let alices = [Acl { permissions: Permissions::ALL, principal }];
        assert_eq!(check(&alices, Permissions::READ), Err(OpError::NoAuth));
    }

    #[test]
    fn digests_are_shown_to_those_alone_who_may_change_them() {
        let alices = |id: &str| {
            let principal = Principal { scheme: "digest".into(), id: id.into() };
            Acl { permissions: Permissions::ALL, principal }
        };
        let read_only = [Acl::anyone(Permissions::READ), alices("alice:pw=")];
        assert_eq!(shown(&read_only), [Acl::anyone(Permissions::READ), alices("alice:x")]);
        let open = [Acl::open(), alices("alice:pw=")];
        assert_eq!(shown(&open), open);
    }

    #[test]
    fn an_acl_that_nobody_could_enforce_is_refused() {
        assert_eq!(fix_up(Vec::new()), Err(OpError::InvalidAcl));
        let principal = Principal { scheme: "digest".into(), id: "alice:x".into() };
        let alices = Acl { permissions: Permissions::ALL, principal };
        assert_eq!(fix_up(vec![Acl::open(), alices]), Err(OpError::InvalidAcl));
        assert_eq!(fix_up(vec![Acl::open(), Acl::open()]), Ok(vec![Acl::open()]));
    }
    #[test]
    fn a_request_full_of_entries_is_fixed_up_in_no_time() {
        let acl: Vec<_> = (0..45_000).map(|bits| Acl::anyone(Permissions(bits))).collect();
        assert_eq!(fix_up([acl.clone(), acl.clone()].concat()), Ok(acl));
    }
}
