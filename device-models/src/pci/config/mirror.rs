//! A copy of a configuration space in memory that the guest's CPUs read without asking anybody, and without the lab's
//! lock: they see each aligned dword change at once, and of what one access or reset changes in several steps, only how
//! it ends.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering;

use vm_memory::Bytes;

use crate::memory::Memory;
use crate::pci::spec::CONFIG_SPACE_SIZE;

type Values = [u8; CONFIG_SPACE_SIZE];

/// Where the copy is kept, if anywhere. A copy of a configuration space starts without one.
#[derive(Default)]
pub(super) struct Mirror(Option<Page>);

struct Page {
    memory: Memory,
    /// Where in the memory it begins.
    offset: u64,
    /// Whether configuration requests reach the function: else the page is what they read, all ones.
    shown: bool,
    /// Changes are kept back, those of these bytes.
    held: Option<Range<usize>>,
}

impl Mirror {
    /// Keeps the copy at `offset` of `memory` from now on: hidden at first. None if it has no 4 KiB there.
    pub(super) fn at(memory: Memory, offset: u64) -> Self {
        if !offset.is_multiple_of(4) || memory.slice(offset, CONFIG_SPACE_SIZE).is_none() {
            return Self::default();
        }
        let page = Page { memory, offset, shown: false, held: None };
        page.write(&[0xff; CONFIG_SPACE_SIZE], 0..CONFIG_SPACE_SIZE);
        Self(Some(page))
    }

    /// The memory and where in it the copy begins.
    pub(super) fn place(&self) -> Option<(&Memory, u64)> {
        self.0.as_ref().map(|page| (&page.memory, page.offset))
    }

    /// Lets CPUs see `values`, or that nobody answers.
    pub(super) fn show(&mut self, shown: bool, values: &Values) {
        let Some(page) = self.0.as_mut().filter(|page| page.shown != shown) else { return };
        page.shown = shown;
        let ones = [0xff; CONFIG_SPACE_SIZE];
        page.write(if shown { values } else { &ones }, 0..CONFIG_SPACE_SIZE);
    }

    /// The bytes `range` of `values` are new.
    pub(super) fn update(&mut self, values: &Values, range: Range<usize>) {
        match &mut self.0 {
            Some(Page { held: Some(held), .. }) if held.end == 0 => *held = range,
            Some(Page { held: Some(held), .. }) => {
                *held = held.start.min(range.start)..held.end.max(range.end);
            }
            Some(page) if page.shown => page.write(values, range),
            Some(_) | None => {}
        }
    }

    /// Keeps changes back until [`Mirror::release`].
    pub(super) fn hold(&mut self) {
        if let Some(page) = &mut self.0 {
            page.held = Some(0..0);
        }
    }

    /// Lets CPUs see what has changed meanwhile.
    pub(super) fn release(&mut self, values: &Values) {
        if let Some(range) = self.0.as_mut().and_then(|page| page.held.take()) {
            self.update(values, range);
        }
    }
}

impl Page {
    /// Stores the dwords in which `range` lies.
    fn write(&self, values: &Values, range: Range<usize>) {
        let Some(slice) = self.memory.slice(self.offset, CONFIG_SPACE_SIZE) else { return };
        let (dwords, _) = values.as_chunks::<4>();
        let touched = range.start / 4..range.end.div_ceil(4).min(dwords.len());
        for (dword, index) in dwords.get(touched.clone()).unwrap_or_default().iter().zip(touched) {
            // In the guest's order of bytes, which is the page's.
            let value = u32::from_ne_bytes(*dword);
            if slice.store(value, index * 4, Ordering::Release).is_err() {
                return;
            }
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
