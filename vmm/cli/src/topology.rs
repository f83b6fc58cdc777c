//! `peerdma topology`.

use clap::Args;
use peerdma_support::say;
use peerdma_topology::linux::Guest;
use peerdma_topology::{AddedDevice, Drawing, Plan, Topology};

use super::values::{DrawingFormat, Iommu};
use super::{Exit, Failure, choose, output};

/// What to draw.
#[derive(Debug, Args)]
#[command(after_long_help = "\
ACS controls are marked + where Linux switches them on, which depends on the IOMMU and on kernel parameters.

Examples:
  peerdma topology --list
  peerdma topology switch-acs
  peerdma topology switch+translated --format svg >switch.svg
  peerdma topology switch --device ioat --device peer,below=host-bridge
  peerdma topology two-bridges --format toml >mine.toml    to begin a topology of your own
  peerdma test --topology mine.toml --scenario topology    and to have all predictions about it tried out in a guest
  peerdma topology random-7                                drawn at random; the same number gives the same one")]
pub(super) struct Arguments {
    /// A preset, also as NAME+translated, or a file
    #[arg(value_name = "NAME|FILE", default_value = "root-ports")]
    name: String,
    /// Add a device; may be repeated
    #[arg(long, value_name = "KIND[,KEY=VALUE]...", long_help = choose::device_help())]
    device: Vec<AddedDevice>,
    /// List the presets and exit
    #[arg(long, conflicts_with_all = ["name", "device", "format", "iommu", "append"])]
    list: bool,
    /// In which form
    #[arg(long, value_enum, default_value_t)]
    format: DrawingFormat,
    /// The IOMMU, and how the guest's kernel uses it
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    iommu: Iommu,
    #[command(flatten)]
    kernel: choose::KernelParameters,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    if arguments.list {
        return list();
    }
    let parameters = arguments.kernel.all()?;
    let topology = choose::topology(&arguments.name, &arguments.device)?;
    let guest = Guest { iommu: arguments.iommu.into(), cpu: topology.cpu, parameters };
    let unbuildable = |error| choose::unbuildable(&arguments.name, &arguments.device, error);
    let plan = Plan::new(&topology, guest.iommu.has_iommu());
    let plan = plan.map_err(|problem| unbuildable(problem.into()))?;
    let drawing = Drawing::new(&topology, &plan, &guest).map_err(unbuildable)?;
    choose::tell_remarks(&plan, &guest);
    output::print(&drawing.to_text(arguments.format.into()))?;
    Ok(Exit::Success as u8)
}

fn list() -> Result<u8, Failure> {
    let mut text = String::new();
    for name in Topology::presets() {
        let topology = Topology::load(name).map_err(Failure::internal)?;
        text += &format!("{name:14} {}\n", topology.description);
    }
    output::print(&text)?;
    say!("each also as NAME+translated: host bridges that translate addresses");
    Ok(Exit::Success as u8)
}
