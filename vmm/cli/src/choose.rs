//! Options that `test` and `boot` share.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use peerdma_images::kernel::Flavour;
use peerdma_images::progress::Silent;
use peerdma_suite::auto;
use peerdma_suite::expectation::Expectation;
use peerdma_suite::host::choice::{self, HostChoice, Request};
use peerdma_suite::own::{KernelModule, Own, OwnFile};
use peerdma_suite::parameters::words;
use peerdma_suite::prepare::{KernelChoice, PrepareError};
use peerdma_suite::scenario::{Scenario, Witness};
use peerdma_support::say;
use peerdma_topology::assembly::{AssemblyError, IommuMode, SystemConfig};
use peerdma_topology::linux::{Guest, remarks};
use peerdma_topology::{AddedDevice, Plan, Topology, device_kinds};

use super::Failure;
use super::reporting::FindingOptions;
use super::values::{BounceBuffers, Iommu, WitnessChoice};

/// The kernel where none is named.
const AUTO: &str = "auto";

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
    /// Guest kernel: `lab`, `debug`, `stock` (the distribution's), `lts`, or the path of a vmlinux, a bzImage or a built
    /// tree; `auto`: `lab` if it has been built, otherwise `stock`
    #[arg(long, value_name = "KERNEL", default_value = AUTO)]
    pub(super) kernel: String,
    /// Where the guest runs
    #[arg(long, value_name = "WHERE", value_enum, default_value_t)]
    pub(super) host: Host,
    /// Kernel module to load at boot in place of the lab's own driver, built or as a folder of sources; may be repeated
    #[arg(long, value_name = "FILE.ko|FOLDER")]
    pub(super) module: Vec<PathBuf>,
    /// Load a module of the guest kernel, with its dependencies, before all others; may be
    /// repeated. Parameters of a built-in module go on the kernel command line
    #[arg(long, value_name = "NAME [PARAMETER=VALUE]...")]
    pub(super) modprobe: Vec<KernelModule>,
    /// Load the lab's own driver too, before the modules
    #[arg(long, requires = "module")]
    pub(super) with_driver: bool,
    /// Put a file into the guest: a program (with its libraries) into /bin, anything else into /; may be repeated
    #[arg(long, value_name = "HOST[:/GUEST]")]
    pub(super) file: Vec<OwnFile>,
    /// Require findings of this class, about this function (a name in the topology, or
    /// BUS:DEVICE.FUNCTION) or any; may be repeated
    #[arg(long, value_name = "CLASS[:FUNCTION] [MIN [MAX]]")]
    pub(super) expect: Vec<Expectation>,
    /// Allow findings of this class; may be repeated
    #[arg(long, value_name = "CLASS[:FUNCTION]")]
    pub(super) allow: Vec<Expectation>,
    /// Stall devices and vCPUs at random moments, as on a busy host, to find bugs that depend on
    /// timing: one moment in 32 is a stall of up to 16 ms, one in 1024 of 50 to 300 ms. The same
    /// seed gives the same moments [default without SEED: a new one each time]
    #[arg(long, value_name = "SEED", num_args = 0..=1, require_equals = true)]
    jitter: Option<Option<u64>>,
    /// List every finding. By default those of one function and class with the same cause (mapping,
    /// target, descriptor) are listed as one, with their count, addresses and bytes
    #[arg(long)]
    pub(super) all_findings: bool,
    /// The witness, a module that tells what the guest's kernel maps for DMA [default: the scenario's, which is on]
    #[arg(long, value_name = "MODE", value_enum)]
    witness: Option<WitnessChoice>,
    /// Do not load the witness: `--witness off`
    #[arg(long, conflicts_with = "witness")]
    no_witness: bool,
    /// Bind the driver of this function anew behind the witness, which then knows all its mappings: for drivers that are
    /// built into the kernel; may be repeated
    #[arg(long, value_name = "FUNCTION")]
    pub(super) rebind: Vec<String>,
    #[command(flatten)]
    pub(super) reporting: FindingOptions,
    #[command(flatten)]
    pub(super) machine: MachineOptions,
}

/// The jitter of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jitter {
    /// Its seed; none without jitter.
    pub(super) seed: Option<u64>,
    /// By how much limits are stretched for it.
    pub(super) factor: u64,
}

impl GuestOptions {
    /// Whether this scenario's guest loads the witness.
    pub(super) fn witness(&self, scenario: &Scenario) -> Witness {
        match self.witness {
            _ if self.no_witness => Witness::Off,
            Some(choice) => choice.into(),
            None => scenario.witness,
        }
    }

    /// The jitter that was asked for; with a random seed, which is printed, if none was given.
    pub(super) fn jitter(&self) -> Jitter {
        let Some(wish) = self.jitter else { return Jitter { seed: None, factor: 1 } };
        let seed = wish.unwrap_or_else(|| {
            let seed = another_seed();
            say!("jitter: the same stalls again with --jitter={seed}");
            seed
        });
        Jitter { seed: Some(seed), factor: 2 }
    }

    /// Whether there is jitter, and the seed is left to this program.
    pub(super) fn jitter_without_seed(&self) -> bool {
        self.jitter == Some(None)
    }
}

/// Any number that is easy to repeat.
fn another_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) % 1_000_000
}

/// Which devices the guest has, and what stands between them.
#[derive(Debug, Clone, Args)]
pub(super) struct MachineOptions {
    /// Devices: a preset (`peerdma topology --list`), also as NAME+translated, or a file [default: the scenario's]
    #[arg(long, value_name = "NAME|FILE")]
    pub(super) topology: Option<String>,
    /// Add a device to the topology; may be repeated
    #[arg(long, value_name = "KIND[,KEY=VALUE]...", long_help = device_help())]
    pub(super) device: Vec<AddedDevice>,
    /// The IOMMU, and how the guest's kernel uses it [default: the scenario's]
    #[arg(long, value_name = "MODE", value_enum)]
    pub(super) iommu: Option<Iommu>,
    /// Bounce buffers, where no IOMMU translates [default: the scenario's]
    #[arg(long, value_name = "MODE", value_enum)]
    pub(super) swiotlb: Option<BounceBuffers>,
    #[command(flatten)]
    pub(super) kernel: KernelParameters,
}

/// More parameters for the guest's kernel.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct KernelParameters {
    /// A kernel parameter, or several with spaces between them; may be repeated
    #[arg(long, value_name = "PARAMETER", alias = "kernel-parameter")]
    append: Vec<String>,
}

impl KernelParameters {
    /// All of them, one each, whatever they are.
    pub(super) fn words(&self) -> Vec<String> {
        self.append.iter().flat_map(|text| words(text)).collect()
    }

    /// All of them, one each.
    ///
    /// # Errors
    /// When one is among them that `--iommu` stands for: a prediction would not see it.
    pub(super) fn all(&self) -> Result<Vec<String>, Failure> {
        let all = self.words();
        let is_mode = |text: &&String| {
            let name = text.split('=').next().unwrap_or_default();
            ["iommu", "iommu.strict", "iommu.passthrough"].contains(&name)
        };
        match all.iter().find(is_mode) {
            Some(text) => Err(Failure::usage(format_args!(
                "the kernel parameter {text:?} is refused: --iommu sets it"
            ))
            .hint("say --iommu strict, lazy, passthrough or none")),
            None => Ok(all),
        }
    }
}

impl MachineOptions {
    /// What is given here goes before what the scenario says.
    ///
    /// # Errors
    /// When the devices that the scenario itself brings have no place in the topology that is given here, or a kernel
    /// parameter is one that `--iommu` stands for.
    pub(super) fn apply(&self, scenario: &mut Scenario) -> Result<(), Failure> {
        if let Some(name) = &self.topology {
            scenario.topology.clone_from(name);
            let mut topology = topology(name, &[])?;
            for device in &scenario.devices {
                topology.add(device).map_err(|error| {
                    let scenario = &scenario.name;
                    Failure::usage(format_args!(
                        "the scenario {scenario} brings {device}: {error} (topology {name})"
                    ))
                    .hint(
                        "the tests of `--scenario topology` run on any topology with a peer device",
                    )
                })?;
            }
        }
        scenario.devices.extend(self.device.iter().cloned());
        scenario.iommu = self.iommu.map_or(scenario.iommu, Into::into);
        scenario.swiotlb = self.swiotlb.map_or(scenario.swiotlb, Into::into);
        scenario.parameters.extend(self.kernel.all()?);
        Ok(())
    }
}

/// What `--help` says about devices.
pub(super) fn device_help() -> String {
    let kinds: String =
        device_kinds().map(|(name, about)| format!("\n  {name}: {about}")).collect();
    format!(
        "Add a device to the topology; may be repeated. Kinds, and the keys of each:{kinds}\nKeys of \
         every kind: below = a port, a switch or a host bridge, by name or BDF [default: a root port of its own]; device and \
         function = their numbers there; name"
    )
}

/// The topology called `name` with more devices.
pub(super) fn topology(name: &str, devices: &[AddedDevice]) -> Result<Topology, Failure> {
    let mut topology = Topology::load(name).map_err(Failure::usage)?;
    for device in devices {
        topology.add(device).map_err(|error| {
            Failure::usage(format_args!("--device {device}: {error} (topology {name})"))
        })?;
    }
    Ok(topology)
}

/// The devices of a guest, with the plan of their tree.
#[derive(Debug, Clone)]
pub(super) struct Devices {
    pub(super) config: SystemConfig,
    pub(super) plan: Plan,
}

impl Devices {
    /// The topology called `name` with more `devices`. Built once here, so that what does not fit is
    /// said before anything starts.
    pub(super) fn new(
        name: &str,
        devices: &[AddedDevice],
        iommu: IommuMode,
    ) -> Result<Self, Failure> {
        let topology = topology(name, devices)?;
        let config = SystemConfig { topology, iommu: iommu.kind(), ..SystemConfig::default() };
        match config.plan_with_addresses() {
            Ok(plan) => Ok(Self { config, plan }),
            Err(error) => Err(unbuildable(name, devices, error)),
        }
    }

    /// Those of a scenario's guest.
    pub(super) fn of(scenario: &Scenario) -> Result<Self, Failure> {
        Self::new(&scenario.topology, &scenario.devices, scenario.iommu)
    }

    /// The guest as far as its kernel's decisions depend on it; `parameters` are all that it gets.
    pub(super) fn guest(&self, iommu: IommuMode, parameters: &[String]) -> Guest {
        Guest { iommu, cpu: self.config.topology.cpu, parameters: parameters.to_vec() }
    }
}

/// A topology, the one called `name` with more `devices`, that makes sense as far as it goes and cannot be built.
pub(super) fn unbuildable(name: &str, devices: &[AddedDevice], error: AssemblyError) -> Failure {
    let with = if devices.is_empty() { "" } else { "with --device: " };
    match error {
        AssemblyError::Topology(problem) => {
            Failure::usage(format_args!("{with}{}", Topology::problem_in(name, problem)))
        }
        error if error.is_of_the_machine() => Failure::environment(error),
        error => Failure::usage(format_args!("{with}{name}: {error}")),
    }
}

/// Says which kernel parameters a prediction does not look at, or which do not do what one may expect.
pub(super) fn tell_remarks(plan: &Plan, guest: &Guest) {
    for remark in remarks(&guest.parameters, plan) {
        say!("warning: kernel parameter {}", remark.text);
    }
}

/// Likewise of a scenario's guest, which may have parameters that no prediction uses.
pub(super) fn tell_scenario_remarks(scenario: &Scenario, plan: &Plan) {
    for remark in remarks(&scenario.parameters, plan) {
        if !remark.only_left_out {
            say!("warning: {}: kernel parameter {}", scenario.name, remark.text);
        }
    }
}

impl GuestOptions {
    /// What the user brings.
    pub(super) fn own(&self) -> Own {
        let Self { module, modprobe, with_driver, file, .. } = self;
        Own {
            modules: module.clone(),
            kernel_modules: modprobe.clone(),
            with_driver: *with_driver,
            files: file.clone(),
        }
    }

    /// The kernel that is asked for; for `auto` what is best here.
    pub(super) fn kernel_choice(&self) -> Result<KernelChoice, Failure> {
        if self.kernel != AUTO {
            return Ok(KernelChoice::parse(&self.kernel));
        }
        auto::flavour(&Silent).map(KernelChoice::Flavour).map_err(prepare_failure)
    }

    /// Whether the kernel is the default in place of the lab's, which has not been built.
    pub(super) fn is_substitute(&self, kernel: &KernelChoice) -> bool {
        self.kernel == AUTO && *kernel != KernelChoice::Flavour(Flavour::Lab)
    }

    /// What the scenario expects and allows, then what `--expect` and `--allow` say: the later one counts where both are
    /// about the same findings.
    ///
    /// # Errors
    /// When one is about a function that the topology does not have.
    pub(super) fn expectations(
        &self,
        scenario: &Scenario,
        plan: &Plan,
    ) -> Result<Vec<Expectation>, Failure> {
        let expected: Vec<_> = scenario.expect.iter().chain(&self.expect).cloned().collect();
        // To demand a finding allows it.
        let is_demanded = |allowed: &Expectation| {
            expected
                .iter()
                .any(|other| (other.class, &other.function) == (allowed.class, &allowed.function))
        };
        let allowed = scenario.allow.iter().chain(&self.allow).cloned();
        let allowed: Vec<_> = allowed.filter(|allowed| !is_demanded(allowed)).collect();
        let functions = plan.addresses();
        let resolve = |expectation: Expectation| {
            let text = expectation.to_string();
            let resolved = expectation.resolve(&functions);
            resolved.map_err(|error| Failure::usage(format_args!("{text}: {error}")))
        };
        let allowed = allowed.into_iter().map(Expectation::allowed);
        expected.into_iter().chain(allowed).map(resolve).collect()
    }

    /// Decides where guests run, and says so if it is not where one would expect.
    pub(super) fn place(&self) -> Result<HostChoice, Failure> {
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
    if error.is_of_the_user() { Failure::usage(error) } else { Failure::environment(error) }
}
