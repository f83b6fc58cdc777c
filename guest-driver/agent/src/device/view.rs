//! Memory of a device, or memory shared with it, as the CPU sees it.

use super::Pattern;
use rustix::io;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fmt;
use std::ops::Range;
use std::os::fd::AsFd;

/// A mapping of memory that devices write meanwhile: every access is volatile, and there are no references into it.
#[derive(Debug)]
pub struct View {
    start: *mut u8,
    length: usize,
}

/// The first place where memory is not as expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where.
    pub offset: usize,
    /// What should be there.
    pub expected: u8,
    /// What is there.
    pub found: u8,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "offset {:#x} holds {:#04x} instead of {:#04x}",
            self.offset, self.found, self.expected
        )
    }
}

impl std::error::Error for Mismatch {}

impl View {
    /// Maps `length` bytes of `file` at `offset`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(file: impl AsFd, length: usize, offset: u64) -> io::Result<Self> {
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; nothing of ours lies there. Devices may
        // change its content at any time, which is why it is only ever reached by volatile accesses through a pointer.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                offset,
            )?
        };
        Ok(Self { start: start.cast(), length })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn check_range(&self, range: &Range<usize>) {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "{range:?} leaves a view of {} bytes",
            self.length
        );
    }

    /// The byte at `offset`.
    pub fn byte(&self, offset: usize) -> u8 {
        self.check_range(&(offset..offset + 1));
        // SAFETY: the range was checked, and any byte is a valid `u8`.
        unsafe { self.start.add(offset).read_volatile() }
    }

    /// The word at `offset`, a multiple of eight.
    pub fn word(&self, offset: usize) -> u64 {
        self.check_range(&(offset..offset + 8));
        assert!(offset.is_multiple_of(8), "{offset} is not a multiple of 8");
        // SAFETY: range and alignment were checked (a mapping starts at a page), and any value is a valid `u64`.
        u64::from_le(unsafe { self.start.add(offset).cast::<u64>().read_volatile() })
    }

    /// The double word at `offset`, a multiple of four: how registers are read.
    pub fn dword(&self, offset: usize) -> u32 {
        self.check_range(&(offset..offset + 4));
        assert!(offset.is_multiple_of(4), "{offset} is not a multiple of 4");
        // SAFETY: range and alignment were checked (a mapping starts at a page), and any value is a valid `u32`.
        u32::from_le(unsafe { self.start.add(offset).cast::<u32>().read_volatile() })
    }

    /// Stores a double word at `offset`, a multiple of four.
    pub fn set_dword(&self, offset: usize, value: u32) {
        self.check_range(&(offset..offset + 4));
        assert!(offset.is_multiple_of(4), "{offset} is not a multiple of 4");
        // SAFETY: range and alignment were checked.
        unsafe { self.start.add(offset).cast::<u32>().write_volatile(value.to_le()) }
    }

    /// Stores a half word at `offset`, a multiple of two.
    pub fn set_half(&self, offset: usize, value: u16) {
        self.check_range(&(offset..offset + 2));
        assert!(offset.is_multiple_of(2), "{offset} is not a multiple of 2");
        // SAFETY: range and alignment were checked.
        unsafe { self.start.add(offset).cast::<u16>().write_volatile(value.to_le()) }
    }

    /// Where it begins, for a kernel interface that wants to know.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start
    }

    /// Stores a byte.
    pub fn set_byte(&self, offset: usize, value: u8) {
        self.check_range(&(offset..offset + 1));
        // SAFETY: the range was checked.
        unsafe { self.start.add(offset).write_volatile(value) }
    }

    /// Stores a word at `offset`, a multiple of eight.
    pub fn set_word(&self, offset: usize, value: u64) {
        self.check_range(&(offset..offset + 8));
        assert!(offset.is_multiple_of(8), "{offset} is not a multiple of 8");
        // SAFETY: range and alignment were checked.
        unsafe { self.start.add(offset).cast::<u64>().write_volatile(value.to_le()) }
    }

    /// Stores the pattern over `range`: each byte is the pattern's at its own offset.
    pub fn store(&self, range: Range<usize>, pattern: Pattern) {
        self.check_range(&range);
        let mut at = range.start;
        while at < range.end {
            if at.is_multiple_of(8) && at + 8 <= range.end {
                self.set_word(at, pattern.word(at as u64 / 8));
                at += 8;
            } else {
                self.set_byte(at, pattern.byte(at as u64));
                at += 1;
            }
        }
    }

    /// Whether `range` holds what the pattern has from `position` on.
    ///
    /// # Errors
    /// The first byte that is different.
    pub fn expect(
        &self,
        range: Range<usize>,
        pattern: Pattern,
        position: u64,
    ) -> Result<(), Mismatch> {
        let start = range.start;
        let position = |offset: usize| position + (offset - start) as u64;
        self.compare(
            range,
            |offset| pattern.word_at(position(offset)),
            |offset| pattern.byte(position(offset)),
        )
    }

    /// Whether all of `range` holds `value`.
    ///
    /// # Errors
    /// The first byte that is different.
    pub fn expect_all(&self, range: Range<usize>, value: u8) -> Result<(), Mismatch> {
        self.compare(range, |_| u64::from_ne_bytes([value; 8]), |_| value)
    }

    fn compare(
        &self,
        range: Range<usize>,
        word: impl Fn(usize) -> u64,
        byte: impl Fn(usize) -> u8,
    ) -> Result<(), Mismatch> {
        self.check_range(&range);
        let mut at = range.start;
        while at < range.end {
            if at.is_multiple_of(8) && at + 8 <= range.end && self.word(at) == word(at) {
                at += 8;
                continue;
            }
            // A byte at the edge, or one of a word that differs: find out which.
            let (found, expected) = (self.byte(at), byte(at));
            if found != expected {
                return Err(Mismatch { offset: at, expected, found });
            }
            at += 1;
        }
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and no pointer into it outlives this value.
        let _ = unsafe { munmap(self.start.cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        View::new(&file, 4096, 0).unwrap()
    }

    #[test]
    fn a_pattern_stored_at_any_place_is_found_there() {
        let (view, pattern) = (view(), Pattern::new(3));
        for (start, end) in [(0, 1), (1, 2), (3, 40), (8, 16), (4000, 4096)] {
            view.store(start..end, pattern);
            view.expect(start..end, pattern, start as u64).unwrap();
        }
    }

    #[test]
    fn the_first_wrong_byte_is_named() {
        let (view, pattern) = (view(), Pattern::new(3));
        view.store(0..100, pattern);
        let right = view.byte(51);
        view.set_byte(51, !right);
        let mismatch = view.expect(0..100, pattern, 0).unwrap_err();
        assert_eq!(mismatch, Mismatch { offset: 51, expected: right, found: !right });
        // The same bytes one place further are all wrong.
        assert_eq!(view.expect(0..100, pattern, 1).unwrap_err().offset, 0);
    }

    #[test]
    fn a_moved_piece_is_judged_by_its_source() {
        let (view, pattern) = (view(), Pattern::new(9));
        for offset in 0..37 {
            view.set_byte(1000 + offset, pattern.byte(5 + offset as u64));
        }
        view.expect(1000..1037, pattern, 5).unwrap();
        view.expect_all(1037..1100, 0).unwrap();
        assert!(view.expect_all(1036..1100, 0).is_err());
    }

    #[test]
    #[should_panic(expected = "leaves a view")]
    fn no_access_leaves_the_mapping() {
        view().byte(4096);
    }
}
