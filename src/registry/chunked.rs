//! An ordered list that views share in chunks.

use std::fmt;
use std::iter;
use std::ops::{Index, IndexMut};
use std::slice;
use std::sync::Arc;

/// What is found by a key of its own.
pub trait Keyed {
    /// The key, by which a list is ordered.
    type Key: Ord + ?Sized;

    /// Its key.
    fn key(&self) -> &Self::Key;
}

/// Items in the order of their keys. Each change makes a new view, which copies one chunk and counts the others, whatever the number of items.
/// To count every item would look at each, which is what a change then mostly costs.
///
/// Invariant: no chunk is empty, and none has more than [`CHUNK_MAX`].
pub struct Chunked<T> {
    chunks: Vec<Chunk<T>>,
    len: usize,
}

type Chunk<T> = Arc<[Arc<T>]>;

const CHUNK_MAX: usize = 16;

impl<T> Chunked<T> {
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
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { chunks: self.chunks.iter(), chunk: [].iter(), left: self.len }
    }

    /// The one at this place.
    pub fn get(&self, at: usize) -> Option<&Arc<T>> {
        let (chunk, at) = self.place(at)?;
        Some(&self.chunks[chunk][at])
    }

    /// Adds one before that at this place, or at the end. The order is the caller's to keep.
    ///
    /// # Panics
    ///
    /// When the place is beyond the end.
    pub fn insert(&mut self, at: usize, item: Arc<T>) {
        assert!(at <= self.len, "{at} is beyond the end of {}", self.len);
        self.len += 1;
        // What comes at the end of one chunk could also come at the beginning of the next.
        let mut place = at;
        let Some(at) = self.chunks.iter().position(|chunk| {
            let is_here = place <= chunk.len();
            place -= if is_here { 0 } else { chunk.len() };
            is_here
        }) else {
            return self.chunks.push([item].into());
        };
        let chunk = &self.chunks[at];
        if chunk.len() < CHUNK_MAX {
            self.chunks[at] = with(chunk, place, item);
        } else if place == CHUNK_MAX {
            // They mostly come in their order.
            self.chunks.insert(at + 1, [item].into());
        } else {
            let (lower, upper) = chunk.split_at(CHUNK_MAX / 2);
            let halves: [Chunk<T>; 2] = match place.checked_sub(lower.len()) {
                None | Some(0) => [with(lower, place, item), upper.into()],
                Some(place) => [lower.into(), with(upper, place, item)],
            };
            self.chunks.splice(at..=at, halves);
        }
    }

    /// Takes the one at this place out.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn remove(&mut self, at: usize) -> Arc<T> {
        let (at, place) = self.place(at).expect("there is one at this place");
        self.len -= 1;
        let chunk = &self.chunks[at];
        let removed = chunk[place].clone();
        if chunk.len() == 1 {
            self.chunks.remove(at);
            return removed;
        }
        self.chunks[at] = chunk[..place].iter().chain(&chunk[place + 1..]).cloned().collect();
        // Whatever goes, chunks do not become many and small.
        self.join(at);
        if let Some(before) = at.checked_sub(1) {
            self.join(before);
        }
        removed
    }

    /// Makes one of this chunk and the next, if both are small.
    fn join(&mut self, at: usize) {
        let Some([here, next]) = self.chunks.get(at..at + 2) else { return };
        if here.len() + next.len() <= CHUNK_MAX / 2 {
            let joined = here.iter().chain(&**next).cloned().collect();
            self.chunks.splice(at..at + 2, [joined]);
        }
    }

    /// Adds one at the end.
    pub fn push(&mut self, item: Arc<T>) {
        self.insert(self.len, item);
    }

    #[cfg(test)]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Arc<T>> {
        self.chunks.iter_mut().flat_map(|chunk| Arc::make_mut(chunk).iter_mut())
    }

    #[cfg(test)]
    fn check_invariants(&self) {
        assert!(self.chunks.iter().all(|chunk| (1..=CHUNK_MAX).contains(&chunk.len())));
        assert_eq!(self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), self.len);
    }

    /// The chunk, and the place in it.
    fn place(&self, mut at: usize) -> Option<(usize, usize)> {
        for (chunk, items) in self.chunks.iter().enumerate() {
            if at < items.len() {
                return Some((chunk, at));
            }
            at -= items.len();
        }
        None
    }
}

impl<T: Keyed> Chunked<T> {
    /// The place of the one with this key, or where it would be.
    pub fn position(&self, key: &T::Key) -> Result<usize, usize> {
        let chunk = self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| last.key() < key));
        let before: usize = self.chunks[..chunk].iter().map(|chunk| chunk.len()).sum();
        let Some(chunk) = self.chunks.get(chunk) else { return Err(before) };
        let within = chunk.binary_search_by(|item| item.key().cmp(key));
        within.map(|at| before + at).map_err(|at| before + at)
    }

    /// The one with this key.
    pub fn find(&self, key: &T::Key) -> Option<&Arc<T>> {
        self.get(self.position(key).ok()?)
    }

    /// What is not the same in `after`, in the order of keys: what was here, and what is there. Whole chunks that both share are not looked at, so
    /// that this takes as long as the changes are many.
    pub fn differences<'a>(&'a self, after: &'a Self) -> impl Iterator<Item = Difference<'a, T>> {
        let (mut was, mut is) = (Cursor::new(self), Cursor::new(after));
        iter::from_fn(move || {
            loop {
                was.skip_shared(&mut is);
                match (was.peek(), is.peek()) {
                    (None, None) => return None,
                    (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {
                        was.advance();
                        is.advance();
                    }
                    (Some(old), Some(new)) if old.key() == new.key() => {
                        was.advance();
                        is.advance();
                        return Some((Some(old), Some(new)));
                    }
                    (Some(old), new) if new.is_none_or(|new| old.key() < new.key()) => {
                        was.advance();
                        return Some((Some(old), None));
                    }
                    (_, new) => {
                        is.advance();
                        return Some((None, new));
                    }
                }
            }
        })
    }
}

/// What was there and what is there now, of one key.
pub(super) type Difference<'a, T> = (Option<&'a Arc<T>>, Option<&'a Arc<T>>);

/// A place in a list, from where on chunks that another shares can be passed over.
struct Cursor<'a, T> {
    chunks: &'a [Chunk<T>],
    place: usize,
}

impl<'a, T> Cursor<'a, T> {
    fn new(list: &'a Chunked<T>) -> Self {
        Self { chunks: &list.chunks, place: 0 }
    }

    fn peek(&self) -> Option<&'a Arc<T>> {
        self.chunks.first()?.get(self.place)
    }

    fn advance(&mut self) {
        self.place += 1;
        if self.chunks.first().is_some_and(|chunk| self.place == chunk.len()) {
            (self.chunks, self.place) = (&self.chunks[1..], 0);
        }
    }

    /// Passes over what both have next, chunk by chunk.
    fn skip_shared(&mut self, other: &mut Self) {
        while let (0, 0, [here, rest @ ..], [there, others @ ..]) =
            (self.place, other.place, self.chunks, other.chunks)
            && Arc::ptr_eq(here, there)
        {
            (self.chunks, other.chunks) = (rest, others);
        }
    }
}

/// A chunk with one more before that at this place, or at its end.
fn with<T>(chunk: &[Arc<T>], place: usize, item: Arc<T>) -> Chunk<T> {
    let (before, behind) = chunk.split_at(place);
    before.iter().cloned().chain([item]).chain(behind.iter().cloned()).collect()
}

/// See [`Chunked::iter`].
#[derive(Debug)]
pub struct Iter<'a, T> {
    chunks: slice::Iter<'a, Chunk<T>>,
    chunk: slice::Iter<'a, Arc<T>>,
    left: usize,
}

impl<T> Clone for Iter<'_, T> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), chunk: self.chunk.clone(), left: self.left }
    }
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a Arc<T>;

    fn next(&mut self) -> Option<&'a Arc<T>> {
        loop {
            if let Some(item) = self.chunk.next() {
                self.left -= 1;
                return Some(item);
            }
            self.chunk = self.chunks.next()?.iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}

impl<'a, T> IntoIterator for &'a Chunked<T> {
    type Item = &'a Arc<T>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Index<usize> for Chunked<T> {
    type Output = Arc<T>;

    fn index(&self, at: usize) -> &Arc<T> {
        self.get(at).expect("there is one at this place")
    }
}

impl<T> IndexMut<usize> for Chunked<T> {
    /// To be changed in this view alone.
    fn index_mut(&mut self, at: usize) -> &mut Arc<T> {
        let (chunk, at) = self.place(at).expect("there is one at this place");
        &mut Arc::make_mut(&mut self.chunks[chunk])[at]
    }
}

impl<T> FromIterator<Arc<T>> for Chunked<T> {
    /// The order is the caller's to keep.
    fn from_iter<I: IntoIterator<Item = Arc<T>>>(items: I) -> Self {
        let (mut collected, mut items) = (Self::new(), items.into_iter());
        loop {
            let chunk: Chunk<T> = items.by_ref().take(CHUNK_MAX).collect();
            if chunk.is_empty() {
                collected.chunks.shrink_to_fit();
                return collected;
            }
            collected.len += chunk.len();
            collected.chunks.push(chunk);
        }
    }
}

impl<T> From<Vec<Arc<T>>> for Chunked<T> {
    fn from(items: Vec<Arc<T>>) -> Self {
        items.into_iter().collect()
    }
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Chunked<T> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<T: fmt::Debug> fmt::Debug for Chunked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{SessionId, Zxid};
    use crate::registry::{Instance, Instances, Label, Record};

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
        fn it_is_a_list(
            steps in proptest::collection::vec((any::<bool>(), 0..200_u32), 0..400),
            looked_at in 0..400_usize,
        ) {
            let (mut instances, mut model) = (Instances::new(), Vec::<u32>::new());
            let mut before = Instances::new();
            for (step, (is_insertion, number)) in steps.into_iter().enumerate() {
                if step == looked_at {
                    before = instances.clone();
                }
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
            let find = |list: &Instances, id: &str| list.find(id).map(Arc::as_ptr);
            let mut differing: Vec<_> = before.iter().chain(&instances).map(|it| it.id.as_str()).collect();
            differing.sort_unstable();
            differing.dedup();
            differing.retain(|id| find(&before, id) != find(&instances, id));
            let differences = before.differences(&instances);
            let found: Vec<_> = differences.map(|(was, is)| (was.map(Arc::as_ptr), is.map(Arc::as_ptr))).collect();
            let expected: Vec<_> = differing.iter().map(|id| (find(&before, id), find(&instances, id))).collect();
            prop_assert_eq!(found, expected);
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
