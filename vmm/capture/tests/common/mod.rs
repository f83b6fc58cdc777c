//! A copy of a machine's sysfs and procfs, made up.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Configuration space of a bridge with bus numbers, a PCIe capability of this type, and ACS with this control.
pub(crate) fn bridge(ids: [u16; 2], buses: [u8; 3], port: u8, acs: Option<u16>) -> Vec<u8> {
    let mut bytes = function(ids, 0x0604, 1, port);
    bytes[0x18..0x1b].copy_from_slice(&buses);
    if let Some(control) = acs {
        bytes[0x100..0x104].copy_from_slice(&[0x0d, 0, 1, 0]);
        bytes[0x104..0x106].copy_from_slice(&0x1f_u16.to_le_bytes());
        bytes[0x106..0x108].copy_from_slice(&control.to_le_bytes());
    }
    bytes
}

/// Configuration space of a function with a PCIe capability, and a serial number that must not be
/// shown.
pub(crate) fn function(ids: [u16; 2], class: u16, header: u8, port: u8) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[0..2].copy_from_slice(&ids[0].to_le_bytes());
    bytes[2..4].copy_from_slice(&ids[1].to_le_bytes());
    bytes[6] = 0x10;
    bytes[0x0a..0x0c].copy_from_slice(&class.to_le_bytes());
    bytes[0x0e] = header;
    bytes[0x34] = 0x40;
    bytes[0x40..0x44].copy_from_slice(&[0x10, 0, 2 | port << 4, 0]);
    bytes[0x200..0x20c]
        .copy_from_slice(&[3, 0, 1, 0, 0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef]);
    bytes
}

/// One device of the copy.
pub(crate) struct Device {
    pub(crate) address: &'static str,
    /// Below `/sys/devices`, without the device itself.
    pub(crate) path: &'static str,
    pub(crate) config: Vec<u8>,
    pub(crate) group: u32,
    pub(crate) driver: &'static str,
}

/// A root port, a switch with two downstream ports, an NVMe drive and a network controller.
pub(crate) fn devices() -> Vec<Device> {
    let device =
        |address, path, config, group, driver| Device { address, path, config, group, driver };
    let switch = "pci0000:3a/0000:3a:00.0/0000:3b:00.0";
    vec![
        device(
            "0000:3a:00.0",
            "pci0000:3a",
            bridge([0x8086, 0x2030], [0x3a, 0x3b, 0x3e], 4, Some(0x1d)),
            1,
            "pcieport",
        ),
        device(
            "0000:3b:00.0",
            "pci0000:3a/0000:3a:00.0",
            bridge([0x10b5, 0x8747], [0x3b, 0x3c, 0x3e], 5, None),
            2,
            "pcieport",
        ),
        device(
            "0000:3c:08.0",
            switch,
            bridge([0x10b5, 0x8747], [0x3c, 0x3d, 0x3d], 6, Some(0x0c)),
            3,
            "pcieport",
        ),
        device(
            "0000:3c:10.0",
            switch,
            bridge([0x10b5, 0x8747], [0x3c, 0x3e, 0x3e], 6, Some(0)),
            4,
            "pcieport",
        ),
        device(
            "0000:3d:00.0",
            "pci0000:3a/0000:3a:00.0/0000:3b:00.0/0000:3c:08.0",
            function([0x144d, 0xa80a], 0x0108, 0, 0),
            5,
            "nvme",
        ),
        device(
            "0000:3e:00.0",
            "pci0000:3a/0000:3a:00.0/0000:3b:00.0/0000:3c:10.0",
            function([0x15b3, 0x1017], 0x0200, 0, 0),
            6,
            "mlx5_core",
        ),
    ]
}

/// Writes the copy to `root`. As root, or with the first 64 bytes of configuration space only.
pub(crate) fn write(root: &Path, as_root: bool) {
    let put = |path: &str, content: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    put("proc/sys/kernel/osrelease", b"6.12.9-amd64\n");
    put(
        "proc/cmdline",
        b"BOOT_IMAGE=/vmlinuz root=UUID=secret-uuid ro quiet pci=noaer iommu.strict=1\n",
    );
    put("proc/cpuinfo", b"processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: X\n\nprocessor\t: 1\n");
    put("boot/config-6.12.9-amd64", b"CONFIG_PCI=y\n# CONFIG_PCI_P2PDMA is not set\n");
    fs::create_dir_all(root.join("sys/bus/pci/devices")).unwrap();
    for device in devices() {
        let folder = format!("sys/devices/{}/{}", device.path, device.address);
        let config = if as_root { &device.config[..] } else { &device.config[..64] };
        put(&format!("{folder}/config"), config);
        let number = |at: usize| u16::from_le_bytes([device.config[at], device.config[at + 1]]);
        put(&format!("{folder}/vendor"), format!("0x{:04x}\n", number(0)).as_bytes());
        put(&format!("{folder}/device"), format!("0x{:04x}\n", number(2)).as_bytes());
        put(&format!("{folder}/class"), format!("0x{:04x}00\n", number(0x0a)).as_bytes());
        put(&format!("{folder}/numa_node"), b"0\n");
        let none = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
        let bar = "0x0000383fe0000000 0x0000383fe0003fff 0x0000000000140204\n";
        put(&format!("{folder}/resource"), format!("{bar}{none}{none}").as_bytes());
        let link = |to: &str, name: &str| symlink(to, root.join(&folder).join(name)).unwrap();
        link(&format!("../../../../kernel/iommu_groups/{}", device.group), "iommu_group");
        link(&format!("../../../../bus/pci/drivers/{}", device.driver), "driver");
        match device.driver {
            "nvme" => {
                put(&format!("{folder}/nvme/nvme3/x"), b"");
                put(&format!("{folder}/p2pmem/size"), b"1048576\n");
                put(&format!("{folder}/p2pmem/published"), b"1\n");
            }
            "mlx5_core" => {
                put(&format!("{folder}/net/enp62s0np0/x"), b"");
                put(&format!("{folder}/net/enx0123456789ab/x"), b"");
                put(&format!("{folder}/infiniband/mlx5_0/x"), b"");
            }
            _ => {}
        }
        let target = format!("../../../devices/{}/{}", device.path, device.address);
        symlink(target, root.join("sys/bus/pci/devices").join(device.address)).unwrap();
    }
}
