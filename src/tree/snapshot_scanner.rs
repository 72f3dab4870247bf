//! Finding the end of a snapshot's body while it is still arriving.
//!
//! On the wire a body stands between packets without a length: whoever reads it must know what it is made of. Nothing is
//! kept here of what is passed over; [`Tree::decode_snapshot`](super::Tree::decode_snapshot) reads it once it is all there.

use crate::codec::{CodecError, Reader};

/// How far a body was scanned.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotScanner {
    /// Where the part begins that was not passed over.
    position: usize,
    part: Part,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Sessions,
    AclCount,
    /// So many are left.
    Acls(i32),
    Nodes,
    End,
}

/// A session and its timeout.
const SESSION_BYTES: usize = 12;
/// A znode's ACL id and stat.
const NODE_TAIL_BYTES: usize = 8 + 60;

impl SnapshotScanner {
    /// Starts at the body's first byte.
    pub const fn new() -> Self {
        Self { position: 0, part: Part::Sessions }
    }

    /// Scans on in `bytes`, which are the body from its beginning as far as it has arrived, and what follows it. Returns
    /// the body's length once all of it is there.
    ///
    /// # Errors
    ///
    /// When the bytes are no snapshot's body.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, CodecError> {
        while !matches!(self.part, Part::End) {
            let mut reader = Reader::new(&bytes[self.position..]);
            match self.step(&mut reader) {
                Ok(part) => {
                    self.part = part;
                    self.position = bytes.len() - reader.remaining().len();
                }
                Err(CodecError::Truncated { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(self.position))
    }

    /// Passes over one element, if it is all there.
    fn step(&self, reader: &mut Reader<'_>) -> Result<Part, CodecError> {
        match self.part {
            Part::Sessions => {
                let count = count(reader, "snapshot.sessions")?;
                let length = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(SESSION_BYTES);
                reader.take(length, "snapshot.sessions")?;
                Ok(Part::AclCount)
            }
            Part::AclCount => Ok(Part::Acls(count(reader, "snapshot.acls")?)),
            Part::Acls(0) => Ok(Part::Nodes),
            Part::Acls(left) => {
                reader.long("snapshot.acl.id")?;
                for _ in 0..count(reader, "snapshot.acl")? {
                    reader.int("snapshot.acl.perms")?;
                    reader.buffer("snapshot.acl.scheme")?;
                    reader.buffer("snapshot.acl.id")?;
                }
                Ok(Part::Acls(left - 1))
            }
            Part::Nodes => {
                if reader.buffer("snapshot.path")? == Some(b"/") {
                    return Ok(Part::End);
                }
                reader.buffer("snapshot.data")?;
                reader.take(NODE_TAIL_BYTES, "snapshot.stat")?;
                Ok(Part::Nodes)
            }
            Part::End => Ok(Part::End),
        }
    }
}

impl Default for SnapshotScanner {
    fn default() -> Self {
        Self::new()
    }
}

fn count(reader: &mut Reader<'_>, field: &'static str) -> Result<i32, CodecError> {
    match reader.int(field)? {
        -1 => Ok(0),
        length if length < 0 => Err(CodecError::BadLength { field, length }),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::workload::{Workload, steps};

    proptest! {
        #[test]
        fn the_end_is_found_wherever_the_bytes_are_cut(steps in steps(0..60), cuts in proptest::collection::vec(1_usize..200, 1..20)) {
            let tree = Workload::of(&steps).tree;
            let mut body = Vec::new();
            let mut cursor = tree.begin_snapshot(&mut body);
            while !tree.continue_snapshot(&mut cursor, 3, &mut body) {}
            let whole = [&body[..], b"\0\0\0\x0aBenWasHere and more"].concat();

            let (mut scanner, mut arrived, mut found) = (SnapshotScanner::new(), 0, None);
            for cut in cuts.iter().cycle() {
                arrived = (arrived + cut).min(whole.len());
                found = scanner.scan(&whole[..arrived]).unwrap();
                prop_assert!(found.is_none() || arrived >= body.len());
                if arrived == whole.len() {
                    break;
                }
            }
            prop_assert_eq!(found, Some(body.len()));
        }
    }

    #[test]
    fn what_is_no_body_is_refused_or_never_ends() {
        assert!(SnapshotScanner::new().scan(&[0xff, 0xff, 0xff, 0xfe]).is_err());
        assert!(matches!(SnapshotScanner::new().scan(&[0x7f, 0xff, 0xff, 0xff]), Ok(None)));
        let mut no_path = vec![0; 8];
        no_path.extend([0xff, 0xff, 0xff, 0xf0]);
        assert!(SnapshotScanner::new().scan(&no_path).is_err());
    }
}
