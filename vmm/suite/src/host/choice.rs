//! Where guests run: on this machine's KVM if it works, otherwise in the nested test host.

use std::fmt;

use super::qemu::{Qemu, QemuError};

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Whatever works.
    Auto,
    /// KVM, or an error.
    Kvm,
    /// The nested test host, or an error.
    Nested,
}

/// What KVM is good for here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmState {
    /// A payload proved that it runs kernels.
    Works,
    /// It opens, and cannot run kernels; why.
    Broken(String),
    /// It does not open; why.
    Absent(String),
}

/// Where guests will run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostChoice {
    /// In this process, on this machine's KVM.
    Kvm {
        /// Why there, for reports.
        reason: String,
    },
    /// In the nested test host.
    Nested {
        /// The emulator.
        qemu: Qemu,
        /// Why there, for reports and for the user.
        reason: String,
    },
}

impl HostChoice {
    /// A word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kvm { .. } => "kvm",
            Self::Nested { .. } => "nested",
        }
    }

    /// Why there.
    pub fn reason(&self) -> &str {
        match self {
            Self::Kvm { reason } | Self::Nested { reason, .. } => reason,
        }
    }
}

impl fmt::Display for HostChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kvm { reason } => write!(f, "guests run on this machine's KVM: {reason}"),
            Self::Nested { qemu, reason } => {
                write!(
                    f,
                    "guests run in a nested test host (QEMU {}, emulated): {reason}",
                    qemu.version
                )
            }
        }
    }
}

/// Guests cannot run here as asked.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// KVM was asked for.
    #[error("KVM was asked for, and {0}; without --host kvm guests run in the nested test host")]
    NoKvm(String),
    /// The nested test host was asked for.
    #[error(transparent)]
    NoQemu(#[from] QemuError),
    /// Neither works.
    #[error("guests can run nowhere on this machine: {kvm}, and {qemu}")]
    Neither {
        /// About KVM.
        kvm: String,
        /// About QEMU.
        qemu: QemuError,
    },
}

/// Decides, by probing this machine.
///
/// # Errors
/// When guests cannot run as asked.
pub fn choose(request: Request) -> Result<HostChoice, ChoiceError> {
    let kvm = if request == Request::Nested { None } else { Some(super::kvm_state()) };
    decide(request, kvm, Qemu::find)
}

pub(crate) fn decide(
    request: Request,
    kvm: Option<KvmState>,
    qemu: impl FnOnce() -> Result<Qemu, QemuError>,
) -> Result<HostChoice, ChoiceError> {
    let why_not = match (request, kvm) {
        (Request::Nested, _) | (_, None) => {
            return Ok(HostChoice::Nested {
                qemu: qemu()?,
                reason: "--host nested asks for it".into(),
            });
        }
        (_, Some(KvmState::Works)) => {
            let reason = "a payload proved that it runs kernels";
            return Ok(HostChoice::Kvm { reason: reason.into() });
        }
        (_, Some(KvmState::Broken(why))) => brief(&why).to_owned(),
        (_, Some(KvmState::Absent(why))) => why,
    };
    if request == Request::Kvm {
        return Err(ChoiceError::NoKvm(why_not));
    }
    match qemu() {
        Ok(qemu) => Ok(HostChoice::Nested { qemu, reason: why_not }),
        Err(qemu) => Err(ChoiceError::Neither { kvm: why_not, qemu }),
    }
}

/// A finding of the probe without its bytes and numbers: `peerdma doctor` has them.
fn brief(why: &str) -> &str {
    why.split_once(" (").map_or(why, |(brief, _)| brief)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::qemu::Version;

    fn qemu() -> Result<Qemu, QemuError> {
        Ok(Qemu { path: "/q".into(), version: Version { major: 7, minor: 2, micro: 0 } })
    }

    #[test]
    fn what_works_is_used_and_a_wish_is_followed() {
        let broken = || Some(KvmState::Broken("it opens and stumbles (suberror 1)".into()));
        let name = |result: Result<HostChoice, ChoiceError>| result.unwrap().name();
        assert_eq!(name(decide(Request::Auto, Some(KvmState::Works), qemu)), "kvm");
        let nested = decide(Request::Auto, broken(), qemu).unwrap();
        assert_eq!((nested.name(), nested.reason()), ("nested", "it opens and stumbles"));
        assert_eq!(name(decide(Request::Nested, None, qemu)), "nested");
        let error = decide(Request::Kvm, broken(), qemu).unwrap_err().to_string();
        assert!(error.contains("it opens and stumbles"), "{error}");
        let error =
            decide(Request::Auto, broken(), || Err(QemuError::Missing)).unwrap_err().to_string();
        assert!(error.contains("nowhere") && error.contains("make setup"), "{error}");
        assert!(matches!(
            decide(Request::Nested, None, || Err(QemuError::Missing)),
            Err(ChoiceError::NoQemu(_))
        ));
    }

    #[test]
    fn the_line_for_the_user_has_place_and_reason() {
        let place =
            decide(Request::Auto, Some(KvmState::Absent("no /dev/kvm".into())), qemu).unwrap();
        assert_eq!(
            place.to_string(),
            "guests run in a nested test host (QEMU 7.2.0, emulated): no /dev/kvm"
        );
    }
}
