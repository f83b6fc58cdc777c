//! The Advanced Error Reporting extended capability (section 7.8.4).

pub(crate) const LENGTH: u16 = 0x2c;
/// With the registers of a root port.
pub(crate) const ROOT_LENGTH: u16 = 0x38;
pub(crate) const UNCORRECTABLE_STATUS: u16 = 0x04;
pub(crate) const UNCORRECTABLE_MASK: u16 = 0x08;
pub(crate) const UNCORRECTABLE_SEVERITY: u16 = 0x0c;
pub(crate) const CORRECTABLE_STATUS: u16 = 0x10;
pub(crate) const CORRECTABLE_MASK: u16 = 0x14;
pub(crate) const CONTROL: u16 = 0x18;
pub(crate) const HEADER_LOG: u16 = 0x1c;
pub(crate) const ROOT_COMMAND: u16 = 0x2c;
pub(crate) const ROOT_STATUS: u16 = 0x30;
/// Source of ERR_COR in bits 15:0, of ERR_NONFATAL and ERR_FATAL in bits 31:16.
pub(crate) const ERROR_SOURCE: u16 = 0x34;

/// Advanced Error Capabilities and Control: which status bit was set first.
pub(crate) const FIRST_ERROR_MASK: u32 = 0x1f;

/// Bits of Uncorrectable Error Status, Mask and Severity (sections 7.8.4.2 to 7.8.4.4).
pub(crate) mod uncorrectable {
    pub(crate) const DATA_LINK_PROTOCOL: u32 = 1 << 4;
    pub(crate) const SURPRISE_DOWN: u32 = 1 << 5;
    pub(crate) const FLOW_CONTROL_PROTOCOL: u32 = 1 << 13;
    pub(crate) const RECEIVER_OVERFLOW: u32 = 1 << 17;
    pub(crate) const MALFORMED_TLP: u32 = 1 << 18;
    pub(crate) const INTERNAL: u32 = 1 << 22;
    pub(crate) const ACS_VIOLATION: u32 = 1 << 21;
    /// Severity after reset: the errors that are fatal unless software says otherwise.
    pub(crate) const FATAL_BY_DEFAULT: u32 = DATA_LINK_PROTOCOL
        | SURPRISE_DOWN
        | FLOW_CONTROL_PROTOCOL
        | RECEIVER_OVERFLOW
        | MALFORMED_TLP
        | INTERNAL;
    /// Mask after reset.
    pub(crate) const MASKED_BY_DEFAULT: u32 = INTERNAL;
    /// What every function of the system implements; ACS Violation comes with ACS.
    pub(crate) const IMPLEMENTED: u32 = DATA_LINK_PROTOCOL
        | 1 << 12
        | FLOW_CONTROL_PROTOCOL
        | 1 << 14
        | 1 << 15
        | 1 << 16
        | RECEIVER_OVERFLOW
        | MALFORMED_TLP
        | 1 << 20
        | INTERNAL;
}

/// Bits of Correctable Error Status and Mask (sections 7.8.4.5 and 7.8.4.6).
pub(crate) mod correctable {
    pub(crate) const ADVISORY_NON_FATAL: u32 = 1 << 13;
    /// Receiver error, bad TLP, bad DLLP, replay roll-over and time-out, advisory non-fatal.
    pub(crate) const IMPLEMENTED: u32 = 0x31c1;
}

/// Root Error Command (section 7.8.4.9): interrupt on the error of this kind.
pub(crate) mod root_command {
    pub(crate) const CORRECTABLE: u32 = 1 << 0;
    pub(crate) const NON_FATAL: u32 = 1 << 1;
    pub(crate) const FATAL: u32 = 1 << 2;
    pub(crate) const ALL: u32 = 7;
}

/// Root Error Status (section 7.8.4.10).
pub(crate) mod root_status {
    pub(crate) const CORRECTABLE: u32 = 1 << 0;
    pub(crate) const MULTIPLE_CORRECTABLE: u32 = 1 << 1;
    pub(crate) const UNCORRECTABLE: u32 = 1 << 2;
    pub(crate) const MULTIPLE_UNCORRECTABLE: u32 = 1 << 3;
    pub(crate) const FIRST_IS_FATAL: u32 = 1 << 4;
    pub(crate) const NON_FATAL: u32 = 1 << 5;
    pub(crate) const FATAL: u32 = 1 << 6;
    pub(crate) const ALL: u32 = 0x7f;
}
