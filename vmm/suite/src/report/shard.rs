//! A part of a run's scenarios, for CI systems that run the parts on several machines.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Part `index` of `of`: the scenarios go round, so each part gets as many as any other, give or take one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shard {
    /// Which one, from 1.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

impl Shard {
    /// Those of `all` that belong to this part, in their order. The same list gives the same parts on any machine.
    pub fn select<T>(self, all: impl IntoIterator<Item = T>) -> Vec<T> {
        let mine = |number: usize| number % self.of.max(1) + 1 == self.index;
        let numbered = all.into_iter().enumerate();
        numbered.filter(|(number, _)| mine(*number)).map(|(_, item)| item).collect()
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, of)| {
            Some(Self { index: index.parse().ok()?, of: of.parse().ok()? })
        });
        numbers
            .filter(|shard| (1..=shard.of).contains(&shard.index))
            .ok_or_else(|| "a part is I/N, with I from 1 to N".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_a_part_is_refused() {
        assert_eq!("2/3".parse(), Ok(Shard { index: 2, of: 3 }));
        for text in ["", "1", "0/3", "4/3", "1/0", "a/b", "-1/2", "1/2/3"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
        assert_eq!(Shard { index: 2, of: 3 }.to_string().parse(), Ok(Shard { index: 2, of: 3 }));
    }

    proptest! {
        #[test]
        fn every_scenario_is_in_exactly_one_part(count in 0_usize..60, of in 1_usize..20) {
            let parts: Vec<Vec<usize>> =
                (1..=of).map(|index| Shard { index, of }.select(0..count)).collect();
            let mut together = parts.concat();
            together.sort_unstable();
            prop_assert_eq!(together, (0..count).collect::<Vec<_>>());
            let sizes = || parts.iter().map(Vec::len);
            prop_assert!(sizes().max().unwrap_or(0) - sizes().min().unwrap_or(0) <= 1);
            prop_assert!(parts.iter().all(|part| part.is_sorted()));
        }
    }
}
