//! Errors that a server answers operations with.

/// Why an operation failed; each has one code on the wire.
///
/// Source: `KeeperException.java` of Apache ZooKeeper. Codes that servers never send are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum OpError {
    /// An operation of a failed multi that was not the one at fault.
    #[error("not carried out, since another operation of the multi failed")]
    RuntimeInconsistency,
    /// The request's body is not the record its opcode names.
    #[error("the server could not read the request")]
    MarshallingError,
    /// The server does not know the operation.
    #[error("the server does not implement this operation")]
    Unimplemented,
    /// An argument breaks a rule, most often of paths.
    #[error("an argument of the request is not valid")]
    BadArguments,
    /// The znode, or the parent of the one to create, is not there.
    #[error("no such znode")]
    NoNode,
    /// The ACL does not grant it.
    #[error("not permitted by the znode's ACL")]
    NoAuth,
    /// The version given is not the current one.
    #[error("the znode's version is not the one given")]
    BadVersion,
    /// The parent is an ephemeral.
    #[error("ephemeral znodes may not have children")]
    NoChildrenForEphemerals,
    /// The znode to create is there already.
    #[error("the znode exists already")]
    NodeExists,
    /// The znode to delete has children.
    #[error("the znode has children")]
    NotEmpty,
    /// The session is gone or being closed.
    #[error("the session has expired")]
    SessionExpired,
    /// The ACL given is empty or malformed.
    #[error("the ACL given is not valid")]
    InvalidAcl,
    /// The credentials were refused.
    #[error("authentication failed")]
    AuthFailed,
    /// The session is served over another connection now.
    #[error("the session moved to another connection")]
    SessionMoved,
    /// The server serves reads only.
    #[error("the server is read-only")]
    NotReadOnly,
    /// A session known to one server only may not own ephemerals.
    #[error("a local session may not create ephemeral znodes")]
    EphemeralOnLocalSession,
    /// There is no such watch to remove.
    #[error("no such watch")]
    NoWatcher,
    /// Dynamic reconfiguration is switched off.
    #[error("reconfiguration is disabled")]
    ReconfigDisabled,
    /// A hard quota would be exceeded.
    #[error("the quota is exceeded")]
    QuotaExceeded,
    /// A code that this implementation has no name for.
    #[error("server error {0}")]
    Other(i32),
}

impl OpError {
    /// The number on the wire.
    pub const fn code(self) -> i32 {
        match self {
            Self::RuntimeInconsistency => -2,
            Self::MarshallingError => -5,
            Self::Unimplemented => -6,
            Self::BadArguments => -8,
            Self::NoNode => -101,
            Self::NoAuth => -102,
            Self::BadVersion => -103,
            Self::NoChildrenForEphemerals => -108,
            Self::NodeExists => -110,
            Self::NotEmpty => -111,
            Self::SessionExpired => -112,
            Self::InvalidAcl => -114,
            Self::AuthFailed => -115,
            Self::SessionMoved => -118,
            Self::NotReadOnly => -119,
            Self::EphemeralOnLocalSession => -120,
            Self::NoWatcher => -121,
            Self::ReconfigDisabled => -123,
            Self::QuotaExceeded => -125,
            Self::Other(code) => code,
        }
    }

    /// The error with this number on the wire; the result of success, 0, is none.
    pub const fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            0 => return None,
            -2 => Self::RuntimeInconsistency,
            -5 => Self::MarshallingError,
            -6 => Self::Unimplemented,
            -8 => Self::BadArguments,
            -101 => Self::NoNode,
            -102 => Self::NoAuth,
            -103 => Self::BadVersion,
            -108 => Self::NoChildrenForEphemerals,
            -110 => Self::NodeExists,
            -111 => Self::NotEmpty,
            -112 => Self::SessionExpired,
            -114 => Self::InvalidAcl,
            -115 => Self::AuthFailed,
            -118 => Self::SessionMoved,
            -119 => Self::NotReadOnly,
            -120 => Self::EphemeralOnLocalSession,
            -121 => Self::NoWatcher,
            -123 => Self::ReconfigDisabled,
            -125 => Self::QuotaExceeded,
            other => Self::Other(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_names_one_error_and_back() {
        for code in -130..0 {
            assert_eq!(OpError::from_code(code).map(OpError::code), Some(code));
        }
        assert_eq!(OpError::from_code(0), None);
    }
}
