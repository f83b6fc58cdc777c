//! Error reporting from the function that detects to the interrupt of the root port (section 6.2).

use super::*;

const UR: u32 = 1 << 20;
const HEADER: [u32; 4] = [0x4000_0001, 0x0100_000f, 0xdead_b000, 0];
const FROM: Bdf = Bdf::new(1, 0, 0);

struct Port {
    config: ConfigSpace,
    aer: u16,
    device: u16,
}

/// A root port as Linux sets it up: reporting on, advisory errors not masked, MSI on.
fn port() -> Port {
    let mut config = ConfigSpace::bridge(&root_port()).unwrap();
    let (aer, device, msi) = (find_extended(&config, 1), find(&config, 0x10) + 8, find(&config, 5));
    config.write(device, 2, 0x291f);
    config.write(aer + 0x14, 4, 0);
    config.write(aer + 0x2c, 4, 7);
    config.write(msi + 4, 4, 0xfee0_0000);
    config.write(msi + 12, 2, 0x31);
    config.write(msi + 2, 2, 1);
    config.write(0x3e, 2, 2);
    Port { config, aer, device }
}

impl Port {
    fn aer(&self, register: u16) -> u32 {
        self.config.read(self.aer + register, 4)
    }

    fn status(&self) -> u32 {
        self.config.read(self.device + 2, 2)
    }

    fn unsupported(&mut self, request: RequestKind) -> Option<ErrorMessage> {
        self.config.record_uncorrectable(UncorrectableError::UnsupportedRequest, request, HEADER)
    }
}

/// Section 6.2.5: a posted request that no function takes.
#[test]
fn a_lost_write_is_non_fatal() {
    let mut port = port();
    assert_eq!(port.unsupported(RequestKind::Posted), Some(ErrorMessage::NonFatal));
    assert_eq!(port.status(), 0b1010, "non-fatal and unsupported request detected");
    assert_eq!(port.aer(0x04), UR);
    assert_eq!(port.aer(0x18) & 0x1f, 20);
    assert_eq!([0x1c, 0x20, 0x24, 0x28].map(|at| port.aer(at)), HEADER);
    // The log keeps the first error until software clears its bit (section 6.2.4.2).
    let other = [1, 2, 3, 4];
    let again = UncorrectableError::MalformedTlp;
    let message = port.config.record_uncorrectable(again, RequestKind::Posted, other);
    assert_eq!(message, Some(ErrorMessage::Fatal));
    assert_eq!(
        (port.aer(0x04), port.aer(0x18) & 0x1f, port.aer(0x1c)),
        (UR | 1 << 18, 20, HEADER[0])
    );
    port.config.write(port.aer + 4, 4, u32::MAX);
    assert_eq!(port.aer(0x04), 0);
    port.config.record_uncorrectable(again, RequestKind::Posted, other);
    assert_eq!((port.aer(0x18) & 0x1f, port.aer(0x1c)), (18, 1));
}

/// Section 6.2.3.2.4.1: the completer of a read that no function takes only advises.
#[test]
fn a_failed_read_is_advisory() {
    let mut port = port();
    assert_eq!(port.unsupported(RequestKind::NonPosted), Some(ErrorMessage::Correctable));
    assert_eq!(port.status(), 0b1001);
    assert_eq!((port.aer(0x04), port.aer(0x10)), (UR, 1 << 13));
    // Made fatal, it is advisory no more.
    port.config.write(port.aer + 0x0c, 4, UR);
    assert_eq!(port.unsupported(RequestKind::NonPosted), Some(ErrorMessage::Fatal));
    // Masked, as after reset, it is not logged and not sent.
    let mut port = self::port();
    port.config.write(port.aer + 0x14, 4, 1 << 13);
    assert_eq!(port.unsupported(RequestKind::NonPosted), None);
    assert_eq!((port.aer(0x04), port.aer(0x10)), (0, 1 << 13));
}

/// Sections 7.5.3.4 and 7.8.4.3: the switches on the way of a message.
#[test]
fn reporting_needs_its_enables() {
    let mut port = port();
    port.config.write(port.aer + 8, 4, UR);
    assert_eq!(port.unsupported(RequestKind::Posted), None, "masked");
    assert_eq!((port.aer(0x04), port.aer(0x1c)), (UR, 0), "masked: status, but no log");
    port.config.write(port.aer + 8, 4, 0);
    port.config.write(port.device, 2, 0x2917);
    assert_eq!(port.unsupported(RequestKind::Posted), None, "no Unsupported Request Reporting");
    port.config.write(port.device, 2, 0x2918);
    assert_eq!(port.unsupported(RequestKind::Posted), None, "no Non-Fatal Reporting");
    port.config.write(4, 2, 0x100);
    assert_eq!(port.unsupported(RequestKind::Posted), Some(ErrorMessage::NonFatal), "SERR#");
    assert_eq!(port.config.read(6, 2) & 0x4000, 0x4000, "Signaled System Error");
    port.config.write(6, 2, 0x4000);
    assert_eq!(port.config.read(6, 2) & 0x4000, 0);
}

/// A function without AER still has Device Status and sends messages.
#[test]
fn errors_without_aer() {
    let plain = FunctionDescription { aer: false, ..endpoint() };
    let mut config = ConfigSpace::endpoint(&plain).unwrap();
    let device = find(&config, 0x10) + 8;
    config.write(device, 2, 0xf);
    let error = UncorrectableError::CompleterAbort;
    let message = config.record_uncorrectable(error, RequestKind::NonPosted, HEADER);
    assert_eq!(message, Some(ErrorMessage::Correctable));
    assert_eq!(config.read(6, 2) & 0x0800, 0x0800, "Signaled Target Abort");
    let error = UncorrectableError::MalformedTlp;
    let message = config.record_uncorrectable(error, RequestKind::Posted, HEADER);
    assert_eq!(message, Some(ErrorMessage::Fatal));
    assert_eq!(config.read(device + 2, 2), 0b101);
}

/// Section 7.5.1.3.13: a bridge passes messages on when its Bridge Control says so.
#[test]
fn bridges_forward_when_allowed() {
    let mut port = port();
    for message in [ErrorMessage::Correctable, ErrorMessage::NonFatal, ErrorMessage::Fatal] {
        assert!(port.config.forward_error(message));
    }
    assert_eq!(port.config.read(0x1e, 2), 0x4000, "Received System Error");
    port.config.write(port.device, 2, 0);
    assert!(port.config.forward_error(ErrorMessage::Correctable));
    assert!(!port.config.forward_error(ErrorMessage::Fatal));
    port.config.write(4, 2, 0x100);
    assert!(port.config.forward_error(ErrorMessage::Fatal));
    port.config.write(0x3e, 2, 0);
    assert!(!port.config.forward_error(ErrorMessage::Correctable));
    let mut endpoint = ConfigSpace::endpoint(&endpoint()).unwrap();
    assert!(!endpoint.forward_error(ErrorMessage::Fatal));
    assert_eq!(endpoint.receive_error(ErrorMessage::Fatal, FROM), None);
}

/// Sections 7.8.4.10, 7.8.4.11 and 6.2.4.1.2.
#[test]
fn the_root_port_interrupts_once() {
    let mut port = port();
    let interrupt = Some(MsiMessage { address: 0xfee0_0000, data: 0x31 });
    assert_eq!(port.config.receive_error(ErrorMessage::NonFatal, FROM), interrupt);
    assert_eq!((port.aer(0x30), port.aer(0x34)), (0b10_0100, 0x0100_0000));
    let second = Bdf::new(2, 0, 0);
    assert_eq!(port.config.receive_error(ErrorMessage::Fatal, second), None, "still asserted");
    assert_eq!((port.aer(0x30), port.aer(0x34)), (0b110_1100, 0x0100_0000));
    assert_eq!(port.config.receive_error(ErrorMessage::Correctable, second), None);
    assert_eq!((port.aer(0x30), port.aer(0x34)), (0b110_1101, 0x0100_0200));
    // Cleared but for the correctable error, it is still asserted; cleared wholly, it can rise.
    port.config.write(port.aer + 0x30, 4, 0b110_1100);
    assert_eq!(port.config.receive_error(ErrorMessage::Correctable, FROM), None);
    assert_eq!(port.aer(0x30), 0b11);
    port.config.write(port.aer + 0x30, 4, 0b11);
    let first_fatal = port.config.receive_error(ErrorMessage::Fatal, second);
    assert_eq!(first_fatal, interrupt);
    assert_eq!((port.aer(0x30), port.aer(0x34)), (0b101_0100, 0x0200_0200));
}

/// An enable that comes after the error raises the interrupt then, and so does an unmasking.
#[test]
fn late_enables_raise_the_interrupt() {
    let mut port = port();
    let msi = find(&port.config, 5);
    port.config.write(port.aer + 0x2c, 4, 0);
    assert_eq!(port.config.receive_error(ErrorMessage::Correctable, FROM), None);
    port.config.write(msi + 0x10, 4, 1);
    let effects = port.config.write(port.aer + 0x2c, 4, 1);
    assert_eq!(effects, ConfigEffects::AER, "masked");
    assert_eq!(port.config.read(msi + 0x14, 4), 1, "pending");
    let effects = port.config.write(msi + 0x10, 4, 0);
    assert!(effects.contains(ConfigEffects::INTERRUPT));
    assert_eq!(port.config.read(msi + 0x14, 4), 0);
    assert!(port.config.take_interrupt().is_some());
    assert_eq!(port.config.take_interrupt(), None);
    let effects = port.config.write(0x3c, 1, 9);
    assert_eq!(effects, ConfigEffects::empty(), "an unrelated write raises nothing");
}

/// Sections 6.6.1 and 7.8.4: the logs survive a hot reset, the switches do not all.
#[test]
fn logs_are_sticky() {
    let mut port = port();
    port.unsupported(RequestKind::Posted);
    port.config.receive_error(ErrorMessage::NonFatal, FROM);
    port.config.reset(ResetKind::Hot);
    assert_eq!((port.aer(0x04), port.aer(0x1c)), (UR, HEADER[0]));
    assert_eq!((port.aer(0x30), port.aer(0x34)), (0b10_0100, 0x0100_0000));
    assert_eq!((port.aer(0x2c), port.status()), (0, 0));
    port.config.reset(ResetKind::Cold);
    assert_eq!((port.aer(0x04), port.aer(0x0c), port.aer(0x14)), (0, 0x0046_2030, 1 << 13));
}

#[test]
fn unsuccessful_completions_show_in_status() {
    let mut port = port();
    port.config.record_abort(Abort::Unsupported, Side::Secondary);
    port.config.record_abort(Abort::Completer, Side::Primary);
    assert_eq!(port.config.read(0x1e, 2), 0x2000);
    assert_eq!(port.config.read(6, 2) & 0xf900, 0x1000);
    let mut endpoint = ConfigSpace::endpoint(&endpoint()).unwrap();
    endpoint.record_abort(Abort::Unsupported, Side::Secondary);
    assert_eq!(endpoint.read(0x1e, 2), 0, "an endpoint has one side");
}
