//! `peerdma topology`.

use clap::Args;

use super::{Exit, Failure, choose, output};
use crate::assembly::IommuMode;
use crate::say::say;
use crate::topology::linux::Guest;
use crate::topology::{AddedDevice, Drawing, Format, Topology};

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
    format: Format,
    /// The IOMMU, and how the guest's kernel uses it
    #[arg(long, value_name = "MODE", value_enum, default_value_t = IommuMode::Strict)]
    iommu: IommuMode,
    #[command(flatten)]
    kernel: choose::KernelParameters,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    if arguments.list {
        return list();
    }
    let parameters = arguments.kernel.all()?;
    let topology = choose::topology(&arguments.name, &arguments.device)?;
    let guest = Guest { iommu: arguments.iommu, cpu: topology.cpu, parameters };
    let drawing = Drawing::new(&topology, &guest)
        .map_err(|error| choose::unbuildable(&arguments.name, &arguments.device, error))?;
    choose::tell_remarks(&topology, &guest);
    output::print(&drawing.to_text(arguments.format))?;
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
