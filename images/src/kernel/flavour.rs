//! The kernels that the lab knows by name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kernel that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// Our configuration. Quick; guest and nested test host.
    Lab,
    /// Our configuration with the kernel's checks of itself (lockdep, KASAN, kmemleak, hung tasks); guests only.
    Debug,
    /// The distribution's own binary of the same version, unmodified; only our module is built for it.
    Stock,
    /// Our configuration on the long-term series.
    Lts,
    /// Our configuration with debug information, and the kernel's own commands for gdb; guests only.
    Gdb,
}

impl Flavour {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Lab, Self::Debug, Self::Stock, Self::Lts, Self::Gdb];

    /// Its name on command lines and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::Debug => "debug",
            Self::Stock => "stock",
            Self::Lts => "lts",
            Self::Gdb => "gdb",
        }
    }

    /// How much slower than the lab kernel its guests are, at most: the factor for time limits.
    pub fn time_factor(self) -> u64 {
        match self {
            Self::Lab | Self::Gdb => 1,
            Self::Lts | Self::Stock => 2,
            Self::Debug => 5,
        }
    }

    /// The lock under which its source is unpacked. What shares a source shares a lock.
    pub(super) fn source_lock(self) -> &'static str {
        match self {
            Self::Lab | Self::Debug | Self::Stock | Self::Gdb => "source",
            Self::Lts => "source-lts",
        }
    }

    /// The lock under which it is built.
    pub(super) fn lock(self) -> &'static str {
        match self {
            Self::Lab => "kernel",
            Self::Debug => "kernel-debug",
            Self::Stock => "kernel-stock",
            Self::Lts => "kernel-lts",
            Self::Gdb => "kernel-gdb",
        }
    }

    /// The variable by which users name a source tree of their own for it.
    pub(super) fn tree_variable(self) -> Option<&'static str> {
        match self {
            Self::Lab | Self::Debug | Self::Gdb => Some("PEERDMA_KERNEL_TREE"),
            Self::Stock => None,
            Self::Lts => Some("PEERDMA_KERNEL_TREE_LTS"),
        }
    }

    /// Lines that its build prints, about.
    pub(super) fn usual_steps(self) -> u64 {
        match self {
            Self::Lab | Self::Lts => 2600,
            Self::Debug | Self::Gdb => 2500,
            Self::Stock => 200,
        }
    }

    /// Bytes that its build needs at the worst moment.
    pub(super) fn space(self) -> u64 {
        match self {
            Self::Lab | Self::Lts => 400 << 20,
            Self::Debug | Self::Gdb => 1600 << 20,
            Self::Stock => 300 << 20,
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
