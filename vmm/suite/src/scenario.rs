//! Scenarios: what kind of guest, and which tests in it. Each is a TOML file: those in `vmm/suite/scenarios` come with the
//! program, others are a user's own (docs/scenarios.md).

use std::path::{Path, PathBuf};

use peerdma_support::names::nearest_name;
use peerdma_topology::AddedDevice;
use peerdma_topology::assembly::IommuMode;
use serde::{Deserialize, Serialize};

use super::expectation::Expectation;
use super::hello::Module;
use super::own::OwnFile;
use super::suppression::Suppression;

/// The files, as they were when the program was built: it needs no source tree to run them.
const BUILT_IN: &[(&str, &str)] = &[
    ("basic", include_str!("../scenarios/basic.toml")),
    ("matrix", include_str!("../scenarios/matrix.toml")),
    ("seed", include_str!("../scenarios/seed.toml")),
    ("bugs", include_str!("../scenarios/bugs.toml")),
    ("dma-map-benchmark", include_str!("../scenarios/dma-map-benchmark.toml")),
    ("ioat", include_str!("../scenarios/ioat.toml")),
    ("ioat-lazy", include_str!("../scenarios/ioat-lazy.toml")),
    ("ioat-million", include_str!("../scenarios/ioat-million.toml")),
    ("ioat-many-strict", include_str!("../scenarios/ioat-many-strict.toml")),
    ("ioat-many-lazy", include_str!("../scenarios/ioat-many-lazy.toml")),
    ("ioat-none", include_str!("../scenarios/ioat-none.toml")),
    ("kselftest-dmabuf", include_str!("../scenarios/kselftest-dmabuf.toml")),
    ("kselftest-iommufd", include_str!("../scenarios/kselftest-iommufd.toml")),
    ("kselftest-vfio", include_str!("../scenarios/kselftest-vfio.toml")),
    ("kselftest-vfio-ioat", include_str!("../scenarios/kselftest-vfio-ioat.toml")),
    ("kselftest-vfio-ioat-broken", include_str!("../scenarios/kselftest-vfio-ioat-broken.toml")),
    ("kunit-dmabuf", include_str!("../scenarios/kunit-dmabuf.toml")),
    ("lazy", include_str!("../scenarios/lazy.toml")),
    ("partners", include_str!("../scenarios/partners.toml")),
    ("stress", include_str!("../scenarios/stress.toml")),
    ("surprise", include_str!("../scenarios/surprise.toml")),
    ("surprise-switch", include_str!("../scenarios/surprise-switch.toml")),
    ("user", include_str!("../scenarios/user.toml")),
    ("topology", include_str!("../scenarios/topology.toml")),
    ("topology-root-ports", include_str!("../scenarios/topology-root-ports.toml")),
    ("topology-switch", include_str!("../scenarios/topology-switch.toml")),
    ("topology-switch-acs", include_str!("../scenarios/topology-switch-acs.toml")),
    ("topology-switch-acs-off", include_str!("../scenarios/topology-switch-acs-off.toml")),
    (
        "topology-switch-acs-physical",
        include_str!("../scenarios/topology-switch-acs-physical.toml"),
    ),
    ("topology-root-complex", include_str!("../scenarios/topology-root-complex.toml")),
    ("topology-two-bridges", include_str!("../scenarios/topology-two-bridges.toml")),
    ("topology-refused", include_str!("../scenarios/topology-refused.toml")),
    ("iommu-passthrough", include_str!("../scenarios/iommu-passthrough.toml")),
    ("iommu-none", include_str!("../scenarios/iommu-none.toml")),
    ("swiotlb-force", include_str!("../scenarios/swiotlb-force.toml")),
];

/// What the guest's kernel does where there is no IOMMU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Swiotlb {
    /// Devices reach all memory as it is
    #[default]
    Off,
    /// Every mapping of system memory is a bounce buffer (swiotlb=force): a missing sync shows
    Force,
}

impl Swiotlb {
    /// The kernel parameter for it.
    pub fn parameter(self) -> Option<&'static str> {
        match self {
            Self::Off => None,
            Self::Force => Some("swiotlb=force"),
        }
    }
}

/// Whether the guest loads the witness, a module that tells the VMM what the kernel maps for DMA.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Witness {
    /// It does, before everything else
    #[default]
    On,
    /// It does not: for what is to be measured without it
    Off,
    /// It does, and each mapping names the function that asked for it, which takes longer
    Callers,
}

impl Witness {
    /// Whether it is the default.
    fn is_on(&self) -> bool {
        *self == Self::On
    }

    /// The module as the guest loads it; `built` is the one that it has.
    pub fn module(self, built: Option<&Module>) -> Option<Module> {
        let built = built?;
        match self {
            Self::On => Some(built.clone()),
            Self::Off => None,
            Self::Callers => Some(Module { parameters: "callers=1".into(), ..built.clone() }),
        }
    }
}

/// One scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name: letters, digits, `-` and `_`, since folders are named after it. That of its file when it is left out.
    #[serde(default)]
    pub name: String,
    /// What it is good for, in one line.
    #[serde(default)]
    pub description: String,
    /// Whether `peerdma test` runs it when no scenario is named.
    #[serde(default)]
    pub default: bool,
    /// Whether it takes many minutes: `peerdma test --all` leaves it out, `--all --long` does not.
    #[serde(default)]
    pub long: bool,
    /// The IOMMU and how the guest's kernel uses it. A file may have a list: then it stands for one scenario for each,
    /// `NAME-MODE`.
    #[serde(default)]
    pub iommu: IommuMode,
    /// The name of a file with several modes of the IOMMU, of which this is one.
    #[serde(skip)]
    pub family: Option<String>,
    /// Whether the kernel bounces what no IOMMU translates.
    #[serde(default)]
    pub swiotlb: Swiotlb,
    /// Whether the guest tells what its kernel maps.
    #[serde(default, skip_serializing_if = "Witness::is_on")]
    pub witness: Witness,
    /// Functions whose drivers are bound anew behind the witness, by their names in the topology.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rebind: Vec<String>,
    /// The devices: a preset or a file of topology, see `peerdma topology`.
    #[serde(default = "default_topology")]
    pub topology: String,
    /// Devices besides, as `peerdma test --device` takes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<AddedDevice>,
    /// More kernel parameters.
    #[serde(default)]
    pub parameters: Vec<String>,
    /// Groups of tests that the guest runs; empty: none but the user's command.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Modules of the kernel's own that the guest loads, with all that they depend on; their parameters stand
    /// among `parameters`, as `NAME.PARAMETER=VALUE`.
    #[serde(default)]
    pub modules: Vec<String>,
    /// The kernel's own test programs that the guest carries; `images/kselftests.toml` lists them.
    #[serde(default)]
    pub kselftests: Vec<String>,
    /// The test of a user's own that the guest runs instead of groups: a program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Drivers of the user's own, in order: built modules, or folders of sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<PathBuf>,
    /// Files for the guest, as `peerdma test --file` takes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Findings that the command must bring about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<Expectation>,
    /// Findings that it may bring about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Expectation>,
    /// Findings that are known and fail no test, as the lines of a suppression file have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppress: Vec<String>,
    /// Kernel options without which its own tests are skipped: those that the lab kernel has and the distribution's has
    /// not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Seconds from the guest's start to its end on the lab kernel in the nested host; see [`Scenario::limit`].
    #[serde(default = "default_timeout")]
    pub timeout: u64,
    /// Fewer tests than this mean that something is wrong with the run itself: as many as its groups have.
    #[serde(default)]
    pub at_least: usize,
    /// Peer devices that its tests need at least.
    #[serde(default = "default_peers")]
    pub peers: usize,
    /// Guest RAM, in MiB.
    #[serde(default = "default_memory")]
    pub memory: u32,
    /// Virtual CPUs.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
}

fn default_topology() -> String {
    "root-ports".into()
}

fn default_timeout() -> u64 {
    600
}

fn default_peers() -> usize {
    2
}

fn default_memory() -> u32 {
    512
}

fn default_cpus() -> u32 {
    2
}

/// A scenario that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Nothing of that name.
    #[error("there is no scenario {name:?}{}; `peerdma test --list` shows them all", nearest(.near))]
    Unknown {
        /// The name.
        name: String,
        /// The name that was probably meant.
        near: Option<String>,
    },
    /// The file cannot be understood.
    #[error("scenario file {file}: {source}")]
    Syntax {
        /// Which file.
        file: String,
        /// What the parser said.
        #[source]
        source: toml::de::Error,
    },
    /// The file cannot be read.
    #[error("scenario file {file}: {source}")]
    File {
        /// Which file.
        file: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A value makes no sense.
    #[error("scenario file {file}: {what}")]
    Value {
        /// Which file.
        file: String,
        /// What is wrong and what would be right.
        what: String,
    },
}

/// Most RAM of a guest, in MiB: what lies above goes where PCI windows are.
const MAX_MEMORY: u32 = 64_512;
/// Most bytes of a scenario file.
const MAX_FILE: u64 = 1 << 20;

/// Whether a name means a file: the scenarios and topologies that come with the program have neither a slash nor an ending.
fn is_file_name(name: &str) -> bool {
    name.contains('/') || name.ends_with(".toml")
}

fn nearest(near: &Option<String>) -> String {
    near.as_ref().map(|near| format!(", did you mean {near:?}?")).unwrap_or_default()
}

impl Scenario {
    /// Reads the scenarios from the text of `file`: one, or one for each mode of the IOMMU that it lists.
    ///
    /// # Errors
    /// As [`Self::parse`]; when the list is empty or has a mode twice.
    pub fn parse_all(file: &str, text: &str) -> Result<Vec<Self>, ScenarioError> {
        let syntax = |source| ScenarioError::Syntax { file: file.into(), source };
        let wrong = |what: &str| ScenarioError::Value { file: file.into(), what: what.into() };
        let mut table: toml::Table = toml::from_str(text).map_err(syntax)?;
        let Some(toml::Value::Array(modes)) = table.get("iommu").cloned() else {
            return Ok(vec![Self::parse(file, text)?]);
        };
        if modes.is_empty() {
            return Err(wrong("iommu is an empty list: name a mode, or several"));
        }
        let mut scenarios: Vec<Self> = Vec::new();
        for mode in modes {
            table.insert("iommu".into(), mode);
            let mut scenario: Self = table.clone().try_into().map_err(syntax)?;
            scenario.complete(file)?;
            let family = scenario.name.clone();
            scenario.name = format!("{family}-{}", scenario.iommu.name());
            scenario.family = Some(family);
            if scenarios.iter().any(|other| other.iommu == scenario.iommu) {
                return Err(wrong("iommu lists a mode twice"));
            }
            scenarios.push(scenario);
        }
        Ok(scenarios)
    }

    /// Reads a scenario from the text of `file`, which has one mode of the IOMMU.
    ///
    /// # Errors
    /// When it is not TOML, has unknown keys, or values out of range.
    pub fn parse(file: &str, text: &str) -> Result<Self, ScenarioError> {
        let mut scenario: Self = toml::from_str(text)
            .map_err(|source| ScenarioError::Syntax { file: file.into(), source })?;
        scenario.complete(file)?;
        Ok(scenario)
    }

    /// Fills in what the file leaves out, and looks at the values.
    fn complete(&mut self, file: &str) -> Result<(), ScenarioError> {
        let scenario = self;
        if scenario.name.is_empty() {
            let stem = Path::new(file).file_stem().unwrap_or_default();
            scenario.name = stem.to_string_lossy().into_owned();
        }
        let wrong = |what: &str| Err(ScenarioError::Value { file: file.into(), what: what.into() });
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if scenario.name.is_empty() || scenario.name.len() > 64 || !scenario.name.chars().all(plain)
        {
            return wrong("name must be 1 to 64 letters, digits, '-' or '_'");
        }
        if !(1..=24 * 3600).contains(&scenario.timeout) {
            return wrong("timeout is in seconds, from 1 to 86400");
        }
        if scenario
            .parameters
            .iter()
            .any(|parameter| parameter.chars().any(|c| c.is_whitespace() || c.is_control()))
        {
            return wrong("each entry of parameters is one kernel parameter without blanks");
        }
        if !(64..=MAX_MEMORY).contains(&scenario.memory) {
            return wrong("memory is in MiB, from 64 to 64512");
        }
        if scenario.command.is_empty() {
            if !scenario.expect.is_empty() {
                return wrong(
                    "expect needs a command: the lab's own tests say themselves what they expect",
                );
            }
            if !scenario.drivers.is_empty() || !scenario.files.is_empty() {
                return wrong("drivers and files are for a command, and there is none");
            }
        } else if !scenario.groups.is_empty() {
            return wrong("a guest runs a command or groups of the lab's tests, not both");
        }
        let negative = |expectation: &Expectation| expectation.least == 0;
        if scenario.expect.iter().any(negative) {
            return wrong(
                "a finding that may come or not goes under allow: expect wants a MIN of 1 or more",
            );
        }
        if let Err(what) = scenario.suppressions() {
            return wrong(&what);
        }
        let allow = std::mem::take(&mut scenario.allow);
        scenario.allow = allow.into_iter().map(Expectation::allowed).collect();
        Ok(())
    }

    /// Reads a scenario of the user's own, or several. Relative paths in it begin at the file's folder.
    ///
    /// # Errors
    /// When the file cannot be read, or does not hold a scenario.
    pub fn load(path: &Path) -> Result<Vec<Self>, ScenarioError> {
        let file = path.display().to_string();
        let read = || -> std::io::Result<String> {
            use std::io::Read as _;
            let mut text = String::new();
            let length = std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
            if length as u64 > MAX_FILE {
                return Err(std::io::Error::other("it is larger than 1 MiB"));
            }
            Ok(text)
        };
        let text = read().map_err(|source| ScenarioError::File { file: file.clone(), source })?;
        let mut scenarios = Self::parse_all(&file, &text)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for scenario in &mut scenarios {
            if is_file_name(&scenario.topology) {
                scenario.topology = folder.join(&scenario.topology).to_string_lossy().into_owned();
            }
            for driver in &mut scenario.drivers {
                *driver = folder.join(&*driver);
            }
            for file in &mut scenario.files {
                *file = folder.join(&*file).to_string_lossy().into_owned();
            }
        }
        Ok(scenarios)
    }

    /// Its files, as [`OwnFile`] reads them.
    ///
    /// # Errors
    /// A sentence about the first that is none.
    pub fn own_files(&self) -> Result<Vec<OwnFile>, String> {
        let parse =
            |text: &String| text.parse::<OwnFile>().map_err(|error| format!("{text:?}: {error}"));
        self.files.iter().map(parse).collect()
    }

    /// Its suppressions.
    ///
    /// # Errors
    /// What is wrong with the first that is none.
    pub fn suppressions(&self) -> Result<Vec<Suppression>, String> {
        let parse = |(index, line): (usize, &String)| {
            let place = format!("{}, suppress entry {}", self.name, index + 1);
            let parsed = Suppression::parse(line, &place);
            parsed
                .and_then(|parsed| parsed.ok_or_else(|| "it is empty".to_owned()))
                .map_err(|error| format!("suppress entry {}: {error}", index + 1))
        };
        self.suppress.iter().enumerate().map(parse).collect()
    }

    /// All scenarios that the program knows, by name.
    ///
    /// # Errors
    /// None for the files that come with the program, which a test reads.
    pub fn all() -> Result<Vec<Self>, ScenarioError> {
        let read = BUILT_IN.iter().map(|(file, text)| Self::parse_all(file, text));
        Ok(read.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Whether it is called so, or is one of several of a file that is.
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.family.as_deref() == Some(name)
    }

    /// The scenarios of these names, in the order asked for; without names those that run by default. What looks like a
    /// file is one of the user's own.
    ///
    /// # Errors
    /// [`ScenarioError::Unknown`] for a name that is none; what is wrong with a file.
    pub fn select(names: &[String]) -> Result<Vec<Self>, ScenarioError> {
        let all = Self::all()?;
        if names.is_empty() {
            return Ok(all.into_iter().filter(|scenario| scenario.default).collect());
        }
        let mut chosen: Vec<Self> = Vec::new();
        for name in names {
            let named = if is_file_name(name) {
                Self::load(Path::new(name))?
            } else {
                all.iter().filter(|scenario| scenario.is_called(name)).cloned().collect()
            };
            if named.is_empty() {
                let families = all.iter().filter_map(|scenario| scenario.family.as_deref());
                let candidates = all.iter().map(|scenario| scenario.name.as_str()).chain(families);
                let near = nearest_name(name, candidates);
                return Err(ScenarioError::Unknown { name: name.clone(), near });
            }
            for scenario in named {
                match chosen.iter().find(|other| other.name == scenario.name) {
                    None => chosen.push(scenario),
                    Some(other) if *other == scenario && !is_file_name(name) => {}
                    // Their logs would lie in the same folder.
                    Some(_) => {
                        let what = format!("another scenario is named {:?} as well", scenario.name);
                        return Err(ScenarioError::Value { file: name.clone(), what });
                    }
                }
            }
        }
        Ok(chosen)
    }

    /// After how many seconds a guest of this scenario is taken for hung: the file's value, stretched by `factor`
    /// (debug kernel, slow machine), which is at least 1 for what it is worth.
    pub fn limit(&self, factor: u64) -> u64 {
        self.timeout.saturating_mul(factor.max(1))
    }
}

#[cfg(test)]
mod tests;
