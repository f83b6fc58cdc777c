//! `peerdma explain`.

use clap::Args;

use super::{Exit, Failure, output};
use crate::assembly::IommuMode;
use crate::topology::linux::Guest;
use crate::topology::{Explanation, Topology};

/// Which path.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Says what Linux 7.3 decides for DMA by A into the memory of B, from the topology alone. That a guest's kernel decides \
the same is what the scenarios named topology-... test.

Examples:
  peerdma explain peer0 peer1
  peerdma explain peer0 peer2 --topology two-bridges
  peerdma explain 03:00.0 04:00.0 --topology switch-acs --kernel-parameter 'pci=disable_acs_redir=02:00.0;02:01.0'")]
pub(super) struct Arguments {
    /// The device that does DMA: its name or its number
    a: String,
    /// The device whose memory it wants
    b: String,
    /// A preset, also as NAME+translated, or a file
    #[arg(long, value_name = "NAME|FILE", default_value = "root-ports")]
    topology: String,
    /// The IOMMU, and how the guest's kernel uses it
    #[arg(long, value_name = "MODE", value_enum, default_value_t = IommuMode::Strict)]
    iommu: IommuMode,
    /// A kernel parameter; may be repeated
    #[arg(long, value_name = "PARAMETER")]
    kernel_parameter: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let topology = Topology::load(&arguments.topology).map_err(Failure::usage)?;
    let guest = Guest {
        iommu: arguments.iommu,
        cpu: topology.cpu,
        parameters: arguments.kernel_parameter.clone(),
    };
    let explanation = Explanation::new(&topology, &guest, &arguments.a, &arguments.b);
    output::print(&explanation.map_err(Failure::usage)?.to_string())?;
    Ok(Exit::Success as u8)
}
