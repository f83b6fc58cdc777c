//! What the device reads from and writes to rings in memory.

// zerocopy's derive makes a hidden type per field, without `Debug`.
#![allow(missing_debug_implementations)]

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

use super::macros::layout;
use super::{Field, Layout};

layout! {
    /// A descriptor, 64-byte aligned. The device reads it once.
    Descriptor, "desc", 64;
    /// An OP code.
    opcode: u8;
    /// Must be 0.
    reserved0: u8;
    /// DESC flags; others must be 0.
    flags: U16;
    /// Bytes, 0 to LENGTH_MAX. 0 is valid and moves nothing.
    length: U32;
    /// DMA address or local offset.
    source: U64;
    /// DMA address or local offset.
    destination: U64;
    /// OP_FILL: pattern. OP_CHECKSUM: initial CRC.
    pattern: U64;
    /// Given back in the completion record.
    cookie: U64;
    /// Must be 0.
    reserved1: U64 [3];
}

layout! {
    /// A completion record, 32-byte aligned, at the same index as its descriptor. Written as two
    /// TLPs, the first 24 bytes and then the last 8: software that sees the sequence number sees
    /// all of it.
    Record, "record", 32;
    /// The descriptor's.
    cookie: U64;
    /// Bytes done; after an error the bytes before the request that failed.
    bytes: U64;
    /// OP_CHECKSUM: CRC. OP_COMPARE: offset of the first difference. Else 0.
    result: U64;
    /// A STATUS code.
    status: U16;
    /// 0.
    reserved: U16;
    /// 1 for the first record after a channel reset, then one more each; wraps to 0.
    sequence: U32;
}
