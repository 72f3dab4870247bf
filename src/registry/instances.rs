//! The instances of one service, in the order of their ids.

use std::fmt;
use std::ops::{Index, IndexMut};
use std::slice;
use std::sync::Arc;

use super::view::Instance;

/// Instances that views share in chunks: each change makes a new view, which copies one chunk and counts the others, whatever their
/// number. To count every instance would look at each, which is what a change then mostly costs.
///
/// Invariant: no chunk is empty, and none has more than [`CHUNK_MAX`].
#[derive(Clone, Default)]
pub struct Instances {
    chunks: Vec<Arc<Vec<Arc<Instance>>>>,
    len: usize,
}

const CHUNK_MAX: usize = 16;

impl Instances {
    /// None.
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in their order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { chunks: self.chunks.iter(), chunk: [].iter(), left: self.len }
    }

    /// The one at this place.
    pub fn get(&self, at: usize) -> Option<&Arc<Instance>> {
        let (chunk, at) = self.place(at)?;
        Some(&self.chunks[chunk][at])
    }

    /// The place of the instance of this id, or where it would be.
    pub fn position(&self, id: &str) -> Result<usize, usize> {
        let chunk =
            self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| last.id.as_str() < id));
        let before: usize = self.chunks[..chunk].iter().map(|chunk| chunk.len()).sum();
        let Some(chunk) = self.chunks.get(chunk) else { return Err(before) };
        let within = chunk.binary_search_by(|instance| instance.id.as_str().cmp(id));
        within.map(|at| before + at).map_err(|at| before + at)
    }

    /// The instance of this id.
    pub fn find(&self, id: &str) -> Option<&Arc<Instance>> {
        self.get(self.position(id).ok()?)
    }

    /// Adds one before that at this place, or at the end.
    ///
    /// # Panics
    ///
    /// When the place is beyond the end.
    pub fn insert(&mut self, at: usize, instance: Arc<Instance>) {
        assert!(at <= self.len, "{at} is beyond the end of {}", self.len);
        self.len += 1;
        // What comes at the end of one chunk could also come at the beginning of the next.
        let mut place = at;
        let Some(chunk) = self.chunks.iter().position(|chunk| {
            let is_here = place <= chunk.len();
            place -= if is_here { 0 } else { chunk.len() };
            is_here
        }) else {
            return self.chunks.push(Arc::new(vec![instance]));
        };
        if self.chunks[chunk].len() >= CHUNK_MAX {
            // They mostly come in their order.
            if place == CHUNK_MAX {
                return self.chunks.insert(chunk + 1, Arc::new(vec![instance]));
            }
            let upper = Arc::make_mut(&mut self.chunks[chunk]).split_off(CHUNK_MAX / 2);
            self.chunks.insert(chunk + 1, Arc::new(upper));
            self.len -= 1;
            return self.insert(at, instance);
        }
        Arc::make_mut(&mut self.chunks[chunk]).insert(place, instance);
    }

    /// Takes the one at this place out.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn remove(&mut self, at: usize) -> Arc<Instance> {
        let (chunk, at) = self.place(at).expect("there is one at this place");
        self.len -= 1;
        let instances = Arc::make_mut(&mut self.chunks[chunk]);
        let removed = instances.remove(at);
        if instances.is_empty() {
            self.chunks.remove(chunk);
        } else {
            // Whatever goes, chunks do not become many and small.
            self.join(chunk);
            if let Some(before) = chunk.checked_sub(1) {
                self.join(before);
            }
        }
        removed
    }

    /// Makes one of this chunk and the next, if both are small.
    fn join(&mut self, chunk: usize) {
        let len = |chunk: usize| self.chunks.get(chunk).map(|chunk| chunk.len());
        if let (Some(here), Some(next)) = (len(chunk), len(chunk + 1))
            && here + next <= CHUNK_MAX / 2
        {
            let next = self.chunks.remove(chunk + 1);
            Arc::make_mut(&mut self.chunks[chunk]).extend(next.iter().cloned());
        }
    }

    /// Adds one at the end.
    pub fn push(&mut self, instance: Arc<Instance>) {
        self.insert(self.len, instance);
    }

    /// The chunk, and the place in it.
    fn place(&self, mut at: usize) -> Option<(usize, usize)> {
        for (chunk, instances) in self.chunks.iter().enumerate() {
            if at < instances.len() {
                return Some((chunk, at));
            }
            at -= instances.len();
        }
        None
    }

    #[cfg(test)]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Arc<Instance>> {
        self.chunks.iter_mut().flat_map(|chunk| Arc::make_mut(chunk).iter_mut())
    }

    /// Whether nothing is kept for more of them.
    #[cfg(test)]
    pub(super) fn is_compact(&self) -> bool {
        self.chunks.iter().all(|chunk| chunk.capacity() == chunk.len())
    }

    #[cfg(test)]
    fn check_invariants(&self) {
        assert!(self.chunks.iter().all(|chunk| (1..=CHUNK_MAX).contains(&chunk.len())));
        assert_eq!(self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), self.len);
    }
}

/// See [`Instances::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    chunks: slice::Iter<'a, Arc<Vec<Arc<Instance>>>>,
    chunk: slice::Iter<'a, Arc<Instance>>,
    left: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Arc<Instance>;

    fn next(&mut self) -> Option<&'a Arc<Instance>> {
        loop {
            if let Some(instance) = self.chunk.next() {
                self.left -= 1;
                return Some(instance);
            }
            self.chunk = self.chunks.next()?.iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Instances {
    type Item = &'a Arc<Instance>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl Index<usize> for Instances {
    type Output = Arc<Instance>;

    fn index(&self, at: usize) -> &Arc<Instance> {
        self.get(at).expect("there is one at this place")
    }
}

impl IndexMut<usize> for Instances {
    /// To be changed in this view alone.
    fn index_mut(&mut self, at: usize) -> &mut Arc<Instance> {
        let (chunk, at) = self.place(at).expect("there is one at this place");
        &mut Arc::make_mut(&mut self.chunks[chunk])[at]
    }
}

impl FromIterator<Arc<Instance>> for Instances {
    fn from_iter<I: IntoIterator<Item = Arc<Instance>>>(instances: I) -> Self {
        let (mut collected, mut instances) = (Self::new(), instances.into_iter());
        loop {
            // A list of its own: what is collected could stay in the room of what it was made from.
            let mut chunk = Vec::new();
            chunk.extend(instances.by_ref().take(CHUNK_MAX));
            if chunk.is_empty() {
                collected.chunks.shrink_to_fit();
                return collected;
            }
            chunk.shrink_to_fit();
            collected.len += chunk.len();
            collected.chunks.push(Arc::new(chunk));
        }
    }
}

impl From<Vec<Arc<Instance>>> for Instances {
    fn from(instances: Vec<Arc<Instance>>) -> Self {
        instances.into_iter().collect()
    }
}

impl fmt::Debug for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{SessionId, Zxid};
    use crate::registry::{Label, Record};

    #[test]
    fn a_change_copies_one_chunk_and_shares_the_others() {
        let before: Instances = (0..100).map(|number| instance(2 * number)).collect();
        before.check_invariants();
        let mut after = before.clone();
        after[50] = instance(1_000);
        let shared = before.chunks.iter().zip(&after.chunks).filter(|(one, other)| Arc::ptr_eq(one, other));
        assert_eq!((shared.count(), before.chunks.len()), (6, 7));
        assert_eq!((before[50].id.as_str(), after[50].id.as_str()), ("i00100", "i01000"));
    }

    #[test]
    fn chunks_do_not_stay_many_when_most_go_one_after_the_other() {
        let mut instances: Instances = (0..1_600).map(instance).collect();
        for kept in 0..100 {
            (0..15).for_each(|_| drop(instances.remove(kept)));
            instances.check_invariants();
        }
        assert_eq!(instances.len(), 100);
        assert!(instances.chunks.len() <= 25, "{}", instances.chunks.len());
    }

    proptest! {
        #[test]
        fn it_is_a_list(steps in proptest::collection::vec((any::<bool>(), 0..200_u32), 0..400)) {
            let (mut instances, mut model) = (Instances::new(), Vec::<u32>::new());
            for (is_insertion, number) in steps {
                let at = model.binary_search(&number);
                let id = instance(number).id.clone();
                prop_assert_eq!(instances.position(id.as_str()), at);
                match (is_insertion, at) {
                    (true, Err(at)) => {
                        model.insert(at, number);
                        instances.insert(at, instance(number));
                    }
                    (false, Ok(at)) => {
                        model.remove(at);
                        prop_assert_eq!(&instances.remove(at).id, &id);
                    }
                    (true, Ok(at)) => instances[at] = instance(number),
                    (false, Err(_)) => prop_assert!(instances.find(id.as_str()).is_none()),
                }
                instances.check_invariants();
                prop_assert_eq!(instances.len(), model.len());
            }
            let ids: Vec<_> = instances.iter().map(|it| it.id.to_string()).collect();
            let expected: Vec<_> = model.iter().map(|number| instance(*number).id.to_string()).collect();
            prop_assert_eq!(ids, expected);
            // So few that no list is much longer in chunks.
            prop_assert!(instances.chunks.len() <= 1 + instances.len() / 4);
        }
    }

    fn instance(number: u32) -> Arc<Instance> {
        const RECORD: &[u8] =
            br#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;
        let id = Label::parse(&format!("i{number:05}")).unwrap();
        Arc::new(Instance::new(id, Record::decode(RECORD).unwrap(), Zxid::from_raw(1), SessionId(1)))
    }
}
