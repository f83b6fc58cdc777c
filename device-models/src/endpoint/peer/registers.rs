//! The register file: from bytes at an offset of the register BAR to dword registers of the device
//! and its channels.

use super::channel::{Channel, high, low, merge_high, merge_low};
use super::held::Held;
use super::regs::{channel, channel_control, control, device as reg, layout_of_bars as layout};

/// Registers of the whole device that hold something.
#[derive(Debug, Default)]
pub(super) struct DeviceRegisters {
    scratch: u64,
}

/// The register file at work: device registers and channels, for one access.
#[derive(Debug)]
pub(super) struct RegisterFile<'a> {
    pub(super) device: &'a mut DeviceRegisters,
    pub(super) channels: &'a mut [Channel],
    /// Bytes of local memory.
    pub(super) local_size: u64,
    /// Number of MSI-X vectors.
    pub(super) vectors: u16,
}

impl RegisterFile<'_> {
    /// Fills `data` from `offset` on; bytes of registers that do not exist stay as they are.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        for piece in pieces(offset, data.len()) {
            if let Some(value) = self.read_dword(piece.register) {
                let bytes = value.to_le_bytes();
                data[piece.at..piece.at + piece.count]
                    .copy_from_slice(&bytes[piece.lane..piece.lane + piece.count]);
            }
        }
    }

    /// Writes `data` from `offset` on, each dword once with its byte enables.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        for piece in pieces(offset, data.len()) {
            let (mut value, mut mask) = ([0; 4], [0; 4]);
            let lanes = piece.lane..piece.lane + piece.count;
            value[lanes.clone()].copy_from_slice(&data[piece.at..piece.at + piece.count]);
            mask[lanes].fill(0xff);
            self.write_dword(piece.register, u32::from_le_bytes(value), u32::from_le_bytes(mask));
        }
    }

    /// All registers by their names in `peerdma_regs.h`; those of a channel behind its number.
    pub(super) fn named(&self) -> Vec<(String, u64)> {
        let value = |offset| self.read_dword(offset).map(u64::from);
        let mut all = Vec::new();
        let device = reg::TABLE.iter();
        all.extend(device.filter_map(|row| Some((row.name.to_owned(), value(row.offset)?))));
        for number in 0_u64..self.channels.len() as u64 {
            let base = layout::CHANNEL_BASE + number * layout::CHANNEL_STRIDE;
            let rows = channel::TABLE.iter();
            let named = rows.filter_map(|row| {
                Some((format!("{number}.{}", row.name), value(base + row.offset)?))
            });
            all.extend(named);
        }
        all
    }

    fn read_dword(&self, register: u64) -> Option<u32> {
        if let Some((channel, offset)) = channel_register(register) {
            return self.channels.get(channel)?.read(offset);
        }
        Some(match register {
            reg::MAGIC => low(layout::MAGIC_VALUE),
            reg::VERSION => low(layout::VERSION_VALUE),
            reg::CHANNELS => u32::try_from(self.channels.len()).unwrap_or(u32::MAX),
            reg::VECTORS => self.vectors.into(),
            reg::LOCAL_SIZE_LO => low(self.local_size),
            reg::LOCAL_SIZE_HI => high(self.local_size),
            reg::LENGTH_MAX => low(layout::MAX_LENGTH),
            reg::RING_MAX => low(layout::RING_SIZE_MAX),
            reg::CTRL if self.channels.iter().any(|channel| channel.held.is_some()) => {
                control::SYNC
            }
            reg::CTRL => 0,
            reg::BUSY => self
                .channels
                .iter()
                .rev()
                .fold(0, |bits, channel| bits << 1 | u32::from(channel.path.busy())),
            reg::SCRATCH_LO => low(self.device.scratch),
            reg::SCRATCH_HI => high(self.device.scratch),
            _ => return None,
        })
    }

    fn write_dword(&mut self, register: u64, value: u32, mask: u32) {
        if let Some((channel, offset)) = channel_register(register) {
            if let Some(channel) = self.channels.get_mut(channel) {
                channel.write(offset, value, mask);
            }
            return;
        }
        match register {
            reg::CTRL if value & mask & control::RESET != 0 => {
                self.channels.iter_mut().for_each(Channel::reset)
            }
            reg::CTRL if value & mask & control::SYNC != 0 => {
                let held = self.channels.iter_mut().filter_map(|channel| channel.held.as_mut());
                held.for_each(Held::release);
            }
            reg::SCRATCH_LO => merge_low(&mut self.device.scratch, value, mask),
            reg::SCRATCH_HI => merge_high(&mut self.device.scratch, value, mask),
            _ => {}
        }
    }
}

/// Whether a write asks for work: it moves a channel's tail, or enables a channel.
pub(super) fn asks_for_work(offset: u64, data: &[u8]) -> bool {
    pieces(offset, data.len()).any(|piece| match channel_register(piece.register) {
        Some((_, channel::TAIL)) => true,
        Some((_, channel::CTRL)) => {
            let enable = low_byte(channel_control::ENABLE);
            piece.lane == 0 && data.get(piece.at).is_some_and(|byte| byte & enable != 0)
        }
        _ => false,
    })
}

/// The lowest byte of a register's bit.
fn low_byte(bit: u32) -> u8 {
    bit.to_le_bytes()[0]
}

/// Number of the channel and offset in its block.
fn channel_register(register: u64) -> Option<(usize, u64)> {
    let offset = register.checked_sub(layout::CHANNEL_BASE)?;
    Some((usize::try_from(offset / layout::CHANNEL_STRIDE).ok()?, offset % layout::CHANNEL_STRIDE))
}

/// The part of an access that falls into one dword register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// Offset of the register.
    register: u64,
    /// First byte in the register.
    lane: usize,
    /// First byte in the access.
    at: usize,
    /// Number of bytes, 1 to 4.
    count: usize,
}

/// Cuts an access at every dword boundary.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = Piece> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = offset.checked_add(at as u64)?;
        let lane = usize::try_from(start % 4).ok()?;
        let count = (4 - lane).min(length.checked_sub(at).filter(|left| *left > 0)?);
        let piece = Piece { register: start - lane as u64, lane, at, count };
        at += count;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doorbells_ask_for_work_and_stopping_does_not() {
        let at = |register: u64| layout::CHANNEL_BASE + layout::CHANNEL_STRIDE + register;
        let asks = |register, value: u32| asks_for_work(at(register), &value.to_le_bytes());
        assert!(asks(channel::TAIL, 0) && asks(channel::CTRL, channel_control::ENABLE));
        assert!(asks_for_work(at(channel::TAIL) - 4, &[0; 8]), "the upper half of a wide write");
        assert!(!asks(channel::CTRL, channel_control::ABORT));
        assert!(!asks(channel::CTRL, channel_control::RESET) && !asks(channel::CTRL, 0));
        assert!(!asks(channel::RING_LO, 1) && !asks_for_work(reg::CTRL, &[0xff; 4]));
    }

    #[test]
    fn an_access_is_cut_at_dword_boundaries() {
        let cut = |offset, length| {
            pieces(offset, length).map(|p| (p.register, p.lane, p.at, p.count)).collect::<Vec<_>>()
        };
        assert_eq!(cut(0x10, 4), [(0x10, 0, 0, 4)]);
        assert_eq!(cut(0x10, 8), [(0x10, 0, 0, 4), (0x14, 0, 4, 4)]);
        assert_eq!(cut(0x13, 6), [(0x10, 3, 0, 1), (0x14, 0, 1, 4), (0x18, 0, 5, 1)]);
        assert_eq!(cut(u64::MAX, 2).len(), 1, "nothing wraps around");
        assert_eq!(cut(0, 0), []);
    }
}
