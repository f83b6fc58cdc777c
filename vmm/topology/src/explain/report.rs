//! An explanation as data: what `--json` prints.
//!
//! The schema is `peerdma-explain/1`: fields may be added to it, none changes its meaning.

use serde::Serialize;

/// The schema's name.
pub const SCHEMA: &str = "peerdma-explain/1";

/// All there is to say about DMA by one function into the memory of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The function that does DMA.
    pub client: Function,
    /// The function that has the memory.
    pub provider: Function,
    /// The kernel by whose rules it is decided: `6.1`, `6.12` or `7.3`.
    pub rules: String,
    /// What Linux decides.
    pub decision: Decision,
    /// The functions between the two, both included, in the order in which a request passes them.
    pub path: Vec<Hop>,
    /// The host bridges of client and provider; one, if it is the same.
    pub host_bridges: Vec<HostBridge>,
    /// What the hardware does with requests that carry the address Linux gives; none where Linux
    /// gives none.
    pub requests: Option<Leg>,
    /// What it does with the completions of reads; none where there are no requests.
    pub completions: Option<Leg>,
    /// IOMMU groups.
    pub groups: Groups,
    /// Where Linux's word and the hardware's way differ, or data is lost.
    pub warnings: Vec<Remark>,
    /// What is worth knowing, and harmless.
    pub notes: Vec<Remark>,
    /// What changes the decision, or makes data arrive; each was applied to the model, and data
    /// arrives.
    pub advice: Vec<Advice>,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Bus, device and function number; of a real machine with the segment before them, here and
    /// wherever else an address stands.
    pub bdf: String,
}

/// What Linux decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// `bus-address`, `through-host-bridge` or `not-supported`.
    pub map_type: &'static str,
    /// Linux's name for it.
    pub kernel_name: &'static str,
    /// What `pci_p2pdma_distance()` returns: -1 for `not-supported`.
    pub distance: i32,
    /// What the DMA address is: `bus`, `physical`, `iova`, or `none`.
    pub address: &'static str,
    /// The functions whose ACS controls redirect.
    pub redirects: Vec<String>,
    /// `common-bridge`, `processor`, `listed`, `same-bridge-only` or `not-listed`; of a real machine
    /// also `listed-or-processor`, where either may be what allows it.
    pub reason: &'static str,
    /// The bridge above both, or the host bridge's ID, that is the reason.
    pub reason_at: Option<String>,
}

/// A function on the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Its name.
    pub name: String,
    /// Bus, device and function number.
    pub bdf: String,
    /// What it is.
    pub kind: &'static str,
    /// What is known of its ACS capability: `absent`, `known`, `partly` or `unknown`.
    pub acs_state: &'static str,
    /// Its ACS capability; none where it is absent or unknown.
    pub acs: Option<Acs>,
    /// Whether Linux takes its ACS controls for redirection.
    pub redirects: bool,
    /// Whether it is the lowest bridge above both.
    pub common: bool,
}

/// An ACS capability, its controls by the names of `lspci` without the sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Acs {
    /// What it has.
    pub capabilities: Vec<&'static str>,
    /// What Linux switches on.
    pub enabled: Vec<&'static str>,
    /// Controls of which is not known whether they are on.
    pub unknown: Vec<&'static str>,
    /// What has no effect although it can be switched on.
    pub without_effect: Vec<&'static str>,
}

/// A host bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostBridge {
    /// Its name.
    pub name: String,
    /// Vendor and device ID that Linux looks up.
    pub id: String,
    /// `everywhere`, `same-bridge` or `unlisted`: what Linux's list says.
    pub listed: &'static str,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leg {
    /// Whether it leads where it should.
    pub arrives: bool,
    /// `switch`, `root-complex`, `refused` or `elsewhere`.
    pub by: &'static str,
    /// The class of the finding, where it is refused.
    pub finding: Option<&'static str>,
    /// The function that refuses it.
    pub at: Option<String>,
    /// The function that it reaches instead.
    pub instead: Option<String>,
}

/// IOMMU groups, by numbers of our own; none without an IOMMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Groups {
    /// The client's.
    pub client: Option<usize>,
    /// The provider's.
    pub provider: Option<usize>,
}

/// A warning, a note or a cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// What kind: stable, for programs.
    pub id: &'static str,
    /// The function that it is about.
    pub at: Option<String>,
    /// One sentence.
    pub text: String,
}

/// Something to change, tried out on the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What to do: an option to paste, or a line of the topology file.
    pub change: String,
    /// `iommu`, `add-parameter`, `remove-parameter`, `acs`, `host-bridge` or `cpu`.
    pub kind: &'static str,
    /// What Linux decides then.
    pub map_type: &'static str,
    /// What the DMA address is then.
    pub address: &'static str,
    /// What it takes for granted, where something that the record of a real machine lacks may still
    /// redirect.
    pub given: Vec<String>,
    /// The ACS controls that a kernel parameter switches, alike ones together.
    pub switches: Vec<Switches>,
    /// What it costs.
    pub costs: Vec<Remark>,
    /// The kernel parameter, if it is one that is added.
    #[serde(skip)]
    pub(crate) parameter: Option<String>,
}

/// ACS controls that change at some functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Switches {
    /// Where.
    pub at: Vec<String>,
    /// What goes on.
    pub on: Vec<&'static str>,
    /// What goes off.
    pub off: Vec<&'static str>,
}
