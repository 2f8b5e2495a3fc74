//! The memory layout of a store: objects of a namespace found by name, without a second copy of the name.

use std::{
    hash::{BuildHasher, Hash},
    sync::{Arc, LazyLock},
};

use hashbrown::{DefaultHashBuilder, HashTable};
use trysail_core::Object;

/// Seeded once per process, so that equal names hash alike in every table.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// 32 bits of hash are kept per entry, so that growing a table need not touch the objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NameHash(u32);

impl NameHash {
    pub(super) fn of(name: &str) -> Self {
        Self(HASHER.hash_one(name) as u32)
    }

    /// hashbrown takes buckets from the low and tags from the high bits: both must vary.
    fn spread(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// One held object: 16 bytes beside the object itself.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) object: Arc<T>,
    /// The list in which the object was last seen; see [`super::Store::begin_list`].
    pub(super) generation: u32,
    hash: NameHash,
}

/// Objects by name.
#[derive(Debug)]
pub(super) struct Table<T> {
    entries: HashTable<Entry<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: HashTable::new() }
    }
}

impl<T: Object> Table<T> {
    pub(super) fn get(&self, name: &str) -> Option<&Entry<T>> {
        let hash = NameHash::of(name);
        self.entries.find(hash.spread(), |entry| entry.hash == hash && *entry.object.key().name == *name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Entry<T>> {
        let hash = NameHash::of(name);
        self.entries.find_mut(hash.spread(), |entry| entry.hash == hash && *entry.object.key().name == *name)
    }

    /// Puts an object under its name and gives back the one that was there.
    pub(super) fn insert(&mut self, name: &str, object: Arc<T>, generation: u32) -> Option<Arc<T>> {
        if let Some(entry) = self.get_mut(name) {
            entry.generation = generation;
            return Some(std::mem::replace(&mut entry.object, object));
        }
        let hash = NameHash::of(name);
        let entry = Entry { object, generation, hash };
        self.entries.insert_unique(hash.spread(), entry, |entry| entry.hash.spread());
        None
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<T>> {
        let hash = NameHash::of(name);
        let found = self
            .entries
            .find_entry(hash.spread(), |entry| entry.hash == hash && *entry.object.key().name == *name);
        let (entry, _) = found.ok()?.remove();
        // A table that has lost most of its content gives the memory back.
        if self.entries.len() * 8 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2, |entry| entry.hash.spread());
        }
        Some(entry.object)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.entries.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the table itself.
    pub(super) fn allocation(&self) -> usize {
        self.entries.allocation_size()
    }
}

/// Objects filed under a value; most values have few.
#[derive(Debug)]
pub(super) struct Index<K, T>(hashbrown::HashMap<K, Vec<Arc<T>>>);

impl<K, T> Default for Index<K, T> {
    fn default() -> Self {
        Self(hashbrown::HashMap::default())
    }
}

impl<K: Hash + Eq, T> Index<K, T> {
    pub(super) fn get<Q>(&self, value: &Q) -> Vec<Arc<T>>
    where
        Q: Hash + hashbrown::Equivalent<K> + ?Sized,
    {
        self.0.get(value).cloned().unwrap_or_default()
    }

    pub(super) fn add(&mut self, value: K, object: &Arc<T>) {
        self.0.entry(value).or_default().push(Arc::clone(object));
    }

    pub(super) fn replace<Q>(&mut self, value: &Q, old: &Arc<T>, new: &Arc<T>)
    where
        Q: Hash + hashbrown::Equivalent<K> + ?Sized,
    {
        let filed =
            self.0.get_mut(value).and_then(|list| list.iter_mut().find(|held| Arc::ptr_eq(held, old)));
        if let Some(filed) = filed {
            *filed = Arc::clone(new);
        }
    }

    pub(super) fn remove<Q>(&mut self, value: &Q, object: &Arc<T>)
    where
        Q: Hash + hashbrown::Equivalent<K> + ?Sized,
    {
        let Some(list) = self.0.get_mut(value) else { return };
        if let Some(at) = list.iter().position(|held| Arc::ptr_eq(held, object)) {
            list.swap_remove(at);
        }
        if list.is_empty() {
            self.0.remove(value);
        } else if list.len() * 4 < list.capacity() {
            list.shrink_to(list.len() * 2);
        }
    }

    /// Bytes of the index itself.
    pub(super) fn allocation(&self) -> usize {
        let lists: usize = self.0.values().map(|list| list.capacity() * size_of::<Arc<T>>()).sum();
        self.0.allocation_size() + lists
    }
}
