//! IDs of named classes, and of the few vendors and devices that matter for a decision.

/// Sub-classes by the names that `lspci` prints, and classes where a sub-class has no name of its own.
const CLASSES: &[(&str, u16)] = &[
    ("Non-VGA unclassified device", 0x0000),
    ("VGA compatible unclassified device", 0x0001),
    ("SCSI storage controller", 0x0100),
    ("IDE interface", 0x0101),
    ("RAID bus controller", 0x0104),
    ("ATA controller", 0x0105),
    ("SATA controller", 0x0106),
    ("Serial Attached SCSI controller", 0x0107),
    ("Non-Volatile memory controller", 0x0108),
    ("Universal Flash Storage controller", 0x0109),
    ("Mass storage controller", 0x0180),
    ("Ethernet controller", 0x0200),
    ("Token ring network controller", 0x0201),
    ("Infiniband controller", 0x0207),
    ("InfiniBand controller", 0x0207),
    ("Fabric controller", 0x0208),
    ("Network controller", 0x0280),
    ("VGA compatible controller", 0x0300),
    ("XGA compatible controller", 0x0301),
    ("3D controller", 0x0302),
    ("Display controller", 0x0380),
    ("Multimedia video controller", 0x0400),
    ("Multimedia audio controller", 0x0401),
    ("Audio device", 0x0403),
    ("Multimedia controller", 0x0480),
    ("RAM memory", 0x0500),
    ("FLASH memory", 0x0501),
    ("CXL", 0x0502),
    ("Memory controller", 0x0580),
    ("Host bridge", 0x0600),
    ("ISA bridge", 0x0601),
    ("EISA bridge", 0x0602),
    ("PCI bridge", 0x0604),
    ("PCMCIA bridge", 0x0605),
    ("CardBus bridge", 0x0607),
    ("Semi-transparent PCI-to-PCI bridge", 0x0609),
    ("InfiniBand to PCI host bridge", 0x060a),
    ("Bridge", 0x0680),
    ("Serial controller", 0x0700),
    ("Parallel controller", 0x0701),
    ("Multiport serial controller", 0x0702),
    ("Modem", 0x0703),
    ("Communication controller", 0x0780),
    ("PIC", 0x0800),
    ("DMA controller", 0x0801),
    ("Timer", 0x0802),
    ("RTC", 0x0803),
    ("PCI Hot-plug controller", 0x0804),
    ("SD Host controller", 0x0805),
    ("IOMMU", 0x0806),
    ("System peripheral", 0x0880),
    ("Timing Card", 0x0899),
    ("Keyboard controller", 0x0900),
    ("Input device controller", 0x0980),
    ("Power PC", 0x0b20),
    ("Co-processor", 0x0b40),
    ("FireWire (IEEE 1394)", 0x0c00),
    ("USB controller", 0x0c03),
    ("USB Controller", 0x0c03),
    ("Fibre Channel", 0x0c04),
    ("SMBus", 0x0c05),
    ("InfiniBand", 0x0c06),
    ("IPMI Interface", 0x0c07),
    ("IPMI SMIC interface", 0x0c07),
    ("CANBUS", 0x0c09),
    ("Serial bus controller", 0x0c80),
    ("Bluetooth", 0x0d11),
    ("Wireless controller", 0x0d80),
    ("I2O", 0x0e00),
    ("Network and computing encryption device", 0x1000),
    ("Entertainment encryption device", 0x1010),
    ("Encryption controller", 0x1080),
    ("Performance counters", 0x1101),
    ("Communication synchronizer", 0x1110),
    ("Signal processing management", 0x1120),
    ("Signal processing controller", 0x1180),
    ("Processing accelerators", 0x1200),
    ("SNIA Smart Data Accelerator Interface (SDXI) controller", 0x1201),
    ("Non-Essential Instrumentation", 0x1300),
    ("Coprocessor", 0x4000),
];

/// Vendors whose names begin a description.
const VENDORS: &[(&str, u16)] = &[
    ("Intel Corporation ", 0x8086),
    ("Advanced Micro Devices, Inc. [AMD] ", 0x1022),
    ("Advanced Micro Devices [AMD] ", 0x1022),
    ("Advanced Micro Devices, Inc. [AMD/ATI] ", 0x1002),
    ("NVIDIA Corporation ", 0x10de),
    ("nVidia Corporation ", 0x10de),
    ("Mellanox Technologies ", 0x15b3),
    ("PLX Technology, Inc. ", 0x10b5),
    ("Broadcom / LSI ", 0x1000),
    ("LSI Logic / Symbios Logic ", 0x1000),
    ("Samsung Electronics Co Ltd ", 0x144d),
    ("ASMedia Technology Inc. ", 0x1b21),
    ("ASPEED Technology, Inc. ", 0x1a03),
    ("PMC-Sierra Inc. ", 0x11f8),
];

/// Devices on root buses that Linux knows by their IDs (`pci_p2pdma_whitelist`), and those that a reader may take for
/// them. The names are those of the PCI ID database.
const DEVICES: &[(u16, &str, u16)] = &[
    (0x8086, "Xeon E5/Core i7 DMI2", 0x3c00),
    (0x8086, "Xeon E5/Core i7 DMI2 in PCI Express Mode", 0x3c01),
    (0x8086, "Xeon E7 v2/Xeon E5 v2/Core i7 DMI2", 0x0e00),
    (0x8086, "Xeon E7 v3/Xeon E5 v3/Core i7 DMI2", 0x2f00),
    (0x8086, "Xeon E7 v3/Xeon E5 v3/Core i7 PCI Express Root Port 0", 0x2f01),
    (0x8086, "Xeon E7 v4/Xeon E5 v4/Xeon E3 v4/Xeon D DMI2", 0x6f00),
    (0x8086, "Sky Lake-E DMI3 Registers", 0x2020),
    (0x8086, "Sky Lake-E PCI Express Root Port A", 0x2030),
    (0x8086, "Sky Lake-E PCI Express Root Port B", 0x2031),
    (0x8086, "Sky Lake-E PCI Express Root Port C", 0x2032),
    (0x8086, "Sky Lake-E PCI Express Root Port D", 0x2033),
    (0x8086, "Ice Lake Memory Map/VT-d", 0x09a2),
    (0x1022, "Family 17h (Models 00h-0fh) Root Complex", 0x1450),
    (0x1022, "Starship/Matisse Root Complex", 0x1480),
    (0x1022, "Raven/Raven2 Root Complex", 0x15d0),
    (0x1022, "Renoir/Cezanne Root Complex", 0x1630),
];

/// The class that `name` stands for, also `Class [ff00]`, `Unassigned class [ff00]` and `Class ff00`.
pub(super) fn class(name: &str) -> Option<u16> {
    if let Some(code) = name.strip_prefix("Class ").or(name.strip_prefix("Unassigned class ")) {
        return hex16(code.trim_matches(['[', ']']));
    }
    CLASSES.iter().find(|(known, _)| *known == name).map(|(_, code)| *code)
}

/// Vendor and device IDs, as far as `description` (vendor and device by name) stands for them.
pub(super) fn by_name(description: &str) -> (Option<u16>, Option<u16>) {
    let vendor = VENDORS.iter().find_map(|(name, id)| Some((*id, description.strip_prefix(name)?)));
    // What the database lacks is printed as it is.
    let unnamed = description.rsplit_once("Device ").and_then(|(before, id)| {
        (before.is_empty() || before.ends_with(' ')).then(|| hex16(id.trim())).flatten()
    });
    let Some((vendor, device)) = vendor else { return (None, unnamed) };
    let named = DEVICES.iter().find(|(of, name, _)| *of == vendor && *name == device.trim());
    (Some(vendor), unnamed.or(named.map(|(_, _, id)| *id)))
}

/// Four hexadecimal digits.
pub(super) fn hex16(text: &str) -> Option<u16> {
    let digits = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u16::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_numbers_only_as_a_whole() {
        assert_eq!(class("PCI bridge"), Some(0x0604));
        assert_eq!(class("Unassigned class [ff00]"), Some(0xff00));
        assert_eq!(class("PCI bridges"), None);
        let intel = |device: &str| by_name(&format!("Intel Corporation {device}"));
        assert_eq!(intel("Sky Lake-E DMI3 Registers"), (Some(0x8086), Some(0x2020)));
        assert_eq!(intel("Sky Lake-E DMI3 Registers 2"), (Some(0x8086), None));
        assert_eq!(intel("Device 09a2"), (Some(0x8086), Some(0x09a2)));
        assert_eq!(intel("Device 09a"), (Some(0x8086), None));
        assert_eq!(by_name("Acme Device 1234"), (None, Some(0x1234)));
        assert_eq!(by_name("NVIDIA Corporation GA100 [A100]"), (Some(0x10de), None));
    }
}
