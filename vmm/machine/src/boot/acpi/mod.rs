//! The ACPI tables (ACPI 6.5): what the guest cannot discover by itself.
//!
//! Hardware-reduced: no PM timer, no SCI, no legacy interrupt controller; power and reset through registers named
//! by the FADT.

mod dsdt;

use std::ops::RangeInclusive;

use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::viot::{PciDevice, PciRange, VIOT, VirtIoPciIommu};
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, sdt::Sdt};
use device_models::pci::firmware::HostResources;
use peerdma_topology::{IOMMU, Kind, Plan, PlannedBridge};
use vm_memory::GuestMemoryMmap;

use super::{BootError, write};
use crate::layout;

const OEM_ID: [u8; 6] = *b"PRDMA ";
const OEM_TABLE_ID: [u8; 8] = *b"PEERDMA ";
const OEM_REVISION: u32 = 1;
/// Each table starts on such a boundary; Linux wants 8, 64 keeps them apart in a dump.
const TABLE_ALIGNMENT: u64 = 64;

/// What the tables say about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiConfig {
    /// Number of vCPUs, with APIC IDs 0 to `vcpus - 1`.
    pub vcpus: u8,
    /// The host bridges and what hangs on them; `None`: a machine without PCI.
    pub pci: Option<PciConfig>,
}

/// The host bridges as the operating system sees them, all on segment 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciConfig {
    /// The bridges, by ascending bus numbers.
    pub host_bridges: Vec<HostBridgeConfig>,
    /// Function of the virtio-iommu that translates for everything on the bridges; `None`: no VIOT.
    pub virtio_iommu: Option<u16>,
    /// What `_OSC` lets the operating system control.
    pub osc: OscControl,
}

impl PciConfig {
    /// The highest bus of all.
    fn last_bus(&self) -> u8 {
        self.host_bridges.iter().map(|bridge| *bridge.buses.end()).max().unwrap_or(0)
    }
}

/// One host bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBridgeConfig {
    /// Its buses, the root bus first. Each costs the guest time to scan.
    pub buses: RangeInclusive<u8>,
    /// Bus addresses of its non-prefetchable window, below 4 GiB.
    pub memory: RangeInclusive<u64>,
    /// Bus addresses of its prefetchable window.
    pub prefetchable: RangeInclusive<u64>,
    /// What is added to a bus address to get the CPUs' address (ACPI 6.5, 6.4.3.5: `_TRA`), in bytes.
    pub translation: u64,
}

impl HostBridgeConfig {
    /// The only bridge, with the windows of [`layout`] and buses from 0 to `last_bus`.
    pub fn only(last_bus: u8) -> Self {
        let inclusive = |range: &std::ops::Range<u64>| range.start..=range.end - 1;
        Self {
            buses: 0..=last_bus,
            memory: inclusive(&layout::PCI_WINDOW_32),
            prefetchable: inclusive(&layout::PCI_WINDOW_64),
            translation: 0,
        }
    }
}

impl From<&PlannedBridge> for HostBridgeConfig {
    fn from(bridge: &PlannedBridge) -> Self {
        let HostResources { buses, memory, prefetchable } = bridge.resources();
        Self { buses, memory, prefetchable, translation: bridge.windows[0].offset }
    }
}

impl PciConfig {
    /// What the guest's firmware tables say about the functions of `plan`.
    pub fn of(plan: &Plan) -> Self {
        let iommu = plan.functions.iter().any(|function| function.kind == Kind::Iommu);
        Self {
            host_bridges: plan.host_bridges.iter().map(HostBridgeConfig::from).collect(),
            virtio_iommu: iommu.then_some(IOMMU.0),
            osc: OscControl::default(),
        }
    }
}

/// PCIe features that `_OSC` grants (PCI Firmware Specification 3.3, table 4-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OscControl(pub u32);

impl OscControl {
    /// Hot-plug by the operating system's own driver.
    pub const NATIVE_HOT_PLUG: u32 = 1 << 0;
    /// Power management events.
    pub const NATIVE_PME: u32 = 1 << 2;
    /// Advanced error reporting.
    pub const NATIVE_AER: u32 = 1 << 3;
    /// The PCIe capability structures.
    pub const CAPABILITY_STRUCTURES: u32 = 1 << 4;
}

impl Default for OscControl {
    /// Everything that the protocol's ports model.
    fn default() -> Self {
        Self(
            Self::NATIVE_HOT_PLUG
                | Self::NATIVE_PME
                | Self::NATIVE_AER
                | Self::CAPABILITY_STRUCTURES,
        )
    }
}

/// Writes all tables; the RSDP lies at the start of [`layout::ACPI_TABLES`].
///
/// # Errors
/// [`BootError::NoRoom`] when they do not fit, [`BootError::Memory`] when there is no RAM.
pub fn install(memory: &GuestMemoryMmap, config: &AcpiConfig) -> Result<(), BootError> {
    let mut area = Area { memory, next: layout::ACPI_TABLES.start + Rsdp::len() as u64 };
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    dsdt.append_slice(&dsdt::body(config.pci.as_ref()));
    let dsdt = area.put(&bytes(&dsdt))?;

    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(area.put(&bytes(&fadt(dsdt)))?);
    xsdt.add_entry(area.put(&bytes(&madt(config.vcpus)))?);
    if let Some(pci) = &config.pci {
        let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        mcfg.add_ecam(layout::ECAM.start, 0, 0, pci.last_bus());
        xsdt.add_entry(area.put(&bytes(&mcfg))?);
        if let Some(function) = pci.virtio_iommu {
            xsdt.add_entry(area.put(&bytes(&viot(function, pci.last_bus())))?);
        }
    }
    let xsdt = area.put(&bytes(&xsdt))?;
    let rsdp = bytes(&Rsdp::new(OEM_ID, xsdt));
    write(memory, "ACPI tables", &rsdp, layout::ACPI_TABLES.start)
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

struct Area<'a> {
    memory: &'a GuestMemoryMmap,
    next: u64,
}

impl Area<'_> {
    fn put(&mut self, table: &[u8]) -> Result<u64, BootError> {
        let address = self.next.next_multiple_of(TABLE_ALIGNMENT);
        let need = table.len() as u64;
        let have = layout::ACPI_TABLES.end.saturating_sub(address);
        if need > have {
            return Err(BootError::NoRoom { what: "the ACPI tables", need, have });
        }
        write(self.memory, "ACPI tables", table, address)?;
        self.next = address + need;
        Ok(address)
    }
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let port =
        |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(port));
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.reset_reg = port(layout::RESET_REGISTER);
    fadt.reset_value = layout::RESET_VALUE;
    fadt.sleep_control_reg = port(layout::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(layout::SLEEP_STATUS);
    // No VGA to probe, no CMOS clock to read (ACPI 6.5, table 5.11).
    fadt.iapc_boot_arch = (IAPC_VGA_NOT_PRESENT | IAPC_CMOS_RTC_NOT_PRESENT).into();
    fadt.finalize()
}

const IAPC_VGA_NOT_PRESENT: u16 = 1 << 2;
const IAPC_CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;

fn madt(vcpus: u8) -> MADT {
    let local = u32::try_from(layout::LOCAL_APIC).unwrap_or(0);
    let io = u32::try_from(layout::IO_APIC).unwrap_or(0);
    let mut madt =
        MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, LocalInterruptController::Address(local));
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, io, 0));
    madt
}

/// Every function on the bridge goes through the virtio-iommu; Linux exempts the virtio-iommu itself.
fn viot(function: u16, last_bus: u8) -> VIOT {
    let [device_function, bus] = function.to_le_bytes();
    let mut viot = VIOT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let iommu = PciDevice::new(0, bus, device_function >> 3, device_function & 7);
    let iommu = viot.add_virtio_pci_iommu(VirtIoPciIommu::new(iommu));
    viot.add_pci_range(PciRange::new(
        PciDevice::new(0, 0, 0, 0),
        PciDevice::new(0, last_bus, 31, 7),
        &iommu,
    ));
    viot
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::memory::GuestRam;

    fn tables(config: &AcpiConfig) -> BTreeMap<String, Vec<u8>> {
        let ram = GuestRam::new(16).unwrap();
        install(ram.memory(), config).unwrap();
        let read = |address: u64, len: usize| {
            let mut bytes = vec![0; len];
            ram.memory().read_slice(&mut bytes, GuestAddress(address)).unwrap();
            bytes
        };
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        let rsdp = read(layout::ACPI_TABLES.start, 36);
        assert!(rsdp.starts_with(b"RSD PTR "));
        assert_eq!((sum(&rsdp[..20]), sum(&rsdp)), (0, 0));
        let table = |address: u64| {
            let length = u32::from_le_bytes(read(address + 4, 4).try_into().unwrap());
            let table = read(address, length as usize);
            assert_eq!(sum(&table), 0);
            (String::from_utf8(table[..4].to_vec()).unwrap(), table)
        };
        let u64_at =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let (name, xsdt) = table(u64_at(&rsdp, 24));
        assert_eq!(name, "XSDT");
        let mut tables: BTreeMap<_, _> =
            (36..xsdt.len()).step_by(8).map(|at| table(u64_at(&xsdt, at))).collect();
        let dsdt = u64_at(&tables["FACP"], 140);
        tables.extend([table(dsdt)]);
        tables
    }

    fn pci(virtio_iommu: Option<u16>) -> AcpiConfig {
        let host_bridges = vec![HostBridgeConfig::only(15)];
        let pci = PciConfig { host_bridges, virtio_iommu, osc: OscControl::default() };
        AcpiConfig { vcpus: 2, pci: Some(pci) }
    }

    #[test]
    fn every_table_is_there_and_sums_to_zero() {
        let names: Vec<_> = tables(&pci(Some(8))).into_keys().collect();
        assert_eq!(names, ["APIC", "DSDT", "FACP", "MCFG", "VIOT"]);
        let names: Vec<_> = tables(&AcpiConfig { vcpus: 1, pci: None }).into_keys().collect();
        assert_eq!(names, ["APIC", "DSDT", "FACP"]);
        assert!(!tables(&pci(None)).contains_key("VIOT"));
    }

    #[test]
    fn the_fadt_is_hardware_reduced_with_power_and_reset() {
        let fadt = &tables(&pci(None))["FACP"];
        let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
        assert_eq!(flags & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
        assert_eq!(fadt[116..120], [1, 8, 0, 1]);
        assert_eq!(u16::from_le_bytes(fadt[120..122].try_into().unwrap()), layout::RESET_REGISTER);
        assert_eq!(fadt[128], layout::RESET_VALUE);
        assert_eq!(u16::from_le_bytes(fadt[248..250].try_into().unwrap()), layout::SLEEP_CONTROL);
        assert_eq!(u16::from_le_bytes(fadt[260..262].try_into().unwrap()), layout::SLEEP_STATUS);
    }

    #[test]
    fn the_viot_points_every_function_at_the_iommu() {
        let viot = &tables(&pci(Some(8)))["VIOT"];
        assert_eq!(viot[36..40], [2, 0, 48, 0]);
        assert_eq!(viot[48..56], [3, 0, 16, 0, 0, 0, 8, 0]);
        let range = &viot[64..88];
        assert_eq!(range[..4], [1, 0, 24, 0]);
        assert_eq!(range[12..18], [0, 0, 0xFF, 15, 48, 0]);
    }

    /// The descriptors of an address space in a table: kind of resource, first, last, translation.
    fn windows(dsdt: &[u8]) -> Vec<(u8, u64, u64, u64)> {
        let number = |bytes: &[u8]| {
            let mut wide = [0; 8];
            wide[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(wide)
        };
        // Word, dword and qword address space descriptors (ACPI 6.5, 6.4.3.5) by their first two bytes.
        let widths = [([0x88, 0x0D], 2), ([0x87, 0x17], 4), ([0x8A, 0x2B], 8)];
        let mut found = Vec::new();
        for at in 0..dsdt.len() - 46 {
            for (start, width) in widths {
                if dsdt[at..at + 3] == [start[0], start[1], 0] && dsdt[at + 4] == 0x0C {
                    let field = |index| {
                        let first = at + 6 + width * index;
                        number(&dsdt[first..first + width])
                    };
                    found.push((dsdt[at + 3], field(1), field(2), field(3)));
                }
            }
        }
        found
    }

    #[test]
    fn each_host_bridge_has_its_buses_and_windows() {
        let mut config = pci(None);
        let bridges = &mut config.pci.as_mut().unwrap().host_bridges;
        bridges.push(HostBridgeConfig {
            buses: 16..=17,
            memory: 0xD000_0000..=0xDFFF_FFFF,
            prefetchable: 0x18_0000_0000..=0x1F_FFFF_FFFF,
            translation: 0x20_0000_0000,
        });
        let dsdt = &tables(&config)["DSDT"];
        assert_eq!(
            windows(dsdt),
            [
                (2, 0, 15, 0),
                (0, 0xC000_0000, 0xDFFF_FFFF, 0),
                (0, 0x10_0000_0000, 0x1F_FFFF_FFFF, 0),
                (2, 16, 17, 0),
                (0, 0xD000_0000, 0xDFFF_FFFF, 0x20_0000_0000),
                (0, 0x18_0000_0000, 0x1F_FFFF_FFFF, 0x20_0000_0000),
            ]
        );
        assert!(dsdt.windows(4).any(|name| name == b"PCI1"));
    }

    #[test]
    fn the_madt_lists_each_vcpu_and_the_io_apic() {
        let madt = &tables(&pci(None))["APIC"];
        assert_eq!(madt[44..52], [0, 8, 0, 0, 1, 0, 0, 0]);
        assert_eq!(madt[52..60], [0, 8, 1, 1, 1, 0, 0, 0]);
        assert_eq!(madt[60..72], [1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0]);
    }
}
