//! What goes over a control channel: a request in a line, and a line for each answer. docs/debugging.md describes it
//! for other programs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::found::Found;

/// Longest line of a request, in bytes.
pub const MAX_REQUEST: usize = 64 << 10;
/// Longest line of an answer, in bytes.
pub const MAX_ANSWER: usize = 4 << 20;
/// Mappings of each kind that an answer lists, at most.
pub const MAX_MAPPINGS: usize = 4096;

/// What is asked for. In a line: `{"id": 1, "command": "mappings", "function": "peer0"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Whether the guest runs, and some sums: a [`Status`].
    Status {},
    /// The functions and ports, with what decides about routes: a [`Machine`].
    Topology {},
    /// Counters of all functions since power-on: a [`Traffic`].
    Traffic {},
    /// What is mapped for a function: a [`FunctionMappings`].
    Mappings {
        /// Its name, or `bb:dd.f`.
        function: String,
        /// Those nearest to this address, in hexadecimal with `0x`; without it from the lowest on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        near: Option<String>,
        /// How many at most; [`MAX_MAPPINGS`] is the highest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        most: Option<usize>,
    },
    /// Configuration header and registers of a function: [`Registers`].
    Registers {
        /// Its name, or `bb:dd.f`.
        function: String,
    },
    /// The latest findings: [`Findings`].
    Findings {
        /// Only those with a higher number.
        #[serde(default)]
        after: u64,
    },
    /// The guest stands still, devices and all.
    Pause {},
    /// It goes on.
    Resume {},
    /// Ends the guest's run.
    PowerOff {},
    /// Pulls everything below a port out of its slot, without warning.
    Unplug {
        /// The port's name, or `bb:dd.f`.
        port: String,
    },
    /// Plugs it in again.
    Plug {
        /// The port's name, or `bb:dd.f`.
        port: String,
    },
    /// Keeps posted writes on a path under way.
    Delay {
        /// The function that issues them: name or `bb:dd.f`.
        requester: String,
        /// The function whose BARs they go to, or `ram`.
        target: String,
        /// `off`, `pushed` (until something pushes them) or a number of turns of the requester.
        until: String,
    },
}

/// A request with the number that its answer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whatever the client chose.
    pub id: Value,
    /// What is asked for.
    pub command: Command,
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// The number as far as there was one, and what is wrong.
    pub fn parse(line: &[u8]) -> Result<Self, (Value, String)> {
        let value: Value = serde_json::from_slice(line)
            .map_err(|error| (Value::Null, format!("this is not a line of JSON: {error}")))?;
        let Value::Object(mut fields) = value else {
            return Err((
                Value::Null,
                r#"a request is an object, as {"command": "status"}"#.into(),
            ));
        };
        let id = fields.remove("id").unwrap_or(Value::Null);
        match serde_json::from_value(Value::Object(fields)) {
            Ok(command) => Ok(Self { id, command }),
            Err(error) => Err((id, error.to_string())),
        }
    }
}

/// The line that answers: `{"id": 1, "ok": ...}` or `{"id": 1, "error": "..."}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's.
    #[serde(default)]
    pub id: Value,
    /// What was asked for; null where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Value>,
    /// Why there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Answer {
    /// Of a request that came to something, or not.
    pub fn new(id: Value, result: Result<Value, String>) -> Self {
        match result {
            Ok(value) => Self { id, ok: Some(value), error: None },
            Err(error) => Self { id, ok: None, error: Some(error) },
        }
    }

    /// As a line, at most [`MAX_ANSWER`] long.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        if line.len() >= MAX_ANSWER {
            let error = Some("the answer is too long; ask for less".into());
            let short = Self { id: self.id.clone(), ok: None, error };
            line = serde_json::to_vec(&short).unwrap_or_default();
        }
        line.push(b'\n');
        line
    }
}

/// How a guest is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The scenario; `user` for `peerdma boot`.
    pub scenario: String,
    /// `running` or `paused`.
    pub state: String,
    /// Why it is paused; null if it is not.
    pub reason: Option<String>,
    /// Since the guest was started.
    pub milliseconds: u64,
    /// Virtual processors.
    pub processors: u8,
    /// Request TLPs since power-on.
    pub transactions: u64,
    /// Findings, notes included.
    pub findings: u64,
    /// What is mapped in all domains of the IOMMU.
    pub iommu_mappings: u64,
}

/// All functions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// In the order of the topology: a bridge before what is below it.
    pub functions: Vec<Function>,
}

/// A function, as software has set it up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// In the topology.
    pub name: String,
    /// Its requester ID, `bb:dd.f`.
    pub requester: String,
    /// `endpoint`, `root-port`, `switch-upstream` or `switch-downstream`.
    pub kind: String,
    /// The name of the bridge above; null on a root bus.
    pub parent: Option<String>,
    /// Bus Master Enable.
    pub bus_master: bool,
    /// Memory Space Enable.
    pub memory_space: bool,
    /// In D0 and not in reset.
    pub operational: bool,
    /// The link below the port is down.
    pub link_down: bool,
    /// Secondary and subordinate bus number of a bridge; null for others.
    pub buses: Option<(u8, u8)>,
    /// ACS controls that are on and have an effect, as in `SrcValid+`, by lspci's names.
    pub acs: Vec<String>,
    /// The BARs.
    pub bars: Vec<Bar>,
}

/// A BAR as programmed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// 0 to 5; the lower one of a 64-bit pair.
    pub index: u8,
    /// First bus address, in hexadecimal.
    pub first: String,
    /// Last bus address, in hexadecimal.
    pub last: String,
    /// `memory`, `registers` or `msi-x`.
    pub kind: String,
}

/// Counters since power-on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// When they were read: since the guest was started.
    pub milliseconds: u64,
    /// Whether the guest is paused.
    pub paused: bool,
    /// Functions that have issued requests, in the order of the topology.
    pub functions: Vec<FunctionTraffic>,
    /// Requests of the guest's IOMMU driver.
    pub iommu_requests: u64,
    /// Mappings in all domains.
    pub iommu_mappings: u64,
    /// Requests that the IOMMU refused and reported, as far as the guest's driver took the reports.
    pub iommu_faults: u64,
    /// Findings, notes included.
    pub findings: u64,
}

/// What a function did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionTraffic {
    /// In the topology.
    pub name: String,
    /// Its requester ID.
    pub requester: String,
    /// Request TLPs, delivered or not.
    pub tlps: u64,
    /// Interrupts delivered.
    pub interrupts: u64,
    /// Findings about it.
    pub findings: u64,
    /// What its kernel driver has mapped; null without a witness.
    pub mappings: Option<u64>,
    /// Bytes read, by route.
    pub read: BTreeMap<String, u64>,
    /// Bytes written, by route.
    pub written: BTreeMap<String, u64>,
    /// Bytes read, by the function whose BAR they come from, or `ram`.
    pub read_from: BTreeMap<String, u64>,
    /// Bytes written, by the function whose BAR they go to, or `ram`.
    pub written_to: BTreeMap<String, u64>,
}

/// What is mapped for a function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionMappings {
    /// Its name.
    pub function: String,
    /// Its requester ID.
    pub requester: String,
    /// By the guest's kernel; null without a witness.
    pub kernel: Option<Listed>,
    /// By the IOMMU; null where none translates for it.
    pub iommu: Option<Listed>,
}

/// Registers of a function. Reading them has no effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// Its name.
    pub function: String,
    /// Its requester ID.
    pub requester: String,
    /// The first 64 bytes of its configuration space, in hexadecimal, 16 in a line.
    pub configuration: Vec<String>,
    /// The device's own registers; empty if its model names none.
    pub registers: Vec<Register>,
}

/// A register.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Its name; for the peer device as in `peerdma_regs.h`, behind the channel's number.
    pub name: String,
    /// In hexadecimal.
    pub value: String,
}

/// Some of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// How many there are.
    pub all: usize,
    /// In words, by address.
    pub lines: Vec<String>,
}

/// Findings, as they are written by `--findings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Oldest first; the last 1,000 are kept.
    pub findings: Vec<Found>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire_and_nonsense_keeps_its_number() {
        let command = Command::Mappings { function: "peer0".into(), near: None, most: Some(3) };
        let mut value = serde_json::to_value(&command).unwrap();
        value["id"] = 7.into();
        let line = serde_json::to_vec(&value).unwrap();
        assert_eq!(Request::parse(&line), Ok(Request { id: 7.into(), command }));
        let status = Request::parse(br#"{"command": "status"}"#).unwrap();
        assert_eq!(status, Request { id: Value::Null, command: Command::Status {} });
        for (line, id, part) in [
            ("", Value::Null, "not a line of JSON"),
            ("[1]", Value::Null, "a request is an object"),
            (r#"{"id": 3}"#, 3.into(), "missing field `command`"),
            (r#"{"id": "a", "command": "dance"}"#, "a".into(), "unknown variant `dance`"),
            (r#"{"id": 1, "command": "mappings"}"#, 1.into(), "missing field `function`"),
            (r#"{"id": 1, "command": "status", "x": 1}"#, 1.into(), "unknown field `x`"),
        ] {
            let (was, error) = Request::parse(line.as_bytes()).unwrap_err();
            assert!(was == id && error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn an_answer_has_a_bound() {
        let long = Answer::new(1.into(), Ok("x".repeat(MAX_ANSWER).into())).line();
        let answer: Answer = serde_json::from_slice(&long).unwrap();
        assert!(answer.id == 1 && answer.ok.is_none() && answer.error.unwrap().contains("ask for"));
    }
}
