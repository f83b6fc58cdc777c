//! `peerdma explain`.

mod real;

use std::path::{Path, PathBuf};

use clap::Args;
use peerdma_suite::hello::{self, Address};
use peerdma_suite::report::{ObservedPath, ScenarioReport, Setup, merge};
use peerdma_support::names::nearest_name;
use peerdma_support::say;
use peerdma_topology::assembly::SystemConfig;
use peerdma_topology::linux::{Guest, Version};
use peerdma_topology::{AddedDevice, Explanation, Kind, Plan, Planned, Prediction};
use serde::Serialize;

use super::choose::Devices;
use super::values::{Iommu, Only, TableFormat};
use super::{Exit, Failure, choose, output};

/// Which path.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Predicts what Linux 7.3 decides for DMA by A into the memory of B, from the topology alone. The scenarios named \
topology-... test that a guest's kernel decides the same; --run shows its decision too, and a difference gives exit \
code 1. --machine explains a real machine, from a record of it or from the output of lspci; devices are named by \
address, as gpu0, nic1, nvme2 in the order of addresses, or by the kernel's names (eth0, mlx5_0). p2pdma and drivers \
that share buffers by dma-buf follow these rules. NVIDIA's driver and NCCL have rules of their own, but redirected \
requests are slow, or hang, there as well.

Examples:
  peerdma explain peer0 peer1
  peerdma explain peer0 peer2 --topology two-bridges
  peerdma explain peer0 peer1 --run target/vm-test
  peerdma explain gpu0 nvme1 --machine box.json
  peerdma explain gpu0 nvme1 --machine box.json --append 'pci=disable_acs_redir=3c:08.0;3c:10.0'
  peerdma explain --all --machine lspci.txt --only gpu,nic
  peerdma explain --all --machine box.json --format html >pairs.html
  peerdma explain ioat0 peer0 --topology switch --device ioat,below=switch0
  peerdma explain 03:00.0 04:00.0 --topology switch-acs --append 'pci=disable_acs_redir=02:00.0;02:01.0'")]
pub(super) struct Arguments {
    /// The device that does DMA, the importer: its name or BDF
    #[arg(required_unless_present = "all", requires = "b")]
    a: Option<String>,
    /// The device whose memory it accesses, the exporter
    #[arg(required_unless_present = "all")]
    b: Option<String>,
    /// Every pair of devices instead of one
    #[arg(long, conflicts_with_all = ["a", "b", "run"])]
    all: bool,
    /// A real machine instead of a topology: a record of `peerdma machine capture`, or text of lspci; - reads stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["run", "topology", "device", "iommu"])]
    machine: Option<PathBuf>,
    /// With --all of a machine: only these kinds of devices; `all` is everything that is not a bridge
    #[arg(long, value_name = "KIND[,KIND]...", value_enum, value_delimiter = ',')]
    only: Vec<Only>,
    /// Text, JSON, or with --all of a machine a page or a picture
    #[arg(long, value_enum, conflicts_with = "json")]
    format: Option<TableFormat>,
    /// Also show what the guest's kernel decided in this run: the output folder of `peerdma test`,
    /// or its summary.json. The topology is that of the run
    #[arg(long, value_name = "DIR", conflicts_with_all = ["topology", "device", "iommu", "append"])]
    run: Option<PathBuf>,
    /// Which scenario of the run, when several asked their kernel about this path
    #[arg(long, value_name = "NAME", requires = "run")]
    scenario: Option<String>,
    /// A preset, also as NAME+translated, or a file
    #[arg(long, value_name = "NAME|FILE", default_value = "root-ports")]
    topology: String,
    /// Add a device; may be repeated
    #[arg(long, value_name = "KIND[,KEY=VALUE]...", long_help = choose::device_help())]
    device: Vec<AddedDevice>,
    /// The IOMMU, and how the guest's kernel uses it
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    iommu: Iommu,
    #[command(flatten)]
    kernel: choose::KernelParameters,
    /// Apply the rules of this kernel: 6.1, 6.12 or 7.3; for other releases those of the last one
    /// before [default: the record's, or 7.3]
    #[arg(long, value_name = "RELEASE", conflicts_with = "run")]
    linux: Option<String>,
    /// Print the result as JSON; the same as --format json
    #[arg(long, conflicts_with = "run")]
    json: bool,
}

impl Arguments {
    /// In which form; a page or a picture shows a table, and only of a real machine.
    fn format(&self) -> Result<TableFormat, Failure> {
        let format = self.format.unwrap_or_default();
        let format = if self.json { TableFormat::Json } else { format };
        // Not by clap, which lets a requirement pass that conflicts with what is there.
        let table = self.all && self.machine.is_some();
        if !table && !self.only.is_empty() {
            return Err(Failure::usage("--only is for the table of a machine's devices")
                .hint("say --all and --machine FILE"));
        }
        match format {
            TableFormat::Html | TableFormat::Svg if !self.all || self.machine.is_none() => Err(
                Failure::usage("--format html and svg are for the table of a machine's devices")
                    .hint("say --all and --machine FILE, or --format text or json"),
            ),
            TableFormat::Json if self.run.is_some() => {
                Err(Failure::usage("--format json is not for --run"))
            }
            _ => Ok(format),
        }
    }

    /// The two devices; clap has seen to it that they are there.
    fn pair(&self) -> (&str, &str) {
        (self.a.as_deref().unwrap_or_default(), self.b.as_deref().unwrap_or_default())
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let format = arguments.format()?;
    if let Some(file) = &arguments.machine {
        return real::run(arguments, file, format);
    }
    if let Some(folder) = &arguments.run {
        return after_run(arguments, folder);
    }
    let parameters = arguments.kernel.all()?;
    let iommu = arguments.iommu.into();
    // What is explained is a machine that can exist.
    let Devices { config, mut plan } = Devices::new(&arguments.topology, &arguments.device, iommu)?;
    let (version, warning) = version(arguments.linux.as_deref())?;
    plan.linux = version;
    if let Some(warning) = warning {
        say!("warning: {warning}");
    }
    let guest = Guest { iommu, cpu: config.topology.cpu, parameters };
    choose::tell_remarks(&plan, &guest);
    if arguments.all {
        return every_pair(format, &plan, &guest);
    }
    let (a, b) = arguments.pair();
    let explanation = Explanation::new(&plan, &guest, a, b);
    let explanation = explanation.map_err(Failure::usage)?;
    if format == TableFormat::Json {
        output::print(&json(explanation.report())?)?;
    } else {
        output::print(&explanation.to_string())?;
    }
    Ok(Exit::Success as u8)
}

/// The kernel whose rules apply to a release.
fn version(release: Option<&str>) -> Result<(Version, Option<String>), Failure> {
    let Some(release) = release else { return Ok((Version::default(), None)) };
    let (version, exact) = Version::nearest(release).map_err(Failure::usage)?;
    let warning = || {
        format!(
            "the rules of Linux {release} were not read; those of {version}, the nearest before it \
             that was, are taken"
        )
    };
    Ok((version, (!exact).then(warning)))
}

fn json(report: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(report).map_err(Failure::internal)?;
    Ok(text + "\n")
}

/// Every device with every device that has memory.
fn every_pair(format: TableFormat, plan: &Plan, guest: &Guest) -> Result<u8, Failure> {
    let mut reports = Vec::new();
    let mut text = String::new();
    for client in plan.functions.iter().filter(|function| is_device(function)) {
        for provider in plan.functions.iter().filter(|function| function.has_memory) {
            if client.bdf == provider.bdf {
                continue;
            }
            let (client, provider) = (&client.name, &provider.name);
            if format == TableFormat::Json {
                let explanation = Explanation::new(plan, guest, client, provider);
                reports.push(explanation.map_err(Failure::usage)?.report().clone());
            } else {
                let brief = Explanation::brief(plan, guest, client, provider);
                text += &brief.map_err(Failure::usage)?;
            }
        }
    }
    output::print(&if format == TableFormat::Json { json(&reports)? } else { text })?;
    Ok(Exit::Success as u8)
}

fn is_device(function: &Planned) -> bool {
    matches!(function.kind, Kind::Peer(_) | Kind::Endpoint(..))
}

fn after_run(arguments: &Arguments, folder: &Path) -> Result<u8, Failure> {
    let report = merge::read(folder).map_err(Failure::usage)?;
    let (scenario, setup) = choose(&report.scenarios, arguments.scenario.as_deref())?;
    let Setup { topology, guest } = setup;
    let iommu = guest.iommu.kind();
    let config = SystemConfig { topology: topology.clone(), iommu, ..SystemConfig::default() };
    let plan = config.plan_with_addresses().map_err(Failure::usage)?;
    let (a, b) = arguments.pair();
    let explanation = Explanation::new(&plan, guest, a, b)
        .map_err(|error| Failure::usage(format_args!("scenario {}: {error}", scenario.name)))?;
    let prediction = explanation.prediction();
    let found = prediction.path.and_then(|(client, owner)| {
        scenario.decisions.iter().find(|found| (found.client, found.owner) == (client, owner))
    });
    let (verdict, exit) = match found {
        None => ("no test asked about this path".to_owned(), Exit::Success),
        Some(found) if agree(&prediction, found) => {
            (format!("{found}; as predicted"), Exit::Success)
        }
        Some(found) => (format!("{found}; NOT as predicted"), Exit::Failed),
    };
    output::print(&format!(
        "{explanation}\nThe kernel of this run ({}, scenario {}): {verdict}\n",
        report.kernel, scenario.name
    ))?;
    Ok(exit as u8)
}

fn agree(prediction: &Prediction, found: &ObservedPath) -> bool {
    let kind = found.address.map_or(Address::None, |(kind, _)| kind);
    (found.distance, kind) == (prediction.distance, hello::address(prediction.address))
}

/// The scenario that is meant: the named one, or else the only one whose kernel was asked.
fn choose<'a>(
    scenarios: &'a [ScenarioReport],
    name: Option<&str>,
) -> Result<(&'a ScenarioReport, &'a Setup), Failure> {
    let asked: Vec<_> = scenarios
        .iter()
        .filter(|scenario| !scenario.decisions.is_empty())
        .filter_map(|scenario| Some((scenario, scenario.setup.as_deref()?)))
        .collect();
    let names = || asked.iter().map(|(scenario, _)| scenario.name.as_str());
    let list = || names().collect::<Vec<_>>().join(", ");
    if asked.is_empty() {
        return Err(Failure::usage("no test of this run asked its kernel about a path")
            .hint("run one that does, for example `peerdma test --scenario basic`"));
    }
    match (name, asked.as_slice()) {
        (None, [only]) => Ok(*only),
        (None, _) => Err(Failure::usage("several scenarios of this run asked their kernels")
            .hint(format_args!("name one with --scenario: {}", list()))),
        (Some(name), _) => {
            asked.iter().find(|(scenario, _)| scenario.name == name).copied().ok_or_else(|| {
                let near = nearest_name(name, names())
                    .map_or(String::new(), |near| format!(", did you mean {near:?}?"));
                Failure::usage(format_args!(
                    "no scenario {name:?} of this run asked its kernel about a path{near}"
                ))
                .hint(format_args!("these did: {}", list()))
            })
        }
    }
}
