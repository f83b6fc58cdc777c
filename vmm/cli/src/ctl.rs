//! `peerdma ctl`.

mod text;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use peerdma_suite::control::client::{Client, ClientError};
use peerdma_suite::control::message::Command;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Exit, Failure, control, output};

/// What to ask a guest.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  peerdma ctl status
  peerdma ctl mappings peer0 --near 0xfffff000
  peerdma ctl pause
  peerdma ctl registers peer0
  peerdma ctl resume
  peerdma ctl unplug port1                      surprise removal of what is below it
  peerdma ctl delay peer0 peer1 pushed          hold its posted writes back until something pushes them
  peerdma ctl findings --json

The guest is one that `peerdma boot` has started; docs/debugging.md describes the socket for other programs.")]
pub(super) struct Arguments {
    /// The socket of the guest [default: that of the only one that runs]
    #[arg(long, value_name = "SOCKET", global = true)]
    control: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Whether it runs, and totals
    Status,
    /// Functions and ports: numbers, BARs, ACS, links
    Topology,
    /// Bytes of each function, by route and target
    Traffic,
    /// What is mapped for a function, by the guest's kernel and by the IOMMU
    Mappings {
        /// Its name in the topology, or BUS:DEVICE.FUNCTION
        function: String,
        /// Those nearest to this address (hexadecimal)
        #[arg(long, value_name = "ADDRESS")]
        near: Option<String>,
        /// How many of each kind
        #[arg(long, value_name = "NUMBER", default_value_t = 64)]
        most: usize,
    },
    /// Configuration header and registers of a function; reading them has no effect
    Registers {
        /// Its name in the topology, or BUS:DEVICE.FUNCTION
        function: String,
    },
    /// Findings so far, with what happened before each
    Findings {
        /// Only those with a higher number
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: u64,
    },
    /// Stop processors and devices where they are
    Pause,
    /// Let them go on
    Resume,
    /// End the guest's run
    PowerOff,
    /// Pull everything below a port out of its slot, without warning
    Unplug {
        /// The port's name, or BUS:DEVICE.FUNCTION
        port: String,
    },
    /// Plug it in again
    Plug {
        /// The port's name, or BUS:DEVICE.FUNCTION
        port: String,
    },
    /// Keep posted writes on a path under way
    Delay {
        /// The function that issues them
        requester: String,
        /// The function whose BARs they go to, or `ram`
        target: String,
        /// `pushed`: until something pushes them; a number of turns; `off`
        until: String,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let client = &mut control::connect(arguments.control.as_deref())?;
    let json = arguments.json;
    match &arguments.question {
        Question::Status => show(client, json, &Command::Status {}, text::status),
        Question::Topology => show(client, json, &Command::Topology {}, text::topology),
        Question::Traffic => show(client, json, &Command::Traffic {}, text::traffic),
        Question::Mappings { function, near, most } => {
            let (function, near, most) = (function.clone(), near.clone(), Some(*most));
            show(client, json, &Command::Mappings { function, near, most }, text::mappings)
        }
        Question::Registers { function } => {
            let function = function.clone();
            show(client, json, &Command::Registers { function }, text::registers)
        }
        Question::Findings { after } => {
            show(client, json, &Command::Findings { after: *after }, text::findings)
        }
        Question::Pause => tell(client, json, &Command::Pause {}),
        Question::Resume => tell(client, json, &Command::Resume {}),
        Question::PowerOff => tell(client, json, &Command::PowerOff {}),
        Question::Unplug { port } => tell(client, json, &Command::Unplug { port: port.clone() }),
        Question::Plug { port } => tell(client, json, &Command::Plug { port: port.clone() }),
        Question::Delay { requester, target, until } => {
            let (requester, target) = (requester.clone(), target.clone());
            tell(client, json, &Command::Delay { requester, target, until: until.clone() })
        }
    }?;
    Ok(Exit::Success as u8)
}

/// Prints an answer: for people as `words` has it.
fn show<T: DeserializeOwned + Serialize>(
    client: &mut Client,
    json: bool,
    command: &Command,
    words: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    let answer: T = client.get(command).map_err(failure)?;
    if json { output::json(&answer) } else { output::print(&words(&answer)) }
}

/// For requests that are answered by being done.
fn tell(client: &mut Client, json: bool, command: &Command) -> Result<(), Failure> {
    let answer = client.ask(command).map_err(failure)?;
    if json { output::json(&answer) } else { Ok(()) }
}

/// A request that the guest's machine refuses is a mistake of the user's.
pub(super) fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(_) => Failure::usage(error),
        ClientError::Connect { .. } | ClientError::Lost(_) => Failure::environment(error),
    }
}
