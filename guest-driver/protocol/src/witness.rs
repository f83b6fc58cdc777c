//! How the witness, a module in the guest, reports what the guest's kernel maps for DMA.
//!
//! The module shares one ring per CPU with the VMM. It writes a record, and then the ring's head; the VMM reads
//! records before it checks a transaction, and moves the tail. A producer that finds its ring full writes to
//! [`DRAIN_PORT`]: the VMM has emptied all rings when the instruction returns. So nothing is lost silently: what is
//! lost all the same is counted in the ring's slot.
//!
//! Each record carries a ticket from one counter that all CPUs share, taken and committed with interrupts off. Tickets
//! order the records of different rings. A gap means that a CPU is between ticket and commit: the operation that it
//! reports has not returned to its caller.
//!
//! All integers are little-endian. `guest-driver/witness/wire.h` has the same for the module.

/// I/O port, a double word. Reads as [`MAGIC`] where the VMM takes records, and as all ones elsewhere. A write is the
/// page frame number of the header, or 0 to end: the VMM empties the rings once more and forgets them.
pub const ATTACH_PORT: u16 = 0x0d18;
/// I/O port, a double word. A write of any value empties all rings before it returns.
pub const DRAIN_PORT: u16 = 0x0d1c;

/// First double word of the header: the characters `PDWT`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"PDWT");
/// Second double word of the header.
pub const VERSION: u32 = 1;

/// Offsets in the header, which is physically contiguous and begins on a page.
pub mod header {
    /// u32: [`MAGIC`](super::MAGIC).
    pub const MAGIC: u64 = 0x00;
    /// u32: [`VERSION`](super::VERSION).
    pub const VERSION: u64 = 0x04;
    /// u32: rings, at most [`MAX_RINGS`](super::MAX_RINGS).
    pub const RINGS: u64 = 0x08;
    /// u32: records in each ring, a power of two, at most [`MAX_ENTRIES`](super::MAX_ENTRIES).
    pub const ENTRIES: u64 = 0x0c;
    /// u64: the guest's monotonic clock at registration, in nanoseconds: the clock of the records.
    pub const NOW: u64 = 0x10;
    /// First of the slots, one for each ring.
    pub const SLOTS: u64 = 0x80;
    /// Bytes of a slot.
    pub const SLOT_SIZE: u64 = 0x80;
}

/// Offsets in a ring's slot. Producer's and consumer's words lie in cache lines of their own.
pub mod slot {
    /// u64: physical address of the ring's first record, a multiple of the record's size.
    pub const RING: u64 = 0x00;
    /// u32: records written since registration, modulo 2^32. The producer's.
    pub const HEAD: u64 = 0x08;
    /// u32: records that found no room and were dropped, modulo 2^32. The producer's.
    pub const LOST: u64 = 0x0c;
    /// u32: records read since registration, modulo 2^32. The VMM's.
    pub const TAIL: u64 = 0x40;
}

/// Rings at most.
pub const MAX_RINGS: u32 = 256;
/// Records in a ring at most.
pub const MAX_ENTRIES: u32 = 1 << 16;
/// Bytes of a record.
pub const RECORD_SIZE: usize = 128;

/// Offsets in a record.
pub mod record {
    /// u64: ticket, from 1.
    pub const TICKET: usize = 0x00;
    /// u64: the guest's monotonic clock, in nanoseconds.
    pub const TIME: usize = 0x08;
    /// u64: DMA address, or as [`Kind`](super::Kind) says.
    pub const ADDRESS: usize = 0x10;
    /// u64: bytes, or as [`Kind`](super::Kind) says.
    pub const LENGTH: usize = 0x18;
    /// u16: a [`Kind`](super::Kind).
    pub const KIND: usize = 0x20;
    /// u8: `enum dma_data_direction`: 0 both, 1 to the device, 2 from the device, 3 none.
    pub const DIRECTION: usize = 0x22;
    /// u8: [`flags`](super::flags).
    pub const FLAGS: usize = 0x23;
    /// u32: the function that the mapping is for: PCI segment in the upper half, BDF in the lower; or
    /// [`NO_FUNCTION`](super::NO_FUNCTION).
    pub const FUNCTION: usize = 0x24;
    /// u64: what was mapped in one go has the same value here: the ticket of the first record of a scatterlist or
    /// a coherent allocation, the `dma_iova_state` of a linked range, or the attachment of a dma-buf.
    pub const GROUP: usize = 0x28;
    /// u64: inode number of the dma-buf, 0 for none; a fence's identity in fence records.
    pub const BUFFER: usize = 0x30;
    /// u64: the caller's return address, 0 if unknown.
    pub const CALLER: usize = 0x38;
    /// u32: process ID of the task, 0 in interrupt context.
    pub const PID: usize = 0x40;
    /// u32: CPU.
    pub const CPU: usize = 0x44;
    /// 16 bytes: the task's name, padded with zeros.
    pub const TASK: usize = 0x48;
    /// 40 bytes: text as [`Kind`](super::Kind) says, padded with zeros: a driver's name, or the caller's symbol.
    pub const TEXT: usize = 0x58;
}

/// The function of a mapping for a device without a PCI ancestor.
pub const NO_FUNCTION: u32 = u32::MAX;

/// Bits of a record's flags.
pub mod flags {
    /// The mapping was made of MMIO (`DMA_ATTR_MMIO`, `dma_map_resource()`).
    pub const MMIO: u8 = 1 << 0;
    /// The address is a bus address that no IOMMU sees (`sg_dma_is_bus_address()`).
    pub const BUS_ADDRESS: u8 = 1 << 1;
    /// A coherent allocation (`dma_alloc_coherent()` and the like), not a streaming mapping.
    pub const COHERENT: u8 = 1 << 2;
    /// In `Attach`: the importer takes peer-to-peer addresses (`allow_peer2peer`).
    pub const PEER2PEER: u8 = 1 << 3;
    /// In `Attach`: the importer is dynamic (it has `invalidate_mappings`).
    pub const DYNAMIC: u8 = 1 << 4;
    /// In `Bind`: the driver maps by the IOMMU API or not at all (VFIO, UIO): its mappings are not seen.
    pub const UNSEEN: u8 = 1 << 5;
    /// More records of the same group follow.
    pub const MORE: u8 = 1 << 6;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal;)+) => {
        /// What a record reports.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Kind {
            $($(#[$doc])* $variant = $code,)+
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The kind that a record's field holds.
            pub fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// The module is there; ADDRESS: a bit for each hook that it has, as `wire.h` numbers them.
    Loaded = 1;
    /// A mapping was made: ADDRESS, LENGTH, DIRECTION, FUNCTION, GROUP. A scatterlist is one record per DMA segment.
    Map = 2;
    /// A mapping is over: the same fields as when it was made, GROUP excepted. FLAGS tell a coherent allocation.
    Unmap = 3;
    /// `dma_sync_*_for_cpu()`: ADDRESS, LENGTH, DIRECTION.
    SyncForCpu = 4;
    /// `dma_sync_*_for_device()`: ADDRESS, LENGTH, DIRECTION.
    SyncForDevice = 5;
    /// A driver is about to be bound to FUNCTION; TEXT: its name. From here on all its mappings are seen, unless FLAGS
    /// has `UNSEEN`.
    Bind = 8;
    /// FUNCTION has no driver any more.
    Unbind = 9;
    /// FUNCTION is gone (hot-unplug); its numbers may come back for another device.
    Gone = 10;
    /// Hooks were missed, LENGTH times; TEXT: which. Nothing is complete from here on.
    Missed = 11;
    /// A dma-buf was exported: BUFFER, LENGTH its size; TEXT: the exporter.
    Export = 16;
    /// FUNCTION was attached to BUFFER; GROUP: the attachment; FLAGS: `PEER2PEER`, `DYNAMIC`.
    Attach = 17;
    /// The attachment GROUP of BUFFER is over.
    Detach = 18;
    /// One segment of what the exporter returned for the attachment GROUP: ADDRESS, LENGTH, DIRECTION. It takes the
    /// place of what other hooks have seen of the same addresses.
    BufferMap = 19;
    /// The table of attachment GROUP is about to be unmapped.
    BufferUnmap = 20;
    /// The exporter calls `dma_buf_invalidate_mappings()` for BUFFER.
    Invalidate = 21;
    /// `dma_buf_pin()` for the attachment GROUP.
    Pin = 22;
    /// `dma_buf_unpin()` for the attachment GROUP.
    Unpin = 23;
    /// The last reference to BUFFER is gone.
    Release = 24;
    /// The fence ADDRESS was added to the reservation of BUFFER; LENGTH: its `enum dma_resv_usage`.
    FenceAdd = 25;
    /// The fence ADDRESS has signalled.
    FenceSignaled = 26;
}

/// Hooks, by the bit that `Loaded` has for each; in the order of `wire.h`.
pub const HOOKS: &[&str] = &[
    "dma_map_phys",
    "dma_unmap_phys",
    "dma_map_sg",
    "dma_unmap_sg",
    "dma_alloc",
    "dma_free",
    "dma_sync",
    "dma_iova_link",
    "dma_iova_unlink",
    "dma_buf",
    "dma_buf_map_attachment",
    "dma_buf_unmap_attachment",
    "dma_buf_invalidate_mappings",
    "dma_buf_pin",
    "dma_buf_unpin",
    "dma_resv_add_fence",
    "dma_fence_signaled",
    "bind",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The value that `wire.h` gives `name`, in a `#define` or an enumeration.
    fn of_the_header(text: &str, name: &str) -> Option<u64> {
        text.lines().find_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let value = match words[..] {
                ["#define", found, value] if found == name => value,
                ["#define", found, "(1", "<<", bit] if found == name => {
                    return Some(1 << bit.trim_end_matches(')').parse::<u64>().ok()?);
                }
                [found, "=", value] if found == name => value.trim_end_matches(','),
                _ => return None,
            };
            match value.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => value.parse().ok(),
            }
        })
    }

    fn screaming(name: &str) -> String {
        let mut out = String::from("WITNESS");
        for character in name.chars() {
            if character.is_uppercase() {
                out.push('_');
            }
            out.extend(character.to_uppercase());
        }
        out
    }

    #[test]
    fn the_c_header_says_the_same() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../witness/wire.h");
        let Ok(text) = std::fs::read_to_string(path) else {
            let line =
                format!("SKIP the_c_header_says_the_same: {path} is not part of the package\n");
            // Not captured by libtest; `make test` counts it.
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
            return;
        };
        let value = |name: &str| of_the_header(&text, name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(value("WITNESS_ATTACH_PORT"), u64::from(ATTACH_PORT));
        assert_eq!(value("WITNESS_DRAIN_PORT"), u64::from(DRAIN_PORT));
        assert_eq!(value("WITNESS_MAGIC"), u64::from(MAGIC));
        assert_eq!(value("WITNESS_VERSION"), u64::from(VERSION));
        assert_eq!(value("WITNESS_MAX_RINGS"), u64::from(MAX_RINGS));
        assert_eq!(value("WITNESS_MAX_ENTRIES"), u64::from(MAX_ENTRIES));
        assert_eq!(value("WITNESS_NO_FUNCTION"), u64::from(NO_FUNCTION));
        for &kind in Kind::ALL {
            assert_eq!(value(&screaming(&format!("{kind:?}"))), kind as u64);
            assert_eq!(Kind::from_code(kind as u16), Some(kind));
        }
        for (name, bit) in [
            ("MMIO", flags::MMIO),
            ("BUS_ADDRESS", flags::BUS_ADDRESS),
            ("COHERENT", flags::COHERENT),
            ("PEER2PEER", flags::PEER2PEER),
            ("DYNAMIC", flags::DYNAMIC),
            ("UNSEEN", flags::UNSEEN),
            ("MORE", flags::MORE),
        ] {
            assert_eq!(value(&format!("WITNESS_F_{name}")), u64::from(bit), "{name}");
        }
        let hooks = text.lines().filter(|line| line.starts_with("\tWITNESS_HOOK_")).count();
        assert_eq!(hooks, HOOKS.len());
    }
}
