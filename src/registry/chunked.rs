//! An ordered list that views share in chunks.

use std::cmp::Ordering;
use std::fmt;
use std::iter;
use std::ops::Index;
use std::slice;
use std::sync::Arc;

/// What is found by a key of its own.
pub trait Keyed {
    /// The key, by which a list is ordered.
    type Key: Ord + ?Sized;

    /// Its key.
    fn key(&self) -> &Self::Key;
}

/// Items by their keys, in the order of these. A change copies one chunk and counts the others, whatever the number of items: to count every
/// item would look at each, which is what a change then mostly costs.
///
/// Invariant: keys ascend, and no two are the same; no chunk is empty, and none has more than [`CHUNK_MAX`].
pub struct Chunked<T> {
    chunks: Vec<Chunk<T>>,
    len: usize,
}

type Chunk<T> = Arc<[Arc<T>]>;

/// The chunk, and the place in it.
type Place = (usize, usize);

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

    /// The one at this place, counted from the first; in as many steps as there are chunks.
    pub fn get(&self, mut at: usize) -> Option<&Arc<T>> {
        self.chunks.iter().find_map(|chunk| {
            let found = chunk.get(at);
            at = at.saturating_sub(chunk.len());
            found
        })
    }

    fn insert(&mut self, (mut at, mut place): Place, item: Arc<T>) {
        self.len += 1;
        // What comes before a chunk also comes at the end of the one before, where there may be room; and what comes behind all only there.
        if place == 0
            && let Some(before) = at.checked_sub(1)
            && (at == self.chunks.len() || self.chunks[before].len() < CHUNK_MAX)
        {
            (at, place) = (before, self.chunks[before].len());
        }
        let Some(chunk) = self.chunks.get(at) else { return self.chunks.push([item].into()) };
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

    fn remove(&mut self, (at, place): Place) -> Arc<T> {
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

    #[cfg(test)]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Arc<T>> {
        self.chunks.iter_mut().flat_map(|chunk| Arc::make_mut(chunk).iter_mut())
    }
}

impl<T: Keyed> Chunked<T> {
    /// The one with this key.
    pub fn find(&self, key: &T::Key) -> Option<&Arc<T>> {
        let (at, place) = self.locate(key).ok()?;
        Some(&self.chunks[at][place])
    }

    /// The one with this key, to be changed in this list alone, if `is_to_change` says so; else nothing is copied.
    pub fn find_mut_if(
        &mut self,
        key: &T::Key,
        is_to_change: impl FnOnce(&Arc<T>) -> bool,
    ) -> Option<&mut Arc<T>> {
        let (at, place) = self.locate(key).ok()?;
        let chunk = &mut self.chunks[at];
        is_to_change(&chunk[place]).then(|| &mut Arc::make_mut(chunk)[place])
    }

    /// Puts one in the place of that with its key, or adds it.
    pub fn put(&mut self, item: Arc<T>) {
        match self.locate(item.key()) {
            Ok((at, place)) => Arc::make_mut(&mut self.chunks[at])[place] = item,
            Err(place) => self.insert(place, item),
        }
    }

    /// Takes the one with this key out.
    pub fn take(&mut self, key: &T::Key) -> Option<Arc<T>> {
        let place = self.locate(key).ok()?;
        Some(self.remove(place))
    }

    /// Those whose keys are not less than this, in order.
    pub fn starting_at(&self, key: &T::Key) -> impl Iterator<Item = &Arc<T>> {
        let (at, place) = self.locate(key).unwrap_or_else(|place| place);
        self.chunks[at..].iter().flat_map(|chunk| &**chunk).skip(place)
    }

    /// Where the one with this key is, or would be: at a place in a chunk, or behind all chunks.
    fn locate(&self, key: &T::Key) -> Result<Place, Place> {
        let at = self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| last.key() < key));
        let Some(chunk) = self.chunks.get(at) else { return Err((at, 0)) };
        let within = chunk.binary_search_by(|item| item.key().cmp(key));
        within.map(|place| (at, place)).map_err(|place| (at, place))
    }

    /// What is not the same in `after`, in the order of keys. Chunks that both share are passed over: this takes as many steps as there are
    /// chunks, and items in those that differ.
    pub(super) fn differences<'a>(&'a self, after: &'a Self) -> impl Iterator<Item = Difference<'a, T>> {
        let (mut was, mut is) = (Cursor::new(self), Cursor::new(after));
        iter::from_fn(move || {
            loop {
                was.pass_shared(&mut is);
                let (old, new) = match (was.peek(), is.peek()) {
                    (Some(old), Some(new)) => (old, new),
                    (old, new) => {
                        was.advance();
                        is.advance();
                        return old.map(Difference::Gone).or_else(|| new.map(Difference::New));
                    }
                };
                let order = if Arc::ptr_eq(old, new) { Ordering::Equal } else { old.key().cmp(new.key()) };
                if order.is_le() {
                    was.advance();
                }
                if order.is_ge() {
                    is.advance();
                }
                match order {
                    Ordering::Less => return Some(Difference::Gone(old)),
                    Ordering::Greater => return Some(Difference::New(new)),
                    Ordering::Equal if Arc::ptr_eq(old, new) => {}
                    Ordering::Equal => return Some(Difference::Changed(old, new)),
                }
            }
        })
    }

    #[cfg(test)]
    pub(crate) fn take_nth(&mut self, at: usize) -> Arc<T> {
        let item = self[at].clone();
        self.take(item.key()).expect("it is there")
    }

    #[cfg(test)]
    fn check_invariants(&self) {
        assert!(self.chunks.iter().all(|chunk| (1..=CHUNK_MAX).contains(&chunk.len())));
        assert_eq!(self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), self.len);
        assert!(self.iter().is_sorted_by(|one, other| one.key() < other.key()));
    }
}

/// How two lists differ in one key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Difference<'a, T> {
    /// It was there, and is no more.
    Gone(&'a Arc<T>),
    /// It was not there, and is.
    New(&'a Arc<T>),
    /// It was the one, and is the other.
    Changed(&'a Arc<T>, &'a Arc<T>),
}

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
    fn pass_shared(&mut self, other: &mut Self) {
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

#[cfg(test)]
impl<T> std::ops::IndexMut<usize> for Chunked<T> {
    /// To be changed in this list alone, and to keep its key.
    fn index_mut(&mut self, mut at: usize) -> &mut Arc<T> {
        let chunk = self.chunks.iter_mut().find(|chunk| {
            let is_here = at < chunk.len();
            at -= if is_here { 0 } else { chunk.len() };
            is_here
        });
        &mut Arc::make_mut(chunk.expect("there is one at this place"))[at]
    }
}

impl<T: Keyed> FromIterator<Arc<T>> for Chunked<T> {
    /// In any order. Of several with one key the last counts.
    fn from_iter<I: IntoIterator<Item = Arc<T>>>(items: I) -> Self {
        let mut items: Vec<_> = items.into_iter().collect();
        items.sort_by(|one, other| one.key().cmp(other.key()));
        items.dedup_by(|later, earlier| {
            let is_same = later.key() == earlier.key();
            if is_same {
                std::mem::swap(later, earlier);
            }
            is_same
        });
        let chunks = items.chunks(CHUNK_MAX).map(Chunk::from).collect();
        Self { chunks, len: items.len() }
    }
}

impl<T: Keyed> From<Vec<Arc<T>>> for Chunked<T> {
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
        assert!(
            after.find_mut_if("i00100", |_| false).is_none()
                && after.find_mut_if("i00101", |_| true).is_none()
        );
        assert_eq!(shared(&before, &after), 7, "nothing has changed");
        after.put(instance(101));
        assert_eq!((shared(&before, &after), before.len(), after.len()), (6, 100, 101));
        *after.find_mut_if("i00000", |_| true).unwrap() = instance(0);
        assert_eq!(shared(&before, &after), 5);
        let differing: Vec<_> = before.differences(&after).collect();
        assert!(matches!(differing[..], [Difference::Changed(..), Difference::New(_)]), "{differing:?}");
        let last: Vec<_> = after.starting_at("i00197").map(|it| it.id.as_str()).collect();
        assert_eq!(last, ["i00198"]);
    }

    /// So many chunks do both have.
    fn shared(before: &Instances, after: &Instances) -> usize {
        let is_shared = |chunk: &&Chunk<Instance>| after.chunks.iter().any(|other| Arc::ptr_eq(chunk, other));
        before.chunks.iter().filter(is_shared).count()
    }

    #[test]
    fn of_several_with_one_key_the_last_counts() {
        let (first, last) = (instance(1), instance(1));
        let instances: Instances = [instance(2), first, instance(0), last.clone()].into_iter().collect();
        instances.check_invariants();
        assert_eq!(instances.len(), 3);
        assert!(Arc::ptr_eq(instances.find("i00001").unwrap(), &last));
        assert!(instances.get(3).is_none());
    }

    #[test]
    fn chunks_do_not_stay_many_when_most_go_one_after_the_other() {
        let mut instances: Instances = (0..1_600).map(instance).collect();
        for kept in 0..100 {
            (1..16).for_each(|place| drop(instances.take(&format!("i{:05}", 16 * kept + place))));
            instances.check_invariants();
        }
        assert_eq!(instances.len(), 100);
        assert!(instances.chunks.len() <= 25, "{}", instances.chunks.len());
    }

    #[test]
    fn chunks_do_not_stay_small_whatever_the_order_in_which_items_come() {
        let ascending = || (0..200).collect::<Vec<_>>();
        let descending = || (16..216).rev().collect::<Vec<_>>();
        let orders = [ascending(), descending(), [(0..16).collect(), descending()].concat()];
        for order in orders {
            let mut instances = Instances::new();
            for number in &order {
                instances.put(instance(*number));
            }
            instances.check_invariants();
            assert_eq!(instances.len(), order.len());
            assert!(instances.chunks.len() <= 1 + instances.len() / 4, "{}", instances.chunks.len());
        }
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
                prop_assert_eq!(instances.find(id.as_str()).map(|it| &it.id), at.ok().map(|_| &id));
                match (is_insertion, at) {
                    (true, at) => {
                        if let Err(at) = at {
                            model.insert(at, number);
                        }
                        instances.put(instance(number));
                    }
                    (false, Ok(at)) => {
                        model.remove(at);
                        prop_assert_eq!(&instances.take(id.as_str()).unwrap().id, &id);
                    }
                    (false, Err(_)) => prop_assert!(instances.take(id.as_str()).is_none()),
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
            let pair = |difference| match difference {
                Difference::Gone(was) => (Some(Arc::as_ptr(was)), None),
                Difference::New(is) => (None, Some(Arc::as_ptr(is))),
                Difference::Changed(was, is) => (Some(Arc::as_ptr(was)), Some(Arc::as_ptr(is))),
            };
            let found: Vec<_> = differences.map(pair).collect();
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
