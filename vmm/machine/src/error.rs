//! What can go wrong before a guest runs, and while the host serves it.

use std::io;

use crate::boot::BootError;

/// A machine could not be built or kept running. What the *guest* did wrong is a [`super::Fault`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// `/dev/kvm` cannot be opened.
    #[error(
        "cannot open /dev/kvm ({0}): load the kvm module and see that this user may write to it, or run in the nested test host with --host nested"
    )]
    KvmOpen(#[source] io::Error),
    /// KVM lacks something without which no guest runs.
    #[error(
        "this host's KVM lacks {0}: use a newer host kernel, or run in the nested test host with --host nested"
    )]
    KvmLacks(&'static str),
    /// A KVM request failed.
    #[error("KVM refused {request}: {source}")]
    Kvm {
        /// The request's name in the KVM API.
        request: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The RAM size does not fit the address layout.
    #[error("a guest cannot have {mib} MiB of RAM: choose between {min} and {max}", min = super::memory::MIN_RAM_MIB)]
    RamSize {
        /// Size asked for, in MiB.
        mib: u32,
        /// Largest size, in MiB.
        max: u64,
    },
    /// The host did not give the RAM.
    #[error("the host did not give {mib} MiB of memory for the guest: {source}")]
    RamReserve {
        /// Size asked for, in MiB.
        mib: u32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// More vCPUs than KVM or the APIC IDs allow.
    #[error("a guest cannot have {count} vCPUs: choose between 1 and {max}")]
    VcpuCount {
        /// Number asked for.
        count: u32,
        /// Largest number.
        max: u32,
    },
    /// A thread, an event or a pipe of the host's own.
    #[error("the host could not {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel, its initramfs or its command line.
    #[error(transparent)]
    Boot(#[from] BootError),
}

impl MachineError {
    /// Turns the error of a KVM request into ours.
    pub(crate) fn kvm(request: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { request, source: source.into() }
    }

    /// Turns an error of the host's own into ours.
    pub(crate) fn host<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Host { what, source: source.into() }
    }
}
