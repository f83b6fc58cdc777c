//! Lines that say something about a function without belonging to a listing: files and links of sysfs, IOMMU groups.

use crate::gather::Gathered;
use crate::{Address, Error, attributes};

/// Reads a line about sysfs, if it is one:
///
/// - `0000:3a:00.0/numa_node:0`, as `grep` prints a file's name before its content,
/// - `0000:3a:00.0/driver -> ../../pcieport`, `0000:3a:00.0 -> ../../../devices/...`, as `ls -l` prints links,
/// - `0000:3a:00.0/net/eth0`, an entry of a folder,
/// - `pci 0000:3a:00.0: Adding to iommu group 29`, from the boot log,
/// - `/sys/kernel/iommu_groups/29/devices/0000:3a:00.0`, and what else has these at its end.
pub(super) fn sysfs(gathered: &mut Gathered, text: &str, line: usize) -> Result<bool, Error> {
    if let Some((_, rest)) = text.split_once("iommu_groups/") {
        let mut steps = rest.split('/');
        let group = steps.next().and_then(|group| group.parse().ok());
        let address = steps.nth(1).and_then(|step| Some(Address::prefix(step)?.0));
        if let (Some(group), Some(address)) = (group, address) {
            gathered.function(address, line)?.iommu_group.put(group, line);
            return Ok(true);
        }
    }
    if let Some((before, group)) = text.split_once(": Adding to iommu group ") {
        let address = before.rsplit(' ').next().and_then(|word| word.parse::<Address>().ok());
        if let (Some(address), Ok(group)) = (address, group.trim().parse()) {
            gathered.function(address, line)?.iommu_group.put(group, line);
            return Ok(true);
        }
    }
    if let Some((before, target)) = text.split_once(" -> ") {
        // ls -l has permissions, owner and date before the name.
        let name = before.rsplit(' ').next().unwrap_or_default();
        let name = name.rsplit_once("devices/").map_or(name, |(_, name)| name);
        let (name, link) = name.split_once('/').unwrap_or((name, ""));
        let Ok(address) = name.parse::<Address>() else { return Ok(false) };
        if link.is_empty() {
            attributes::path(gathered, address, target, line)?;
        } else {
            attributes::link(gathered.function(address, line)?, link, target, line);
        }
        return Ok(true);
    }
    let text = text.rsplit_once("devices/").map_or(text, |(_, rest)| rest);
    let Some((address, rest)) = Address::prefix(text) else { return Ok(false) };
    // lspci -PP prints paths of addresses.
    let rest = rest.strip_prefix('/').filter(|rest| Address::prefix(rest).is_none());
    let Some(rest) = rest else { return Ok(false) };
    let draft = gathered.function(address, line)?;
    if let Some((name, content)) = rest.split_once(':') {
        if name == "resource" {
            let index = draft.resources;
            draft.resources += 1;
            attributes::resource(draft, index, content);
        } else {
            attributes::file(draft, name, content, line);
        }
    } else if let Some((folder, entry)) = rest.split_once('/') {
        attributes::entry(draft, folder, entry, false);
    }
    Ok(true)
}

/// `0000:40:08.1 (ecap 000d @2a0) @2a6 = 001d`, as `setpci -v -s ... ECAP_ACS+0x6.w` prints the ACS control register; older
/// ones print no `=`.
pub(super) fn control(gathered: &mut Gathered, text: &str, line: usize) -> Result<bool, Error> {
    let hex = |word: &str| u16::from_str_radix(word, 16).ok();
    let read = || {
        let (address, rest) = Address::prefix(text)?;
        let rest = rest.trim_start_matches(':').trim().strip_prefix("(ecap 000d @")?;
        let (offset, rest) = rest.split_once(") @")?;
        let (register, value) = rest.split_once([' ', '='])?;
        // What is written is shown as ":value"; what is read is all that counts here.
        let value = value.trim_start_matches(['=', ' ']);
        let control = hex(register)? == hex(offset)?.checked_add(6)? && value.len() == 4;
        control.then(|| Some((address, hex(value)?))).flatten()
    };
    let Some((address, register)) = read() else { return Ok(false) };
    let draft = gathered.function(address, line)?;
    draft.acs_present.put(true, line);
    let values = crate::AcsFlags::from_register(register).values();
    for (field, value) in draft.acs_control.iter_mut().zip(values) {
        if let Some(value) = value {
            field.put(value, line);
        }
    }
    Ok(true)
}

/// `IOMMU Group 29 3a:00.0 PCI bridge ...`, `IOMMU Group 29:`, as many scripts print it: the group, and what follows.
pub(super) fn group(text: &str) -> Option<(u32, &str)> {
    let rest = ["IOMMU Group ", "IOMMU group ", "Group "]
        .iter()
        .find_map(|start| text.strip_prefix(start))?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let group = rest[..end].parse().ok()?;
    Some((group, rest[end..].trim_start_matches([':', ' ', '-'])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Parent;

    #[test]
    fn lines_about_sysfs_are_taken_as_they_are_printed() {
        let mut gathered = Gathered::default();
        for text in [
            "0000:3a:00.0/numa_node:1",
            "0000:3a:00.0/resource:0x00000000b8000000 0x00000000b8ffffff 0x0000000000040200",
            "0000:3a:00.0/resource:0x0000000000000000 0x0000000000000000 0x0000000000000000",
            "0000:3a:00.0/driver -> ../../../../bus/pci/drivers/nvme",
            "lrwxrwxrwx 1 root root 0 Nov 29 07:25 0000:3a:00.0 -> ../../../devices/pci0000:3a/0000:3a:00.0",
            "0000:3a:00.0/nvme/nvme3",
            "/sys/kernel/iommu_groups/29/devices/0000:3a:00.0",
            "[    0.513] pci 0000:3a:00.0: Adding to iommu group 29",
        ] {
            assert!(sysfs(&mut gathered, text, 1).unwrap(), "{text}");
        }
        let draft = &gathered.functions[&"3a:00.0".parse().unwrap()];
        assert_eq!((draft.numa_node.get(), draft.iommu_group.get()), (Some(&1), Some(&29)));
        assert_eq!(draft.driver.get().map(String::as_str), Some("nvme"));
        assert_eq!(draft.parent.get(), Some(&Parent::Root));
        assert_eq!(draft.names.nvme, ["nvme3"]);
        assert_eq!((draft.bars.len(), draft.resources), (1, 2));
        for other in [
            "a -> b",
            "3a:00.0 PCI bridge: x",
            "iommu_groups/x/devices/3a:00.0",
            "1/2:3",
            "-> ",
            "00:1c.1/06:00.0 x: y",
        ] {
            assert!(!sysfs(&mut gathered, other, 1).unwrap(), "{other}");
        }
        assert_eq!(gathered.functions.len(), 1);
    }

    #[test]
    fn what_setpci_prints_is_the_control_register() {
        let mut gathered = Gathered::default();
        for text in
            ["0000:40:08.1 (ecap 000d @2a0) @2a6 = 001d", "40:08.2 (ecap 000d @2a0) @2a6 0000"]
        {
            assert!(control(&mut gathered, text, 1).unwrap(), "{text}");
        }
        let redirect = |address: &str| {
            gathered.functions[&address.parse().unwrap()].acs_control[2].get().copied()
        };
        assert_eq!((redirect("40:08.1"), redirect("40:08.2")), (Some(true), Some(false)));
        for other in [
            "0000:40:08.1 (ecap 000d @2a0) @2a4 = 005f",
            "0000:40:08.1 (ecap 0010 @2a0) @2a6 = 001d",
            "0000:40:08.1 (ecap 000d @2a0) @2a6 = 1d",
            "40:08.1 PCI bridge: x",
        ] {
            assert!(!control(&mut Gathered::default(), other, 1).unwrap(), "{other}");
        }
    }

    #[test]
    fn groups_are_printed_in_several_ways() {
        assert_eq!(group("IOMMU Group 29 3a:00.0 PCI"), Some((29, "3a:00.0 PCI")));
        assert_eq!(group("IOMMU Group 29:"), Some((29, "")));
        assert_eq!(group("Group 0: 00:00.0 x"), Some((0, "00:00.0 x")));
        assert_eq!(group("IOMMU group: 29"), None);
        assert_eq!(group("Group therapy"), None);
    }
}
