//! How an entry of a trace is encoded: docs/trace-format.md. Numbers are big-endian, as in a TLP.
//!
//! Nothing of what is decoded is believed before it is checked: no length is used but to take that number of bytes of those that
//! are there.

mod put;
mod take;
pub(crate) use self::put::{put, put_header};
pub(crate) use self::take::take;
use super::fields::{Fields, Invalid};

/// The version of the header of each entry.
pub(crate) const VERSION: u8 = 1;

/// The numbers of the kinds of entries. None is ever reused.
pub(crate) mod kind {
    pub(crate) const HEADER: u8 = 0;
    pub(crate) const TRANSACTION: u8 = 1;
    pub(crate) const FINDING: u8 = 2;
    pub(crate) const CONFIG_WRITE: u8 = 3;
    pub(crate) const CONFIG_READ: u8 = 4;
    pub(crate) const REGISTER_WRITE: u8 = 5;
    pub(crate) const REGISTER_READ: u8 = 6;
    pub(crate) const CPU_PUSH: u8 = 7;
    pub(crate) const UNPLUG: u8 = 8;
    pub(crate) const PLUG: u8 = 9;
    pub(crate) const DELAY_POSTED: u8 = 10;
    pub(crate) const FENCE_SEEN: u8 = 11;
    pub(crate) const STEP: u8 = 12;
    pub(crate) const OUTSIDE: u8 = 13;
    pub(crate) const TEST: u8 = 14;
    /// The guest's witness; the flags say which input.
    pub(crate) const WITNESS: u8 = 15;
    pub(crate) const LOST: u8 = 0xfe;
    pub(crate) const END: u8 = 0xff;
}

/// Flags of a transaction.
mod flag {
    pub(super) const DIGEST: u32 = 1;
    pub(super) const DATA: u32 = 2;
    /// Bits 3:2: the two low bits of the address, where the byte enables do not tell them.
    pub(super) const LOW_ADDRESS: u32 = 2;
}

const NONE_16: u16 = u16::MAX;
const NONE_64: u64 = u64::MAX;

/// The header of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryHeader {
    pub(crate) kind: u8,
    /// Code of a finding's class, 0 for none: the finding's own, or that of the first about a transaction.
    pub(crate) class: u16,
    pub(crate) flags: u32,
    /// From 0, the header entry's; each the one before and one.
    pub(crate) number: u64,
}

impl EntryHeader {
    fn put(self, out: &mut Vec<u8>) {
        out.extend([VERSION, self.kind]);
        out.extend(self.class.to_be_bytes());
        out.extend(self.flags.to_be_bytes());
        out.extend(self.number.to_be_bytes());
    }

    /// Takes it from the beginning of an entry.
    pub(crate) fn take(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        let version = fields.u8()?;
        if version != VERSION {
            return Err(Invalid::Version(version));
        }
        Ok(Self {
            kind: fields.u8()?,
            class: fields.u16()?,
            flags: fields.u32()?,
            number: fields.u64()?,
        })
    }
}

#[cfg(test)]
mod tests;
