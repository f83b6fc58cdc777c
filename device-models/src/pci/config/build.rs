//! From a description to a configuration space.

use super::builder::Builder;
use super::header;
use super::{ConfigEffects, ConfigSpace, Layout};
use crate::pci::capability::{
    Services, acs, aer, link, msi, msix, pcie, power, resizable_bar, small,
};
use crate::pci::description::{
    BridgeDescription, DescriptionError, FunctionDescription, HostBridgeDescription, PcieKind,
    PortKind,
};
use crate::pci::spec::header::{bar, type0};

/// Class of a host bridge.
const HOST_BRIDGE: u32 = 0x06_0000;
/// Class of a PCI-to-PCI bridge, normal decode.
const PCI_BRIDGE: u32 = 0x06_0400;

impl ConfigSpace {
    /// The configuration space of an endpoint, as after power-on.
    ///
    /// # Errors
    /// The description contradicts itself or the specification.
    pub fn endpoint(function: &FunctionDescription) -> Result<Self, DescriptionError> {
        let mut builder = Builder::new();
        let b = &mut builder;
        let FunctionDescription { vendor, device, revision, class, .. } = *function;
        header::install_common(b, vendor, device, revision, class);
        header::install_command(b);
        b.registers.define_u16(type0::SUBSYSTEM_VENDOR_ID, function.subsystem_vendor);
        b.registers.define_u16(type0::SUBSYSTEM_ID, function.subsystem_id);
        let bars = header::install_bars(b, &function.bars)?;

        let mut layout = Layout { power: Some(power::install(b, false)?), ..Layout::default() };
        if function.msix_vectors > 0 {
            layout.msix = Some(msix::install(b, function)?);
        }
        if let Some(kind) = function.pcie {
            layout.pcie = Some(pcie::install_endpoint(b, function, kind)?);
        } else if let Some(feature) = needs_pcie(function) {
            return Err(DescriptionError::NeedsPcie(feature));
        }
        for (index, capability) in function.vendor_capabilities.iter().enumerate() {
            layout.vendor.push(small::install_vendor(b, index, capability)?);
        }
        if function.aer {
            layout.aer = Some(aer::install(b, function.acs.is_some(), false)?);
        }
        if let Some(capabilities) = function.acs {
            layout.acs = Some(acs::install(b, capabilities)?);
            layout.acs_without_effect = capabilities.without_effect;
        }
        layout.resizable = resizable_bar::install(b, function)?;
        if let Some(number) = function.serial_number {
            small::install_serial_number(b, number)?;
        }
        let has_link = function.pcie == Some(PcieKind::Endpoint);
        if has_link {
            link::install_secondary(b, function.link)?;
        }
        let mut config = Self::assemble(builder, layout, bars, None);
        config.set_link(has_link.then_some(function.link));
        Ok(config)
    }

    /// The configuration space of a port, as after power-on, with its link up at full speed
    /// (see [`train_link`](Self::train_link) and [`set_link`](Self::set_link)).
    ///
    /// # Errors
    /// The description contradicts itself or the specification.
    pub fn bridge(bridge: &BridgeDescription) -> Result<Self, DescriptionError> {
        let mut builder = Builder::new();
        let b = &mut builder;
        header::install_common(b, bridge.vendor, bridge.device, bridge.revision, PCI_BRIDGE);
        header::install_command(b);
        header::install_bridge(b);

        let mut layout = Layout { power: Some(power::install(b, true)?), ..Layout::default() };
        if bridge.msi {
            layout.msi = Some(msi::install(b)?);
        }
        layout.pcie = Some(pcie::install_port(b, bridge)?);
        if bridge.subsystem_vendor != 0 {
            small::install_bridge_subsystem(b, bridge.subsystem_vendor, bridge.subsystem_id)?;
        }
        if bridge.aer {
            let root_port = bridge.kind == PortKind::RootPort;
            layout.aer = Some(aer::install(b, bridge.acs.is_some(), root_port)?);
        }
        if let Some(capabilities) = bridge.acs {
            layout.acs = Some(acs::install(b, capabilities)?);
            layout.acs_without_effect = capabilities.without_effect;
        }
        link::install_secondary(b, bridge.link)?;
        let mut config = Self::assemble(builder, layout, [None; bar::COUNT], Some(bridge.kind));
        config.set_link(Some(bridge.link));
        Ok(config)
    }

    /// The configuration space of the host bridge's own function: IDs and class only.
    #[must_use]
    pub fn host_bridge(bridge: &HostBridgeDescription) -> Self {
        let mut builder = Builder::new();
        let b = &mut builder;
        header::install_common(b, bridge.vendor, bridge.device, bridge.revision, HOST_BRIDGE);
        b.registers.define_u16(type0::SUBSYSTEM_VENDOR_ID, bridge.subsystem_vendor);
        b.registers.define_u16(type0::SUBSYSTEM_ID, bridge.subsystem_id);
        Self::assemble(builder, Layout::default(), [None; bar::COUNT], None)
    }

    fn assemble(
        builder: Builder,
        layout: Layout,
        bars: [Option<header::Bar>; bar::COUNT],
        port: Option<PortKind>,
    ) -> Self {
        let Builder { registers, watches, triggers, .. } = builder;
        debug_assert!(watches.iter().all(|watch| watch.effects != ConfigEffects::empty()));
        Self {
            registers,
            layout,
            watches,
            triggers,
            bars,
            port,
            link: None,
            asserted: Services::empty(),
        }
    }
}

/// What the description asks for that only a PCI Express function has.
fn needs_pcie(function: &FunctionDescription) -> Option<&'static str> {
    let extended = function.acs.is_some()
        || function.serial_number.is_some()
        || !function.resizable_bars.is_empty();
    match () {
        () if function.flr => Some("function level reset"),
        () if function.aer => Some("Advanced Error Reporting"),
        () if extended => Some("an extended capability"),
        () => None,
    }
}
