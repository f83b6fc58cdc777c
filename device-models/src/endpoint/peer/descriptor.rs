//! From the bytes of a descriptor to work that is safe to begin.

use super::channel::low;
use super::regs::{Descriptor, flags, layout_of_bars::MAX_LENGTH, opcode};
use crate::checker::failed_mapping;

/// Where bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Location {
    /// Offset in the device's own local memory.
    Local(u64),
    /// DMA address.
    Remote(u64),
}

/// What to do with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Nothing.
    Nop,
    /// Source to destination.
    Copy,
    /// Eight bytes over and over to destination.
    Fill([u8; 8]),
    /// CRC-32C of source, beginning with this.
    Checksum(u32),
    /// Source against destination.
    Compare,
}

/// Why a descriptor is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadDescriptor {
    #[error("opcode {0} does not exist, OP_COMPARE is the last")]
    Opcode(u8),
    #[error("flags {0:#06x} hold bits that mean nothing")]
    Flags(u16),
    #[error("reserved bytes are not 0")]
    Reserved,
    #[error("{0} bytes are more than LENGTH_MAX, 64 MiB; split the work")]
    Length(u64),
    #[error(
        "{length} bytes from local offset {offset:#x} leave the local memory of {size:#x} bytes"
    )]
    Local { offset: u64, length: u64, size: u64 },
    #[error("{length} bytes from DMA address {address:#x} leave the address space")]
    Remote { address: u64, length: u64 },
}

impl BadDescriptor {
    /// The kind of mistake, whatever the numbers.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Opcode(_) => "opcode",
            Self::Flags(_) => "flags",
            Self::Reserved => "reserved",
            Self::Length(_) => "length",
            Self::Local { .. } => "local",
            Self::Remote { .. } => "remote",
        }
    }

    /// The explanation if its address stands for a mapping that failed.
    pub(super) fn failed_mapping(self) -> Option<&'static str> {
        match self {
            Self::Remote { address, .. } => failed_mapping(address),
            _ => None,
        }
    }
}

/// A checked descriptor: local ranges lie inside the local memory, DMA ranges end inside the
/// address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) operation: Operation,
    pub(super) source: Location,
    pub(super) destination: Location,
    /// Bytes, at most [`MAX_LENGTH`].
    pub(super) length: u64,
    /// Read the last byte of destination back before completing.
    pub(super) flush: bool,
    /// Raise the interrupt after completing.
    pub(super) interrupt: bool,
}

impl Work {
    /// Nothing to do, for a descriptor that is not valid: it still completes, with its interrupt if
    /// it asked for one.
    pub(super) fn nothing(descriptor: &Descriptor) -> Self {
        Self {
            operation: Operation::Nop,
            source: Location::Local(0),
            destination: Location::Local(0),
            length: 0,
            flush: false,
            interrupt: descriptor.flags.get() & flags::INTERRUPT != 0,
        }
    }

    /// Checks a descriptor.
    pub(super) fn parse(descriptor: &Descriptor, local_size: u64) -> Result<Self, BadDescriptor> {
        const KNOWN: u16 =
            flags::INTERRUPT | flags::SOURCE_LOCAL | flags::DESTINATION_LOCAL | flags::FLUSH;
        let set = descriptor.flags.get();
        let length = u64::from(descriptor.length.get());
        if set & !KNOWN != 0 {
            return Err(BadDescriptor::Flags(set));
        }
        if descriptor.reserved0 != 0 || descriptor.reserved1.iter().any(|word| word.get() != 0) {
            return Err(BadDescriptor::Reserved);
        }
        if length > MAX_LENGTH {
            return Err(BadDescriptor::Length(length));
        }
        let pattern = descriptor.pattern.get();
        let operation = match descriptor.opcode {
            opcode::NOP => Operation::Nop,
            opcode::COPY => Operation::Copy,
            opcode::FILL => Operation::Fill(pattern.to_le_bytes()),
            opcode::CHECKSUM => Operation::Checksum(low(pattern)),
            opcode::COMPARE => Operation::Compare,
            unknown => return Err(BadDescriptor::Opcode(unknown)),
        };
        let work = Self {
            operation,
            source: location(descriptor.source.get(), set & flags::SOURCE_LOCAL != 0),
            destination: location(
                descriptor.destination.get(),
                set & flags::DESTINATION_LOCAL != 0,
            ),
            length: if operation == Operation::Nop { 0 } else { length },
            flush: set & flags::FLUSH != 0,
            interrupt: set & flags::INTERRUPT != 0,
        };
        if work.uses_source() {
            work.source.check(length, local_size)?;
        }
        if work.uses_destination() {
            work.destination.check(length, local_size)?;
        }
        Ok(work)
    }

    fn uses_source(&self) -> bool {
        matches!(self.operation, Operation::Copy | Operation::Checksum(_) | Operation::Compare)
    }

    fn uses_destination(&self) -> bool {
        matches!(self.operation, Operation::Copy | Operation::Fill(_) | Operation::Compare)
    }

    /// Whether the operation changes its destination.
    pub(super) fn writes(&self) -> bool {
        matches!(self.operation, Operation::Copy | Operation::Fill(_))
    }
}

impl Location {
    /// The location `bytes` further on; inside a checked range this cannot overflow.
    pub(super) fn plus(self, bytes: u64) -> Self {
        match self {
            Self::Local(offset) => Self::Local(offset.saturating_add(bytes)),
            Self::Remote(address) => Self::Remote(address.saturating_add(bytes)),
        }
    }

    fn check(self, length: u64, size: u64) -> Result<(), BadDescriptor> {
        match self {
            Self::Local(offset) if offset.checked_add(length).is_none_or(|end| end > size) => {
                Err(BadDescriptor::Local { offset, length, size })
            }
            Self::Remote(address) if length > 0 && address.checked_add(length - 1).is_none() => {
                Err(BadDescriptor::Remote { address, length })
            }
            Self::Local(_) | Self::Remote(_) => Ok(()),
        }
    }
}

fn location(value: u64, local: bool) -> Location {
    if local { Location::Local(value) } else { Location::Remote(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: u64 = 0x10_0000;

    fn copy(source: u64, destination: u64, length: u32, flags: u16) -> Descriptor {
        Descriptor {
            opcode: opcode::COPY,
            flags: flags.into(),
            length: length.into(),
            source: source.into(),
            destination: destination.into(),
            ..Descriptor::default()
        }
    }

    #[test]
    fn local_ranges_end_with_the_local_memory() {
        let parse =
            |offset, length| Work::parse(&copy(offset, 0, length, flags::SOURCE_LOCAL), LOCAL);
        assert!(parse(LOCAL - 1, 1).is_ok());
        assert!(parse(LOCAL - 1, 2).is_err());
        assert!(parse(LOCAL, 0).is_ok());
        assert!(parse(LOCAL + 1, 0).is_err());
        assert!(parse(u64::MAX, 1).is_err());
    }

    #[test]
    fn remote_ranges_may_touch_the_end_of_the_address_space_and_not_wrap() {
        let parse =
            |address, length| Work::parse(&copy(0, address, length, flags::SOURCE_LOCAL), LOCAL);
        assert!(parse(u64::MAX, 1).is_ok());
        assert!(parse(u64::MAX, 2).is_err());
        assert!(parse(u64::MAX, 0).is_ok());
    }

    #[test]
    fn a_failed_mapping_in_a_descriptor_is_called_one() {
        let failed = |address, length| {
            let bad = Work::parse(&copy(0, address, length, flags::SOURCE_LOCAL), LOCAL);
            bad.unwrap_err().failed_mapping().is_some()
        };
        assert!(failed(u64::MAX, 4096));
        assert!(!failed(u64::MAX - 1, 4096) && !failed(0xffff_ffff_ffff_f000, 8192));
        let local = Work::parse(&copy(u64::MAX, 0, 16, flags::SOURCE_LOCAL), LOCAL).unwrap_err();
        assert_eq!(local.failed_mapping(), None);
    }

    #[test]
    fn an_operand_that_is_not_used_is_not_checked() {
        let mut descriptor = copy(u64::MAX, 0, 16, flags::SOURCE_LOCAL);
        descriptor.opcode = opcode::FILL;
        assert!(Work::parse(&descriptor, LOCAL).is_ok());
        descriptor.opcode = opcode::NOP;
        assert!(Work::parse(&descriptor, LOCAL).is_ok());
        descriptor.opcode = opcode::CHECKSUM;
        assert!(Work::parse(&descriptor, LOCAL).is_err());
    }

    #[test]
    fn what_is_reserved_or_unknown_is_refused() {
        let good = copy(0, 0, 1, 0);
        assert!(Work::parse(&good, LOCAL).is_ok());
        for bad in [
            Descriptor { opcode: 5, ..good },
            Descriptor { reserved0: 1, ..good },
            Descriptor { flags: 0x10.into(), ..good },
            Descriptor { reserved1: [0.into(), 0.into(), 1.into()], ..good },
            Descriptor { length: ((64 << 20) + 1).into(), ..good },
        ] {
            assert!(Work::parse(&bad, LOCAL).is_err(), "{bad:?}");
        }
    }
}
