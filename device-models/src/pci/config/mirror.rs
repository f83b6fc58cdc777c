//! A copy of a configuration space in memory that the guest's CPUs read without asking anybody.

use std::fmt;

use crate::memory::Memory;
use crate::pci::spec::CONFIG_SPACE_SIZE;

/// Where the copy is kept, if anywhere. A copy of a configuration space starts without one.
#[derive(Default)]
pub(super) struct Mirror(Option<Page>);

struct Page {
    memory: Memory,
    /// Where in the memory it begins.
    offset: u64,
    /// Whether configuration requests reach the function: else the page is what they read, all ones.
    shown: bool,
}

impl Mirror {
    /// Keeps the copy at `offset` of `memory` from now on, of which 4 KiB must be there: hidden at first.
    pub(super) fn at(memory: Memory, offset: u64) -> Self {
        let page = Page { memory, offset, shown: false };
        page.write(0, &[0xff; CONFIG_SPACE_SIZE]);
        Self(Some(page))
    }

    /// The memory and where in it the copy begins.
    pub(super) fn place(&self) -> Option<(&Memory, u64)> {
        self.0.as_ref().map(|page| (&page.memory, page.offset))
    }

    /// Lets CPUs see `registers`, or that nobody answers.
    pub(super) fn show(&mut self, shown: bool, registers: &[u8; CONFIG_SPACE_SIZE]) {
        let Some(page) = self.0.as_mut().filter(|page| page.shown != shown) else { return };
        page.shown = shown;
        page.write(0, if shown { registers } else { &[0xff; CONFIG_SPACE_SIZE] });
    }

    /// `bytes` at `at` are new.
    pub(super) fn update(&self, at: usize, bytes: &[u8]) {
        if let Some(page) = self.0.as_ref().filter(|page| page.shown) {
            page.write(at, bytes);
        }
    }
}

impl Page {
    /// Nothing if the bytes are not all inside: another function's page may follow.
    fn write(&self, at: usize, bytes: &[u8]) {
        if at.saturating_add(bytes.len()) > CONFIG_SPACE_SIZE {
            return;
        }
        if let Some(slice) = self.memory.slice(self.offset.saturating_add(at as u64), bytes.len()) {
            slice.copy_from(bytes);
        }
    }
}

impl Clone for Mirror {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.as_ref().map(|page| page.shown);
        f.debug_struct("Mirror").field("shown", &shown).finish_non_exhaustive()
    }
}
