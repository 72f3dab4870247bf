//! Who may do what to a znode.

use crate::codec::{CodecError, Reader, WriteJute};

/// A set of permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permissions(pub i32);

impl Permissions {
    /// Get data, list children.
    pub const READ: Self = Self(1);
    /// Set data.
    pub const WRITE: Self = Self(2);
    /// Create children.
    pub const CREATE: Self = Self(4);
    /// Delete children.
    pub const DELETE: Self = Self(8);
    /// Set the ACL.
    pub const ADMIN: Self = Self(16);
    /// Everything.
    pub const ALL: Self = Self(31);

    /// Whether any bit of `wanted` is granted.
    pub const fn grants(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }
}

/// Whom an ACL entry speaks of; ZooKeeper's `Id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// How the identity is proved: `world`, `auth`, `digest`, `ip`, `x509`, …
    pub scheme: String,
    /// The identity, in the scheme's own form.
    pub id: String,
}

/// One entry of an ACL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// What is granted.
    pub permissions: Permissions,
    /// To whom.
    pub principal: Principal,
}

impl Acl {
    /// Everything to everybody, `world:anyone:cdrwa`.
    pub fn open() -> Self {
        Self::anyone(Permissions::ALL)
    }

    /// `permissions` to everybody.
    pub fn anyone(permissions: Permissions) -> Self {
        Self { permissions, principal: Principal { scheme: "world".into(), id: "anyone".into() } }
    }

    /// Appends a list of entries.
    pub fn encode_list(acl: &[Self], out: &mut Vec<u8>) {
        out.put_count(acl.len());
        for entry in acl {
            out.put_int(entry.permissions.0);
            out.put_text(&entry.principal.scheme);
            out.put_text(&entry.principal.id);
        }
    }

    /// Reads a list of entries; null reads as empty.
    ///
    /// # Errors
    ///
    /// When the bytes are no such list.
    pub fn decode_list(reader: &mut Reader<'_>) -> Result<Vec<Self>, CodecError> {
        reader.vector("acl", 12, |reader| {
            let permissions = Permissions(reader.int("acl.perms")?);
            let scheme = reader.text("acl.scheme")?.into_owned();
            let id = reader.text("acl.id")?.into_owned();
            Ok(Self { permissions, principal: Principal { scheme, id } })
        })
    }
}

impl Principal {
    /// Whether it stands for everybody.
    pub fn is_anyone(&self) -> bool {
        self.scheme == "world" && self.id == "anyone"
    }
}
