//! Warnings that a guest or a file can cause without limit: the first few of a kind are logged, the
//! others counted. The log stays short, and the end says how many there were.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many of a kind are logged.
const FEW: u64 = 8;

/// Warnings of one kind.
#[derive(Debug)]
pub struct Warnings {
    /// What they are about, in the plural.
    what: &'static str,
    count: AtomicU64,
}

impl Warnings {
    /// None so far.
    pub const fn of(what: &'static str) -> Self {
        Self { what, count: AtomicU64::new(0) }
    }

    /// Logs it, if it is one of the first; the arguments are not looked at otherwise.
    pub fn warn(&self, text: fmt::Arguments<'_>) {
        match self.count.fetch_add(1, Ordering::Relaxed) {
            0..FEW => log::warn!("{text}"),
            FEW => log::warn!("{}: further ones are counted, not printed", self.what),
            _ => {}
        }
    }
}

impl Drop for Warnings {
    fn drop(&mut self) {
        let count = *self.count.get_mut();
        if count > FEW {
            log::warn!("{}: {count} in all", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::logged;

    fn logged_of(number: u64) -> Vec<String> {
        logged(|| {
            let warnings = Warnings::of("holes in the road");
            for index in 0..number {
                warnings.warn(format_args!("hole {index}"));
            }
        })
    }

    #[test]
    fn a_few_are_logged_as_they_are() {
        assert_eq!(logged_of(0), [""; 0]);
        assert_eq!(logged_of(2), ["hole 0", "hole 1"]);
        assert_eq!(logged_of(FEW).len() as u64, FEW);
    }

    #[test]
    fn of_many_only_the_first_and_their_number() {
        let logged = logged_of(1_000_000);
        assert_eq!(logged.len() as u64, FEW + 2);
        assert_eq!(logged[7], "hole 7");
        assert_eq!(logged[8], "holes in the road: further ones are counted, not printed");
        assert_eq!(logged[9], "holes in the road: 1000000 in all");
    }
}
