//! Options that `test` and `boot` share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Failure;
use crate::host::choice::{self, Place, Request};
use crate::suite::prepare::{KernelChoice, PrepareError};

/// Where a guest runs, as the user says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Host {
    /// On KVM if it works here, otherwise nested
    #[default]
    Auto,
    /// On this machine's KVM
    Kvm,
    /// In a test host that QEMU emulates
    Nested,
}

/// Which guest.
#[derive(Debug, Clone, Args)]
pub(super) struct GuestOptions {
    /// Guest kernel: `lab`, `debug`, or the path of a vmlinux, a bzImage or a built tree
    #[arg(long, value_name = "KERNEL", default_value = "lab")]
    pub(super) kernel: String,
    /// Where the guest runs
    #[arg(long, value_name = "WHERE", value_enum, default_value_t)]
    pub(super) host: Host,
    /// Kernel module to load at boot, after the lab's own driver; may be repeated
    #[arg(long, value_name = "FILE.ko")]
    pub(super) module: Vec<PathBuf>,
}

impl GuestOptions {
    pub(super) fn kernel_choice(&self) -> KernelChoice {
        KernelChoice::parse(&self.kernel)
    }

    /// Decides where guests run, and says so if it is not where one would expect.
    pub(super) fn place(&self) -> Result<Place, Failure> {
        let request = match self.host {
            Host::Auto => Request::Auto,
            Host::Kvm => Request::Kvm,
            Host::Nested => Request::Nested,
        };
        choice::choose(request)
            .map_err(|error| Failure::environment(error).hint("`peerdma doctor` shows it all"))
    }
}

/// How a failed preparation ends the program.
pub(super) fn prepare_failure(error: PrepareError) -> Failure {
    match error {
        PrepareError::Image(_) | PrepareError::NoFile { .. } => Failure::usage(error),
        other => Failure::environment(other),
    }
}
