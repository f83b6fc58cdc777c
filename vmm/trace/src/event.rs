//! The events of a trace.

mod text;
mod verdict;

use device_models::checker::{Finding, FindingClass, Severity};
use device_models::fabric::{
    CompletionStatus, Delivery, Input, Kind, Purpose, RouteKind, Target, Transaction, WitnessInput,
};
use device_models::system::System;
use device_models::witness::Record;
use peerdma_topology::assembly::SystemConfig;
use serde::{Deserialize, Serialize};

pub(crate) use self::verdict::Ahead;
use super::names::{self, hex};
use super::witnessed;

/// The first thing in a trace: how to build the devices again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The devices. The JSON format called them `lab`.
    #[serde(alias = "lab")]
    pub system: SystemConfig,
    /// Guest RAM: start and length in bytes of each range.
    pub ram: Vec<(u64, u64)>,
    /// The functions, by their index in the address map.
    #[serde(default)]
    pub functions: Vec<FunctionName>,
    /// What is kept of bulk data.
    #[serde(default)]
    pub payload: Payload,
    /// Something before the first entry was left out: such a trace cannot be replayed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub part: bool,
}

/// A function when the recording began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionName {
    /// For example `peer0`.
    pub name: String,
    /// Its requester ID.
    pub requester: u16,
}

/// What is kept of bulk data. What steers a device (descriptors, virtqueues, registers) is kept in full in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// Nothing.
    None,
    /// A CRC-32C of the bytes of each transaction
    #[default]
    Digest,
    /// The bytes of each transaction, the first 64 KiB of it
    Full,
}

impl Header {
    /// Of `system`, which was built from `config` around `ram`.
    pub fn of(
        config: &SystemConfig,
        ram: Vec<(u64, u64)>,
        system: &System,
        payload: Payload,
    ) -> Self {
        let name = |(_, node): (_, &device_models::fabric::Node)| FunctionName {
            name: node.name.to_string(),
            requester: node.requester.0,
        };
        let functions = system.address_map().functions().map(name).collect();
        Self { system: config.clone(), ram, functions, payload, part: false }
    }

    pub(crate) fn nothing() -> Self {
        let (system, payload) = (SystemConfig::default(), Payload::default());
        Self { system, ram: Vec::new(), functions: Vec::new(), payload, part: false }
    }

    /// The name of a function, by its number.
    pub fn name(&self, function: usize) -> Option<&str> {
        self.functions.get(function).map(|function| function.name.as_str())
    }
}

/// One entry of a trace. Indices of functions count from 0 in the order of the address map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A CPU's configuration write.
    ConfigWrite(ConfigAccess),
    /// A CPU's configuration read that may have had side effects.
    ConfigRead(ConfigAccess),
    /// A CPU's register write: doorbells among others.
    RegisterWrite {
        /// Physical address.
        address: u64,
        /// What was written, 1 to 8 bytes.
        #[serde(serialize_with = "hex::serialize")]
        data: Vec<u8>,
    },
    /// A CPU's register read.
    RegisterRead {
        /// Physical address.
        address: u64,
        /// What was answered, 1 to 8 bytes.
        #[serde(serialize_with = "hex::serialize")]
        data: Vec<u8>,
    },
    /// A CPU's access to a BAR pushed what was under way to its function.
    CpuPush {
        /// Which.
        function: usize,
    },
    /// Everything below a port was pulled out of its slot.
    Unplug {
        /// Requester ID of the port.
        port: u16,
    },
    /// It was plugged in again.
    Plug {
        /// Requester ID of the port.
        port: u16,
    },
    /// Posted writes on a path stay under way, or no longer.
    DelayPosted {
        /// Requester ID of the function that issues them.
        requester: u16,
        /// Requester ID of the function whose BARs they go to; none for the root complex.
        #[serde(skip_serializing_if = "Option::is_none")]
        target: Option<u16>,
        /// For how long.
        delay: String,
    },
    /// Software has seen a fence.
    FenceSeen {
        /// Requester ID of the function whose work it stands for.
        requester: u16,
    },
    /// The guest's witness: it came, went, asked for its rings to be emptied, or has reported
    /// something.
    Witness {
        /// Which of them.
        #[serde(serialize_with = "names::witness")]
        kind: WitnessInput,
        /// The guest's clock when it came (8 bytes, little-endian nanoseconds), or a witness record
        /// as the guest wrote it.
        #[serde(serialize_with = "hex::serialize")]
        data: Vec<u8>,
    },
    /// A function takes a turn.
    Step {
        /// Which.
        function: usize,
    },
    /// A value from outside.
    Outside {
        /// The function that takes it.
        function: usize,
        /// The value.
        #[serde(serialize_with = "hex::serialize")]
        data: Vec<u8>,
    },
    /// A run of request TLPs with one route and one verdict.
    Transaction(TlpRun),
    /// The checker found something.
    Finding(FindingEvent),
    /// A test began or ended.
    Test(TestMark),
    /// Something that a newer recorder, or another source than the device models, has written: skipped by a replay.
    Other {
        /// The number of its kind.
        kind: u8,
        /// Its body.
        #[serde(serialize_with = "hex::serialize")]
        body: Vec<u8>,
    },
    /// Entries are missing here: they were dropped because the disk did not keep up (`--record-lossy`).
    Lost {
        /// How many.
        entries: u64,
    },
    /// The trace is complete.
    End {
        /// How many entries came before.
        events: u64,
    },
    /// The trace was cut because it had reached its limit.
    Cut {
        /// How many entries came before.
        events: u64,
    },
}

/// A CPU's access to configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ConfigAccess {
    /// Requester ID of the function meant.
    pub function: u16,
    /// Byte offset, 0 to 4095.
    pub offset: u16,
    /// Bytes: 1, 2 or 4.
    pub length: u8,
    /// The value written or answered.
    pub value: u32,
}

/// A run of request TLPs with consecutive addresses, one route and one verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TlpRun {
    /// Number of its first TLP.
    pub sequence: u64,
    /// Requester ID.
    pub requester: u16,
    /// The function that issued it; none in traces of the JSON format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<u16>,
    /// MRd or MWr.
    #[serde(serialize_with = "names::kind")]
    pub kind: Kind,
    /// Why it was issued.
    #[serde(serialize_with = "names::purpose")]
    pub purpose: Purpose,
    /// Address in the request.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// Where its TLPs are cut: Max_Payload_Size or Max_Read_Request_Size, in bytes, a power of two from 128 to 4096; 0 if
    /// that is not known, as in traces of the JSON format.
    pub tlp_limit: u32,
    /// What became of it.
    pub outcome: TransactionResult,
    /// The first finding about it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "verdict")]
    pub verdict: Option<FindingClass>,
    /// CRC-32C of its bytes, if they are bulk data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<u32>,
    /// Its bytes, if they steer a device, or all are kept.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "hex::option")]
    pub data: Option<Vec<u8>>,
}

#[allow(clippy::ref_option, reason = "the shape that serde asks for")]
fn verdict<S: serde::Serializer>(class: &Option<FindingClass>, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(class.map_or("", FindingClass::name))
}

impl TlpRun {
    /// How many TLPs the run has, at least one; none if where they are cut is not known.
    pub fn tlp_count(&self) -> Option<u64> {
        if !self.tlp_limit.is_power_of_two() {
            return None;
        }
        let limit = u128::from(self.tlp_limit);
        let first = u128::from(self.address);
        // One that reaches the end of the address space goes on at its beginning.
        let last = first + u128::from(self.length.saturating_sub(1));
        u64::try_from(last / limit - first / limit + 1).ok()
    }

    /// The run's TLPs, one by one: number, address and length in bytes. Empty if where they are cut is not known.
    pub fn tlps(&self) -> impl Iterator<Item = (u64, u64, u32)> + use<> {
        let Self { sequence, address, length, tlp_limit, .. } = *self;
        let limit = u64::from(tlp_limit.max(1));
        let mut done = 0;
        (0..self.tlp_count().unwrap_or(0)).map(move |index| {
            let start = address.wrapping_add(done);
            let room = (limit - start % limit).min(length.saturating_sub(done));
            done += room;
            (sequence.wrapping_add(index), start, u32::try_from(room).unwrap_or(u32::MAX))
        })
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransactionResult {
    /// It arrived.
    Delivered {
        /// By which route.
        #[serde(serialize_with = "names::route")]
        route: RouteKind,
        /// Address at the target's side.
        address: u64,
        /// The memory or registers there.
        target: Destination,
    },
    /// It did not.
    Failed(#[serde(serialize_with = "names::status")] CompletionStatus),
}

/// Memory or registers that a transaction arrived in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destination {
    /// The interrupt window.
    Window,
    /// Guest RAM.
    Ram {
        /// Byte offset into its range.
        offset: u64,
    },
    /// Memory behind a BAR.
    Memory {
        /// The function whose BAR it is.
        function: u16,
        /// Byte offset into it.
        offset: u64,
    },
    /// A register BAR.
    Registers {
        /// The function whose BAR it is.
        function: u16,
        /// Which.
        bar: u8,
        /// Byte offset into it.
        offset: u64,
    },
}

/// A finding or a note of the checker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FindingEvent {
    /// Its class.
    pub class: String,
    /// It is worth a note, and no mistake for certain.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub note: bool,
    /// The TLP that it is about, if it is about one and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<u64>,
    /// The name of the function concerned; empty in traces of the JSON format.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub function: String,
    /// The whole sentence.
    pub text: String,
}

/// A test began, or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestMark {
    /// Its name.
    pub name: String,
    /// How it ended; none when it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<TestResult>,
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestResult {
    /// Passed.
    Passed,
    /// Failed.
    Failed,
    /// Skipped.
    Skipped,
}

impl Event {
    /// What the guest's witness reported, if this is a witness record.
    pub fn witness_record(&self) -> Option<Record> {
        match self {
            Self::Witness { kind, data } => witnessed::record(*kind, data),
            _ => None,
        }
    }

    /// Whether it came in from outside and makes a replay go on.
    pub fn is_cause(&self) -> bool {
        match self {
            Self::ConfigWrite(_)
            | Self::ConfigRead(_)
            | Self::RegisterWrite { .. }
            | Self::RegisterRead { .. }
            | Self::CpuPush { .. }
            | Self::Unplug { .. }
            | Self::Plug { .. }
            | Self::DelayPosted { .. }
            | Self::FenceSeen { .. }
            | Self::Step { .. } => true,
            // A witness record comes within what else happens.
            Self::Witness { kind, .. } => *kind != WitnessInput::Record,
            Self::Outside { .. }
            | Self::Transaction(_)
            | Self::Finding(_)
            | Self::Test(_)
            | Self::Other { .. }
            | Self::Lost { .. }
            | Self::End { .. }
            | Self::Cut { .. } => false,
        }
    }

    /// Whether a replay brings it about, and compares it.
    pub fn is_compared(&self) -> bool {
        match self {
            Self::Outside { .. } | Self::Transaction(_) | Self::Finding(_) => true,
            Self::Witness { kind, .. } => *kind == WitnessInput::Record,
            _ => false,
        }
    }

    /// Whether nothing comes behind it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::End { .. } | Self::Cut { .. })
    }

    /// Whether `self`, from a trace, and `now`, from a replay, are the same, as far as the trace knows. Bulk data and
    /// its digests are not compared: a replay has other bytes in its memory than the guest's CPUs put there.
    pub fn is_same(&self, now: &Self) -> bool {
        match (self, now) {
            (Self::Transaction(recorded), Self::Transaction(now)) => {
                let steers = recorded.purpose != Purpose::Data || recorded.digest.is_none();
                recorded.sequence == now.sequence
                    && recorded.requester == now.requester
                    && recorded.function.is_none_or(|function| Some(function) == now.function)
                    && recorded.kind == now.kind
                    && recorded.purpose == now.purpose
                    && recorded.address == now.address
                    && recorded.length == now.length
                    && (recorded.tlp_limit == 0 || recorded.tlp_limit == now.tlp_limit)
                    && recorded.outcome == now.outcome
                    && (!steers || recorded.data == now.data)
            }
            (Self::Finding(recorded), Self::Finding(now)) => {
                recorded.class == now.class
                    && recorded.note == now.note
                    && recorded.text == now.text
            }
            (recorded, now) => recorded == now,
        }
    }

    /// What it is, in a few words.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ConfigWrite(_) => "configuration write",
            Self::ConfigRead(_) => "configuration read",
            Self::RegisterWrite { .. } => "register write",
            Self::RegisterRead { .. } => "register read",
            Self::CpuPush { .. } => "push by a CPU",
            Self::Unplug { .. } => "unplugging",
            Self::Plug { .. } => "plugging in",
            Self::DelayPosted { .. } => "delay of posted writes",
            Self::FenceSeen { .. } => "fence",
            Self::Witness { .. } => "input of the witness",
            Self::Step { .. } => "turn",
            Self::Outside { .. } => "value from outside",
            Self::Transaction(_) => "transaction",
            Self::Finding(_) => "finding",
            Self::Test(_) => "test mark",
            Self::Other { .. } => "other entry",
            Self::Lost { .. } => "gap",
            Self::End { .. } => "end",
            Self::Cut { .. } => "cut",
        }
    }

    /// A transaction with what became of it; `data` if its bytes are kept.
    pub fn transaction(
        transaction: &Transaction,
        delivery: &Delivery,
        data: Option<&[u8]>,
    ) -> Self {
        Self::Transaction(TlpRun {
            sequence: transaction.sequence,
            requester: transaction.requester.0,
            function: u16::try_from(transaction.function.index()).ok(),
            kind: transaction.kind,
            purpose: transaction.purpose,
            address: transaction.address,
            length: transaction.length,
            tlp_limit: transaction.tlp_limit,
            outcome: delivery.into(),
            verdict: None,
            digest: None,
            data: data.map(<[u8]>::to_vec),
        })
    }
}

impl From<&Input<'_>> for Event {
    fn from(input: &Input<'_>) -> Self {
        match *input {
            Input::ConfigWrite { bdf, offset, length, value } => {
                Self::ConfigWrite(ConfigAccess { function: bdf.0, offset, length, value })
            }
            Input::ConfigRead { bdf, offset, length, value } => {
                Self::ConfigRead(ConfigAccess { function: bdf.0, offset, length, value })
            }
            Input::MmioWrite { address, data } => {
                Self::RegisterWrite { address, data: data.to_vec() }
            }
            Input::MmioRead { address, data } => {
                Self::RegisterRead { address, data: data.to_vec() }
            }
            Input::CpuPush { function } => Self::CpuPush { function: function.index() },
            Input::Unplug { port } => Self::Unplug { port: port.0 },
            Input::Plug { port } => Self::Plug { port: port.0 },
            Input::DelayPosted { requester, target, delay } => Self::DelayPosted {
                requester: requester.0,
                target: target.map(|target| target.0),
                delay: delay.to_string(),
            },
            Input::FenceSeen { requester } => Self::FenceSeen { requester: requester.0 },
            Input::Witness { kind, data } => Self::Witness { kind, data: data.to_vec() },
            Input::Step { function } => Self::Step { function: function.index() },
            Input::Outside { function, data } => {
                Self::Outside { function: function.index(), data: data.to_vec() }
            }
        }
    }
}

impl From<&Finding> for Event {
    fn from(finding: &Finding) -> Self {
        Self::Finding(FindingEvent {
            class: finding.class.name().to_owned(),
            note: finding.severity == Severity::Note,
            transaction: finding.transaction.map(|transaction| transaction.sequence),
            function: finding.function.to_string(),
            text: finding.to_string(),
        })
    }
}

impl From<&Delivery> for TransactionResult {
    fn from(delivery: &Delivery) -> Self {
        match delivery {
            Delivery::Failed(status) => Self::Failed(*status),
            Delivery::Delivered { route, target, address } => Self::Delivered {
                route: *route,
                address: *address,
                target: target.as_ref().map_or(Destination::Window, Destination::from),
            },
        }
    }
}

impl From<&Target> for Destination {
    fn from(target: &Target) -> Self {
        let number = |function: device_models::fabric::FunctionId| {
            u16::try_from(function.index()).unwrap_or(u16::MAX)
        };
        match *target {
            Target::Memory { function: None, offset, .. } => Self::Ram { offset },
            Target::Memory { function: Some(function), offset, .. } => {
                Self::Memory { function: number(function), offset }
            }
            Target::Registers { function, bar, offset, .. } => {
                Self::Registers { function: number(function), bar, offset }
            }
        }
    }
}
