//! Operations by number, and the kinds of znodes that create makes.

/// The operation that a request's header names.
///
/// Source: `ZooDefs.java` of Apache ZooKeeper. Numbers that clients may not send are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "ZooKeeper's own names of operations")]
pub enum OpCode {
    Create,
    Delete,
    Exists,
    GetData,
    SetData,
    GetAcl,
    SetAcl,
    GetChildren,
    Sync,
    Ping,
    GetChildren2,
    Check,
    Multi,
    Create2,
    Reconfig,
    CheckWatches,
    RemoveWatches,
    CreateContainer,
    CreateTtl,
    MultiRead,
    Auth,
    SetWatches,
    Sasl,
    GetEphemerals,
    GetAllChildrenNumber,
    SetWatches2,
    AddWatch,
    WhoAmI,
    CreateSession,
    CloseSession,
}

impl OpCode {
    const TABLE: [(Self, i32); 30] = [
        (Self::Create, 1),
        (Self::Delete, 2),
        (Self::Exists, 3),
        (Self::GetData, 4),
        (Self::SetData, 5),
        (Self::GetAcl, 6),
        (Self::SetAcl, 7),
        (Self::GetChildren, 8),
        (Self::Sync, 9),
        (Self::Ping, 11),
        (Self::GetChildren2, 12),
        (Self::Check, 13),
        (Self::Multi, 14),
        (Self::Create2, 15),
        (Self::Reconfig, 16),
        (Self::CheckWatches, 17),
        (Self::RemoveWatches, 18),
        (Self::CreateContainer, 19),
        (Self::CreateTtl, 21),
        (Self::MultiRead, 22),
        (Self::Auth, 100),
        (Self::SetWatches, 101),
        (Self::Sasl, 102),
        (Self::GetEphemerals, 103),
        (Self::GetAllChildrenNumber, 104),
        (Self::SetWatches2, 105),
        (Self::AddWatch, 106),
        (Self::WhoAmI, 107),
        (Self::CreateSession, -10),
        (Self::CloseSession, -11),
    ];

    /// The number on the wire.
    ///
    /// # Panics
    ///
    /// Never: the table names every operation.
    pub fn code(self) -> i32 {
        Self::TABLE.iter().find(|(op, _)| *op == self).expect("the table names every operation").1
    }

    /// The operation with this number on the wire.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::TABLE.iter().find(|(_, number)| *number == code).map(|(op, _)| *op)
    }
}

/// The kind of znode that a create asks for, decoded from its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CreateMode {
    /// Stays until deleted.
    Persistent,
    /// Goes with the session.
    Ephemeral,
    /// Persistent, with a number of ten digits appended to its name.
    PersistentSequential,
    /// Ephemeral, with a number of ten digits appended to its name.
    EphemeralSequential,
}

impl CreateMode {
    /// The flags on the wire.
    pub const fn flags(self) -> i32 {
        match self {
            Self::Persistent => 0,
            Self::Ephemeral => 1,
            Self::PersistentSequential => 2,
            Self::EphemeralSequential => 3,
        }
    }

    /// The mode with these flags; those of containers and TTL znodes belong to other operations.
    pub const fn from_flags(flags: i32) -> Option<Self> {
        match flags {
            0 => Some(Self::Persistent),
            1 => Some(Self::Ephemeral),
            2 => Some(Self::PersistentSequential),
            3 => Some(Self::EphemeralSequential),
            _ => None,
        }
    }

    /// Whether the znode goes with its session.
    pub const fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    /// Whether a number is appended to the name.
    pub const fn is_sequential(self) -> bool {
        matches!(self, Self::PersistentSequential | Self::EphemeralSequential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_operations_and_back() {
        for code in -20..200 {
            if let Some(op) = OpCode::from_code(code) {
                assert_eq!(op.code(), code);
            }
        }
        assert_eq!(OpCode::from_code(0), None);
        assert_eq!(OpCode::from_code(20), None, "deleteContainer is the leader's own");
    }
}
