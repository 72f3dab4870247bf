//! `/zookeeper/config`: the members, as this one's own settings list them.
//!
//! Each member answers for itself. The list is no txn, so that the tree, which all members have alike, does not hold it: what a
//! snapshot of Apache's has there, which is its writer's own list, is not shown either. A member alone has no list; then the
//! tree's znode is shown, which is empty unless others have written it.
//!
//! Source: `ZKDatabase.initConfigInZKDatabase` of Apache ZooKeeper, which sets the znode at every start and after every SNAP.

use bytes::Bytes;

use crate::id::Zxid;
use crate::wire::{Request, Response};
use crate::znode::Stat;

/// Where clients look for the members.
const PATH: &str = "/zookeeper/config";

/// The tree's answer to a read, with `config` in place of the tree's own where it is about this znode.
pub(super) fn shown(config: &Bytes, request: &Request, response: Response) -> Response {
    if config.is_empty() {
        return response;
    }
    let shown = |stat: Stat| Stat {
        mzxid: Zxid::ZERO,
        version: -1,
        data_length: i32::try_from(config.len()).expect("the list of 254 members is short"),
        ..stat
    };
    match (request, response) {
        (Request::GetData { path, .. }, Response::Data(_, stat)) if path == PATH => {
            Response::Data(Some(config.clone()), shown(stat))
        }
        (Request::Exists { path, .. }, Response::Stat(stat)) if path == PATH => Response::Stat(shown(stat)),
        (Request::GetAcl { path }, Response::Acl(acl, stat)) if path == PATH => {
            Response::Acl(acl, shown(stat))
        }
        (Request::GetChildren2 { path, .. }, Response::ChildrenStat(names, stat)) if path == PATH => {
            Response::ChildrenStat(names, shown(stat))
        }
        (_, response) => response,
    }
}
