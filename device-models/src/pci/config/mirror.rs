//! A copy of a configuration space in memory that the guest's CPUs read without an exit, and
//! without the system's lock: they see each aligned dword change at once, and of what one access or
//! reset changes in several steps, only how it ends.

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
    /// Whether configuration requests reach the function: else the page is what they read, all
    /// ones.
    shown: bool,
    /// Changes are kept back, those of these bytes.
    held: Option<Range<usize>>,
}

impl Mirror {
    /// Keeps the copy at `offset` of `memory` from now on: hidden at first. None if it has no 4 KiB
    /// there.
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

    /// Lets CPUs see `values`, or all ones, as if no function answered.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a CPU reads in the dwords of the copy.
    fn seen(mirror: &Mirror, dword: usize) -> u32 {
        let (memory, offset) = mirror.place().unwrap();
        let slice = memory.slice(offset, CONFIG_SPACE_SIZE).unwrap();
        slice.load(dword * 4, Ordering::Acquire).unwrap()
    }

    fn shown(values: &Values) -> Mirror {
        let mut mirror = Mirror::at(Memory::new("test", 0x2000).unwrap(), 0x1000);
        mirror.show(true, values);
        mirror
    }

    #[test]
    fn what_changes_is_seen_at_once_and_whole_dwords_of_it() {
        let mut values = [0; CONFIG_SPACE_SIZE];
        let mut mirror = shown(&values);
        values[7..9].fill(0x11);
        mirror.update(&values, 7..9);
        assert_eq!([1, 2, 3].map(|dword| seen(&mirror, dword)), [0x1100_0000, 0x11, 0]);
    }

    #[test]
    fn what_is_held_back_is_seen_as_it_ends() {
        let mut values = [0; CONFIG_SPACE_SIZE];
        let mut mirror = shown(&values);
        mirror.hold();
        for (at, value) in [(0x40, 1), (0x10, 2), (0x40, 3)] {
            values[at] = value;
            mirror.update(&values, at..at + 1);
            assert_eq!((seen(&mirror, 0x10), seen(&mirror, 0x4)), (0, 0), "{at:#x}");
        }
        mirror.release(&values);
        assert_eq!((seen(&mirror, 0x10), seen(&mirror, 0x4)), (3, 2));
        // From then on nothing is.
        values[0x40] = 4;
        mirror.update(&values, 0x40..0x41);
        assert_eq!(seen(&mirror, 0x10), 4);
    }

    #[test]
    fn a_function_that_is_not_reached_shows_ones_whatever_changes() {
        let mut values = [0; CONFIG_SPACE_SIZE];
        let mut mirror = shown(&values);
        mirror.hold();
        mirror.show(false, &values);
        values[4] = 1;
        mirror.update(&values, 4..5);
        mirror.release(&values);
        assert_eq!(seen(&mirror, 1), u32::MAX);
        mirror.show(true, &values);
        assert_eq!(seen(&mirror, 1), 1);
    }

    #[test]
    fn a_copy_needs_its_place() {
        let memory = Memory::new("test", 0x1000).unwrap();
        assert!(Mirror::at(memory.clone(), 4).place().is_none());
        assert!(Mirror::at(memory.clone(), 2).place().is_none());
        assert!(Mirror::at(memory, 0).clone().place().is_none(), "a clone has none");
    }
}
