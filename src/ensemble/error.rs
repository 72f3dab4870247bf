//! Why a member ends.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use crate::id::ServerId;
use crate::storage::StorageError;
use crate::tls::TlsError;

/// Why a member cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The data directory cannot be used, or a write failed.
    #[error("storage failed")]
    Storage(#[from] StorageError),
    /// There is no TLS between members with these files.
    #[error("TLS between members cannot be used")]
    Tls(#[from] TlsError),
    /// The log thread is gone.
    #[error("the log thread ended")]
    LogEnded,
    /// The driver panicked: an invariant is broken.
    #[error("a broken invariant stopped the member")]
    Broken,
    /// The data belong to an ensemble with other voters.
    #[error(
        "the data belong to an ensemble whose voters are {}, and the settings name {}; bring the settings back, or, when every \
         member is to have the new ones, start each once with --accept-members",
        listed(.recorded), listed(.configured)
    )]
    OtherVoters {
        /// Those recorded with the data.
        recorded: BTreeSet<ServerId>,
        /// Those in the settings.
        configured: BTreeSet<ServerId>,
    },
    /// A socket or thread could not be set up.
    #[error("cannot start the member on {data_dir}")]
    Start {
        /// The member's data directory.
        data_dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn listed(servers: &BTreeSet<ServerId>) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
