//! Strings, label sets and templates that thousands of objects share are kept once.
//!
//! The table holds weak references: what no object uses any more is freed, and its entry is swept when the
//! table has doubled since the last sweep.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

type Bucket<T> = Vec<Weak<T>>;

/// A table of shared values, found by content.
#[derive(Debug)]
pub(crate) struct Interner<T: ?Sized> {
    table: Mutex<Table<T>>,
}

#[derive(Debug)]
struct Table<T: ?Sized> {
    buckets: HashMap<u64, Bucket<T>>,
    entries: usize,
    sweep_at: usize,
}

impl<T: ?Sized> Interner<T> {
    const FIRST_SWEEP: usize = 1024;

    pub(crate) fn new() -> Self {
        let table = Table { buckets: HashMap::new(), entries: 0, sweep_at: Self::FIRST_SWEEP };
        Self { table: Mutex::new(table) }
    }

    /// The one shared copy of `value`; `make` builds it when there is none.
    pub(crate) fn intern<Q>(&self, hash: u64, value: &Q, make: impl FnOnce() -> Arc<T>) -> Arc<T>
    where
        Q: ?Sized,
        T: SameAs<Q>,
    {
        // A panic while the lock was held can have left at worst a missing entry: sharing is lost, not data.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let found = table
            .buckets
            .get(&hash)
            .and_then(|bucket| bucket.iter().filter_map(Weak::upgrade).find(|held| held.same_as(value)));
        if let Some(found) = found {
            return found;
        }
        let made = make();
        table.buckets.entry(hash).or_default().push(Arc::downgrade(&made));
        table.entries += 1;
        if table.entries >= table.sweep_at {
            table.sweep();
        }
        made
    }
}

impl<T: ?Sized> Table<T> {
    fn sweep(&mut self) {
        self.buckets.retain(|_, bucket| {
            bucket.retain(|held| held.strong_count() > 0);
            !bucket.is_empty()
        });
        self.entries = self.buckets.values().map(Vec::len).sum();
        self.sweep_at = (self.entries * 2).max(1024);
    }
}

/// Equality between what is held and what is looked up, so that a look-up need not build the held form.
pub(crate) trait SameAs<Q: ?Sized> {
    fn same_as(&self, other: &Q) -> bool;
}

impl SameAs<str> for str {
    fn same_as(&self, other: &str) -> bool {
        self == other
    }
}

/// FNV-1a, 64 bits: stable across runs and machines, so it may be part of names too.
pub fn fnv64(parts: &[&[u8]]) -> u64 {
    let mut hasher = fnv::FnvHasher::default();
    for part in parts {
        hasher.write(part);
        // 0xff never occurs in UTF-8: ("ab","c") and ("a","bc") must differ.
        hasher.write_u8(0xff);
    }
    hasher.finish()
}

static SYMBOLS: LazyLock<Interner<str>> = LazyLock::new(Interner::new);
static LABELS: LazyLock<Interner<[(Symbol, Symbol)]>> = LazyLock::new(Interner::new);

/// A shared string: namespaces, node names, label keys and values.
#[derive(Clone, Eq)]
pub struct Symbol(Arc<str>);

impl Symbol {
    /// The string itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Symbol {
    fn from(text: &str) -> Self {
        Symbol(SYMBOLS.intern(fnv64(&[text.as_bytes()]), text, || Arc::from(text)))
    }
}

impl From<String> for Symbol {
    fn from(text: String) -> Self {
        Symbol::from(text.as_str())
    }
}

impl Default for Symbol {
    fn default() -> Self {
        Symbol::from("")
    }
}

impl Deref for Symbol {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Symbol {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Symbol {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl PartialEq<str> for Symbol {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Symbol {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl PartialOrd for Symbol {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Symbol {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl Hash for Symbol {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for Symbol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Symbol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Symbol;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Symbol, E> {
                Ok(Symbol::from(text))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// A shared, sorted set of labels (or annotations): pods of one owner share one allocation.
#[derive(Clone, Eq)]
pub struct Labels(Option<Arc<[(Symbol, Symbol)]>>);

impl Labels {
    /// No labels at all.
    pub const EMPTY: Labels = Labels(None);

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let pairs = self.pairs();
        let at = pairs.binary_search_by(|(held, _)| held.as_str().cmp(key)).ok()?;
        Some(pairs[at].1.as_str())
    }

    /// True when `key` is set, to whatever value.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs().iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pairs().len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs().is_empty()
    }

    /// True when every label of `other` is here with the same value.
    pub fn includes(&self, other: &Labels) -> bool {
        other.iter().all(|(key, value)| self.get(key) == Some(value))
    }

    /// A copy with `key` set to `value`.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        self.iter().filter(|(held, _)| *held != key).chain([(key, value)]).collect()
    }

    /// A copy without `key`.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        if self.contains_key(key) {
            self.iter().filter(|(held, _)| *held != key).collect()
        } else {
            self.clone()
        }
    }

    fn pairs(&self) -> &[(Symbol, Symbol)] {
        self.0.as_deref().unwrap_or_default()
    }

    fn from_pairs(mut pairs: Vec<(Symbol, Symbol)>) -> Self {
        if pairs.is_empty() {
            return Labels::EMPTY;
        }
        // The later of two equal keys wins, as in a JSON object.
        pairs.reverse();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, kept| later.0 == kept.0);
        let mut hash = 0u64;
        for (key, value) in &pairs {
            hash = hash.rotate_left(5) ^ fnv64(&[key.as_bytes(), value.as_bytes()]);
        }
        Labels(Some(LABELS.intern(hash, pairs.as_slice(), || Arc::from(pairs.as_slice()))))
    }
}

impl SameAs<[(Symbol, Symbol)]> for [(Symbol, Symbol)] {
    fn same_as(&self, other: &[(Symbol, Symbol)]) -> bool {
        self == other
    }
}

impl Default for Labels {
    fn default() -> Self {
        Labels::EMPTY
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => true,
            _ => self.pairs() == other.pairs(),
        }
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        Labels::from_pairs(pairs.into_iter().map(|(k, v)| (Symbol::from(k), Symbol::from(v))).collect())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings, or null")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<Symbol, Symbol>()? {
                    pairs.push(pair);
                }
                Ok(Labels::from_pairs(pairs))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Labels, E> {
                Ok(Labels::EMPTY)
            }

            fn visit_none<E: de::Error>(self) -> Result<Labels, E> {
                Ok(Labels::EMPTY)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_label_sets_share_one_allocation() {
        let a: Labels = [("tier", "web"), ("app", "shop")].into_iter().collect();
        let b: Labels = serde_json::from_str(r#"{"app":"shop","tier":"web"}"#).unwrap();
        assert!(matches!((&a.0, &b.0), (Some(a), Some(b)) if Arc::ptr_eq(a, b)));
        assert_eq!(a.get("tier"), Some("web"));
        assert_eq!(a.without("tier").len(), 1);
    }

    #[test]
    fn the_later_of_two_equal_keys_wins() {
        let labels: Labels = [("app", "old"), ("app", "new")].into_iter().collect();
        assert_eq!(labels.get("app"), Some("new"));
        assert_eq!(labels.len(), 1);
    }

    /// Without the sweep a cluster that churns names would grow the table for ever.
    #[test]
    fn unused_entries_are_swept() {
        let interner = Interner::<str>::new();
        for n in 0..10_000 {
            let text = format!("unused-{n}");
            interner.intern(fnv64(&[text.as_bytes()]), text.as_str(), || Arc::from(text.as_str()));
        }
        assert!(interner.table.lock().unwrap().entries <= 1024);
    }
}
