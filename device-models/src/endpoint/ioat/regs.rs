//! Numbers of the register interface, version 3.3, as the public register description and Linux's
//! driver name them.

/// Identities.
pub mod identity {
    /// Intel.
    pub const VENDOR_ID: u16 = 0x8086;
    /// The engine of Skylake-SP, whose RAID operations Linux leaves alone.
    pub const SKYLAKE: u16 = 0x2021;
    /// The engine of the Atom S1200, which Linux uses for XOR too.
    pub const ATOM: u16 = 0x0c50;
    /// System peripheral, other.
    pub const CLASS: u32 = 0x08_8000;
}

/// BARs.
pub mod bars {
    /// Registers.
    pub const REGISTERS: u8 = 0;
    /// Bytes of it.
    pub const REGISTERS_SIZE: u64 = 0x4000;
    /// MSI-X table and pending bits.
    pub const MSIX: u8 = 2;
    /// Bytes of a channel's registers; channel `n` begins at `(n + 1)` times this.
    pub const CHANNEL_STRIDE: u64 = 0x80;
    /// The lab's own registers, where the hardware has none.
    pub const LAB: u64 = 0x3000;
}

/// Registers of the device, and their lengths in bytes.
pub mod device {
    /// CHANCNT, 1 byte.
    pub const CHANNEL_COUNT: u64 = 0x00;
    /// XFERCAP, 1 byte: longest transfer, as a power of two.
    pub const TRANSFER_CAPACITY: u64 = 0x01;
    /// INTRCTRL, 1 byte.
    pub const INTERRUPT_CONTROL: u64 = 0x03;
    /// ATTNSTATUS, 4 bytes: a bit for each channel that interrupted, cleared by reading.
    pub const ATTENTION: u64 = 0x04;
    /// CBVER, 1 byte.
    pub const VERSION: u64 = 0x08;
    /// INTRDELAY, 2 bytes.
    pub const INTERRUPT_DELAY: u64 = 0x0c;
    /// CS_STATUS, 2 bytes.
    pub const STATUS: u64 = 0x0e;
    /// DMACAPABILITY, 4 bytes.
    pub const CAPABILITY: u64 = 0x10;
    /// Lab only, 4 bytes: see [`fault`](super::fault).
    pub const LAB_FAULT: u64 = super::bars::LAB;
}

/// Registers of a channel.
pub mod channel {
    /// CHANCTRL, 2 bytes.
    pub const CONTROL: u64 = 0x00;
    /// DMA_COMP, 2 bytes: compatible with version 2.
    pub const COMPATIBILITY: u64 = 0x02;
    /// CHANCMD, 1 byte.
    pub const COMMAND: u64 = 0x04;
    /// DMACOUNT, 2 bytes: descriptors to process since CHAINADDR was written.
    pub const COUNT: u64 = 0x06;
    /// CHANSTS, 8 bytes.
    pub const STATUS: u64 = 0x08;
    /// CHAINADDR, 8 bytes.
    pub const CHAIN: u64 = 0x10;
    /// CHANCMP, 8 bytes.
    pub const COMPLETION: u64 = 0x18;
    /// CDAR, 8 bytes.
    pub const CURRENT: u64 = 0x20;
    /// CHANERR, 4 bytes, cleared by writing ones.
    pub const ERROR: u64 = 0x28;
    /// CHANERRMSK, 4 bytes.
    pub const ERROR_MASK: u64 = 0x2c;
    /// DCACTRL, 4 bytes.
    pub const CACHE_HINT: u64 = 0x30;
}

/// Values.
pub mod value {
    /// Version 3.3.
    pub const VERSION: u8 = 0x33;
    /// Transfers of up to 1 MiB: the most, and the default.
    pub const TRANSFER_CAPACITY: u8 = 20;
    /// CS_STATUS: addresses may be remapped.
    pub const STATUS_ADDRESS_REMAPPING: u16 = 0x8;
    /// Block fill.
    pub const CAPABILITY_FILL: u32 = 0x40;
    /// XOR and its check.
    pub const CAPABILITY_XOR: u32 = 0x100;
    /// INTRDELAY: coalescing is supported.
    pub const DELAY_SUPPORTED: u16 = 0x8000;
    /// INTRDELAY: the delay, in microseconds.
    pub const DELAY_MASK: u16 = 0x3fff;
}

/// INTRCTRL.
pub mod interrupt_control {
    /// MASTER_INT_EN.
    pub const MASTER: u8 = 1;
    /// INT_STATUS, read-only.
    pub const STATUS: u8 = 2;
    /// INT, read-only.
    pub const ACTIVE: u8 = 4;
    /// A vector for each channel.
    pub const VECTORS: u8 = 8;
}

/// CHANCTRL.
pub mod control {
    /// Reads 1 after an interrupt; writing 1 arms the next one.
    pub const REARM: u16 = 0x0001;
    /// Completion record on error.
    pub const ERROR_COMPLETION: u16 = 0x0004;
    /// Interrupt on error.
    pub const ERROR_INTERRUPT: u16 = 0x0010;
    /// All bits that software may set.
    pub const WRITABLE: u16 = 0xf33c;
}

/// CHANCMD.
pub mod command {
    /// Stop after the present descriptor.
    pub const SUSPEND: u8 = 0x04;
    /// Stop at once.
    pub const ABORT: u8 = 0x08;
    /// Go on after a suspension.
    pub const RESUME: u8 = 0x10;
    /// Forget everything.
    pub const RESET: u8 = 0x20;
    /// Commands of version 1, which DMACOUNT replaces.
    pub const VERSION_1: u8 = 0x03;
}

/// CHANSTS, bits 2:0.
pub mod status {
    /// Descriptors are processed.
    pub const ACTIVE: u64 = 0;
    /// All of them are.
    pub const DONE: u64 = 1;
    /// Stopped by command.
    pub const SUSPENDED: u64 = 2;
    /// Stopped by reset, abort or error.
    pub const HALTED: u64 = 3;
}

/// CHANERR.
pub mod error {
    /// A source that no address space has.
    pub const SOURCE_ADDRESS: u32 = 0x0001;
    /// A destination likewise.
    pub const DESTINATION_ADDRESS: u32 = 0x0002;
    /// The next descriptor cannot be read.
    pub const NEXT_ADDRESS: u32 = 0x0004;
    /// The next descriptor is not at a multiple of 64.
    pub const NEXT_ALIGNMENT: u32 = 0x0008;
    /// CHAINADDR is not a multiple of 64.
    pub const CHAIN_ADDRESS: u32 = 0x0010;
    /// CHANCMD: not exactly one known command.
    pub const COMMAND: u32 = 0x0020;
    /// A read was not answered with data.
    pub const READ_DATA: u32 = 0x0100;
    /// A write could not be issued.
    pub const WRITE_DATA: u32 = 0x0200;
    /// An operation or a number of sources that does not exist.
    pub const CONTROL: u32 = 0x0400;
    /// A length of 0, or above XFERCAP.
    pub const LENGTH: u32 = 0x0800;
    /// The completion record could not be written.
    pub const COMPLETION_ADDRESS: u32 = 0x1000;
    /// The check of an XOR failed.
    pub const XOR: u32 = 0x1_0000;
}

/// A descriptor's control word.
pub mod descriptor {
    /// Bytes of one.
    pub const SIZE: usize = 64;
    /// Interrupt when done.
    pub const INTERRUPT: u32 = 1;
    /// Completion record when done.
    pub const COMPLETION: u32 = 1 << 3;
    /// Moves nothing; of copies only.
    pub const NULL: u32 = 1 << 5;
    /// Lowest of the three bits of an XOR's number of sources less 2.
    pub const SOURCES_SHIFT: u32 = 5;
    /// Copy.
    pub const COPY: u8 = 0x00;
    /// Fill with the eight bytes in place of a source.
    pub const FILL: u8 = 0x01;
    /// XOR of 2 to 8 sources.
    pub const XOR: u8 = 0x87;
    /// Check that the XOR of 2 to 8 sources is the destination.
    pub const XOR_CHECK: u8 = 0x88;
    /// Sources in the first 64 bytes; more make a second descriptor.
    pub const SOURCES_IN_FIRST: usize = 5;
    /// Most sources.
    pub const SOURCES_MAX: usize = 8;
}

/// Lab only: misbehaviour of the next descriptor, or with [`STICKY`](fault::STICKY) of all to come.
pub mod fault {
    /// None.
    pub const NONE: u32 = 0;
    /// Source and destination are swapped.
    pub const SWAP: u32 = 1;
    /// The completion record is not written.
    pub const LOSE_COMPLETION: u32 = 2;
    /// The interrupt is not sent.
    pub const DROP_INTERRUPT: u32 = 3;
    /// The first byte of the data is inverted.
    pub const CORRUPT_DATA: u32 = 4;
    /// CHANSTS does not show that the descriptor is done, until the channel is reset.
    pub const HIDE_COMPLETION: u32 = 5;
    /// The fault stays until 0 is written.
    pub const STICKY: u32 = 0x100;
}
