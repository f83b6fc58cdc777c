//! Resizable BARs (section 7.8.6).

use crate::pci::config::{Builder, ConfigEffects, ConfigSpace};
use crate::pci::description::{DescriptionError, FunctionDescription, ResizableBar};
use crate::pci::spec::{extended_id, resizable_bar as spec, resizable_bar::control};

/// Size code 0 stands for 1 MiB.
const SMALLEST_SHIFT: u32 = 20;
/// Codes 0 to 27 have their bits in the Capability register: 1 MiB to 128 TiB.
const CODES: u32 = 28;

/// Lays the capability out; `None` when no BAR is resizable.
pub(in crate::pci) fn install(
    builder: &mut Builder,
    function: &FunctionDescription,
) -> Result<Option<(u16, u16)>, DescriptionError> {
    let entries = &function.resizable_bars;
    let Ok(count @ 1..=6) = u16::try_from(entries.len()) else {
        return entries
            .get(6)
            .map_or(Ok(None), |entry| Err(DescriptionError::ResizableBar { bar: entry.bar }));
    };
    let length = spec::ENTRY + spec::ENTRY_LENGTH * count;
    let offset = builder.extended(extended_id::RESIZABLE_BAR, 1, length)?;
    for (entry, &ResizableBar { bar, sizes }) in (0u16..).zip(entries) {
        let at = offset + spec::ENTRY + spec::ENTRY_LENGTH * entry;
        let size = function.bars.iter().find(|other| other.index == bar).map(|other| other.size);
        let code = size.and_then(size_code).filter(|code| sizes >> code & 1 != 0);
        let code = code.filter(|_| sizes >> CODES == 0);
        let code = code.ok_or(DescriptionError::ResizableBar { bar })?;
        // Number of Resizable BARs is in the first entry only (section 7.8.6.3).
        let number = if entry == 0 { u32::from(count) << control::COUNT_SHIFT } else { 0 };
        let control = u32::from(bar) | number | code << control::SIZE_SHIFT;
        builder.registers.define_u32(at + spec::CAPABILITY, sizes << spec::SIZES_SHIFT);
        builder.registers.define_u32(at + spec::CONTROL, control);
        builder.registers.writable_u32(at + spec::CONTROL, control::SIZE_MASK);
        builder.watch_u32(at + spec::CONTROL, control::SIZE_MASK, ConfigEffects::DECODE);
    }
    Ok(Some((offset, count)))
}

/// The code of a size in bytes.
fn size_code(size: u64) -> Option<u32> {
    size.trailing_zeros().checked_sub(SMALLEST_SHIFT).filter(|code| *code < CODES)
}

impl ConfigSpace {
    /// Takes over the sizes that software chose. Writing a size that is not on offer is undefined
    /// (section 7.8.6.3); here the BAR keeps its size and the register shows it.
    pub(in crate::pci) fn adopt_bar_sizes(&mut self) {
        let Some((offset, count)) = self.layout().resizable else { return };
        for entry in 0..count {
            let at = offset + spec::ENTRY + spec::ENTRY_LENGTH * entry;
            let control = self.registers().u32(at + spec::CONTROL);
            let sizes = self.registers().u32(at + spec::CAPABILITY) >> spec::SIZES_SHIFT;
            let index = control.to_le_bytes()[0] & 7;
            let code = (control & control::SIZE_MASK) >> control::SIZE_SHIFT;
            if code < CODES && sizes >> code & 1 != 0 {
                self.resize_bar(index, 1 << (code + SMALLEST_SHIFT));
            } else if let Some(code) = self.bar_size(index).and_then(size_code) {
                let kept = control & !control::SIZE_MASK | code << control::SIZE_SHIFT;
                self.registers_mut().put_u32(at + spec::CONTROL, kept);
            }
        }
    }
}
