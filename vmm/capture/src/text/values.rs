//! Values in lines of `lspci`. `squeezed` is text without white space.

use crate::{AcsFlags, Bar, Buses, PortType, Space, Window};

/// A decimal number at the beginning of `text`, with nothing but the end, a space or a comma behind it.
pub(super) fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    let end = text.find([' ', ',']).unwrap_or(text.len());
    digits(&text[..end], 10).and_then(|value| u32::try_from(value).ok())
}

/// The decimal number behind `key`.
pub(super) fn decimal(squeezed: &str, key: &str) -> Option<u64> {
    let rest = &squeezed[squeezed.find(key)? + key.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    digits(&rest[..end], 10)
}

/// The two hexadecimal digits behind `key`.
fn byte(squeezed: &str, key: &str) -> Option<u8> {
    let rest = &squeezed[squeezed.find(key)? + key.len()..];
    // A third digit shows that this is something else.
    let more = rest.get(2..)?.starts_with(|c: char| c.is_ascii_hexdigit());
    u8::try_from(digits(rest.get(..2)?, 16)?).ok().filter(|_| !more)
}

fn digits(text: &str, base: u32) -> Option<u64> {
    // from_str_radix would take a sign.
    let all = !text.is_empty() && text.chars().all(|c| c.is_digit(base));
    all.then(|| u64::from_str_radix(text, base).ok()).flatten()
}

/// The sign behind `name`: `SrcValid+`.
pub(super) fn flag(squeezed: &str, name: &str) -> Option<bool> {
    for (at, _) in squeezed.match_indices(name) {
        match squeezed[at + name.len()..].chars().next() {
            Some('+') => return Some(true),
            Some('-') => return Some(false),
            _ => {}
        }
    }
    None
}

/// The flags of an ACS line.
pub(super) fn acs(squeezed: &str) -> AcsFlags {
    let mut flags = AcsFlags::default();
    for (index, name) in AcsFlags::LSPCI.iter().enumerate() {
        *flags.slot(index) = flag(squeezed, name);
    }
    // A terminal that does not wrap shows the last character of a long line in its last column: what looks like the sign
    // of the last flag may be that of another.
    if !flags.is_complete()
        && let Some(last) = AcsFlags::LSPCI.iter().position(|name| {
            squeezed.strip_suffix(['+', '-']).is_some_and(|rest| rest.ends_with(name))
        })
    {
        *flags.slot(last) = None;
    }
    flags
}

/// `primary=00, secondary=01, subordinate=01`.
pub(super) fn buses(squeezed: &str) -> Option<Buses> {
    let of = |key: &str| byte(squeezed, key);
    Some(Buses {
        primary: of("primary=")?,
        secondary: of("secondary=")?,
        subordinate: of("subordinate=")?,
    })
}

/// `00000000fff00000-00000000000fffff [disabled] [64-bit]`, with its key before it. `squeezed` goes on where the line
/// was broken.
pub(super) fn window(line: &str, squeezed: &str) -> Option<Window> {
    let of = |text: &str| -> Option<Window> {
        let (_, value) = text.split_once(':')?;
        let value = value.trim();
        if value.starts_with("[disabled]") || value.starts_with("None") {
            return Some(Window::Closed);
        }
        let end = value.find([' ', '[', '(']).unwrap_or(value.len());
        let (first, last) = value[..end].split_once('-')?;
        // Both have the same number of digits: one that does not was cut off.
        if first.len() != last.len() || first.len() < 4 {
            return None;
        }
        let (first, last) = (digits(first, 16)?, digits(last, 16)?);
        // A bridge says that it passes nothing down by a base above the limit.
        let closed = first > last || value[end..].contains("[disabled]");
        Some(if closed { Window::Closed } else { Window::Open { first, last } })
    };
    of(line).or_else(|| of(squeezed))
}

/// Device/port types without white space, as `lspci` prints them.
const PORT_TYPES: [(&str, PortType); 10] = [
    ("Endpoint", PortType::Endpoint),
    ("LegacyEndpoint", PortType::LegacyEndpoint),
    ("RootPort", PortType::RootPort),
    ("UpstreamPort", PortType::Upstream),
    ("DownstreamPort", PortType::Downstream),
    ("PCI-ExpresstoPCI/PCI-XBridge", PortType::PcieToPci),
    ("PCI/PCI-XtoPCI-ExpressBridge", PortType::PciToPcie),
    ("RootComplexIntegratedEndpoint", PortType::IntegratedEndpoint),
    ("RootComplexEventCollector", PortType::EventCollector),
    ("PCI/PCI-XBridge", PortType::PcieToPci),
];

/// Whether `squeezed` is the name of a device/port type, and nothing more.
pub(super) fn is_port_type(squeezed: &str) -> bool {
    PORT_TYPES.iter().any(|(name, _)| *name == squeezed)
}

/// The device/port type behind `Express` in `Capabilities: [c0] Express (v2) Root Port (Slot+), MSI 00`.
pub(super) fn port_type(squeezed: &str) -> Option<PortType> {
    let mut text = squeezed;
    if let Some(rest) = text.strip_prefix("(v") {
        text = rest.split_once(')')?.1;
    }
    PORT_TYPES.iter().find(|(name, _)| text.starts_with(name)).map(|(_, port)| *port)
}

/// The index of `Region N: ...`, or `next` for a line of `-v`, which has no number; and what follows it.
pub(super) fn region_index(line: &str, next: u8) -> Option<(u8, &str)> {
    let Some(rest) = line.strip_prefix("Region ") else { return Some((next, line)) };
    let (index, rest) = rest.split_once(':')?;
    let index = u8::try_from(digits(index, 10)?).ok()?;
    Some((index, rest.trim()))
}

/// `Memory at fb000000 (64-bit, prefetchable) [size=16M]`, `I/O ports at e000 [size=128]`.
pub(super) fn region(index: u8, text: &str) -> Option<Bar> {
    if index > 5 {
        return None;
    }
    let text = text.strip_prefix("[virtual]").unwrap_or(text).trim();
    let (rest, memory) = match text.strip_prefix("Memory at ") {
        Some(rest) => (rest, true),
        None => (text.strip_prefix("I/O ports at ")?, false),
    };
    let end = rest.find(' ').unwrap_or(rest.len());
    let (address, rest) = rest.split_at(end);
    let space = if memory {
        let kind = rest.trim_start().strip_prefix('(')?;
        let (kind, _) = kind.split_once(')')?;
        let prefetchable = kind.contains("prefetchable") && !kind.contains("non-prefetchable");
        Space::Memory { wide: kind.contains("64-bit"), prefetchable }
    } else {
        Space::Io
    };
    Some(Bar {
        index,
        space,
        bus_address: None,
        cpu_address: digits(address, 16),
        size: size(rest),
    })
}

/// `[size=16M]` in bytes.
fn size(text: &str) -> Option<u64> {
    let rest = &text[text.find("[size=")? + 6..];
    let (value, _) = rest.split_once(']')?;
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let shift = match &value[end..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits(&value[..end], 10)?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_whole_or_unknown() {
        let of = |line: &str| window(line, &line.replace(' ', ""));
        let open = |first, last| Some(Window::Open { first, last });
        assert_eq!(
            of("Memory behind bridge: cba00000-cbbfffff [size=2M]"),
            open(0xcba0_0000, 0xcbbf_ffff)
        );
        assert_eq!(of("Memory behind bridge: cba00000-cbbfffff"), open(0xcba0_0000, 0xcbbf_ffff));
        for closed in
            ["fff00000-000fffff", "fff00000-000fffff [disabled] [32-bit]", "[disabled] [64-bit]"]
        {
            assert_eq!(
                of(&format!("Memory behind bridge: {closed}")),
                Some(Window::Closed),
                "{closed}"
            );
        }
        for broken in ["cba00000-cbbff", "cba00000-", "cba00000", "", "x-y", "0000-00g0"] {
            assert_eq!(of(&format!("Memory behind bridge: {broken}")), None, "{broken}");
        }
        // Broken by a terminal, where the first line alone is too short.
        let squeezed = "Memorybehindbridge:cba00000-cbbfffff[size=2M]";
        assert_eq!(
            window("Memory behind bridge: cba00000-cbb", squeezed),
            open(0xcba0_0000, 0xcbbf_ffff)
        );
    }

    #[test]
    fn regions_have_kind_address_and_size() {
        let bar = region(0, "Memory at 383fe0000000 (64-bit, prefetchable) [size=16G]").unwrap();
        assert_eq!(bar.space, Space::Memory { wide: true, prefetchable: true });
        assert_eq!((bar.cpu_address, bar.size), (Some(0x383f_e000_0000), Some(16 << 30)));
        let ports = region(4, "I/O ports at e000 [disabled] [size=128]").unwrap();
        assert_eq!((ports.space, ports.size), (Space::Io, Some(128)));
        let lost = region(1, "Memory at <unassigned> (32-bit, non-prefetchable)").unwrap();
        assert_eq!(
            (lost.space, lost.cpu_address, lost.size),
            (Space::Memory { wide: false, prefetchable: false }, None, None)
        );
        assert_eq!(region(6, "Memory at fb000000 (32-bit)"), None);
        assert_eq!(region(0, "Memory at fb000000"), None);
        assert_eq!(size("[size=99999999999999999999G]"), None);
        assert_eq!(size("[size=99999999999T]"), None);
    }

    #[test]
    fn port_types_have_the_names_that_lspci_prints() {
        for (text, port) in [
            ("(v2)RootPort(Slot+),MSI00", PortType::RootPort),
            ("RootPort(Slot+),MSI00", PortType::RootPort),
            ("(v2)Endpoint,MSI00", PortType::Endpoint),
            ("(v2)PCI-ExpresstoPCI/PCI-XBridge,MSI00", PortType::PcieToPci),
            ("(v2)RootComplexIntegratedEndpoint,IntMsgNum0", PortType::IntegratedEndpoint),
        ] {
            assert_eq!(port_type(text), Some(port), "{text}");
        }
        assert_eq!(port_type("(v2)Unknowntype12"), None);
        assert_eq!(port_type("(v2"), None);
    }

    #[test]
    fn a_flag_needs_its_sign() {
        assert_eq!(flag("ACSCtl:SrcValid+TransBlk-", "TransBlk"), Some(false));
        assert_eq!(flag("ACSCtl:SrcValid+TransBlk", "TransBlk"), None);
        let cut = acs("ACSCtl:SrcValid+TransBlk-ReqRedir+CmpltRedir+Up");
        assert_eq!((cut.rr, cut.cr, cut.uf, cut.ec), (Some(true), Some(true), None, None));
        // The sign may be that of DirectTrans, in the last column.
        let overwritten = acs("ACSCtl:SrcValid+TransBlk-ReqRedir+CmpltRedir-");
        assert_eq!((overwritten.rr, overwritten.cr), (Some(true), None));
    }
}
