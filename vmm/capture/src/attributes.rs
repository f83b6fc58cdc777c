//! Files and links below a device of sysfs, by name: read there, or listed in a text.

use crate::gather::{Draft, Gathered, name};
use crate::{Address, Bar, Error, P2pMemory, Parent, Root, Space};

/// Files that are read. The first of each line of `resource` counts, too.
pub(crate) const FILES: [&str; 12] = [
    "vendor",
    "device",
    "subsystem_vendor",
    "subsystem_device",
    "class",
    "revision",
    "numa_node",
    "secondary_bus_number",
    "subordinate_bus_number",
    "sriov_numvfs",
    "p2pmem/size",
    "p2pmem/published",
];

/// Folders whose entries are names that a user knows.
pub(crate) const FOLDERS: [&str; 4] = ["net", "infiniband", "nvme", "drm"];

/// What the content of a file says.
pub(crate) fn file(draft: &mut Draft, file: &str, content: &str, line: usize) {
    let content = content.trim();
    let hex = |digits: &str| u32::from_str_radix(digits.strip_prefix("0x")?, 16).ok();
    let id = || u16::try_from(hex(content)?).ok();
    let decimal = || content.parse::<u32>().ok();
    match file {
        "vendor" => put(&mut draft.vendor, id(), line),
        "device" => put(&mut draft.device, id(), line),
        // A bridge without subsystem IDs has zeros here.
        "subsystem_vendor" => {
            put(&mut draft.subsystem_vendor, id().filter(|id| *id != 0), line);
        }
        "subsystem_device" => {
            put(&mut draft.subsystem_device, id().filter(|id| *id != 0), line);
        }
        "class" => {
            let [_, base, sub, interface] = hex(content).unwrap_or_default().to_be_bytes();
            if hex(content).is_some() {
                draft.class.put(u16::from_be_bytes([base, sub]), line);
                draft.programming_interface.put(interface, line);
            }
        }
        "revision" => put(&mut draft.revision, id().and_then(|id| u8::try_from(id).ok()), line),
        // -1: firmware does not say.
        "numa_node" => put(&mut draft.numa_node, decimal(), line),
        "secondary_bus_number" => {
            draft.secondary = decimal().and_then(|bus| u8::try_from(bus).ok())
        }
        "subordinate_bus_number" => {
            let last = decimal().and_then(|bus| u8::try_from(bus).ok());
            // Alphabetical order has it behind the other; a bridge that is not set up has zeros.
            if let (Some(first), Some(last)) = (draft.secondary, last)
                && first != 0
            {
                draft.below.put((first, last), line);
            }
        }
        "sriov_numvfs" => {
            put(&mut draft.virtual_count, decimal().and_then(|n| u16::try_from(n).ok()), line);
        }
        "p2pmem/size" => memory(draft).size = content.parse().ok(),
        "p2pmem/published" => {
            memory(draft).published = match content {
                "0" => Some(false),
                "1" => Some(true),
                _ => None,
            };
        }
        _ => {}
    }
}

fn put<T: PartialEq>(field: &mut crate::field::Field<T>, value: Option<T>, line: usize) {
    if let Some(value) = value {
        field.put(value, line);
    }
}

fn memory(draft: &mut Draft) -> &mut P2pMemory {
    draft.p2p_memory.get_or_insert(P2pMemory { size: None, published: None })
}

/// Line `index` of `resource`: first and last address for the CPU, and flags.
pub(crate) fn resource(draft: &mut Draft, index: usize, content: &str) {
    const IO: u64 = 0x100;
    const MEMORY: u64 = 0x200;
    const PREFETCHABLE: u64 = 0x2000;
    const WIDE: u64 = 0x10_0000;
    let mut numbers = content.split_whitespace().map(|word| {
        word.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok())
    });
    let mut next = || numbers.next().flatten();
    let (Some(first), Some(last), Some(flags)) = (next(), next(), next()) else { return };
    let Some(index) = u8::try_from(index).ok().filter(|index| *index < 6) else { return };
    let space = match flags & (IO | MEMORY) {
        IO => Space::Io,
        MEMORY => {
            Space::Memory { wide: flags & WIDE != 0, prefetchable: flags & PREFETCHABLE != 0 }
        }
        _ => return,
    };
    let size = last.checked_sub(first).and_then(|size| size.checked_add(1));
    let cpu_address = Some(first).filter(|first| *first != 0);
    draft.bar(Bar { index, space, bus_address: None, cpu_address, size });
}

/// Where a link leads to.
pub(crate) fn link(draft: &mut Draft, link: &str, target: &str, line: usize) {
    let last = target.trim().rsplit('/').next().unwrap_or_default();
    match link {
        "iommu_group" => put(&mut draft.iommu_group, last.parse().ok(), line),
        "driver" => put(&mut draft.driver, Some(name(last)).filter(|name| !name.is_empty()), line),
        "physfn" => put(&mut draft.physical_function, last.parse().ok(), line),
        _ => {}
    }
}

/// A path below `/sys/devices` that ends with the function at `address`: its parent is the step before.
pub(crate) fn path(
    gathered: &mut Gathered,
    address: Address,
    path: &str,
    line: usize,
) -> Result<(), Error> {
    let mut steps = path.trim().rsplit('/');
    if steps.next().and_then(|step| step.parse().ok()) != Some(address) {
        return Ok(());
    }
    let Some(above) = steps.next() else { return Ok(()) };
    let parent = match above.parse::<Address>() {
        Ok(above) => Parent::Below(above),
        // pci0000:3a: a host bridge, also that of a VMD, which is below a function itself.
        Err(_) if above.starts_with("pci") => {
            gathered.roots.insert(Root { segment: address.segment, bus: address.bus });
            Parent::Root
        }
        Err(_) => return Ok(()),
    };
    gathered.function(address, line)?.parent.put(parent, line);
    Ok(())
}

/// An entry of one of [`FOLDERS`]. A name that contains a hardware address is kept only with `identity`.
pub(crate) fn entry(draft: &mut Draft, folder: &str, entry: &str, identity: bool) {
    /// Most names that a function may have in a folder.
    const MAX: usize = 64;
    let names = &mut draft.names;
    let list = match folder {
        "net" => &mut names.network,
        "infiniband" => &mut names.rdma,
        "nvme" => &mut names.nvme,
        "drm" if is_drm(entry) => &mut names.drm,
        _ => return,
    };
    let entry = name(entry);
    if list.len() < MAX
        && !entry.is_empty()
        && !list.contains(&entry)
        && (identity || !has_mac(&entry))
    {
        list.push(entry);
    }
}

/// Connectors are entries, too: `card0-DP-1`.
fn is_drm(entry: &str) -> bool {
    let digits = entry.strip_prefix("card").or(entry.strip_prefix("renderD"));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// `enx0123456789ab`, as systemd names what it has no better name for.
fn has_mac(entry: &str) -> bool {
    entry.as_bytes().windows(12).any(|part| part.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_what_the_kernel_puts_there() {
        let mut draft = Draft::default();
        for (name, content) in [
            ("vendor", "0x8086\n"),
            ("class", "0x060400\n"),
            ("numa_node", "-1\n"),
            ("secondary_bus_number", "59"),
            ("subordinate_bus_number", "62"),
            ("p2pmem/size", "1048576"),
            ("p2pmem/published", "1"),
            ("device", "rubbish"),
        ] {
            file(&mut draft, name, content, 1);
        }
        assert_eq!((draft.vendor.get(), draft.class.get()), (Some(&0x8086), Some(&0x0604)));
        assert_eq!((draft.numa_node.get(), draft.device.get()), (None, None));
        assert_eq!(draft.below.get(), Some(&(59, 62)));
        assert_eq!(
            draft.p2p_memory,
            Some(P2pMemory { size: Some(1 << 20), published: Some(true) })
        );
    }

    #[test]
    fn resources_are_bars() {
        let mut draft = Draft::default();
        resource(&mut draft, 0, "0x00000000b8000000 0x00000000b8ffffff 0x0000000000040200");
        resource(&mut draft, 1, "0x0000383fe0000000 0x0000383fffffffff 0x000000000014220c");
        resource(&mut draft, 2, "0x0000000000000000 0x0000000000000000 0x0000000000000000");
        resource(&mut draft, 5, "0x0000000000003000 0x000000000000307f 0x0000000000040101");
        resource(&mut draft, 6, "0x00000000b9000000 0x00000000b907ffff 0x0000000000046200");
        resource(&mut draft, 3, "0xffffffffffffffff 0x0000000000000000 0x0000000000040200");
        let sizes: Vec<_> = draft.bars.values().map(|bar| (bar.index, bar.size)).collect();
        assert_eq!(sizes, [(0, Some(16 << 20)), (1, Some(512 << 20)), (3, None), (5, Some(128))]);
        assert_eq!(draft.bars[&1].space, Space::Memory { wide: true, prefetchable: true });
    }

    #[test]
    fn names_with_hardware_addresses_are_left_out() {
        let mut draft = Draft::default();
        for (folder, name) in [
            ("net", "enp1s0f0np0"),
            ("net", "enx00deadbeef01"),
            ("drm", "card0"),
            ("drm", "card0-DP-1"),
            ("drm", "renderD128"),
            ("nvme", "nvme3"),
            ("infiniband", "mlx5_0"),
        ] {
            entry(&mut draft, folder, name, false);
        }
        let all: Vec<_> = draft.names.all().collect();
        assert_eq!(all, ["enp1s0f0np0", "mlx5_0", "nvme3", "card0", "renderD128"]);
        entry(&mut draft, "net", "enx00deadbeef01", true);
        assert_eq!(draft.names.network.len(), 2);
    }
}
