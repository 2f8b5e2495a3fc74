//! Sets of completion indexes, and the notation `1,3-5,7` in which the status keeps them.

use std::{collections::BTreeSet, fmt};

/// A set of indexes as ranges, both ends included; sorted, and no two of them touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// What is written in `text`, below `completions`. Pieces that are no ranges are passed over, as upstream does:
    /// half of a status is better than none.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let piece = |piece: &str| {
            let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
            let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
            let last = last.min(completions.saturating_sub(1));
            (first >= 0 && first <= last).then_some((first, last))
        };
        Self::of(text.split(',').filter_map(piece).collect())
    }

    fn of(mut ranges: Vec<(i32, i32)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(i32, i32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(held) if first <= held.1.saturating_add(1) => held.1 = held.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// The union.
    #[must_use]
    pub(super) fn with(&self, other: &Self) -> Self {
        if other.0.is_empty() {
            return self.clone();
        }
        Self::of(self.0.iter().chain(&other.0).copied().collect())
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    pub(super) fn total(&self) -> i32 {
        let total: i64 = self.0.iter().map(|(first, last)| i64::from(*last) - i64::from(*first) + 1).sum();
        i32::try_from(total).unwrap_or(i32::MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many of `other` are here too.
    pub(super) fn common(&self, other: &Self) -> i32 {
        let (mut here, mut there) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut total = 0i64;
        while let (Some(a), Some(b)) = (here.peek(), there.peek()) {
            total += (i64::from(a.1.min(b.1)) - i64::from(a.0.max(b.0)) + 1).max(0);
            // The range that ends first has nothing in common with what follows in the other set.
            if a.1 <= b.1 {
                here.next();
            } else {
                there.next();
            }
        }
        i32::try_from(total).unwrap_or(i32::MAX)
    }

    /// The lowest `count` indexes below `completions` that are not here.
    pub(super) fn gaps(&self, completions: i32, count: usize) -> Vec<i32> {
        let mut gaps = Vec::new();
        let mut candidate = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            while candidate < first.min(completions) && gaps.len() < count {
                gaps.push(candidate);
                candidate += 1;
            }
            if gaps.len() == count {
                break;
            }
            candidate = candidate.max(last.saturating_add(1));
        }
        gaps
    }
}

impl From<&BTreeSet<i32>> for Indexes {
    fn from(indexes: &BTreeSet<i32>) -> Self {
        Self::of(indexes.iter().map(|index| (*index, *index)).collect())
    }
}

/// Two neighbours are listed, three are a range: upstream's notation to the letter.
impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (first, last) in &self.0 {
            write!(f, "{separator}{first}")?;
            match last - first {
                0 => {}
                1 => write!(f, ",{last}")?,
                _ => write!(f, "-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(indexes: &[i32]) -> Indexes {
        Indexes::from(&indexes.iter().copied().collect::<BTreeSet<i32>>())
    }

    #[test]
    fn the_notation_is_upstreams() {
        for (indexes, text) in [
            (&[][..], ""),
            (&[0], "0"),
            (&[0, 1], "0,1"),
            (&[0, 1, 2], "0-2"),
            (&[1, 3, 4, 5, 7], "1,3-5,7"),
            (&[0, 1, 3, 4, 6], "0,1,3,4,6"),
        ] {
            assert_eq!(set(indexes).to_string(), text);
            assert_eq!(Indexes::parse(text, 10), set(indexes), "{text}");
        }
    }

    #[test]
    fn what_is_out_of_range_or_no_range_is_passed_over() {
        assert_eq!(Indexes::parse("0,3-9", 5), set(&[0, 3, 4]), "cut at the completions");
        assert_eq!(Indexes::parse("7-9", 5), set(&[]));
        assert_eq!(Indexes::parse("x,1,4-2,-3,2-,,3", 5), set(&[1, 3]));
        assert_eq!(Indexes::parse("3,1-2,2", 5).to_string(), "1-3", "out of order and overlapping");
        assert_eq!(Indexes::parse("0-2147483647", i32::MAX).total(), i32::MAX);
    }

    #[test]
    fn gaps_come_lowest_first() {
        let held = set(&[0, 2, 3, 6]);
        assert_eq!(held.gaps(8, 9), [1, 4, 5, 7]);
        assert_eq!(held.gaps(8, 2), [1, 4]);
        assert_eq!(held.gaps(0, 2), [0; 0], "nothing is wanted of a Job without completions");
        assert_eq!(Indexes::default().gaps(1, 1), [0]);
        assert_eq!(held.gaps(8, 0), [0; 0]);
    }

    proptest! {
        #[test]
        fn sets_of_ranges_are_sets(a in prop::collection::btree_set(0..40i32, 0..20),
                                   b in prop::collection::btree_set(0..40i32, 0..20)) {
            let (left, right) = (Indexes::from(&a), Indexes::from(&b));
            let union: BTreeSet<i32> = a.union(&b).copied().collect();
            prop_assert_eq!(left.with(&right), Indexes::from(&union));
            prop_assert_eq!(left.common(&right) as usize, a.intersection(&b).count());
            prop_assert_eq!(left.total() as usize, a.len());
            prop_assert_eq!(Indexes::parse(&left.to_string(), 40), left.clone());
            let gaps: Vec<i32> = (0..40).filter(|index| !a.contains(index)).collect();
            prop_assert_eq!(left.gaps(40, 99), gaps);
            prop_assert!((0..40).all(|index| left.contains(index) == a.contains(&index)));
        }
    }
}
