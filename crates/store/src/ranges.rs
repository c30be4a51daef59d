//! Which bytes of a blob are held: a set of ranges that never overlap or touch.

use std::collections::BTreeMap;

/// Half-open ranges by their start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `start..end`; nothing where it is empty.
    pub(crate) fn add(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        if let Some((&before, &until)) = self.0.range(..=start).next_back()
            && until >= start
        {
            (start, end) = (before, end.max(until));
        }
        while let Some((&after, &until)) = self.0.range(start..=end).next() {
            self.0.remove(&after);
            end = end.max(until);
        }
        self.0.insert(start, end);
    }

    /// The end of the range that starts with the first byte.
    pub(crate) fn frontier(&self) -> u64 {
        self.0.get(&0).copied().unwrap_or(0)
    }

    /// Bytes held.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether bytes are held beyond the frontier.
    pub(crate) fn has_islands(&self) -> bool {
        self.0.len() > usize::from(self.frontier() > 0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(start, end)| (*start, *end))
    }

    /// What of `0..size` is not held, in order, in pieces of at most `longest` bytes. Made as it is asked for: a
    /// foreign size may stand for more pieces than memory holds.
    pub(crate) fn gaps(&self, size: u64, longest: u64) -> impl Iterator<Item = (u64, u64)> + Send + use<> {
        let (held, longest) = (self.clone(), longest.max(1));
        let mut at = 0;
        std::iter::from_fn(move || {
            while let Some((_, &end)) = held.0.range(..=at).next_back().filter(|(_, end)| **end > at) {
                at = end;
            }
            if at >= size {
                return None;
            }
            let next = held.0.range(at..).next().map_or(size, |(start, _)| (*start).min(size));
            let gap = (at, at.saturating_add(longest).min(next));
            at = gap.1;
            Some(gap)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set_of_bytes(added in proptest::collection::vec((0u64..60, 0u64..60), 0..12), longest in 1u64..20) {
            let mut ranges = Ranges::default();
            let mut bytes = [false; 60];
            for (start, end) in added {
                ranges.add(start, end);
                (start..end).for_each(|at| bytes[at as usize] = true);
            }
            let held: Vec<usize> = ranges.iter().flat_map(|(start, end)| start as usize..end as usize).collect();
            let expected: Vec<usize> = (0..60).filter(|at| bytes[*at]).collect();
            prop_assert_eq!(&held, &expected);
            prop_assert_eq!(ranges.total(), expected.len() as u64);
            prop_assert_eq!(ranges.frontier(), bytes.iter().take_while(|held| **held).count() as u64);
            prop_assert_eq!(ranges.has_islands(), ranges.total() > ranges.frontier());
            let gaps: Vec<_> = ranges.gaps(60, longest).collect();
            prop_assert!(gaps.iter().all(|(start, end)| start < end && end - start <= longest));
            let missing: Vec<usize> = gaps.into_iter().flat_map(|(start, end)| start as usize..end as usize).collect();
            let expected: Vec<usize> = (0..60).filter(|at| !bytes[*at]).collect();
            prop_assert_eq!(missing, expected);
            let touching: Vec<_> = ranges.iter().collect();
            prop_assert!(touching.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
