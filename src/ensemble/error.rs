//! Why a member ends.

use std::io;
use std::path::PathBuf;

use crate::storage::StorageError;

/// Why a member cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The data directory cannot be used, or a write failed.
    #[error("storage failed")]
    Storage(#[from] StorageError),
    /// The log thread is gone.
    #[error("the log thread ended")]
    LogEnded,
    /// The driver panicked: an invariant is broken.
    #[error("a broken invariant stopped the member")]
    Broken,
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
