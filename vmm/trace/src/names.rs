//! Words and numbers of the device models as a trace has them. The numbers are those of the file format: none is ever
//! reused for something else (docs/trace-format.md lists them).

use device_models::fabric::{CompletionStatus, Kind, Purpose, RouteKind, WitnessInput};
use device_models::witness;
use serde::Serializer;

/// Purposes; the number is the index.
pub(crate) const PURPOSES: [Purpose; 5] = [
    Purpose::DescriptorFetch,
    Purpose::Data,
    Purpose::CompletionRecord,
    Purpose::Interrupt,
    Purpose::VirtQueue,
];

/// Routes; the number is the index and one, because 0 stands for none.
pub(crate) const ROUTES: [RouteKind; 4] =
    [RouteKind::Memory, RouteKind::ThroughHostBridge, RouteKind::BusAddress, RouteKind::Interrupt];

/// Completion statuses with their numbers: those of the specification (PCIe 6.0, 2.2.9.1), and one for a completion that
/// never came.
pub(crate) const STATUSES: [(CompletionStatus, u8); 4] = [
    (CompletionStatus::Success, 0),
    (CompletionStatus::UnsupportedRequest, 1),
    (CompletionStatus::CompleterAbort, 4),
    (CompletionStatus::Timeout, 0xff),
];

/// The kinds of requests.
pub(crate) const KINDS: [Kind; 2] = [Kind::MemoryRead, Kind::MemoryWrite];

pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::MemoryRead => "MRd",
        Kind::MemoryWrite => "MWr",
    }
}

pub(crate) fn purpose_code(purpose: Purpose) -> u8 {
    match purpose {
        Purpose::DescriptorFetch => 0,
        Purpose::Data => 1,
        Purpose::CompletionRecord => 2,
        Purpose::Interrupt => 3,
        Purpose::VirtQueue => 4,
    }
}

pub(crate) fn route_code(route: RouteKind) -> u8 {
    match route {
        RouteKind::Memory => 1,
        RouteKind::ThroughHostBridge => 2,
        RouteKind::BusAddress => 3,
        RouteKind::Interrupt => 4,
    }
}

pub(crate) fn status_code(status: CompletionStatus) -> u8 {
    match status {
        CompletionStatus::Success => 0,
        CompletionStatus::UnsupportedRequest => 1,
        CompletionStatus::CompleterAbort => 4,
        CompletionStatus::Timeout => 0xff,
    }
}

pub(crate) fn witness_code(kind: WitnessInput) -> u32 {
    match kind {
        WitnessInput::Attach => 0,
        WitnessInput::Detach => 1,
        WitnessInput::Drain => 2,
        WitnessInput::Record => 3,
    }
}

/// The bytes that come with an input of the witness.
pub(crate) fn witness_bytes(kind: WitnessInput) -> usize {
    match kind {
        WitnessInput::Attach => size_of::<u64>(),
        WitnessInput::Detach | WitnessInput::Drain => 0,
        WitnessInput::Record => size_of::<witness::Bytes>(),
    }
}

pub(crate) fn witness_of(code: u32) -> Option<WitnessInput> {
    WitnessInput::ALL.iter().copied().find(|&kind| witness_code(kind) == code)
}

pub(crate) fn purpose_of(code: u8) -> Option<Purpose> {
    PURPOSES.get(usize::from(code)).copied()
}

pub(crate) fn route_of(code: u8) -> Option<RouteKind> {
    ROUTES.get(usize::from(code).checked_sub(1)?).copied()
}

pub(crate) fn status_of(code: u8) -> Option<CompletionStatus> {
    STATUSES.iter().find(|(_, number)| *number == code).map(|(status, _)| *status)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
pub(crate) fn kind<S: Serializer>(kind: &Kind, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(kind_name(*kind))
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
pub(crate) fn purpose<S: Serializer>(purpose: &Purpose, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(purpose.name())
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
pub(crate) fn route<S: Serializer>(route: &RouteKind, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(route.name())
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
pub(crate) fn status<S: Serializer>(status: &CompletionStatus, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(status.name())
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
pub(crate) fn witness<S: Serializer>(kind: &WitnessInput, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(kind.name())
}

/// Bytes as hexadecimal text.
pub(crate) mod hex {
    use serde::Serializer;

    pub(crate) fn text(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&text(bytes))
    }

    #[allow(clippy::ref_option, reason = "the shape that serde asks for")]
    pub(crate) fn option<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => out.serialize_some(&text(bytes)),
            None => out.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_leads_back_and_no_other_leads_anywhere() {
        for code in 0..=u8::MAX {
            if let Some(purpose) = purpose_of(code) {
                assert_eq!(purpose_code(purpose), code);
            }
            if let Some(route) = route_of(code) {
                assert_eq!(route_code(route), code);
            }
            if let Some(kind) = witness_of(u32::from(code)) {
                assert_eq!(witness_code(kind), u32::from(code));
            }
            if let Some(status) = status_of(code) {
                assert_eq!(status_code(status), code);
            }
        }
        assert!(PURPOSES.iter().all(|&it| purpose_of(purpose_code(it)) == Some(it)));
        assert!(ROUTES.iter().all(|&it| route_of(route_code(it)) == Some(it)));
        assert!(WitnessInput::ALL.iter().all(|&it| witness_of(witness_code(it)) == Some(it)));
        assert!(STATUSES.iter().all(|&(it, _)| status_of(status_code(it)) == Some(it)));
        assert_eq!(
            (purpose_of(5), route_of(0), route_of(5), status_of(2)),
            (None, None, None, None)
        );
    }
}
