//! The first line of a function: `3a:00.0 PCI bridge [0604]: Intel Corporation ... [8086:2030] (rev 04)`.

use super::ids::{by_name, class, hex16};
use crate::Address;

/// What the line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) address: Address,
    /// What `lspci` prints behind it; `None` if there is only the address.
    pub(super) listing: Option<Ids>,
    /// What follows the address.
    pub(super) rest: &'a str,
    /// The bridge before it in a path (`lspci -PP`).
    pub(super) above: Option<Address>,
}

/// What the function is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) class: Option<u16>,
    pub(super) vendor: Option<u16>,
    pub(super) device: Option<u16>,
    pub(super) revision: Option<u8>,
    pub(super) programming_interface: Option<u8>,
    pub(super) description: String,
    /// A device ID was concluded from a name.
    pub(super) by_name: bool,
}

/// Reads a line that begins with an address. Marks of lists and headings may be before it.
pub(super) fn read(line: &str) -> Option<Head<'_>> {
    let line = line.trim_start_matches([' ', '*', '#', '-', '+', '`', '•', '(', '[']);
    let (address, rest, above) = path(line)?;
    let text = rest.trim_end_matches(['`', ')', ']']).trim();
    if let Some(text) = rest.strip_prefix(' ')
        && let Some(ids) = listing(text.trim())
    {
        return Some(Head { address, listing: Some(ids), rest: text, above });
    }
    let text = text.trim_start_matches(':').trim();
    // Prose that happens to begin with an address is none of our business; a heading may be.
    if text.is_empty() || rest.starts_with(':') || text.contains("ACSC") || rest.starts_with(' ') {
        return Some(Head { address, listing: None, rest: text, above });
    }
    None
}

/// An address, or the last one of a path from a root bus: `0000:00:1c.3/08:00.0/09:01.0`. Then the one before it is what
/// it hangs on.
fn path(line: &str) -> Option<(Address, &str, Option<Address>)> {
    let (mut address, mut rest) = Address::prefix(line)?;
    let segment = address.segment;
    let mut above = None;
    while let Some((next, after)) = rest.strip_prefix('/').and_then(Address::prefix) {
        above = Some(address);
        // Only the first step has a segment.
        (address, rest) = (Address { segment, ..next }, after);
    }
    Some((address, rest, above))
}

/// Whether `line` is the first line of a function whose address cannot be read: cut when it was
/// copied.
pub(super) fn is_mutilated(line: &str) -> bool {
    let Some((word, rest)) = line.split_once(' ') else { return false };
    let digits = word.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c));
    digits && word.contains(['.', ':']) && listing(rest.trim()).is_some()
}

/// What `lspci` prints behind an address, with or without numbers. `None`: this is something else.
pub(super) fn listing(text: &str) -> Option<Ids> {
    let (head, description) = text.split_once(": ")?;
    let mut ids = Ids::default();
    if let Some(code) = hex16(head) {
        // -n: only numbers.
        let word = description.split(' ').next()?;
        let (vendor, device) = pair(word)?;
        ids = Ids { vendor: Some(vendor), device: Some(device), ..ids };
        ids.class = Some(code);
        details(&mut ids, description);
        return Some(ids);
    }
    let named = class(head);
    let numbered = head
        .rsplit_once(" [")
        .and_then(|(_, code)| hex16(code.strip_suffix(']')?))
        .or_else(|| head.strip_prefix("Class ").and_then(hex16));
    ids.class = Some(numbered.or(named)?);
    details(&mut ids, description);
    match last_pair(description) {
        Some((vendor, device)) => (ids.vendor, ids.device) = (Some(vendor), Some(device)),
        None => {
            (ids.vendor, ids.device) = by_name(&ids.description);
            ids.by_name = ids.device.is_some() && !ids.description.contains("Device ");
        }
    }
    Some(ids)
}

fn details(ids: &mut Ids, description: &str) {
    let within = |from: &str| {
        let rest = &description[description.find(from)? + from.len()..];
        u8::from_str_radix(rest.get(..2)?, 16).ok()
    };
    ids.revision = within("(rev ");
    ids.programming_interface = within("(prog-if ");
    let end = ["(rev ", "(prog-if "].iter().filter_map(|mark| description.find(mark)).min();
    ids.description = crate::gather::name(&description[..end.unwrap_or(description.len())]);
}

/// `8086:2030`.
pub(super) fn pair(text: &str) -> Option<(u16, u16)> {
    let (vendor, device) = text.split_once(':')?;
    Some((hex16(vendor)?, hex16(device)?))
}

/// The last `[8086:2030]` in `text`.
pub(super) fn last_pair(text: &str) -> Option<(u16, u16)> {
    let mut found = None;
    for (at, _) in text.match_indices('[') {
        if let Some(inner) = text.get(at + 1..at + 10)
            && text[at + 10..].starts_with(']')
        {
            found = pair(inner).or(found);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(line: &str) -> Ids {
        read(line).unwrap().listing.unwrap()
    }

    #[test]
    fn numbers_are_taken_as_printed() {
        let long = ids(
            "0000:3a:00.0 PCI bridge [0604]: Intel Corporation Sky Lake-E PCI Express Root Port A [8086:2030] (rev 04) \
             (prog-if 00 [Normal decode])",
        );
        assert_eq!(
            (long.class, long.vendor, long.device),
            (Some(0x0604), Some(0x8086), Some(0x2030))
        );
        assert_eq!((long.revision, long.programming_interface), (Some(4), Some(0)));
        assert!(!long.by_name);
        let short = ids("3a:00.0 0604: 8086:2030 (rev 04) (prog-if 00 [Normal decode])");
        assert_eq!(
            (short.class, short.vendor, short.device),
            (Some(0x0604), Some(0x8086), Some(0x2030))
        );
    }

    #[test]
    fn names_are_enough_where_they_are_known() {
        let named =
            ids("00:00.0 Host bridge: Intel Corporation Sky Lake-E DMI3 Registers (rev 04)");
        assert_eq!((named.class, named.device, named.by_name), (Some(0x0600), Some(0x2020), true));
        let gpu = ids("81:00.0 3D controller: NVIDIA Corporation GA100 [A100 PCIe 40GB] (rev a1)");
        assert_eq!((gpu.vendor, gpu.device, gpu.revision), (Some(0x10de), None, Some(0xa1)));
        assert_eq!(gpu.description, "NVIDIA Corporation GA100 [A100 PCIe 40GB]");
        let unnamed = ids("00:00.0 System peripheral: Intel Corporation Device 09a2 (rev 04)");
        assert_eq!((unnamed.device, unnamed.by_name), (Some(0x09a2), false));
        let brackets = ids("00:07.1 USB controller [0c03]: A [Radeon [1002:1111]] B [1022:149c]");
        assert_eq!((brackets.vendor, brackets.device), (Some(0x1022), Some(0x149c)));
    }

    #[test]
    fn a_path_says_what_is_above() {
        let head =
            read("0001:00:1c.3/08:00.0/09:01.0 PCI bridge [0604]: A [12d8:2404] (rev 05)").unwrap();
        assert_eq!(head.address.to_string(), "0001:09:01.0");
        assert_eq!(head.above.unwrap().to_string(), "0001:08:00.0");
        assert_eq!(head.listing.unwrap().device, Some(0x2404));
        assert_eq!(read("00:1c.3/numa_node:0"), None);
        assert!(is_mutilated("0:00.0 Host bridge: Intel Corporation Device 1234"));
        assert!(!is_mutilated("00:00.0 and more"));
        assert!(!is_mutilated("Bus: Bridge: x"));
    }

    #[test]
    fn a_heading_may_be_an_address_alone() {
        for line in ["c0:01.1", "0000:c0:01.1:", "** c0:01.1 **", "c0:01.1 (root port)"] {
            let head = read(line).unwrap();
            assert_eq!((head.address.bus, head.listing), (0xc0, None), "{line}");
        }
        let inline = read("c0:01.1: ACSCtl: SrcValid-").unwrap();
        assert_eq!(inline.rest, "ACSCtl: SrcValid-");
        for line in ["", "PCI bridge", "[    1.0] pci 0000:00:01.0: x", "00: 86 80", "c0:01.1,x"] {
            assert_eq!(read(line), None, "{line}");
        }
        for line in ["01:00.0 PCI bridge", "01:00.0 Nonsense: x", "01:00.0 zzzz: 8086:1234"] {
            assert_eq!(read(line).unwrap().listing, None, "{line}");
        }
    }
}
