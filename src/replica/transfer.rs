//! Trees that come, or go, as a whole.

use bytes::Bytes;
use tracing::{error, info};

use super::{Now, Output, Recovery, Replica};
use crate::codec::Reader;
use crate::id::Zxid;
use crate::tree::Tree;
use crate::zab::{self, LinkId};

/// Stands for the end of a fuzzy range that is not known yet.
pub(super) const UNKNOWN: Zxid = Zxid::from_raw(i64::MAX);

/// A snapshot that is on its way from the leader.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) link: LinkId,
    pub(super) zxid: Zxid,
    /// Once it is there.
    pub(super) tree: Option<Tree>,
}

impl Replica {
    pub(super) fn on_snapshot_received(&mut self, link: LinkId, body: Bytes, now: Now) {
        let Some(incoming) = self.incoming.as_mut().filter(|incoming| incoming.link == link) else { return };
        let mut reader = Reader::new(&body);
        match Tree::decode_snapshot(&mut reader, incoming.zxid) {
            Ok(tree) => {
                incoming.tree = Some(tree);
                self.peer.handle(now.monotonic, zab::Input::SnapshotReceived(link, body));
            }
            Err(error) => {
                error!(%error, "the leader's snapshot cannot be read");
                self.break_link(link, now);
            }
        }
    }

    /// The leader's snapshot takes the place of all there was.
    pub(super) fn install_snapshot(&mut self, zxid: Zxid, body: Bytes) {
        let incoming = self.incoming.take().and_then(|incoming| incoming.tree);
        self.tree = incoming.expect("the snapshot was read before the peer heard of it");
        assert_eq!(self.tree.last_zxid(), zxid, "the snapshot is the one that was announced");
        self.snapshotting.cancel();
        self.recording.cancel();
        self.local.on_installed();
        // How far it goes beyond its name is not known before everything behind it is there.
        self.fuzzy_to = UNKNOWN;
        self.digests.clear();
        info!(%zxid, znodes = self.tree.node_count(), "installing the leader's snapshot");
        self.outputs.push_back(Output::InstallSnapshot { zxid, body });
    }

    pub(super) fn send_snapshot(&mut self, link: LinkId) {
        let mut body = Vec::new();
        let mut cursor = self.tree.begin_snapshot(&mut body);
        while !self.tree.continue_snapshot(&mut cursor, usize::MAX, &mut body) {}
        let zxid = self.tree.last_zxid();
        self.outputs.push_back(Output::SendSnapshot { link, zxid, body: body.into() });
    }

    pub(super) fn on_reloaded(&mut self, recovery: Recovery, now: Now) {
        let Recovery { tree, tail, committed, fuzzy_to, accepted_epoch, current_epoch } = recovery;
        self.tree = tree;
        self.fuzzy_to = fuzzy_to;
        self.digests.clear();
        let snapshot = self.tree.last_zxid();
        let recovery = zab::Recovery { snapshot, tail, committed, accepted_epoch, current_epoch };
        self.peer.handle(now.monotonic, zab::Input::Reloaded(recovery));
    }
}
