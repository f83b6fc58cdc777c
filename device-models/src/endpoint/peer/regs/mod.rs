//! Registers, bits, descriptor and completion record of the peer device.
//!
//! This is the only place they are written down. The model uses the constants;
//! `guest-driver/peerdma_regs.h` is generated from the tables by [`c_header`] and a test fails when
//! the committed file differs.

mod header;
mod macros;
mod structures;

use macros::{constants, registers};

pub use header::c_header;
pub use structures::{Descriptor, Record};

/// Which side may write a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Writes are ignored.
    ReadOnly,
    /// Reads return what was written.
    ReadWrite,
    /// As `ReadWrite`, but ignored while the channel is enabled or busy.
    Setup,
}

/// A row of a register block.
#[derive(Debug, Clone, Copy)]
pub struct Register {
    /// C name without the `PEERDMA_` prefix.
    pub name: &'static str,
    /// Byte offset in its block.
    pub offset: u64,
    /// Which side may write it.
    pub access: Access,
    /// Documentation, a line each.
    pub about: &'static [&'static str],
}

/// A row of a group of constants.
#[derive(Debug, Clone, Copy)]
pub struct Constant {
    /// C name without the `PEERDMA_` prefix.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// Documentation, a line each.
    pub about: &'static [&'static str],
}

/// A structure in memory.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// C name without the `peerdma_` prefix.
    pub name: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// Documentation, a line each.
    pub about: &'static [&'static str],
    /// Its fields in order, without holes.
    pub fields: &'static [Field],
}

/// A field of a [`Layout`].
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Name in Rust and in C.
    pub name: &'static str,
    /// Type in C.
    pub c_type: &'static str,
    /// Number of elements when it is an array.
    pub count: Option<usize>,
    /// Documentation, a line each.
    pub about: &'static [&'static str],
}

constants! {
    /// PCI identity. 1af4:10f0 to 1af4:10ff are documented by QEMU (docs/specs/pci-ids) as free
    /// for experiments without registration; virtio drivers leave device IDs above 107f alone.
    identity, "PCI", u32;
    /// Vendor ID, also as subsystem vendor ID.
    VENDOR_ID = 0x1af4;
    /// Device ID, also as subsystem ID.
    DEVICE_ID = 0x10f0;
    /// Class code: processing accelerator, no programming interface.
    CLASS = 0x12_0000;
}

constants! {
    /// Sizes and places of the device.
    layout_of_bars, "", u64;
    /// BAR of the registers: 32-bit memory, not prefetchable.
    BAR_REGISTERS = 0;
    /// Bytes of the register BAR.
    BAR_REGISTERS_SIZE = 0x1_0000;
    /// BAR of the local memory: 64-bit memory, prefetchable (BAR 3 holds its upper half).
    BAR_LOCAL = 2;
    /// BAR of the MSI-X table and pending bits: 32-bit memory, not prefetchable.
    BAR_MSIX = 4;
    /// Offset in the register BAR of channel 0's block.
    CHANNEL_BASE = 0x1000;
    /// Bytes from one channel's block to the next.
    CHANNEL_STRIDE = 0x1000;
    /// Most channels a device can have.
    MAX_CHANNELS = 15;
    /// Value of MAGIC: the characters PDMA.
    MAGIC_VALUE = 0x414d_4450;
    /// Value of VERSION: major in the upper half, minor in the lower.
    VERSION_VALUE = 0x0001_0000;
    /// Most bytes a descriptor may ask for.
    MAX_LENGTH = 64 << 20;
    /// Largest RING_SIZE: 4096 descriptors. The smallest is 1: 2 descriptors.
    RING_SIZE_MAX = 12;
}

registers! {
    /// Registers of the whole device; offsets in the register BAR.
    device, "REG";
    /// MAGIC_VALUE.
    MAGIC = 0x00, ReadOnly;
    /// VERSION_VALUE; drivers refuse another major version.
    VERSION = 0x04, ReadOnly;
    /// Number of DMA channels, 1 to MAX_CHANNELS.
    CHANNELS = 0x08, ReadOnly;
    /// Number of MSI-X vectors; one per channel and one spare.
    VECTORS = 0x0c, ReadOnly;
    /// Bytes of local memory, low half.
    LOCAL_SIZE_LO = 0x10, ReadOnly;
    /// Bytes of local memory, high half.
    LOCAL_SIZE_HI = 0x14, ReadOnly;
    /// Most bytes a descriptor may ask for.
    LENGTH_MAX = 0x18, ReadOnly;
    /// Largest RING_SIZE of a channel.
    RING_MAX = 0x1c, ReadOnly;
    /// Device control, see CTRL.
    CTRL = 0x20, ReadWrite;
    /// Bit n: channel n is busy.
    BUSY = 0x24, ReadOnly;
    /// Holds what is written, for tests of register access.
    SCRATCH_LO = 0x28, ReadWrite;
    /// Holds what is written, for tests of register access.
    SCRATCH_HI = 0x2c, ReadWrite;
}

constants! {
    /// Bits of REG_CTRL.
    control, "CTRL", u32;
    /// Resets every channel as CH_CTRL_RESET does; reads as 0. Local memory and scratch stay.
    RESET = 1 << 0;
    /// Brings everything that channels have written to where it belongs, as a read of it would.
    /// Reads as 1 while something is still under way.
    SYNC = 1 << 1;
}

registers! {
    /// Registers of a channel; offsets in the channel's block.
    channel, "CH";
    /// Channel control, see CH_CTRL bits.
    CTRL = 0x00, ReadWrite;
    /// Channel state and error, see CH_STATUS.
    STATUS = 0x04, ReadOnly;
    /// DMA address of the descriptor ring, low half; 64-byte aligned.
    RING_LO = 0x08, Setup;
    /// DMA address of the descriptor ring, high half.
    RING_HI = 0x0c, Setup;
    /// Binary logarithm of the number of descriptors, 1 to RING_MAX. Both rings have this size.
    RING_SIZE = 0x10, Setup;
    /// Index of the descriptor the device takes next.
    HEAD = 0x14, ReadOnly;
    /// Doorbell: index after the last descriptor the device may take. Bits above the ring size
    /// are ignored. Ring empty when HEAD equals TAIL, so one descriptor always stays unused.
    TAIL = 0x18, ReadWrite;
    /// Sequence number of the last completion record, 0 before the first.
    COMPLETED = 0x1c, ReadOnly;
    /// DMA address of the ring of completion records, low half; 32-byte aligned.
    RECORD_LO = 0x20, Setup;
    /// DMA address of the ring of completion records, high half.
    RECORD_HI = 0x24, Setup;
    /// MSI-X vector of this channel.
    VECTOR = 0x28, Setup;
    /// DMA address of the access that failed last, low half. Kept until reset.
    ERROR_LO = 0x2c, ReadOnly;
    /// DMA address of the access that failed last, high half. Kept until reset.
    ERROR_HI = 0x30, ReadOnly;
    /// Lab only, no hardware has this: the checker's class for the first fault of the last
    /// descriptor's transactions (a VERDICT code), 0 when there was none. It covers posted writes,
    /// whose failure the device itself never learns of.
    VERDICT = 0x80, ReadOnly;
    /// Lab only: number of faulty accesses of the last descriptor.
    VERDICT_COUNT = 0x84, ReadOnly;
    /// Lab only: DMA address of the burst that VERDICT is about, low half.
    VERDICT_LO = 0x88, ReadOnly;
    /// Lab only: DMA address of the burst that VERDICT is about, high half.
    VERDICT_HI = 0x8c, ReadOnly;
    /// Lab only: misbehaviour asked for, a FAULT code; armed by the write, taken by the next
    /// descriptor, then 0 again.
    FAULT = 0xa0, ReadWrite;
    /// Lab only: argument of the fault.
    FAULT_ARG = 0xa4, ReadWrite;
    /// Lab only: DMA address of FAULT_STRAY_WRITE, low half.
    FAULT_LO = 0xa8, ReadWrite;
    /// Lab only: DMA address of FAULT_STRAY_WRITE, high half.
    FAULT_HI = 0xac, ReadWrite;
}

constants! {
    /// Bits of CH_CTRL.
    channel_control, "CH_CTRL", u32;
    /// The channel takes descriptors. Cleared: it finishes the one it has and takes no more.
    ENABLE = 1 << 0;
    /// Ends the descriptor in progress with STATUS_ABORTED and clears ENABLE; reads as 0.
    ABORT = 1 << 1;
    /// Forgets everything without a record or an interrupt, all registers of the channel are as
    /// after a function level reset; reads as 0. The only way out of CH_STATE_HALTED.
    RESET = 1 << 2;
}

constants! {
    /// Fields of CH_STATUS.
    channel_status, "CH_STATUS", u32;
    /// The state, a CH_STATE code.
    STATE_MASK = 0xff;
    /// Why the channel halted, a HALT code.
    HALT_MASK = 0xff00;
    /// Position of the HALT code.
    HALT_SHIFT = 8;
}

constants! {
    /// States of a channel.
    state, "CH_STATE", u32;
    /// Not enabled.
    DISABLED = 0;
    /// Enabled, ring empty.
    IDLE = 1;
    /// Working on a descriptor.
    BUSY = 2;
    /// Stopped by an error that no completion record can report; reset the channel.
    HALTED = 3;
}

constants! {
    /// Why a channel halted. ERROR holds the DMA address.
    halt, "HALT", u32;
    /// It did not.
    NONE = 0;
    /// A ring is not aligned, or RING_SIZE is out of range.
    BAD_RING = 1;
    /// Bus mastering is off: nothing was emitted.
    BUS_MASTER = 2;
    /// The descriptor could not be read: unsupported request.
    FETCH_UNSUPPORTED = 3;
    /// The descriptor could not be read: completer abort.
    FETCH_ABORT = 4;
    /// The descriptor could not be read: completion timeout.
    FETCH_TIMEOUT = 5;
}

constants! {
    /// Operations of a descriptor.
    opcode, "OP", u8;
    /// Does nothing; completes.
    NOP = 0;
    /// Copies length bytes from source to destination.
    COPY = 1;
    /// Repeats the 8 bytes of pattern over length bytes of destination.
    FILL = 2;
    /// CRC-32C (Castagnoli, as in iSCSI and NVMe) of length bytes of source. The low half of
    /// pattern is the CRC of what comes before, 0 to begin. In the kernel: ~crc32c(~pattern, ...).
    CHECKSUM = 3;
    /// Compares length bytes of source with destination; both are read.
    COMPARE = 4;
}

constants! {
    /// Flags of a descriptor.
    flags, "DESC", u16;
    /// Raise the channel's interrupt after the completion record.
    INTERRUPT = 1 << 0;
    /// source is an offset in the device's own local memory, not a DMA address.
    SOURCE_LOCAL = 1 << 1;
    /// destination is an offset in the device's own local memory, not a DMA address.
    DESTINATION_LOCAL = 1 << 2;
    /// Read the last byte of destination back before completing. A read does not pass a posted
    /// write, so the data has arrived when the record is written; and when it cannot be read
    /// the status says so, where a write alone never would.
    FLUSH = 1 << 3;
}

constants! {
    /// Status of a completion record.
    status, "STATUS", u16;
    /// Everything that the device can know of went well.
    SUCCESS = 0;
    /// A read ended as an unsupported request.
    UNSUPPORTED_REQUEST = 1;
    /// A read ended as a completer abort.
    COMPLETER_ABORT = 2;
    /// A read was never answered.
    TIMEOUT = 3;
    /// Unknown opcode or flag, reserved bits set, length above LENGTH_MAX, or a range that leaves
    /// the local memory or the address space. Nothing was moved.
    BAD_DESCRIPTOR = 4;
    /// CH_CTRL_ABORT while the descriptor was in progress.
    ABORTED = 5;
    /// Source and destination of OP_COMPARE differ; result is the offset of the first difference.
    MISMATCH = 6;
}

constants! {
    /// Lab only: misbehaviour for CH_FAULT.
    fault, "FAULT", u32;
    /// None.
    NONE = 0;
    /// No completion record and no interrupt, although the work is done and HEAD moves on.
    REFUSE_COMPLETION = 1;
    /// The record and the interrupt come FAULT_ARG (at most 65535) steps of the engine late.
    DELAY_COMPLETION = 2;
    /// The cookie of the record is inverted.
    CORRUPT_COOKIE = 3;
    /// The first byte that OP_COPY moves is xored with the low byte of FAULT_ARG.
    CORRUPT_DATA = 4;
    /// Before the record 64 bytes of FAULT_ARG's low byte are written to the DMA address
    /// CH_FAULT_LO/HI, which no descriptor named.
    STRAY_WRITE = 5;
    /// The last bytes written to a DMA address (at most 64 KiB) stay in the device, as in a cache
    /// that writes back, while record and interrupt are sent: until the channel reads (DESC_FLUSH,
    /// the next descriptor), CTRL_SYNC, or FAULT_ARG (at most 65535) steps of the engine have
    /// passed. FAULT_ARG 0: no steps count.
    WRITE_BACK = 6;
}

/// Bytes of a descriptor.
pub const DESCRIPTOR_SIZE: u64 = 64;
/// Bytes of a completion record.
pub const RECORD_SIZE: u64 = 32;
