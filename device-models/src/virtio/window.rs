//! Where a virtio function keeps its structures, as in its capabilities (virtio 1.3, 4.1.4), and
//! the way to them through configuration space (4.1.4.9).

use crate::pci::VendorCapability;

use super::spec::{cfg_type, common};

/// The BAR of the structures.
pub(crate) const REGISTERS: u8 = 0;
/// Bytes of the BAR.
pub(crate) const SIZE: u64 = 0x4000;
/// The BAR of the MSI-X table.
pub(crate) const MSIX: u8 = 1;

/// Each structure has a page of its own.
const PAGE: u64 = 0x1000;
/// The distance between the notification registers of two queues in bytes.
pub(crate) const NOTIFY_MULTIPLIER: u32 = 4;

/// A structure in the register BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Structure {
    Common,
    Isr,
    Device,
    Notify,
}

impl Structure {
    const ALL: [Self; 4] = [Self::Common, Self::Isr, Self::Device, Self::Notify];

    /// The structure at `offset` of the BAR, and the offset in it.
    pub(crate) fn at(offset: u64) -> Option<(Self, u64)> {
        let page = usize::try_from(offset / PAGE).ok()?;
        Some((*Self::ALL.get(page)?, offset % PAGE))
    }

    fn offset(self) -> u32 {
        match self {
            Self::Common => 0,
            Self::Isr => 0x1000,
            Self::Device => 0x2000,
            Self::Notify => 0x3000,
        }
    }

    fn cfg_type(self) -> u8 {
        match self {
            Self::Common => cfg_type::COMMON,
            Self::Isr => cfg_type::ISR,
            Self::Device => cfg_type::DEVICE,
            Self::Notify => cfg_type::NOTIFY,
        }
    }
}

/// The length of `struct virtio_pci_cap`.
const CAPABILITY: u8 = 16;
/// The length of a capability with one more dword.
const LONG_CAPABILITY: u8 = CAPABILITY + 4;
/// Offset of `pci_cfg_data` in its capability.
const DATA: u8 = CAPABILITY;

fn capability(cfg_type: u8, offset: u32, length: u32, more: Option<u32>) -> VendorCapability {
    let size = if more.is_some() { LONG_CAPABILITY } else { CAPABILITY };
    let mut body = vec![size, cfg_type, REGISTERS, 0, 0, 0];
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(more.into_iter().flat_map(u32::to_le_bytes));
    VendorCapability::from(body)
}

/// The capabilities of a function with `queues` queues and `config_length` bytes of device
/// configuration. The last is the window.
pub(crate) fn capabilities(queues: u32, config_length: u32) -> Vec<VendorCapability> {
    let length = |structure| match structure {
        Structure::Common => common::LENGTH,
        Structure::Isr => 1,
        Structure::Device => config_length,
        Structure::Notify => queues * NOTIFY_MULTIPLIER,
    };
    let mut list: Vec<_> = Structure::ALL
        .into_iter()
        .filter(|structure| length(*structure) != 0)
        .map(|structure| {
            let more = (structure == Structure::Notify).then_some(NOTIFY_MULTIPLIER);
            capability(structure.cfg_type(), structure.offset(), length(structure), more)
        })
        .collect();
    let mut window = capability(cfg_type::PCI, 0, 0, Some(0));
    // In the body, which begins behind the capability's ID and next pointer: bar, offset, length,
    // pci_cfg_data.
    window.writable = vec![0, 0, 0xff, 0, 0, 0];
    window.writable.resize(usize::from(LONG_CAPABILITY) - 2, 0xff);
    list.push(window);
    list
}

/// Where the window into the BAR stands (`struct virtio_pci_cfg_cap`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    /// `bar`, `offset` and `length` as last written, at their offsets in the capability.
    bytes: [u8; CAPABILITY as usize],
}

impl Window {
    /// Remembers what was written at `offset` of the capability.
    pub(crate) fn record(&mut self, offset: u8, data: &[u8]) {
        for (byte, at) in data.iter().zip(usize::from(offset)..) {
            if let Some(place) = self.bytes.get_mut(at) {
                *place = *byte;
            }
        }
    }

    /// The access to the BAR, as offset and length in bytes, that one of `length` bytes at `offset`
    /// of the capability stands for.
    pub(crate) fn access(&self, offset: u8, length: usize) -> Option<(u64, usize)> {
        if offset == DATA { self.target(length) } else { None }
    }

    /// What `bar`, `offset` and `length` choose, if a driver may choose it (4.1.4.9.2): 1, 2 or 4
    /// aligned bytes of the BAR with the structures.
    fn target(&self, accessed: usize) -> Option<(u64, usize)> {
        let [.., o0, o1, o2, o3, l0, l1, l2, l3] = self.bytes;
        let offset = u64::from(u32::from_le_bytes([o0, o1, o2, o3]));
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let allowed = self.bytes[4] == REGISTERS
            && matches!(length, 1 | 2 | 4)
            && offset.is_multiple_of(length.into())
            && offset + u64::from(length) <= SIZE;
        let length = usize::try_from(length).ok()?;
        (allowed && accessed >= length).then_some((offset, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_as_laid_out() {
        let list = capabilities(2, 40);
        assert_eq!(list.len(), 5);
        for capability in &list {
            assert_eq!(usize::from(capability.body[0]), capability.body.len() + 2);
        }
        assert_eq!(list[0].body, [16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0]);
        assert_eq!(list[3].body, [20, 2, 0, 0, 0, 0, 0, 0x30, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(
            capabilities(1, 0).len(),
            4,
            "without configuration there is no capability for it"
        );
        let window = &list[4];
        assert_eq!(window.writable[2], 0xff);
        assert_eq!(window.writable[6..], [0xff; 12]);
    }

    #[test]
    fn the_window_opens_only_where_it_may() {
        let mut window = Window::default();
        let aim = |window: &mut Window, bar: u8, offset: u32, length: u32| {
            window.record(4, &[bar]);
            window.record(8, &offset.to_le_bytes());
            window.record(12, &length.to_le_bytes());
            window.access(16, 4)
        };
        assert_eq!(aim(&mut window, 0, 0x2004, 4), Some((0x2004, 4)));
        assert_eq!(aim(&mut window, 0, 0x3fff, 1), Some((0x3fff, 1)));
        for (bar, offset, length) in [
            (1, 0, 4),
            (0, 2, 4),
            (0, 0, 0),
            (0, 0, 3),
            (0, 0, 8),
            (0, 0x4000, 1),
            (0, u32::MAX, 1),
            (0, 0, u32::MAX),
        ] {
            assert_eq!(aim(&mut window, bar, offset, length), None);
        }
        aim(&mut window, 0, 0, 4);
        assert_eq!(window.access(16, 2), None, "a narrower access than `length` reads nothing");
        assert_eq!(window.access(12, 4), None);
    }
}
