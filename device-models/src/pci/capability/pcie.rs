//! The PCI Express capability (section 7.5.3): device, root and slot registers. The registers of
//! the link are in `link`.

use super::{link, slot};
use crate::pci::config::{Builder, ConfigEffects, ConfigSpace};
use crate::pci::description::{
    BridgeDescription, DescriptionError, FunctionDescription, PcieKind, PortKind,
};
use crate::pci::spec::id;
use crate::pci::spec::pcie::{
    self, capabilities, device_2, device_capabilities, device_control, device_status, root,
};

/// 512 bytes: the Max Read Request Size after reset (section 7.5.3.4).
const DEFAULT_READ_REQUEST: u16 = 2;

/// Lays the capability of an endpoint out.
pub(in crate::pci) fn install_endpoint(
    builder: &mut Builder,
    function: &FunctionDescription,
    kind: PcieKind,
) -> Result<u16, DescriptionError> {
    let code = match kind {
        PcieKind::Endpoint => capabilities::TYPE_ENDPOINT,
        PcieKind::RootComplexIntegratedEndpoint => capabilities::TYPE_ROOT_COMPLEX_ENDPOINT,
    };
    let offset = install_device(builder, code, function.max_payload, function.flr)?;
    if kind == PcieKind::Endpoint {
        link::install(builder, offset, function.link, None)?;
    }
    Ok(offset)
}

/// Lays the capability of a port out.
pub(in crate::pci) fn install_port(
    builder: &mut Builder,
    bridge: &BridgeDescription,
) -> Result<u16, DescriptionError> {
    let code = match bridge.kind {
        PortKind::RootPort => capabilities::TYPE_ROOT_PORT,
        PortKind::SwitchUpstream => capabilities::TYPE_SWITCH_UPSTREAM,
        PortKind::SwitchDownstream => capabilities::TYPE_SWITCH_DOWNSTREAM,
    };
    let offset = install_device(builder, code, bridge.max_payload, false)?;
    link::install(builder, offset, bridge.link, Some(bridge))?;
    let registers = &mut builder.registers;
    if bridge.kind.is_downstream() && bridge.slot_number != 0 {
        let flags = registers.u16(offset + pcie::CAPABILITIES) | capabilities::SLOT_IMPLEMENTED;
        registers.define_u16(offset + pcie::CAPABILITIES, flags);
        slot::install(builder, offset, bridge);
    }
    let registers = &mut builder.registers;
    if bridge.kind == PortKind::RootPort {
        registers.writable_u16(offset + pcie::ROOT_CONTROL, root::CONTROL_WRITABLE);
        registers.define_u16(offset + pcie::ROOT_CAPABILITIES, root::RETRY_VISIBILITY);
        registers.clearable_u32(offset + pcie::ROOT_STATUS, root::PME_STATUS);
    }
    Ok(offset)
}

/// What every function has.
fn install_device(
    builder: &mut Builder,
    device_type: u16,
    max_payload: u16,
    flr: bool,
) -> Result<u16, DescriptionError> {
    if !max_payload.is_power_of_two() || !(128..=4096).contains(&max_payload) {
        return Err(DescriptionError::MaxPayload(max_payload));
    }
    let offset = builder.capability(id::PCI_EXPRESS, pcie::LENGTH)?;
    let registers = &mut builder.registers;
    let flags = capabilities::VERSION_2 | device_type << capabilities::TYPE_SHIFT;
    registers.define_u16(offset + pcie::CAPABILITIES, flags);
    let device_capabilities = (max_payload.trailing_zeros() - 7)
        | device_capabilities::EXTENDED_TAG
        | device_capabilities::ROLE_BASED_ERROR_REPORTING
        | if flr { device_capabilities::FUNCTION_LEVEL_RESET } else { 0 };
    registers.define_u32(offset + pcie::DEVICE_CAPABILITIES, device_capabilities);

    let control = offset + pcie::DEVICE_CONTROL;
    let reporting = device_control::CORRECTABLE_REPORTING
        | device_control::NON_FATAL_REPORTING
        | device_control::FATAL_REPORTING
        | device_control::UNSUPPORTED_REQUEST_REPORTING;
    let sizes = device_control::MAX_PAYLOAD_MASK | device_control::MAX_READ_REQUEST_MASK;
    let initial = device_control::RELAXED_ORDERING
        | device_control::EXTENDED_TAG
        | device_control::NO_SNOOP
        | DEFAULT_READ_REQUEST << device_control::MAX_READ_REQUEST_SHIFT;
    registers.define_u16(control, initial);
    registers.writable_u16(control, initial | reporting | sizes);
    registers.kept_by_function_reset_u16(control, device_control::MAX_PAYLOAD_MASK);
    registers.clearable_u16(offset + pcie::DEVICE_STATUS, device_status::ERRORS);
    let device_2 = device_2::TIMEOUT_RANGES | device_2::TIMEOUT_DISABLE_SUPPORTED;
    registers.define_u32(offset + pcie::DEVICE_CAPABILITIES_2, device_2);
    let control_2 = device_2::CONTROL_TIMEOUT | device_2::CONTROL_TIMEOUT_DISABLE;
    registers.writable_u16(offset + pcie::DEVICE_CONTROL_2, control_2);

    builder.watch_u16(control, reporting, ConfigEffects::AER);
    builder.watch_u16(control, sizes, ConfigEffects::PAYLOAD);
    if flr {
        let initiate = device_control::INITIATE_FUNCTION_LEVEL_RESET;
        builder.trigger_u16(control, initiate, ConfigEffects::FLR);
    }
    Ok(offset)
}

impl ConfigSpace {
    /// The largest payload of a TLP the function may send, in bytes: Max_Payload_Size, but not
    /// more than it supports (a larger setting is undefined, section 7.5.3.4). 128 for functions
    /// without the capability.
    #[must_use]
    pub fn max_payload_size(&self) -> u16 {
        let Some(offset) = self.layout().pcie else { return 128 };
        let chosen = (self.device_control() & device_control::MAX_PAYLOAD_MASK)
            >> device_control::MAX_PAYLOAD_SHIFT;
        let supported = self.registers().u16(offset + pcie::DEVICE_CAPABILITIES) & 7;
        128 << chosen.min(supported).min(5)
    }

    /// The largest read request the function may send, in bytes: 128 to 4096.
    #[must_use]
    pub fn max_read_request_size(&self) -> u16 {
        if self.layout().pcie.is_none() {
            return 512;
        }
        let code = (self.device_control() & device_control::MAX_READ_REQUEST_MASK)
            >> device_control::MAX_READ_REQUEST_SHIFT;
        128 << code.min(5)
    }

    /// Transactions Pending of Device Status (section 7.5.3.5): the function waits for
    /// completions of its own requests. Software polls it before and after an FLR.
    pub fn set_transactions_pending(&mut self, pending: bool) {
        let value = if pending { device_status::TRANSACTIONS_PENDING } else { 0 };
        if let Some(offset) = self.layout().pcie {
            let at = offset + pcie::DEVICE_STATUS;
            self.registers_mut().modify_u16(at, device_status::TRANSACTIONS_PENDING, value);
        }
    }

    /// The Device Control register, 0 without the capability.
    pub(in crate::pci) fn device_control(&self) -> u16 {
        self.layout().pcie.map_or(0, |offset| self.registers().u16(offset + pcie::DEVICE_CONTROL))
    }

    /// Sets error bits of Device Status.
    pub(in crate::pci) fn set_device_status(&mut self, bits: u16) {
        if let Some(offset) = self.layout().pcie {
            self.registers_mut().modify_u16(offset + pcie::DEVICE_STATUS, bits, bits);
        }
    }
}
