//! Registers of the peer device by name: those of `guest-driver/peerdma_regs.h`, in small letters. A test compares.

use crate::error::CtlError;

/// Of the whole device: name and offset in the register BAR.
pub(crate) const OF_DEVICE: &[(&str, u32)] = &[
    ("magic", 0x0),
    ("version", 0x4),
    ("channels", 0x8),
    ("vectors", 0xc),
    ("local_size_lo", 0x10),
    ("local_size_hi", 0x14),
    ("length_max", 0x18),
    ("ring_max", 0x1c),
    ("ctrl", 0x20),
    ("busy", 0x24),
    ("scratch_lo", 0x28),
    ("scratch_hi", 0x2c),
];
/// Of a channel: name and offset in its block.
pub(crate) const OF_CHANNEL: &[(&str, u32)] = &[
    ("ctrl", 0x0),
    ("status", 0x4),
    ("ring_lo", 0x8),
    ("ring_hi", 0xc),
    ("ring_size", 0x10),
    ("head", 0x14),
    ("tail", 0x18),
    ("completed", 0x1c),
    ("record_lo", 0x20),
    ("record_hi", 0x24),
    ("vector", 0x28),
    ("error_lo", 0x2c),
    ("error_hi", 0x30),
    ("verdict", 0x80),
    ("verdict_count", 0x84),
    ("verdict_lo", 0x88),
    ("verdict_hi", 0x8c),
    ("fault", 0xa0),
    ("fault_arg", 0xa4),
    ("fault_lo", 0xa8),
    ("fault_hi", 0xac),
];
/// The doorbell's offset in a channel's block.
pub(crate) const TAIL: u32 = 0x18;

use guest_agent::uapi::{CHANNEL_BASE, CHANNEL_STRIDE};

/// Where a channel's block begins.
pub(crate) fn block(channel: u32, channels: u32) -> Result<u32, CtlError> {
    if channel >= channels {
        return Err(CtlError::usage(format!("channel {channel} does not exist"))
            .hint(format!("this device has channels 0 to {}", channels.saturating_sub(1))));
    }
    Ok(CHANNEL_BASE + channel * CHANNEL_STRIDE)
}

/// The registers that `name` stands for: one, or all of a channel.
pub(crate) fn find(name: &str, channels: u32) -> Result<Vec<(String, u32)>, CtlError> {
    let lower = name.to_ascii_lowercase();
    let (channel, register) = match lower.split_once('.') {
        Some((channel, register)) => (channel, Some(register)),
        None => (lower.as_str(), None),
    };
    let number = channel.strip_prefix("ch").and_then(|digits| digits.parse().ok());
    let unknown = |known: &[(&str, u32)]| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        CtlError::usage(format!("{name:?} is not a register"))
            .hint(format!("these are: {}; `ch0` has those of channel 0", names.join(", ")))
    };
    match (number, register) {
        (Some(number), None) => {
            let block = block(number, channels)?;
            Ok(OF_CHANNEL
                .iter()
                .map(|(name, at)| (format!("ch{number}.{name}"), block + at))
                .collect())
        }
        (Some(number), Some(register)) => {
            let block = block(number, channels)?;
            let found = OF_CHANNEL.iter().find(|(name, _)| *name == register);
            let (name, at) = found.ok_or_else(|| unknown(OF_CHANNEL))?;
            Ok(vec![(format!("ch{number}.{name}"), block + at)])
        }
        (None, _) => {
            let found = OF_DEVICE.iter().find(|(name, _)| *name == lower);
            let (name, at) = found.ok_or_else(|| unknown(OF_DEVICE))?;
            Ok(vec![((*name).to_owned(), *at)])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and offsets of the header's lines with this prefix, without what they belong to besides.
    fn defined(prefix: &str, not: &[&str]) -> Vec<(String, u32)> {
        let header = peerdma_driver_source::file("peerdma_regs.h").unwrap();
        header
            .lines()
            .filter_map(|line| {
                let (name, value) =
                    line.strip_prefix("#define ")?.split_once(char::is_whitespace)?;
                let name = name.strip_prefix(prefix)?;
                let value = u32::from_str_radix(value.trim().strip_prefix("0x")?, 16).ok()?;
                let is_other = not.iter().any(|other| name.starts_with(other));
                (!is_other).then(|| (name.to_ascii_lowercase(), value))
            })
            .collect()
    }

    #[test]
    fn the_header_has_the_same_registers() {
        let owned = |own: &[(&str, u32)]| {
            own.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect::<Vec<_>>()
        };
        assert_eq!(owned(OF_DEVICE), defined("PEERDMA_REG_", &[]));
        let bits = ["CTRL_", "STATUS_", "STATE_"];
        assert_eq!(owned(OF_CHANNEL), defined("PEERDMA_CH_", &bits));
    }

    #[test]
    fn names_are_found() {
        assert_eq!(find("scratch_lo", 2).unwrap(), [("scratch_lo".to_owned(), 0x28)]);
        assert_eq!(find("CH1.TAIL", 2).unwrap(), [("ch1.tail".to_owned(), 0x2018)]);
        assert_eq!(find("ch0", 2).unwrap().len(), OF_CHANNEL.len());
        for (wrong, part) in [
            ("ch2", "channels 0 to 1"),
            ("ch2.tail", "does not exist"),
            ("ch0.none", "ring_lo"),
            ("none", "scratch_lo"),
            ("ch", "scratch_lo"),
            ("", "scratch_lo"),
            ("ch99999999999", "scratch_lo"),
        ] {
            assert!(find(wrong, 2).unwrap_err().to_string().contains(part), "{wrong}");
        }
        assert!(find("ch0", 0).is_err());
    }
}
