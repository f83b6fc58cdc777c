//! Configuration space: what its bytes say, as far as they are there.

mod capabilities;

use std::collections::BTreeSet;

use crate::gather::{Draft, Notes};
use crate::{Address, Bar, Buses, Header, Space, Window};

/// Length of a function's configuration space with the extended part.
pub(crate) const SIZE: usize = 4096;

/// Bytes of a configuration space. Each is known or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConfigSpace {
    bytes: Vec<Option<u8>>,
    /// The same offset was stated twice, differently.
    contradicts: bool,
}

impl ConfigSpace {
    /// The first bytes, as a file has them.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let bytes = bytes.iter().take(SIZE).copied().map(Some).collect();
        Self { bytes, contradicts: false }
    }

    /// Sets `bytes` from `offset` on. What lies beyond the end is dropped.
    pub(crate) fn set(&mut self, offset: usize, bytes: &[u8]) {
        for (at, byte) in (offset..SIZE).zip(bytes) {
            if self.bytes.len() <= at {
                self.bytes.resize(at + 1, None);
            }
            let old = self.bytes[at].replace(*byte);
            self.contradicts |= old.is_some_and(|old| old != *byte);
        }
    }

    fn u8(&self, offset: usize) -> Option<u8> {
        *self.bytes.get(offset)?
    }

    fn u16(&self, offset: usize) -> Option<u16> {
        Some(u16::from_le_bytes([self.u8(offset)?, self.u8(offset + 1)?]))
    }

    fn u32(&self, offset: usize) -> Option<u32> {
        let (low, high) = (self.u16(offset)?, self.u16(offset + 2)?);
        Some(u32::from(high) << 16 | u32::from(low))
    }

    /// Where the first unknown byte is.
    fn end(&self) -> usize {
        self.bytes.iter().position(Option::is_none).unwrap_or(self.bytes.len())
    }

    /// States in `draft` all that the bytes say about the function at `address`, with `line` as the place.
    pub(crate) fn decode(
        &self,
        address: Address,
        line: usize,
        draft: &mut Draft,
        notes: &mut Notes,
    ) {
        let mut note = |text: &str| notes.add(text, Some(address), Some(line));
        if self.contradicts {
            note("its hex dump states some bytes twice, differently: it is not used");
            return;
        }
        draft.has_config = true;
        if self.u32(0) == Some(u32::MAX) && self.u32(8).is_none_or(|class| class == u32::MAX) {
            note("its configuration space reads as ones: it is powered off, or not there");
            return;
        }
        self.identity(line, draft);
        let header = self.u8(0x0e);
        if let Some(header) = header {
            draft.multi_function.put(header & 0x80 != 0, line);
            match header & 0x7f {
                0 => {
                    draft.header.put(Header::Endpoint, line);
                    self.subsystem(0x2c, line, draft);
                    self.bars(6, draft);
                }
                1 => {
                    draft.header.put(Header::Bridge, line);
                    self.bridge(line, draft);
                    self.bars(2, draft);
                }
                2 => draft.header.put(Header::CardBus, line),
                _ => note("the type of its header is none that PCI defines"),
            }
        }
        if let Err(why) = self.capabilities(line, draft) {
            note(why.text(self.end()).as_str());
        }
    }

    fn identity(&self, line: usize, draft: &mut Draft) {
        // A virtual function's IDs read as ones (PCIe 6.0, 9.3.4.1.1); its physical function has them.
        if let (Some(vendor), Some(device)) = (self.u16(0), self.u16(2))
            && vendor != 0xffff
        {
            draft.vendor.put(vendor, line);
            draft.device.put(device, line);
        }
        if let Some(revision) = self.u8(8) {
            draft.revision.put(revision, line);
        }
        if let Some(interface) = self.u8(9) {
            draft.programming_interface.put(interface, line);
        }
        if let Some(class) = self.u16(0x0a) {
            draft.class.put(class, line);
        }
    }

    fn subsystem(&self, offset: usize, line: usize, draft: &mut Draft) {
        if let (Some(vendor), Some(device)) = (self.u16(offset), self.u16(offset + 2))
            && vendor != 0
        {
            draft.subsystem_vendor.put(vendor, line);
            draft.subsystem_device.put(device, line);
        }
    }

    /// Bus numbers and windows of a bridge (PCIe 6.0, 7.5.1.3).
    fn bridge(&self, line: usize, draft: &mut Draft) {
        if let (Some(primary), Some(secondary), Some(subordinate)) =
            (self.u8(0x18), self.u8(0x19), self.u8(0x1a))
        {
            draft.buses.put(Buses { primary, secondary, subordinate }, line);
        }
        let low = |offset: usize| Some(u64::from(self.u16(offset)? & 0xfff0) << 16);
        let high = |offset: usize| Some(u64::from(self.u32(offset)?) << 32);
        let window = |first: u64, last: u64| {
            let last = last | 0xf_ffff;
            if first > last { Window::Closed } else { Window::Open { first, last } }
        };
        if let (Some(first), Some(last)) = (low(0x20), low(0x22)) {
            draft.memory.put(window(first, last), line);
        }
        if let (Some(mut first), Some(mut last), Some(kind)) =
            (low(0x24), low(0x26), self.u16(0x24))
        {
            if kind & 0xf == 1 {
                let (Some(above), Some(above_last)) = (high(0x28), high(0x2c)) else { return };
                (first, last) = (first | above, last | above_last);
            }
            draft.prefetchable.put(window(first, last), line);
        }
    }

    fn bars(&self, count: u8, draft: &mut Draft) {
        let mut index = 0;
        while index < count {
            let number = index;
            index += 1;
            let Some(low) = self.u32(0x10 + 4 * usize::from(number)) else { continue };
            let (space, address) = if low & 1 == 1 {
                (Space::Io, u64::from(low & !3))
            } else {
                let wide = low >> 1 & 3 == 2;
                let mut address = u64::from(low & !0xf);
                if wide {
                    index += 1;
                    let high = self.u32(0x10 + 4 * usize::from(number + 1));
                    let Some(high) = high.filter(|_| number + 1 < count) else { continue };
                    address |= u64::from(high) << 32;
                }
                (Space::Memory { wide, prefetchable: low & 8 != 0 }, address)
            };
            // A BAR without an address is either missing or not assigned.
            if address != 0 {
                let bus_address = Some(address);
                draft.bar(Bar { index: number, space, bus_address, cpu_address: None, size: None });
            }
        }
    }
}

/// Why a list of capabilities does not say what the function lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Bytes are missing.
    Missing,
    /// The list leads in a circle.
    Circle,
    /// An entry lies where none can be.
    Astray,
}

impl Broken {
    fn text(self, end: usize) -> String {
        let text = match self {
            Self::Missing => {
                return format!(
                    "only the first {end} bytes of its configuration space are there, so whether ACS redirects is not \
                     known: read them as root (lspci -xxxx)"
                );
            }
            Self::Circle => "its list of capabilities leads in a circle",
            Self::Astray => "its list of capabilities leads astray",
        };
        format!("{text}: what it does not show is not known")
    }
}

/// Walks a list: each step gives the offset of the next entry, or none at the end.
fn walk(
    first: usize,
    mut step: impl FnMut(usize) -> Result<Option<usize>, Broken>,
) -> Result<(), Broken> {
    let mut seen = BTreeSet::new();
    let mut at = Some(first);
    while let Some(offset) = at {
        if !seen.insert(offset) {
            return Err(Broken::Circle);
        }
        at = step(offset)?;
    }
    Ok(())
}
