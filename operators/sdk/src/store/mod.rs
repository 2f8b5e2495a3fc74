//! What an informer knows of one resource: every object once, found by name, namespace, controller and any
//! further index.
//!
//! Decided here: that an object never goes back in time, and what a list removes. Not decided here: when to
//! list or watch, and who is told about a change; that is [`crate::informer`].

mod table;

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hashbrown::HashMap;
use trysail_core::{Key, Object, Symbol, Uid, View};

use table::{Index, Table};

/// A cached collection of one resource. Reads are synchronous and see every write up to [`Store::last_version`].
#[derive(Debug)]
pub struct Store<T> {
    inner: RwLock<Inner<T>>,
    last_version: AtomicU64,
    synced: AtomicBool,
}

struct Inner<T> {
    /// By namespace, then by name: the two look-ups share one table.
    namespaces: HashMap<Symbol, Table<T>>,
    by_controller: Index<Uid, T>,
    orphans: HashMap<Symbol, Table<T>>,
    custom: Vec<CustomIndex<T>>,
    objects: usize,
    generation: u32,
}

type IndexFn<T> = Box<dyn Fn(&T) -> Vec<Symbol> + Send + Sync>;

struct CustomIndex<T> {
    name: &'static str,
    values: IndexFn<T>,
    index: Index<Symbol, T>,
}

/// What became of an object that was handed to the store.
#[derive(Debug)]
pub(crate) enum Change<T> {
    /// It is new, or newer than what was held.
    Applied { old: Option<Arc<T>>, new: Arc<T> },
    /// It is what is held already, or older.
    Nothing,
}

/// A list in progress: objects that it does not mention are gone when it ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing {
    generation: u32,
    /// The API server's history was replaced: versions are not comparable with those held.
    pub(crate) new_history: bool,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        let inner = Inner {
            namespaces: HashMap::default(),
            by_controller: Index::default(),
            orphans: HashMap::default(),
            custom: Vec::new(),
            objects: 0,
            generation: 0,
        };
        Self { inner: RwLock::new(inner), last_version: AtomicU64::new(0), synced: AtomicBool::new(false) }
    }
}

impl<T: Object> Store<T> {
    /// The newest resourceVersion up to which this store has seen everything, bookmarks included.
    pub fn last_version(&self) -> u64 {
        self.last_version.load(Ordering::Acquire)
    }

    /// True once the first list is complete. It stays true: later lists are merged in place.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// How many objects are held.
    pub fn len(&self) -> usize {
        self.read().objects
    }

    /// True when none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every object, in no particular order.
    pub fn all(&self) -> Vec<Arc<T>> {
        let inner = self.read();
        let mut all = Vec::with_capacity(inner.objects);
        let entries = inner.namespaces.values().flat_map(Table::iter);
        all.extend(entries.map(|entry| Arc::clone(&entry.object)));
        all
    }

    /// Files every object under the values that `values` names, now and from now on. A second index of that
    /// name is not made.
    pub fn index_by(&self, name: &'static str, values: impl Fn(&T) -> Vec<Symbol> + Send + Sync + 'static) {
        let mut inner = self.write();
        if inner.custom.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index::default();
        for entry in inner.namespaces.values().flat_map(Table::iter) {
            for value in values(&entry.object) {
                index.add(value, &entry.object);
            }
        }
        inner.custom.push(CustomIndex { name, values: Box::new(values), index });
    }

    /// Objects filed under `value` in the index of that name; none when there is no such index.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<T>> {
        let inner = self.read();
        let index = inner.custom.iter().find(|index| index.name == name);
        index.map(|custom| custom.index.get(value)).unwrap_or_default()
    }

    /// About how many bytes objects and indexes take, without what objects share or keep on the heap.
    pub fn bytes(&self) -> usize {
        /// Strong and weak counts.
        const ARC: usize = 16;
        let inner = self.read();
        let tables = inner.namespaces.values().chain(inner.orphans.values()).map(Table::allocation);
        let custom = inner.custom.iter().map(|custom| custom.index.allocation());
        let objects = inner.objects * (size_of::<T>() + ARC);
        objects + tables.sum::<usize>() + inner.by_controller.allocation() + custom.sum::<usize>()
    }

    /// Takes an object from a watch or list.
    pub(crate) fn apply(&self, object: T, listing: Option<Listing>) -> Change<T> {
        let mut inner = self.write();
        let key = object.key();
        let generation = inner.generation;
        let new_history = listing.is_some_and(|listing| listing.new_history);
        if let Some(held) = inner.namespaces.get_mut(&*key.namespace).and_then(|t| t.get_mut(&key.name)) {
            held.generation = generation;
            let (held, offered) = (held.object.resource_version(), object.resource_version());
            if offered == held || (offered < held && !new_history) {
                return Change::Nothing;
            }
        } else if listing.is_some() && !new_history && self.is_synced() {
            // Everything up to the last version has been seen here. What is older and not held was seen to go:
            // the list is from the past, which a streamed list says only at its end.
            if object.resource_version() <= self.last_version() {
                return Change::Nothing;
            }
        }
        let new = Arc::new(object);
        let old = inner.insert(&key, &new);
        Change::Applied { old, new }
    }

    /// Takes out an object that was gone at `version`; 0 when that is not known.
    pub(crate) fn remove(&self, key: &Key, version: u64) -> Option<Arc<T>> {
        let mut inner = self.write();
        let held = inner.namespaces.get(&*key.namespace)?.get(&key.name)?;
        if version != 0 && version < held.object.resource_version() {
            // It was created again since.
            return None;
        }
        inner.remove(key)
    }

    /// Keeps what is held of an object that a list mentioned and that could not be read.
    pub(crate) fn keep(&self, key: &Key) {
        let mut inner = self.write();
        let generation = inner.generation;
        if let Some(held) = inner.namespaces.get_mut(&*key.namespace).and_then(|t| t.get_mut(&key.name)) {
            held.generation = generation;
        }
    }

    /// Starts a list. The objects held stay readable and are replaced one by one.
    pub(crate) fn begin_list(&self, new_history: bool) -> Listing {
        let mut inner = self.write();
        inner.generation = inner.generation.wrapping_add(1);
        Listing { generation: inner.generation, new_history }
    }

    /// Ends a list that is complete as of `version`, and gives back the objects it did not mention.
    pub(crate) fn finish_list(&self, listing: Listing, version: u64) -> Vec<Arc<T>> {
        let mut inner = self.write();
        let entries = inner.namespaces.values().flat_map(Table::iter);
        let gone = entries.filter(|entry| entry.generation != listing.generation);
        let gone: Vec<_> = gone.map(|entry| Arc::clone(&entry.object)).collect();
        for object in &gone {
            inner.remove(&object.key());
        }
        drop(inner);
        if listing.new_history {
            self.last_version.store(version, Ordering::Release);
        }
        self.advance(version);
        self.synced.store(true, Ordering::Release);
        gone
    }

    /// Everything up to `version` has been seen.
    pub(crate) fn advance(&self, version: u64) {
        self.last_version.fetch_max(version, Ordering::AcqRel);
    }

    // A panic in an index function leaves at worst a stale index entry; to stop serving would be worse.
    fn read(&self) -> RwLockReadGuard<'_, Inner<T>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<T>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Object> Inner<T> {
    fn insert(&mut self, key: &Key, new: &Arc<T>) -> Option<Arc<T>> {
        let generation = self.generation;
        let table = self.namespaces.entry(key.namespace.clone()).or_default();
        let old = table.insert(&key.name, Arc::clone(new), generation);
        if old.is_none() {
            self.objects += 1;
        }
        let old_controller = old.as_deref().map(Object::controller);
        let new_controller = new.controller();
        match (&old, old_controller) {
            (Some(old), Some(Some(controller))) if Some(&controller) == new_controller.as_ref() => {
                self.by_controller.replace(&controller, old, new);
            }
            (Some(old), Some(controller)) => {
                self.unfile_owner(key, controller.as_ref(), old, new_controller.is_some());
                self.file_owner(key, new_controller, new);
            }
            _ => self.file_owner(key, new_controller, new),
        }
        for custom in &mut self.custom {
            for value in old.iter().flat_map(|old| (custom.values)(old)) {
                if let Some(old) = &old {
                    custom.index.remove(&value, old);
                }
            }
            for value in (custom.values)(new) {
                custom.index.add(value, new);
            }
        }
        old
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<T>> {
        let table = self.namespaces.get_mut(&*key.namespace)?;
        let object = table.remove(&key.name)?;
        if table.is_empty() {
            self.namespaces.remove(&*key.namespace);
        }
        self.objects -= 1;
        self.unfile_owner(key, object.controller().as_ref(), &object, true);
        for custom in &mut self.custom {
            for value in (custom.values)(&object) {
                custom.index.remove(&value, &object);
            }
        }
        Some(object)
    }

    fn file_owner(&mut self, key: &Key, controller: Option<Uid>, object: &Arc<T>) {
        match controller {
            Some(uid) => self.by_controller.add(uid, object),
            None => {
                let table = self.orphans.entry(key.namespace.clone()).or_default();
                table.insert(&key.name, Arc::clone(object), 0);
            }
        }
    }

    /// `for_good` is false when the object will be filed under the same name among the orphans at once.
    fn unfile_owner(&mut self, key: &Key, controller: Option<&Uid>, object: &Arc<T>, for_good: bool) {
        match controller {
            Some(uid) => self.by_controller.remove(uid, object),
            None if !for_good => {}
            None => {
                let Some(table) = self.orphans.get_mut(&*key.namespace) else { return };
                table.remove(&key.name);
                if table.is_empty() {
                    self.orphans.remove(&*key.namespace);
                }
            }
        }
    }
}

impl<T: Object> View<T> for Store<T> {
    fn get(&self, key: &Key) -> Option<Arc<T>> {
        let inner = self.read();
        let entry = inner.namespaces.get(&*key.namespace)?.get(&key.name)?;
        Some(Arc::clone(&entry.object))
    }

    fn controlled_by(&self, owner: &Uid) -> Vec<Arc<T>> {
        self.read().by_controller.get(owner)
    }

    fn orphans(&self, namespace: &str) -> Vec<Arc<T>> {
        objects_of(&self.read().orphans, namespace)
    }

    fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        objects_of(&self.read().namespaces, namespace)
    }
}

fn objects_of<T: Object>(tables: &HashMap<Symbol, Table<T>>, namespace: &str) -> Vec<Arc<T>> {
    let entries = tables.get(namespace).into_iter().flat_map(Table::iter);
    entries.map(|entry| Arc::clone(&entry.object)).collect()
}

impl<T> fmt::Debug for Inner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("objects", &self.objects).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
