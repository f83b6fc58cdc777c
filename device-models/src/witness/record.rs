//! What a record says, read from its bytes. Whatever they hold, reading them never fails: a hostile
//! guest can only fool itself.

use std::fmt;

use guest_protocol::witness::{Kind, RECORD_SIZE, record};

use crate::AddressRange;
use crate::fabric;
use crate::pci::Bdf;

/// The bytes of a record.
pub type Bytes = [u8; RECORD_SIZE];

/// `enum dma_data_direction` of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// `DMA_BIDIRECTIONAL`: the device reads and writes.
    Both,
    /// `DMA_TO_DEVICE`: the device reads.
    ToDevice,
    /// `DMA_FROM_DEVICE`: the device writes.
    FromDevice,
    /// `DMA_NONE`, or a number that Linux does not have: the device does neither.
    None,
}

impl Direction {
    fn of(code: u8) -> Self {
        match code {
            0 => Self::Both,
            1 => Self::ToDevice,
            2 => Self::FromDevice,
            _ => Self::None,
        }
    }

    /// Whether a device may issue requests of this kind.
    #[must_use]
    pub fn allows(self, kind: fabric::Kind) -> bool {
        match kind {
            fabric::Kind::MemoryRead => matches!(self, Self::Both | Self::ToDevice),
            fabric::Kind::MemoryWrite => matches!(self, Self::Both | Self::FromDevice),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "DMA_BIDIRECTIONAL",
            Self::ToDevice => "DMA_TO_DEVICE",
            Self::FromDevice => "DMA_FROM_DEVICE",
            Self::None => "DMA_NONE",
        })
    }
}

/// A text of at most `N` bytes, padded with zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize>([u8; N]);

impl<const N: usize> Text<N> {
    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.first().is_none_or(|&first| first == 0)
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    /// Printable ASCII as it is, all else as a question mark: it goes to terminals and reports.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        let text = self.0.iter().take_while(|&&byte| byte != 0);
        text.map(|&byte| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '?' })
            .try_for_each(|character| f.write_char(character))
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The task that did something, when, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The guest's monotonic clock, in nanoseconds.
    pub time: u64,
    /// Process ID; 0 in interrupt context.
    pub pid: u32,
    /// The task's name.
    pub task: Text<16>,
    /// The symbol of the caller; empty if unknown.
    pub caller: Text<40>,
}

/// A record. What its fields mean depends on the kind: see [`guest_protocol::witness`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its place in the order of all records.
    pub ticket: u64,
    /// None for a kind that this VMM does not know.
    pub kind: Option<Kind>,
    /// DMA address, mostly.
    pub address: u64,
    /// Bytes, mostly.
    pub length: u64,
    /// What the device may do.
    pub direction: Direction,
    /// [`guest_protocol::witness::flags`].
    pub flags: u8,
    /// PCI segment in the upper half, BDF in the lower.
    pub function: u32,
    /// What was mapped in one go has the same.
    pub group: u64,
    /// Inode number of the dma-buf.
    pub buffer: u64,
    /// Who did it.
    pub event: Event,
}

impl Record {
    /// Reads the bytes of a record.
    #[must_use]
    pub fn of(bytes: &Bytes) -> Self {
        let u64_at = |at| u64::from_le_bytes(part(bytes, at));
        let u32_at = |at| u32::from_le_bytes(part(bytes, at));
        let [direction, flags] = part(bytes, record::DIRECTION);
        let ticket = u64_at(record::TICKET);
        let group = u64_at(record::GROUP);
        Self {
            ticket,
            kind: Kind::from_code(u16::from_le_bytes(part(bytes, record::KIND))),
            address: u64_at(record::ADDRESS),
            length: u64_at(record::LENGTH),
            direction: Direction::of(direction),
            flags,
            function: u32_at(record::FUNCTION),
            // What was mapped by itself is a group of its own.
            group: if group == 0 { ticket } else { group },
            buffer: u64_at(record::BUFFER),
            event: Event {
                time: u64_at(record::TIME),
                pid: u32_at(record::PID),
                task: Text(part(bytes, record::TASK)),
                caller: Text(part(bytes, record::TEXT)),
            },
        }
    }

    /// Whether it has this flag.
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Its addresses; none for 0 bytes, and none past the end of the address space.
    #[must_use]
    pub fn range(&self) -> Option<AddressRange> {
        AddressRange::new(self.address, self.length)
    }

    /// The function; none for a device without one, or in a PCI segment that there is not.
    #[must_use]
    pub fn bdf(&self) -> Option<Bdf> {
        u16::try_from(self.function).ok().map(Bdf)
    }
}

/// `N` bytes from `at`, which is one of the offsets of a record.
fn part<const N: usize>(bytes: &Bytes, at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.iter_mut().zip(bytes.iter().skip(at)).for_each(|(part, byte)| *part = *byte);
    part
}

/// Writes records: for tests, and for what the VMM has to say in the guest's place.
#[derive(Debug, Clone, Copy)]
pub struct Builder(Bytes);

impl Builder {
    /// A record of this kind; all else is 0.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self([0; RECORD_SIZE]).put(record::KIND, &(kind as u16).to_le_bytes())
    }

    /// Puts bytes at an offset of [`guest_protocol::witness::record`]; what does not fit is left
    /// out.
    #[must_use]
    pub fn put(mut self, at: usize, value: &[u8]) -> Self {
        self.0.iter_mut().skip(at).zip(value).for_each(|(byte, value)| *byte = *value);
        self
    }

    /// Puts an integer of 64 bits.
    #[must_use]
    pub fn put_u64(self, at: usize, value: u64) -> Self {
        self.put(at, &value.to_le_bytes())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(self) -> Bytes {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_wire_has_them() {
        let bytes = Builder::new(Kind::Map)
            .put_u64(record::TICKET, 7)
            .put_u64(record::TIME, 9)
            .put_u64(record::ADDRESS, 0x1000)
            .put_u64(record::LENGTH, 0x40)
            .put(record::DIRECTION, &[2, 0x41])
            .put(record::FUNCTION, &0x0001_0203u32.to_le_bytes())
            .put(record::PID, &812u32.to_le_bytes())
            .put(record::TASK, b"insmod")
            .put(record::TEXT, &[b'x'; 80])
            .bytes();
        let record = Record::of(&bytes);
        assert_eq!((record.ticket, record.group, record.kind), (7, 7, Some(Kind::Map)));
        assert_eq!((record.direction, record.flags), (Direction::FromDevice, 0x41));
        assert_eq!(record.range(), AddressRange::new(0x1000, 0x40));
        assert_eq!(record.bdf(), None, "another segment");
        assert_eq!((record.event.pid, record.event.time), (812, 9));
        assert_eq!(record.event.task.to_string(), "insmod");
        assert_eq!(record.event.caller.to_string(), "x".repeat(40));
    }

    #[test]
    fn whatever_the_bytes_are_they_can_be_read() {
        let record = Record::of(&[0xff; RECORD_SIZE]);
        assert_eq!((record.kind, record.direction), (None, Direction::None));
        assert_eq!((record.range(), record.bdf()), (None, None));
        assert_eq!(record.event.task.to_string(), "?".repeat(16));
        assert_eq!(Record::of(&[0; RECORD_SIZE]).range(), None);
    }
}
