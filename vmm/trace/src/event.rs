//! The events of a trace.

use std::fmt;

use device_models::checker::{Finding, Severity};
use device_models::fabric::{Delivery, Input, Target, Transaction, WitnessInput};
use peerdma_topology::assembly::SystemConfig;
use serde::{Deserialize, Serialize};

use super::format::hex;

/// The first thing in a trace: how to build the devices again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The devices.
    #[serde(rename = "lab")]
    pub system: SystemConfig,
    /// Guest RAM: start and length in bytes of each range.
    pub ram: Vec<(u64, u64)>,
}

/// One entry of a trace. Indices of functions count from 0 in the order of the address map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A CPU's configuration write.
    ConfigWrite {
        /// Requester ID of the function meant.
        function: u16,
        /// Byte offset.
        offset: u16,
        /// Bytes: 1, 2 or 4.
        length: u8,
        /// The value.
        value: u32,
    },
    /// A CPU's configuration read that may have had side effects.
    ConfigRead {
        /// Requester ID of the function meant.
        function: u16,
        /// Byte offset.
        offset: u16,
        /// Bytes: 1, 2 or 4.
        length: u8,
        /// What was answered.
        value: u32,
    },
    /// A CPU's register write: doorbells among others.
    RegisterWrite {
        /// Physical address.
        address: u64,
        /// What was written.
        #[serde(with = "hex")]
        data: Vec<u8>,
    },
    /// A CPU's register read.
    RegisterRead {
        /// Physical address.
        address: u64,
        /// What was answered.
        #[serde(with = "hex")]
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
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<u16>,
        /// For how long.
        delay: String,
    },
    /// Software has seen a fence.
    FenceSeen {
        /// Requester ID of the function whose work it stands for.
        requester: u16,
    },
    /// The guest's witness: it came, went, asked for its rings to be emptied, or has reported something.
    Witness {
        /// Which of them.
        kind: String,
        /// The clock at which it came, or the bytes of a witness record.
        #[serde(with = "hex")]
        data: Vec<u8>,
    },
    /// A function takes a turn.
    Step {
        /// Which.
        function: usize,
    },
    /// A value from outside.
    Outside {
        /// For whom.
        function: usize,
        /// The value.
        #[serde(with = "hex")]
        data: Vec<u8>,
    },
    /// A run of request TLPs.
    Transaction {
        /// Number of its first TLP.
        sequence: u64,
        /// Requester ID.
        requester: u16,
        /// MRd or MWr.
        kind: String,
        /// Why it was issued.
        purpose: String,
        /// Address in the request.
        address: u64,
        /// Bytes.
        length: u64,
        /// What became of it.
        outcome: TransactionResult,
        /// Its bytes, if they steer a device.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "hex::option")]
        data: Option<Vec<u8>>,
    },
    /// The checker found something.
    Finding {
        /// Its class.
        class: String,
        /// It is worth a note, and no mistake for certain.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        note: bool,
        /// The whole sentence.
        text: String,
    },
    /// The trace is complete.
    End {
        /// How many events came before.
        events: u64,
    },
    /// The trace was cut because it had reached its limit.
    Cut {
        /// How many events came before.
        events: u64,
    },
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransactionResult {
    /// It arrived.
    Delivered {
        /// By which route.
        route: String,
        /// Address at the target's side.
        address: u64,
        /// What stands there.
        target: String,
    },
    /// It did not.
    Failed(String),
}

impl Event {
    /// Whether it came in from outside and makes a replay go on.
    pub fn is_cause(&self) -> bool {
        if let Self::Witness { kind, .. } = self {
            return kind != WitnessInput::Record.name();
        }
        matches!(
            self,
            Self::ConfigWrite { .. }
                | Self::ConfigRead { .. }
                | Self::RegisterWrite { .. }
                | Self::RegisterRead { .. }
                | Self::CpuPush { .. }
                | Self::Unplug { .. }
                | Self::Plug { .. }
                | Self::DelayPosted { .. }
                | Self::FenceSeen { .. }
                | Self::Step { .. }
        )
    }
}

impl Event {
    /// What it is, in a few words.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ConfigWrite { .. } => "configuration write",
            Self::ConfigRead { .. } => "configuration read",
            Self::RegisterWrite { .. } => "register write",
            Self::RegisterRead { .. } => "register read",
            Self::CpuPush { .. } => "push by a CPU",
            Self::Unplug { .. } => "unplugging",
            Self::Plug { .. } => "plugging in",
            Self::DelayPosted { .. } => "delay of posted writes",
            Self::FenceSeen { .. } => "fence",
            Self::Witness { .. } => "word of the witness",
            Self::Step { .. } => "turn",
            Self::Outside { .. } => "value from outside",
            Self::Transaction { .. } => "transaction",
            Self::Finding { .. } => "finding",
            Self::End { .. } => "end",
            Self::Cut { .. } => "cut",
        }
    }
}

impl From<&Input<'_>> for Event {
    fn from(input: &Input<'_>) -> Self {
        match *input {
            Input::ConfigWrite { bdf, offset, length, value } => {
                Self::ConfigWrite { function: bdf.0, offset, length, value }
            }
            Input::ConfigRead { bdf, offset, length, value } => {
                Self::ConfigRead { function: bdf.0, offset, length, value }
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
            Input::Witness { kind, data } => {
                Self::Witness { kind: kind.name().to_owned(), data: data.to_vec() }
            }
            Input::Step { function } => Self::Step { function: function.index() },
            Input::Outside { function, data } => {
                Self::Outside { function: function.index(), data: data.to_vec() }
            }
        }
    }
}

impl From<&Finding> for Event {
    fn from(finding: &Finding) -> Self {
        Self::Finding {
            class: finding.class.name().to_owned(),
            note: finding.severity == Severity::Note,
            text: finding.to_string(),
        }
    }
}

impl Event {
    /// A transaction with what became of it.
    pub fn transaction(
        transaction: &Transaction,
        delivery: &Delivery,
        data: Option<&[u8]>,
    ) -> Self {
        Self::Transaction {
            sequence: transaction.sequence,
            requester: transaction.requester.0,
            kind: transaction.kind.to_string(),
            purpose: transaction.purpose.name().to_owned(),
            address: transaction.address,
            length: transaction.length,
            outcome: delivery.into(),
            data: data.map(<[u8]>::to_vec),
        }
    }
}

impl From<&Delivery> for TransactionResult {
    fn from(delivery: &Delivery) -> Self {
        match delivery {
            Delivery::Failed(status) => Self::Failed(status.name().to_owned()),
            Delivery::Delivered { route, target, address } => Self::Delivered {
                route: route.name().to_owned(),
                address: *address,
                target: target.as_ref().map(target_name).unwrap_or_default(),
            },
        }
    }
}

fn target_name(target: &Target) -> String {
    match target {
        Target::Memory { function: None, offset, .. } => format!("ram+{offset:#x}"),
        Target::Memory { function: Some(function), offset, .. } => {
            format!("memory of function {}+{offset:#x}", function.index())
        }
        Target::Registers { function, bar, offset, .. } => {
            format!("function {} BAR{bar}+{offset:#x}", function.index())
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigWrite { function, offset, length, value } => {
                write!(
                    f,
                    "configuration write of {length} bytes, {value:#x}, at {function:#06x}+{offset:#x}"
                )
            }
            Self::ConfigRead { function, offset, length, value } => {
                write!(
                    f,
                    "configuration read of {length} bytes, {value:#x}, at {function:#06x}+{offset:#x}"
                )
            }
            Self::RegisterWrite { address, data } => {
                write!(f, "register write of {} at {address:#x}", hex::text(data))
            }
            Self::RegisterRead { address, data } => {
                write!(f, "register read of {} at {address:#x}", hex::text(data))
            }
            Self::CpuPush { function } => {
                write!(f, "a CPU's access pushes what is under way to function {function}")
            }
            Self::Unplug { port } => write!(f, "the slot of {port:#06x} is emptied"),
            Self::Plug { port } => write!(f, "the slot of {port:#06x} is filled"),
            Self::DelayPosted { requester, target, delay } => {
                write!(f, "posted writes of {requester:#06x} to ")?;
                match target {
                    Some(target) => write!(f, "{target:#06x}")?,
                    None => f.write_str("the root complex")?,
                }
                write!(f, " stay under way: {delay}")
            }
            Self::FenceSeen { requester } => {
                write!(f, "a fence of {requester:#06x} has been seen")
            }
            Self::Witness { kind, data } => {
                write!(f, "the witness: {kind} {}", hex::text(data))
            }
            Self::Step { function } => write!(f, "turn of function {function}"),
            Self::Outside { function, data } => {
                write!(f, "value {} from outside for function {function}", hex::text(data))
            }
            Self::Transaction {
                sequence,
                requester,
                kind,
                purpose,
                address,
                length,
                outcome,
                data,
            } => {
                write!(
                    f,
                    "#{sequence} {requester:#06x} {kind} {purpose} addr={address:#x} len={length} {outcome}"
                )?;
                match data {
                    Some(data) => write!(f, " data={}", hex::text(data)),
                    None => Ok(()),
                }
            }
            Self::Finding { text, note: false, .. } => write!(f, "finding: {text}"),
            Self::Finding { text, note: true, .. } => write!(f, "note: {text}"),
            Self::End { events } => write!(f, "end after {events} events"),
            Self::Cut { events } => write!(f, "cut after {events} events"),
        }
    }
}

impl fmt::Display for TransactionResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered { route, address, target } => {
                write!(f, "delivered by {route} to {address:#x} ({target})")
            }
            Self::Failed(status) => write!(f, "failed: {status}"),
        }
    }
}
