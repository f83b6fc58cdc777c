//! The PCI Express capability, version 2 (section 7.5.3). Offsets count from the capability.

pub(crate) const LENGTH: u16 = 0x3c;
pub(crate) const CAPABILITIES: u16 = 0x02;
pub(crate) const DEVICE_CAPABILITIES: u16 = 0x04;
pub(crate) const DEVICE_CONTROL: u16 = 0x08;
pub(crate) const DEVICE_STATUS: u16 = 0x0a;
pub(crate) const LINK_CAPABILITIES: u16 = 0x0c;
pub(crate) const LINK_CONTROL: u16 = 0x10;
pub(crate) const LINK_STATUS: u16 = 0x12;
pub(crate) const SLOT_CAPABILITIES: u16 = 0x14;
pub(crate) const SLOT_CONTROL: u16 = 0x18;
pub(crate) const SLOT_STATUS: u16 = 0x1a;
pub(crate) const ROOT_CONTROL: u16 = 0x1c;
pub(crate) const ROOT_CAPABILITIES: u16 = 0x1e;
pub(crate) const ROOT_STATUS: u16 = 0x20;
pub(crate) const DEVICE_CAPABILITIES_2: u16 = 0x24;
pub(crate) const DEVICE_CONTROL_2: u16 = 0x28;
pub(crate) const LINK_CAPABILITIES_2: u16 = 0x2c;
pub(crate) const LINK_CONTROL_2: u16 = 0x30;
pub(crate) const LINK_STATUS_2: u16 = 0x32;

/// PCI Express Capabilities register (section 7.5.3.2).
pub(crate) mod capabilities {
    pub(crate) const VERSION_2: u16 = 2;
    pub(crate) const TYPE_SHIFT: u16 = 4;
    pub(crate) const TYPE_MASK: u16 = 0xf << TYPE_SHIFT;
    pub(crate) const TYPE_ENDPOINT: u16 = 0;
    pub(crate) const TYPE_ROOT_PORT: u16 = 4;
    pub(crate) const TYPE_SWITCH_UPSTREAM: u16 = 5;
    pub(crate) const TYPE_SWITCH_DOWNSTREAM: u16 = 6;
    pub(crate) const TYPE_ROOT_COMPLEX_ENDPOINT: u16 = 9;
    pub(crate) const SLOT_IMPLEMENTED: u16 = 1 << 8;
}

/// Device Capabilities register (section 7.5.3.3).
pub(crate) mod device_capabilities {
    pub(crate) const MAX_PAYLOAD_MASK: u32 = 7;
    pub(crate) const EXTENDED_TAG: u32 = 1 << 5;
    pub(crate) const ROLE_BASED_ERROR_REPORTING: u32 = 1 << 15;
    pub(crate) const FUNCTION_LEVEL_RESET: u32 = 1 << 28;
}

/// Device Control register (section 7.5.3.4).
pub(crate) mod device_control {
    pub(crate) const CORRECTABLE_REPORTING: u16 = 1 << 0;
    pub(crate) const NON_FATAL_REPORTING: u16 = 1 << 1;
    pub(crate) const FATAL_REPORTING: u16 = 1 << 2;
    pub(crate) const UNSUPPORTED_REQUEST_REPORTING: u16 = 1 << 3;
    pub(crate) const RELAXED_ORDERING: u16 = 1 << 4;
    pub(crate) const MAX_PAYLOAD_SHIFT: u16 = 5;
    pub(crate) const MAX_PAYLOAD_MASK: u16 = 7 << MAX_PAYLOAD_SHIFT;
    pub(crate) const EXTENDED_TAG: u16 = 1 << 8;
    pub(crate) const NO_SNOOP: u16 = 1 << 11;
    pub(crate) const MAX_READ_REQUEST_SHIFT: u16 = 12;
    pub(crate) const MAX_READ_REQUEST_MASK: u16 = 7 << MAX_READ_REQUEST_SHIFT;
    pub(crate) const INITIATE_FUNCTION_LEVEL_RESET: u16 = 1 << 15;
}

/// Device Status register (section 7.5.3.5).
pub(crate) mod device_status {
    pub(crate) const CORRECTABLE_DETECTED: u16 = 1 << 0;
    pub(crate) const NON_FATAL_DETECTED: u16 = 1 << 1;
    pub(crate) const FATAL_DETECTED: u16 = 1 << 2;
    pub(crate) const UNSUPPORTED_REQUEST_DETECTED: u16 = 1 << 3;
    pub(crate) const TRANSACTIONS_PENDING: u16 = 1 << 5;
    pub(crate) const ERRORS: u16 = 0xf;
}

/// Link Capabilities register (section 7.5.3.6).
pub(crate) mod link_capabilities {
    pub(crate) const WIDTH_SHIFT: u32 = 4;
    pub(crate) const DATA_LINK_LAYER_ACTIVE_REPORTING: u32 = 1 << 20;
    pub(crate) const BANDWIDTH_NOTIFICATION: u32 = 1 << 21;
    pub(crate) const ASPM_OPTIONALITY: u32 = 1 << 22;
    pub(crate) const PORT_NUMBER_SHIFT: u32 = 24;
}

/// Link Control register (section 7.5.3.7).
pub(crate) mod link_control {
    pub(crate) const ASPM_MASK: u16 = 3;
    pub(crate) const READ_COMPLETION_BOUNDARY: u16 = 1 << 3;
    pub(crate) const LINK_DISABLE: u16 = 1 << 4;
    pub(crate) const RETRAIN: u16 = 1 << 5;
    pub(crate) const COMMON_CLOCK: u16 = 1 << 6;
    pub(crate) const EXTENDED_SYNCH: u16 = 1 << 7;
    pub(crate) const BANDWIDTH_MANAGEMENT_INTERRUPT: u16 = 1 << 10;
    pub(crate) const AUTONOMOUS_BANDWIDTH_INTERRUPT: u16 = 1 << 11;
}

/// Link Status register (section 7.5.3.8).
pub(crate) mod link_status {
    pub(crate) const SPEED_MASK: u16 = 0xf;
    pub(crate) const WIDTH_SHIFT: u16 = 4;
    pub(crate) const WIDTH_MASK: u16 = 0x3f << WIDTH_SHIFT;
    pub(crate) const SLOT_CLOCK: u16 = 1 << 12;
    pub(crate) const DATA_LINK_LAYER_ACTIVE: u16 = 1 << 13;
    pub(crate) const BANDWIDTH_MANAGEMENT: u16 = 1 << 14;
    pub(crate) const AUTONOMOUS_BANDWIDTH: u16 = 1 << 15;
}

/// Slot Capabilities, Control and Status registers (sections 7.5.3.9 to 7.5.3.11).
pub(crate) mod slot {
    /// Slot Capabilities: a device may be taken out without notice.
    pub(crate) const HOT_PLUG_SURPRISE: u32 = 1 << 5;
    pub(crate) const HOT_PLUG_CAPABLE: u32 = 1 << 6;
    pub(crate) const NO_COMMAND_COMPLETED: u32 = 1 << 18;
    pub(crate) const NUMBER_SHIFT: u32 = 19;
    /// Slot Control: which events interrupt, and whether any does.
    pub(crate) const PRESENCE_CHANGED_ENABLE: u16 = 1 << 3;
    pub(crate) const HOT_PLUG_INTERRUPT_ENABLE: u16 = 1 << 5;
    pub(crate) const LINK_STATE_CHANGED_ENABLE: u16 = 1 << 12;
    /// Slot Status: an adapter has come or gone.
    pub(crate) const PRESENCE_CHANGED: u16 = 1 << 3;
    /// Slot Status: Data Link Layer Link Active has changed.
    pub(crate) const LINK_STATE_CHANGED: u16 = 1 << 8;
    /// Slot Status: an adapter is present.
    pub(crate) const PRESENCE: u16 = 1 << 6;
}

/// Root Control, Capabilities and Status registers (sections 7.5.3.12 to 7.5.3.14).
pub(crate) mod root {
    /// System error on correctable, non-fatal, fatal error; PME interrupt; RRS visibility.
    pub(crate) const CONTROL_WRITABLE: u16 = 0x1f;
    pub(crate) const RETRY_VISIBILITY: u16 = 1;
    pub(crate) const PME_STATUS: u32 = 1 << 16;
}

/// Device Capabilities 2 and Device Control 2 registers (sections 7.5.3.15 and 7.5.3.16).
pub(crate) mod device_2 {
    /// Completion time-out ranges A to D.
    pub(crate) const TIMEOUT_RANGES: u32 = 0xf;
    pub(crate) const TIMEOUT_DISABLE_SUPPORTED: u32 = 1 << 4;
    pub(crate) const CONTROL_TIMEOUT: u16 = 0xf;
    pub(crate) const CONTROL_TIMEOUT_DISABLE: u16 = 1 << 4;
}

/// Link Capabilities 2, Control 2 and Status 2 registers (sections 7.5.3.18 to 7.5.3.20).
pub(crate) mod link_2 {
    pub(crate) const SPEEDS_SHIFT: u32 = 1;
    pub(crate) const TARGET_SPEED_MASK: u16 = 0xf;
    /// Equalization complete and successful in its three phases (8.0 GT/s).
    pub(crate) const EQUALIZED: u16 = 0xf << 1;
}

/// The Secondary PCI Express extended capability (section 7.7.3).
pub(crate) mod secondary {
    pub(crate) const LANE_EQUALIZATION: u16 = 0x0c;
}
