//! The DSDT's byte code: host bridge, ECAM reservation, serial port, power-off.

use std::ops::RangeInclusive;

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Equal,
    IO, If, Interrupt, Memory32Fixed, Method, Name, NotEqual, Or, Package, Path, ResourceTemplate,
    Return, Uuid, ZERO,
};

use super::{HostBridgeConfig, OscControl, PciConfig};
use crate::layout;

/// Identifies the PCI host bridge's capabilities in `_OSC` (PCI Firmware Specification 3.3, 4.5.1).
const OSC_UUID: &str = "33DB4D5B-1FF7-401C-9657-7441C03DD766";
/// `_OSC` status: the UUID is not known.
const OSC_UNRECOGNIZED_UUID: u32 = 1 << 2;
/// `_OSC` status: the revision is not known.
const OSC_UNRECOGNIZED_REVISION: u32 = 1 << 3;
/// `_OSC` status: less was granted than was asked for.
const OSC_CAPABILITIES_MASKED: u32 = 1 << 4;

/// The byte code behind the table's header.
pub(super) fn body(pci: Option<&PciConfig>) -> Vec<u8> {
    let mut aml = Vec::new();
    if let Some(pci) = pci {
        for (index, bridge) in (0..=u8::MAX).zip(&pci.host_bridges) {
            host_bridge(index, bridge, pci.osc, &mut aml);
        }
        ecam(&mut aml);
    }
    com1(&mut aml);
    let s5 = layout::SLEEP_TYPE_S5;
    Name::new(Path::new("_S5_"), &Package::new(vec![&s5, &0_u8, &0_u8, &0_u8]))
        .to_aml_bytes(&mut aml);
    aml
}

/// A window of a host bridge. A descriptor of 64 bits where the translation needs them.
fn window(
    cacheable: AddressSpaceCacheable,
    range: &RangeInclusive<u64>,
    translation: u64,
) -> Box<dyn Aml> {
    let translated = (translation != 0).then_some(translation);
    match (u32::try_from(*range.start()), u32::try_from(*range.end()), translated) {
        (Ok(first), Ok(last), None) => {
            Box::new(AddressSpace::new_memory(cacheable, true, first, last, None))
        }
        _ => {
            let (first, last) = (*range.start(), *range.end());
            Box::new(AddressSpace::new_memory(cacheable, true, first, last, translated))
        }
    }
}

fn host_bridge(index: u8, bridge: &HostBridgeConfig, osc_control: OscControl, aml: &mut Vec<u8>) {
    let (first_bus, last_bus) = (*bridge.buses.start(), *bridge.buses.end());
    let buses = AddressSpace::new_bus_number(u16::from(first_bus), u16::from(last_bus));
    let memory = window(AddressSpaceCacheable::NotCacheable, &bridge.memory, bridge.translation);
    let prefetchable =
        window(AddressSpaceCacheable::PreFetchable, &bridge.prefetchable, bridge.translation);
    Device::new(
        Path::new(&format!("_SB_.PCI{index:X}")),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0A08")),
            &Name::new(Path::new("_CID"), &EISAName::new("PNP0A03")),
            &Name::new(Path::new("_UID"), &index),
            &Name::new(Path::new("_SEG"), &0_u8),
            &Name::new(Path::new("_BBN"), &first_bus),
            // The machine is coherent, and says so for kernels that ask.
            &Name::new(Path::new("_CCA"), &1_u8),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![&buses, &*memory, &*prefetchable]),
            ),
            &Raw(osc(osc_control.0)),
        ],
    )
    .to_aml_bytes(aml);
}

/// Byte code that has been made already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// `_OSC`: hands the operating system what it asks for as far as `granted` goes, and says so if that is less.
fn osc(granted: u32) -> Vec<u8> {
    let capabilities = Arg(3);
    let (status, control) = (Path::new("CDW1"), Path::new("CDW3"));
    let not_granted = !granted;
    let mut aml = Vec::new();
    Method::new(
        Path::new("_OSC"),
        4,
        false,
        vec![
            &CreateDWordField::new(&status, &capabilities, &0_u8),
            &CreateDWordField::new(&control, &capabilities, &8_u8),
            &If::new(
                &Equal::new(&Arg(0), &Uuid::new(OSC_UUID)),
                vec![
                    &If::new(
                        &NotEqual::new(&Arg(1), &1_u8),
                        vec![&Or::new(&status, &status, &OSC_UNRECOGNIZED_REVISION)],
                    ),
                    &If::new(
                        &And::new(&ZERO, &control, &not_granted),
                        vec![&Or::new(&status, &status, &OSC_CAPABILITIES_MASKED)],
                    ),
                    &And::new(&control, &control, &granted),
                ],
            ),
            &Else::new(vec![&Or::new(&status, &status, &OSC_UNRECOGNIZED_UUID)]),
            &Return::new(&capabilities),
        ],
    )
    .to_aml_bytes(&mut aml);
    aml
}

/// Nothing is in the ECAM but ECAM; without this Linux does not trust the MCFG.
fn ecam(aml: &mut Vec<u8>) {
    let base = u32::try_from(layout::ECAM.start).unwrap_or(0);
    let length = u32::try_from(layout::ECAM.end - layout::ECAM.start).unwrap_or(0);
    Device::new(
        Path::new("_SB_.ECAM"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0C02")),
            &Name::new(Path::new("_UID"), &1_u8),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![&Memory32Fixed::new(true, base, length)]),
            ),
        ],
    )
    .to_aml_bytes(aml);
}

/// Hardware-reduced ACPI knows no ISA interrupts: without this the serial port would have none.
fn com1(aml: &mut Vec<u8>) {
    let ports = layout::COM1;
    let count = u8::try_from(ports.end - ports.start).unwrap_or(0);
    Device::new(
        Path::new("_SB_.COM1"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
            &Name::new(Path::new("_UID"), &0_u8),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &Interrupt::new(true, true, false, false, layout::COM1_GSI),
                    &IO::new(ports.start, ports.start, 0, count),
                ]),
            ),
        ],
    )
    .to_aml_bytes(aml);
}
