//! `peerdma topology`.

use std::path::{Path, PathBuf};

use clap::Args;
use peerdma_support::say;
use peerdma_topology::linux::Guest;
use peerdma_topology::machine::RealMachine;
use peerdma_topology::{AddedDevice, Drawing, Plan, Topology};

use super::values::{DrawingFormat, Iommu};
use super::{Exit, Failure, choose, machine, output};

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
  peerdma topology --from box.json --pair gpu0,nvme0 >twin.toml
                                                           two devices of a real machine, to boot
  peerdma topology random-7                                drawn at random; the same seed gives the same one")]
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
    /// A topology like a real machine: its record, or text of lspci; --pair says which devices
    #[arg(long, value_name = "FILE", requires = "pair", conflicts_with_all = ["name", "device", "list", "format", "iommu", "append"])]
    from: Option<PathBuf>,
    /// With --from: the two devices that become peer0 and peer1
    #[arg(long, value_name = "A,B", value_delimiter = ',', num_args = 1, requires = "from")]
    pair: Vec<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: DrawingFormat,
    /// The IOMMU, and how the guest's kernel uses it
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    iommu: Iommu,
    #[command(flatten)]
    kernel: choose::KernelParameters,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    if let Some(file) = &arguments.from {
        return twin(file, &arguments.pair);
    }
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

/// Two devices of a real machine, and what is above them, as a topology file.
fn twin(file: &Path, pair: &[String]) -> Result<u8, Failure> {
    let [a, b] = pair else {
        return Err(Failure::usage("--pair names two devices: --pair gpu0,nvme0"));
    };
    let machine = machine::load(file)?;
    let real = RealMachine::new(&machine);
    let find = |name: &str| real.find(name).map_err(Failure::usage);
    let (a, b) = (find(a)?, find(b)?);
    if a == b || [a, b].iter().any(|end| !real.endpoints().contains(end)) {
        return Err(Failure::usage("--pair names two different devices, not bridges"));
    }
    output::print(&real.twin(a, b).map_err(Failure::usage)?)?;
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
