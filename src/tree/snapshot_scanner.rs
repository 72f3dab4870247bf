//! Where the body of a snapshot ends, found while its bytes come in.
//!
//! ```text
//! bytes as they come, cut anywhere ──► scan ──► None: more is to come; Some(n): the body ends behind n of these
//! ```
//!
//! Members send a snapshot over a stream that says nothing of its length, so that the end can only be found by walking
//! the structure. Nothing is kept but the place in it, and no content is looked at, save what tells the end mark
//! from a path: whether the body makes sense is for [`super::Tree::decode_snapshot`] to say. The format is described in
//! [`super::snapshot`].

use crate::znode::StatPersisted;

/// A walk through one body.
#[derive(Clone, Debug)]
pub struct SnapshotScanner {
    bytes_max: u64,
    /// Behind what was looked at or is to be skipped.
    position: u64,
    /// How much of that is still to come.
    skip: u64,
    /// The first bytes of a number that was cut.
    partial: [u8; INT_BYTES],
    partial_len: usize,
    next: Field,
}

/// What stands behind what is to be skipped.
#[derive(Clone, Copy, Debug)]
enum Field {
    SessionCount,
    AclCount,
    /// The ACLs to come, the one whose number of entries this is included.
    EntryCount {
        acls: u32,
    },
    SchemeLength {
        acls: u32,
        entries: u32,
    },
    IdLength {
        acls: u32,
        entries: u32,
    },
    PathLength,
    /// The only byte of a path.
    PathByte,
    DataLength,
    End,
}

/// Why bytes are no body of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// A length that cannot be.
    #[error("{what} of length {length} in a snapshot")]
    BadLength {
        /// What has it.
        what: &'static str,
        /// The length as it stood there.
        length: i32,
    },
    /// The body would be longer than allowed.
    #[error("a snapshot of more than {bytes_max} bytes")]
    TooLong {
        /// The most that was allowed.
        bytes_max: u64,
    },
}

impl SnapshotScanner {
    /// Starts before the first byte of a body that may have at most `bytes_max`.
    pub const fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            position: 0,
            skip: 0,
            partial: [0; INT_BYTES],
            partial_len: 0,
            next: Field::SessionCount,
        }
    }

    /// Goes on with the next bytes. `Some` tells how many of them still belong to the body; the scanner is done then.
    ///
    /// # Errors
    ///
    /// When these bytes cannot be the body of a snapshot.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        let mut at = 0;
        loop {
            let left = bytes.len() - at;
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(left);
            at += skipped;
            self.skip -= skipped as u64;
            if matches!(self.next, Field::End) {
                return Ok(Some(at));
            }
            let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty() && self.skip == 0) else {
                return Ok(None);
            };
            if matches!(self.next, Field::PathByte) {
                self.next = if rest[0] == END_MARK { Field::End } else { Field::DataLength };
                at += 1;
                self.pass(1)?;
                continue;
            }
            let taken = rest.len().min(INT_BYTES - self.partial_len);
            self.partial[self.partial_len..][..taken].copy_from_slice(&rest[..taken]);
            self.partial_len += taken;
            at += taken;
            if self.partial_len == INT_BYTES {
                self.partial_len = 0;
                self.pass(INT_BYTES as u64)?;
                self.on_int(i32::from_be_bytes(self.partial))?;
            }
        }
    }

    fn on_int(&mut self, value: i32) -> Result<(), ScanError> {
        match self.next {
            Field::SessionCount => {
                let sessions = count("sessions", value)?;
                self.next = Field::AclCount;
                self.advance(SESSION_BYTES * u64::from(sessions))
            }
            Field::AclCount => {
                let acls = count("ACLs", value)?;
                self.next_acl(acls)
            }
            Field::EntryCount { acls } => {
                let entries = count("an ACL", value)?;
                self.next_entry(acls, entries)
            }
            Field::SchemeLength { acls, entries } => {
                let length = length("a scheme", value, TEXT_BYTES_MAX)?;
                self.next = Field::IdLength { acls, entries };
                self.advance(length)
            }
            Field::IdLength { acls, entries } => {
                let length = length("an id", value, TEXT_BYTES_MAX)?;
                self.advance(length)?;
                self.next_entry(acls, entries - 1)
            }
            Field::PathLength if value == 1 => {
                self.next = Field::PathByte;
                Ok(())
            }
            Field::PathLength => {
                // A path cannot be null.
                let length = length("a path", value, TEXT_BYTES_MAX).and_then(|length| match value {
                    -1 => Err(ScanError::BadLength { what: "a path", length: value }),
                    _ => Ok(length),
                })?;
                self.next = Field::DataLength;
                self.advance(length)
            }
            Field::DataLength => {
                let length = length("data", value, DATA_BYTES_MAX)?;
                self.next = Field::PathLength;
                self.advance(length + ACL_ID_BYTES + StatPersisted::ENCODED_BYTES as u64)
            }
            Field::PathByte | Field::End => unreachable!("no number is read there"),
        }
    }

    fn next_acl(&mut self, acls: u32) -> Result<(), ScanError> {
        if acls == 0 {
            self.next = Field::PathLength;
            return Ok(());
        }
        self.next = Field::EntryCount { acls };
        self.advance(ACL_ID_BYTES)
    }

    fn next_entry(&mut self, acls: u32, entries: u32) -> Result<(), ScanError> {
        if entries == 0 {
            return self.next_acl(acls - 1);
        }
        self.next = Field::SchemeLength { acls, entries };
        self.advance(PERMISSIONS_BYTES)
    }

    /// Skips the next `bytes`.
    fn advance(&mut self, bytes: u64) -> Result<(), ScanError> {
        self.skip += bytes;
        self.pass(bytes)
    }

    fn pass(&mut self, bytes: u64) -> Result<(), ScanError> {
        self.position += bytes;
        if self.position > self.bytes_max {
            return Err(ScanError::TooLong { bytes_max: self.bytes_max });
        }
        Ok(())
    }
}

/// A vector's count; null counts as empty.
fn count(what: &'static str, value: i32) -> Result<u32, ScanError> {
    if value == -1 {
        return Ok(0);
    }
    u32::try_from(value).map_err(|_negative| ScanError::BadLength { what, length: value })
}

/// The length of a buffer or text; null counts as empty.
fn length(what: &'static str, value: i32, max: u32) -> Result<u64, ScanError> {
    let length = count(what, value)?;
    if length > max {
        return Err(ScanError::BadLength { what, length: value });
    }
    Ok(u64::from(length))
}

const INT_BYTES: usize = 4;
/// A session's id and timeout.
const SESSION_BYTES: u64 = 12;
const ACL_ID_BYTES: u64 = 8;
const PERMISSIONS_BYTES: u64 = 4;
/// A path that consists of this byte ends the body.
const END_MARK: u8 = b'/';
/// Paths, schemes and ids come in requests, of which none is longer than this, nor are the data of a znode.
const DATA_BYTES_MAX: u32 = 64 << 20;
const TEXT_BYTES_MAX: u32 = DATA_BYTES_MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::Tree;
    use crate::tree::workload::{Workload, create, steps, tree_of};

    proptest! {
        #[test]
        fn the_end_is_found_wherever_the_bytes_are_cut(
            before in steps(0..40), nodes_max in 1_usize..5, cuts in prop::collection::vec(1_usize..40, 1..20),
        ) {
            let body = body_of(&Workload::of(&before).tree, nodes_max);
            let mut stream = body.clone();
            stream.extend_from_slice(b"\0\0\0\x0aBenWasHere and more");
            let mut scanner = SnapshotScanner::new(body.len() as u64);
            let (mut at, mut cuts) = (0, cuts.iter().cycle());
            loop {
                prop_assert!(at < stream.len(), "the end was missed");
                let end = stream.len().min(at + cuts.next().unwrap());
                match scanner.scan(&stream[at..end]).unwrap() {
                    Some(consumed) => {
                        prop_assert_eq!(at + consumed, body.len());
                        break;
                    }
                    None => at = end,
                }
            }
        }

        #[test]
        fn a_body_that_is_longer_than_allowed_is_refused(before in steps(0..20), less in 1_u64..20) {
            let body = body_of(&Workload::of(&before).tree, 100);
            let bytes_max = body.len() as u64 - less;
            prop_assert_eq!(SnapshotScanner::new(bytes_max).scan(&body), Err(ScanError::TooLong { bytes_max }));
        }

        #[test]
        fn arbitrary_bytes_are_walked_alike_in_one_piece_and_byte_by_byte(bytes: Vec<u8>, zeros in 0_usize..40) {
            let mut stream = vec![0; zeros];
            stream.extend(bytes);
            let whole = SnapshotScanner::new(1 << 20).scan(&stream);
            let mut scanner = SnapshotScanner::new(1 << 20);
            let mut outcome = Ok(None);
            for (at, byte) in stream.iter().enumerate() {
                outcome = scanner.scan(std::slice::from_ref(byte)).map(|end| end.map(|consumed| at + consumed));
                if outcome != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(outcome, whole);
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_anything_is_waited_for() {
        let tree = tree_of([create("/a", 1)]);
        let body = body_of(&tree, 100);
        assert!(body.starts_with(&[0; 4]), "no sessions");
        for (bad, error) in [
            (&[0xff, 0xff, 0xff, 0xfe][..], ScanError::BadLength { what: "sessions", length: -2 }),
            (&[0x7f, 0, 0, 0], ScanError::TooLong { bytes_max: 1 << 20 }),
            (&[0, 0, 0, 0, 0x80, 0, 0, 0], ScanError::BadLength { what: "ACLs", length: i32::MIN }),
            (
                &[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
                ScanError::BadLength { what: "a path", length: -1 },
            ),
            (
                &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0],
                ScanError::BadLength { what: "data", length: 0x7f00_0000 },
            ),
        ] {
            assert_eq!(SnapshotScanner::new(1 << 20).scan(bad), Err(error));
        }
    }

    fn body_of(tree: &Tree, nodes_max: usize) -> Vec<u8> {
        let mut body = Vec::new();
        let mut cursor = tree.begin_snapshot(&mut body);
        while !tree.continue_snapshot(&mut cursor, nodes_max, &mut body) {}
        body
    }
}
