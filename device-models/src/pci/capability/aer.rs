//! Advanced Error Reporting of any function (sections 6.2 and 7.8.4): what is logged, and which
//! message goes to the root port. Its registers of a root port are in `root_errors`.

use super::errors::{Abort, ErrorMessage, RequestKind, Side, UncorrectableError};
use crate::pci::config::{Builder, ConfigEffects, ConfigSpace};
use crate::pci::description::DescriptionError;
use crate::pci::spec::aer::{self, correctable, uncorrectable};
use crate::pci::spec::header::{self, bridge_control, status, type1};
use crate::pci::spec::{extended_id, pcie::device_control, pcie::device_status};

/// Lays the capability out.
pub(in crate::pci) fn install(
    builder: &mut Builder,
    acs: bool,
    root_port: bool,
) -> Result<u16, DescriptionError> {
    let length = if root_port { aer::ROOT_LENGTH } else { aer::LENGTH };
    let offset = builder.extended(extended_id::ADVANCED_ERROR_REPORTING, 2, length)?;
    let bits = uncorrectable::IMPLEMENTED | if acs { uncorrectable::ACS_VIOLATION } else { 0 };
    let registers = &mut builder.registers;
    registers.clearable_u32(offset + aer::UNCORRECTABLE_STATUS, bits);
    registers.define_u32(offset + aer::UNCORRECTABLE_MASK, uncorrectable::MASKED_BY_DEFAULT);
    registers.define_u32(offset + aer::UNCORRECTABLE_SEVERITY, uncorrectable::FATAL_BY_DEFAULT);
    for register in [aer::UNCORRECTABLE_MASK, aer::UNCORRECTABLE_SEVERITY] {
        registers.writable_u32(offset + register, bits);
    }
    registers.clearable_u32(offset + aer::CORRECTABLE_STATUS, correctable::IMPLEMENTED);
    registers.define_u32(offset + aer::CORRECTABLE_MASK, correctable::ADVISORY_NON_FATAL);
    registers.writable_u32(offset + aer::CORRECTABLE_MASK, correctable::IMPLEMENTED);
    // All of it is sticky: what was logged survives the reset that the error led to.
    for register in (aer::UNCORRECTABLE_STATUS..aer::LENGTH).step_by(4) {
        registers.sticky_u32(offset + register, u32::MAX);
    }
    for register in (aer::UNCORRECTABLE_STATUS..=aer::CORRECTABLE_MASK).step_by(4) {
        builder.watch_u32(offset + register, u32::MAX, ConfigEffects::AER);
    }
    if root_port {
        super::root_errors::install(builder, offset);
    }
    Ok(offset)
}

impl ConfigSpace {
    /// Records an uncorrectable error this function detected, with the header of the TLP: first
    /// dword of the TLP in `header[0]`, its first byte in bits 31:24 (section 7.8.4.8). Says
    /// which message to send towards the root, if reporting is on. Follows the flow of section
    /// 6.2.5.
    pub fn record_uncorrectable(
        &mut self,
        error: UncorrectableError,
        request: RequestKind,
        header: [u32; 4],
    ) -> Option<ErrorMessage> {
        let fatal = self.is_fatal(error);
        let unsupported = error == UncorrectableError::UnsupportedRequest;
        let mut detected =
            if unsupported { device_status::UNSUPPORTED_REQUEST_DETECTED } else { 0 };
        if error == UncorrectableError::CompleterAbort {
            self.set_status(Side::Primary, status::SIGNALED_TARGET_ABORT);
        }
        if !fatal && error.is_advisory(request) {
            detected |= device_status::CORRECTABLE_DETECTED;
            self.set_device_status(detected);
            return self.report_advisory(error, header);
        }
        detected |=
            if fatal { device_status::FATAL_DETECTED } else { device_status::NON_FATAL_DETECTED };
        self.set_device_status(detected);
        if self.log_uncorrectable(error, header) == Logged::Masked {
            return None;
        }
        let message = if fatal { ErrorMessage::Fatal } else { ErrorMessage::NonFatal };
        let enables = self.device_control();
        let own = if fatal {
            enables & device_control::FATAL_REPORTING != 0
        } else {
            enables & device_control::NON_FATAL_REPORTING != 0
        };
        let allowed = !unsupported || enables & device_control::UNSUPPORTED_REQUEST_REPORTING != 0;
        if self.system_error_enabled() {
            self.set_status(Side::Primary, status::SYSTEM_ERROR);
            return Some(message);
        }
        (own && allowed).then_some(message)
    }

    /// Notes in the (Secondary) Status register that a request of this function, or one it
    /// forwarded, was answered with an unsuccessful completion (sections 7.5.1.1.4, 7.5.1.3.7).
    pub fn record_abort(&mut self, abort: Abort, side: Side) {
        let bit = match abort {
            Abort::Unsupported => status::RECEIVED_MASTER_ABORT,
            Abort::Completer => status::RECEIVED_TARGET_ABORT,
        };
        self.set_status(side, bit);
    }

    /// A bridge's part in forwarding an error message that came from below: true when it passes
    /// on (section 6.2.6: SERR# Enable of Bridge Control lets it through, and for uncorrectable
    /// errors also SERR# Enable of Command or the reporting enable of Device Control).
    pub fn forward_error(&mut self, message: ErrorMessage) -> bool {
        let control = self.registers().u16(type1::BRIDGE_CONTROL);
        if self.port_kind().is_none() || control & bridge_control::SERR == 0 {
            return false;
        }
        let enable = match message {
            ErrorMessage::Correctable => return true,
            ErrorMessage::NonFatal => device_control::NON_FATAL_REPORTING,
            ErrorMessage::Fatal => device_control::FATAL_REPORTING,
        };
        self.set_status(Side::Secondary, status::SYSTEM_ERROR);
        if self.system_error_enabled() {
            self.set_status(Side::Primary, status::SYSTEM_ERROR);
            return true;
        }
        self.device_control() & enable != 0
    }

    fn is_fatal(&self, error: UncorrectableError) -> bool {
        let severity = match self.layout().aer {
            Some(offset) => self.registers().u32(offset + aer::UNCORRECTABLE_SEVERITY),
            None => uncorrectable::FATAL_BY_DEFAULT,
        };
        severity & error.bit() != 0
    }

    /// The advisory branch of the flow: ERR_COR at most, and the details only when advisory
    /// errors are not masked (section 6.2.3.2.4).
    fn report_advisory(
        &mut self,
        error: UncorrectableError,
        header: [u32; 4],
    ) -> Option<ErrorMessage> {
        if let Some(offset) = self.layout().aer {
            let at = offset + aer::CORRECTABLE_STATUS;
            let logged = self.registers().u32(at) | correctable::ADVISORY_NON_FATAL;
            self.registers_mut().put_u32(at, logged);
            let masks = self.registers().u32(offset + aer::CORRECTABLE_MASK);
            if masks & correctable::ADVISORY_NON_FATAL != 0 {
                return None;
            }
            // A masked uncorrectable error is not logged, but ERR_COR is sent all the same.
            self.log_uncorrectable(error, header);
        }
        let enables = self.device_control();
        let allowed = error != UncorrectableError::UnsupportedRequest
            || enables & device_control::UNSUPPORTED_REQUEST_REPORTING != 0;
        (allowed && enables & device_control::CORRECTABLE_REPORTING != 0)
            .then_some(ErrorMessage::Correctable)
    }

    /// Sets the status bit and, unless masked or the log still belongs to an earlier error,
    /// First Error Pointer and Header Log (section 6.2.4.2).
    fn log_uncorrectable(&mut self, error: UncorrectableError, header: [u32; 4]) -> Logged {
        let Some(offset) = self.layout().aer else { return Logged::Unmasked };
        let registers = self.registers_mut();
        let before = registers.u32(offset + aer::UNCORRECTABLE_STATUS);
        registers.put_u32(offset + aer::UNCORRECTABLE_STATUS, before | error.bit());
        if registers.u32(offset + aer::UNCORRECTABLE_MASK) & error.bit() != 0 {
            return Logged::Masked;
        }
        let control = registers.u32(offset + aer::CONTROL);
        let log_in_use = before >> (control & aer::FIRST_ERROR_MASK) & 1 != 0;
        if !log_in_use {
            let control = control & !aer::FIRST_ERROR_MASK | error.number();
            registers.put_u32(offset + aer::CONTROL, control);
            for (at, dword) in (offset + aer::HEADER_LOG..).step_by(4).zip(header) {
                registers.put_u32(at, dword);
            }
        }
        Logged::Unmasked
    }

    fn set_status(&mut self, side: Side, bit: u16) {
        let register = match side {
            Side::Primary => header::STATUS,
            Side::Secondary if self.port_kind().is_some() => type1::SECONDARY_STATUS,
            Side::Secondary => return,
        };
        self.registers_mut().modify_u16(register, bit, bit);
    }
}

#[derive(PartialEq, Eq)]
enum Logged {
    Masked,
    Unmasked,
}
