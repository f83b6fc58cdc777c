//! The bytes of a configuration space and the rules under which software changes them.

use std::fmt;

use super::mirror::Mirror;
use crate::memory::Memory;
use crate::pci::config::ResetKind;
use crate::pci::spec::CONFIG_SPACE_SIZE;

type Page = Box<[u8; CONFIG_SPACE_SIZE]>;

/// 4 KiB of registers. A bit is read-only unless it is marked writable (RW) or clearable (RW1C),
/// and returns to its initial value on reset unless it is marked as kept (section 7.4).
#[derive(Clone)]
pub(in crate::pci) struct RegisterFile {
    value: Page,
    initial: Page,
    writable: Page,
    clearable: Page,
    /// Kept by a function level reset only (section 6.6.2 lists them).
    kept_by_function_reset: Page,
    /// "Sticky": kept by every reset that leaves the power on.
    sticky: Page,
    /// What CPUs see of `value`.
    mirror: Mirror,
}

impl RegisterFile {
    pub(in crate::pci) fn new() -> Self {
        let page = || Box::new([0; CONFIG_SPACE_SIZE]);
        Self {
            value: page(),
            initial: page(),
            writable: page(),
            clearable: page(),
            kept_by_function_reset: page(),
            sticky: page(),
            mirror: Mirror::default(),
        }
    }

    /// Keeps a copy of all values at `offset` of `memory`; hidden, until [`RegisterFile::show`]
    /// shows it.
    pub(in crate::pci) fn mirror_to(&mut self, memory: Memory, offset: u64) {
        self.mirror = Mirror::at(memory, offset);
    }

    /// Where the copy is.
    pub(in crate::pci) fn mirror(&self) -> Option<(&Memory, u64)> {
        self.mirror.place()
    }

    /// Keeps changes from the copy until [`RegisterFile::release`]: CPUs are to see the last of
    /// several.
    pub(in crate::pci) fn hold(&mut self) {
        self.mirror.hold();
    }

    /// Ends what [`RegisterFile::hold`] began.
    pub(in crate::pci) fn release(&mut self) {
        self.mirror.release(&self.value);
    }

    /// Whether the copy shows the values, or all ones.
    pub(in crate::pci) fn show(&mut self, shown: bool) {
        self.mirror.show(shown, &self.value);
    }

    /// Software's read of `len` bytes (at most 4); bytes beyond the end read as all ones.
    pub(in crate::pci) fn read(&self, offset: u16, len: u8) -> u32 {
        let mut bytes = [0; 4];
        let wanted = bytes.iter_mut().take(usize::from(len)).enumerate();
        for (i, byte) in wanted {
            *byte = self.value.get(usize::from(offset) + i).copied().unwrap_or(0xff);
        }
        u32::from_le_bytes(bytes)
    }

    /// Software's write of `len` bytes (at most 4); what lies beyond the end is dropped.
    pub(in crate::pci) fn write(&mut self, offset: u16, len: u8, value: u32) {
        let first = usize::from(offset);
        let end = first.saturating_add(usize::from(len.min(4))).min(CONFIG_SPACE_SIZE);
        for (at, byte) in (first..end).zip(value.to_le_bytes()) {
            let writable = self.writable[at];
            let cleared = self.clearable[at] & byte;
            self.value[at] = (self.value[at] & !writable | byte & writable) & !cleared;
        }
        self.mirror.update(&self.value, first..end);
    }

    /// Back to the initial values, but for what this kind of reset keeps.
    pub(in crate::pci) fn reset(&mut self, kind: ResetKind) {
        for at in 0..CONFIG_SPACE_SIZE {
            let kept = match kind {
                ResetKind::FunctionLevel => self.sticky[at] | self.kept_by_function_reset[at],
                ResetKind::Hot => self.sticky[at],
                ResetKind::Cold => 0,
            };
            self.value[at] = self.value[at] & kept | self.initial[at] & !kept;
        }
        self.mirror.update(&self.value, 0..CONFIG_SPACE_SIZE);
    }

    pub(in crate::pci) fn u8(&self, offset: u16) -> u8 {
        self.bytes::<1>(offset)[0]
    }

    pub(in crate::pci) fn u16(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.bytes(offset))
    }

    pub(in crate::pci) fn u32(&self, offset: u16) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    fn bytes<const N: usize>(&self, offset: u16) -> [u8; N] {
        let at = usize::from(offset);
        let slice = self.value.get(at..at + N).and_then(|slice| slice.try_into().ok());
        slice.unwrap_or([0xff; N])
    }

    /// The function's own change of a register, whatever software may do to it.
    pub(in crate::pci) fn put<const N: usize>(&mut self, offset: u16, bytes: [u8; N]) {
        store(&mut self.value, offset, bytes);
        let at = usize::from(offset);
        self.mirror.update(&self.value, at..at + N);
    }

    pub(in crate::pci) fn put_u16(&mut self, offset: u16, value: u16) {
        self.put(offset, value.to_le_bytes());
    }

    pub(in crate::pci) fn put_u32(&mut self, offset: u16, value: u32) {
        self.put(offset, value.to_le_bytes());
    }

    /// Sets the bits of `mask` to those of `value`, as the function's own change.
    pub(in crate::pci) fn modify_u16(&mut self, offset: u16, mask: u16, value: u16) {
        self.put_u16(offset, self.u16(offset) & !mask | value & mask);
    }

    /// The value after power-on and reset.
    pub(in crate::pci) fn define<const N: usize>(&mut self, offset: u16, bytes: [u8; N]) {
        self.put(offset, bytes);
        store(&mut self.initial, offset, bytes);
    }

    pub(in crate::pci) fn define_u16(&mut self, offset: u16, value: u16) {
        self.define(offset, value.to_le_bytes());
    }

    pub(in crate::pci) fn define_u32(&mut self, offset: u16, value: u32) {
        self.define(offset, value.to_le_bytes());
    }

    /// Which bits software writes (RW): exactly those of the mask.
    pub(in crate::pci) fn writable<const N: usize>(&mut self, offset: u16, mask: [u8; N]) {
        store(&mut self.writable, offset, mask);
    }

    pub(in crate::pci) fn writable_u16(&mut self, offset: u16, mask: u16) {
        self.writable(offset, mask.to_le_bytes());
    }

    pub(in crate::pci) fn writable_u32(&mut self, offset: u16, mask: u32) {
        self.writable(offset, mask.to_le_bytes());
    }

    /// Which bits software clears by writing 1 (RW1C).
    pub(in crate::pci) fn clearable_u16(&mut self, offset: u16, mask: u16) {
        store(&mut self.clearable, offset, mask.to_le_bytes());
    }

    pub(in crate::pci) fn clearable_u32(&mut self, offset: u16, mask: u32) {
        store(&mut self.clearable, offset, mask.to_le_bytes());
    }

    /// Which bits a function level reset keeps.
    pub(in crate::pci) fn kept_by_function_reset_u16(&mut self, offset: u16, mask: u16) {
        store(&mut self.kept_by_function_reset, offset, mask.to_le_bytes());
    }

    /// Which bits are sticky (ROS, RWS, RW1CS).
    pub(in crate::pci) fn sticky_u16(&mut self, offset: u16, mask: u16) {
        store(&mut self.sticky, offset, mask.to_le_bytes());
    }

    pub(in crate::pci) fn sticky_u32(&mut self, offset: u16, mask: u32) {
        store(&mut self.sticky, offset, mask.to_le_bytes());
    }

    /// The bits at `offset` that software can change in any way.
    #[cfg(test)]
    pub(in crate::pci) fn changeable(&self, offset: u16) -> u8 {
        self.writable[usize::from(offset)] | self.clearable[usize::from(offset)]
    }
}

fn store<const N: usize>(page: &mut Page, offset: u16, bytes: [u8; N]) {
    let at = usize::from(offset);
    if let Some(slice) = page.get_mut(at..at + N) {
        slice.copy_from_slice(&bytes);
    }
}

impl fmt::Debug for RegisterFile {
    /// The header only: 24 KiB of bytes are of no use to a reader.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterFile").field("header", &&self.value[..0x40]).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_follow_their_rules() {
        let mut file = RegisterFile::new();
        file.define_u32(0x10, 0xa5a5_0000);
        file.writable_u32(0x10, 0x0000_00ff);
        file.clearable_u32(0x10, 0xff00_0000);
        file.write(0x10, 4, 0x20ff_ffff);
        assert_eq!(file.u32(0x10), 0x85a5_00ff);
        file.write(0x13, 1, 0xff);
        assert_eq!(file.u32(0x10), 0x00a5_00ff);
    }

    #[test]
    fn resets_keep_what_they_must() {
        let mut file = RegisterFile::new();
        file.writable_u32(0x20, u32::MAX);
        file.sticky_u32(0x20, 0x0000_000f);
        file.kept_by_function_reset_u16(0x20, 0x00f0);
        file.write(0x20, 4, u32::MAX);
        file.reset(ResetKind::FunctionLevel);
        assert_eq!(file.u32(0x20), 0xff);
        file.reset(ResetKind::Hot);
        assert_eq!(file.u32(0x20), 0x0f);
        file.reset(ResetKind::Cold);
        assert_eq!(file.u32(0x20), 0);
    }

    #[test]
    fn beyond_the_end_reads_ones_and_drops_writes() {
        let mut file = RegisterFile::new();
        assert_eq!(file.read(0xffe, 4), 0xffff_0000);
        assert_eq!(file.read(0xffff, 4), 0xffff_ffff);
        file.write(0xffe, 4, 0);
        file.write(0xffff, 4, 0);
    }
}
