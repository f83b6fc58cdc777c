#![doc = include_str!("../README.md")]
//!
//! The program `peerdma`, which lies in every guest, is this one by the name [`NAME`]: [`run`].

mod address;
mod arguments;
mod commands;
mod error;
mod kinds;
mod operand;
mod output;
mod registers;
mod script;
mod session;
mod shell;

use arguments::{Arguments, Top};
use clap::{CommandFactory, Parser};
use output::Output;
use session::Session;
use std::ffi::OsString;

pub use script::split_commands;

/// The program's name in a guest.
pub const NAME: &str = "peerdmactl";

/// The command line, as clap knows it.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Does what the arguments (with the program's name) ask for; gives the exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(error::USAGE);
        }
    };
    let output = if arguments.json { Output::Json } else { Output::People };
    let mut session = Session::new();
    if let Some(commands) = arguments.commands {
        if arguments.command.is_some() {
            output.error(&error::CtlError::usage("give -c or a command, not both"), "");
            return error::USAGE;
        }
        return script::run(&mut session, "-c", &commands, false, output);
    }
    let done = match arguments.command {
        None => {
            let _ = Arguments::command().print_help();
            return error::USAGE;
        }
        Some(Top::Shell) => return shell::run(&mut session, output),
        Some(Top::Run { file, keep_going }) => script::read(&file).map(|text| {
            script::run(&mut session, &file.display().to_string(), &text, keep_going, output)
        }),
        Some(Top::One(command)) => commands::run(&mut session, &command, output).map(|()| 0),
    };
    done.unwrap_or_else(|error| {
        output.error(&error, "");
        error.code
    })
}
