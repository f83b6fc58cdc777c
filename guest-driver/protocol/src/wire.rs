//! How lines travel: I/O ports, and the limits of what goes through them.
//!
//! A *call* passes a whole line at once. The guest puts four bytes and the line into a page-aligned buffer and writes
//! to [`CALL_PORT`] with the buffer's linear address in RDI, the room behind the four bytes in RCX, and the line's
//! length in EAX. The VMM writes the answer over the line and its length, little-endian, into the four bytes. An
//! answer that is longer than the room leaves only its length; the guest then asks again with more room and a line
//! length of 0. Pages that are not mapped writable at that moment leave the buffer alone: the guest calls again.
//!
//! [`LINE_PORT`] takes and gives the same lines byte by byte, each closed by a line feed. A shell script can use it.

/// I/O port that takes and gives lines byte by byte.
pub const LINE_PORT: u16 = 0x0d10;
/// I/O port whose OUT passes a line in memory.
pub const CALL_PORT: u16 = 0x0d14;
/// I/O ports that a call's OUT covers: it writes a double word.
pub const CALL_WIDTH: u16 = 4;
/// Bytes in front of a call's text: the answer's length.
pub const HEADER: usize = size_of::<u32>();
/// The header before a call is answered.
pub const UNANSWERED: u32 = u32::MAX;
/// Why the rest of a long answer is refused: another caller has asked something meanwhile. The guest asks anew.
pub const NOT_YOURS: &str = "the last answer belongs to another caller";
/// Longest request in bytes, without a line feed.
pub const MAX_REQUEST: usize = 4095 - HEADER;
/// Longest answer in bytes, without a line feed.
pub const MAX_ANSWER: usize = (1 << 16) - 1;
