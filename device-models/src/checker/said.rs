//! The last explanation of an address, for the next finding: a flood of findings about one is
//! explained once.

use crate::AddressRange;
use std::sync::Arc;

/// What explanations depend on beside the address: the epochs of the address map and of the IOMMU's
/// answers, and the number of requests that the IOMMU has served.
pub(crate) type State = (u64, u64, u64);

/// An explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) text: Arc<str>,
    /// The addresses that it is true of.
    pub(crate) range: AddressRange,
    /// When it was true.
    pub(crate) state: State,
}

impl Said {
    /// Whether it is true of `at` in `state`.
    pub(crate) fn holds(&self, at: u64, state: State) -> bool {
        self.state == state && self.range.contains(at)
    }
}
