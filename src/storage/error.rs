//! Why storage cannot be opened or has stopped.

use std::io;

use crate::codec::CodecError;
use crate::id::{Epoch, Zxid};

/// What went wrong on disk. Every one is final for the [`Storage`](super::Storage) that reports it.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// This user may not use the folder; the cause names the path.
    #[error("{0}; make the data directory one that this user may read and write, or name another")]
    NotPermitted(#[source] io::Error),
    /// There is no folder, and none can be made; the cause names the path.
    #[error("{0}; make the data directory, or name one that can be made")]
    NoFolder(#[source] io::Error),
    /// The system refused an operation; the cause names the path.
    #[error(
        "{0}; nothing more is acknowledged, because what was written last may not be durable: look at the disk's \
         free space and the kernel's log, then start the member again"
    )]
    Io(#[source] io::Error),
    /// Something was asked of storage after an error.
    #[error("storage has failed before and does nothing more until the member is started again: {cause}")]
    Failed {
        /// The first error's text.
        cause: String,
    },
    /// Another process has the folder.
    #[error(
        "{folder} is in use by another process; stop that one, or give this member a data directory of its own"
    )]
    InUse {
        /// The folder that both want.
        folder: String,
    },
    /// The logs were written somewhere else.
    #[error(
        "the logs of this data directory lie in {folder}, as {note} says; give the member that folder's parent for its logs (log_dir, or \
         dataLogDir of a zoo.cfg). If the logs have been moved to where it looks for them now, remove that file"
    )]
    LogsElsewhere {
        /// The folder that was noted.
        folder: String,
        /// The path of the note.
        note: String,
    },
    /// A log where only snapshots should be, or the other way round.
    #[error(
        "{file} does not belong there, now that logs have a directory of their own; move all logs (log.*) into that one's version-2, and \
         all else into the other's: {other}"
    )]
    Misplaced {
        /// The first such file's path.
        file: String,
        /// The folder where it would be looked for.
        other: String,
    },
    /// A record, or the file header, is broken where a crash cannot have broken it.
    #[error(
        "{file} is damaged at byte {offset}: {damage}; txns may be missing, so the member does not start. If other \
         members are healthy, move the data directory away and let this one copy from them; otherwise restore the \
         file from a backup. Only when the txns from here on may be lost: cut the file at byte {offset} and move \
         all logs with higher names away"
    )]
    LogDamaged {
        /// The file's path.
        file: String,
        /// Where the broken record starts.
        offset: u64,
        /// What is wrong with it.
        damage: LogDamage,
    },
    /// There are logs but no snapshot.
    #[error(
        "{file} is there, but no snapshot: a folder that holds txns always has one, so files were removed. Bring the \
         snapshots back from a backup; or, if other members are healthy, move the data directory away and let this \
         one copy from them"
    )]
    NoSnapshot {
        /// The oldest log with records, or the epoch file.
        file: String,
    },
    /// There are snapshots, but none can be read, or none that the logs continue.
    #[error(
        "no snapshot can be used: {}. Bring one back from a backup; or, if other members are healthy, move the data \
         directory away and let this one copy from them", reasons.join("; ")
    )]
    NoUsableSnapshot {
        /// For each, its path and what is wrong.
        reasons: Vec<String>,
    },
    /// A newer snapshot was unreadable, and the logs do not reach as far as it did.
    #[error(
        "{file} cannot be read ({reason}), and the logs after the snapshot before it end at {last}: what lies between \
         is nowhere else. Bring the file back from a backup; or, if other members are healthy, move the data \
         directory away and let this one copy from them"
    )]
    SnapshotLost {
        /// The unreadable snapshot's path.
        file: String,
        /// What is wrong with it.
        reason: String,
        /// Where the history that could be read ends.
        last: Zxid,
    },
    /// The newest snapshot is compressed.
    #[error("{file} is compressed, which is not supported; {remedy}")]
    Compressed {
        /// The snapshot's path.
        file: String,
        /// What to do.
        remedy: &'static str,
    },
    /// An epoch file holds no number.
    #[error(
        "{file} holds {text:?}, which is no epoch; bring the file back from a backup, or, if other members are \
         healthy, move the data directory away and let this one copy from them"
    )]
    BadEpoch {
        /// The file's path.
        file: String,
        /// What stands in it.
        text: String,
    },
    /// An epoch after which none can follow.
    #[error(
        "{place} names the epoch {epoch}, which no ensemble lives to see, and after which no leader can be elected; bring \
         back the files of the data directory from a backup, or, if other members are healthy, move it away and let this \
         one copy from them"
    )]
    EpochTooLate {
        /// The file's path, or the txn.
        place: String,
        /// The epoch.
        epoch: Epoch,
    },
    /// The epochs contradict each other or the history.
    #[error(
        "the epoch files contradict the data: acceptedEpoch {}, currentEpoch {}, last txn {last}; the member might \
         break a promise it has given. Bring all files of one time back from a backup, or, if other members are \
         healthy, move the data directory away and let this one copy from them",
        shown(*accepted), shown(*current)
    )]
    EpochsContradict {
        /// The newest epoch the member has promised to.
        accepted: Option<Epoch>,
        /// The newest epoch the member has synchronized in.
        current: Option<Epoch>,
        /// The last txn on disk.
        last: Zxid,
    },
    /// The list of voters holds something else.
    #[error(
        "{file} holds {text:?}, which is no list of server ids; write the ids of all voting members into it, as in \
         \"1 2 3\", or bring the file back from a backup"
    )]
    BadVoters {
        /// The file's path.
        file: String,
        /// What stands in it.
        text: String,
    },
    /// The history cannot be cut back.
    #[error(
        "the leader asks to give up all txns after {zxid}, but {}; move the data directory away and let this member \
         copy from the others",
        match reached {
            Some(reached) => format!("the history on disk can be followed down to {reached} only"),
            None => "there is no snapshot from before".to_owned(),
        }
    )]
    CannotTruncate {
        /// The last txn that was to be kept.
        zxid: Zxid,
        /// The last txn before it up to which the history is known.
        reached: Option<Zxid>,
    },
    /// An entry that could be written but not read again.
    #[error("the txn {zxid} has {bytes} bytes, more than the log takes ({max})")]
    EntryTooLarge {
        /// The entry's place.
        zxid: Zxid,
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
}

impl From<io::Error> for StorageError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied {
            Self::NotPermitted(error)
        } else {
            Self::Io(error)
        }
    }
}

/// What is wrong in a log file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogDamage {
    /// The file starts with something else.
    #[error("no header of a transaction log")]
    Header,
    /// Checksum, length or end mark do not fit, and valid records follow.
    #[error("the record is broken, but valid ones follow from byte {valid_at} on")]
    Middle {
        /// Where the next valid record starts.
        valid_at: u64,
    },
    /// The file ends in a broken record, but there are later files.
    #[error("the record is broken, and the next file does not begin right after the last valid one")]
    NotLast,
    /// The checksum fits but the bytes are no txn.
    #[error("the record is intact but cannot be understood: {0}")]
    Record(CodecError),
    /// Txns are missing.
    #[error("the txn {found} follows {last}; those between are missing")]
    Gap {
        /// The last txn before.
        last: Zxid,
        /// The txn found.
        found: Zxid,
    },
    /// Txns are out of order.
    #[error("the txn {found} comes after {last}")]
    Order {
        /// The txn before.
        last: Zxid,
        /// The txn found.
        found: Zxid,
    },
}

fn shown(epoch: Option<Epoch>) -> String {
    epoch.map_or_else(|| "missing".to_owned(), |epoch| epoch.to_string())
}
