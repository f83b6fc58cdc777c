//! Access Control Services of a function, as far as they are known.

use serde::{Deserialize, Serialize};

/// What is known about a function's ACS capability (PCIe 6.0, 7.7.11).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acs {
    /// Not known: capabilities were not readable, or are not in the text.
    #[default]
    Unknown,
    /// The function has no ACS capability.
    Absent,
    /// The function has one.
    Present {
        /// The controls that it has (ACS Capability register, 7.7.11.2).
        #[serde(default)]
        capabilities: AcsFlags,
        /// Which of them are on (ACS Control register, 7.7.11.3).
        #[serde(default)]
        control: AcsFlags,
        /// The egress control vector, where it is known. Text of `lspci` does not show it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        egress: Option<Egress>,
    },
}

/// One bit for each control, as far as known: `None` is unknown. The names are those of Linux.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE", default)]
pub struct AcsFlags {
    /// Source Validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sv: Option<bool>,
    /// Translation Blocking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tb: Option<bool>,
    /// P2P Request Redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rr: Option<bool>,
    /// P2P Completion Redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cr: Option<bool>,
    /// Upstream Forwarding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uf: Option<bool>,
    /// P2P Egress Control.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ec: Option<bool>,
    /// Direct Translated P2P.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dt: Option<bool>,
}

/// The egress control vector (PCIe 6.0, 7.7.11.4).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Egress {
    /// Length of the vector in bits, 1 to 256.
    pub bits: u16,
    /// Its 32-bit words, the first with ports (or functions) 0 to 31. A set bit: not directly.
    pub words: Vec<u32>,
}

impl AcsFlags {
    /// The names of the controls as `lspci` prints them, in the order of their bits.
    pub(crate) const LSPCI: [&str; 7] = [
        "SrcValid",
        "TransBlk",
        "ReqRedir",
        "CmpltRedir",
        "UpstreamFwd",
        "EgressCtrl",
        "DirectTrans",
    ];
    /// The same as Linux names them.
    pub const NAMES: [&str; 7] = ["SV", "TB", "RR", "CR", "UF", "EC", "DT"];

    /// All known, from a register's low byte.
    pub fn from_register(register: u16) -> Self {
        let mut flags = Self::default();
        for index in 0..7 {
            *flags.slot(index) = Some(register >> index & 1 == 1);
        }
        flags
    }

    /// The flags in the order of their bits.
    pub fn values(&self) -> [Option<bool>; 7] {
        [self.sv, self.tb, self.rr, self.cr, self.uf, self.ec, self.dt]
    }

    /// Whether all flags are known.
    pub fn is_complete(&self) -> bool {
        self.values().iter().all(Option::is_some)
    }

    /// The flag at bit `index`, 0 to 6.
    pub(crate) fn slot(&mut self, index: usize) -> &mut Option<bool> {
        match index {
            0 => &mut self.sv,
            1 => &mut self.tb,
            2 => &mut self.rr,
            3 => &mut self.cr,
            4 => &mut self.uf,
            5 => &mut self.ec,
            _ => &mut self.dt,
        }
    }
}
