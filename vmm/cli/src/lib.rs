//! The command line: one file a subcommand.
//!
//! Results go to stdout, everything else to stderr. A closed stdout is not an error.

mod boot;
mod boot_config;
mod choose;
mod control;
mod ctl;
mod doctor;
mod exchange;
mod explain;
mod failure;
mod findings;
mod guest;
mod kernel;
mod list;
mod machine;
mod minimise;
mod output;
mod progress;
mod rebind;
mod record;
mod replay;
mod report;
mod reporting;
mod shares;
mod step;
mod substitute;
mod test;
mod top;
mod topology;
mod trace;
mod values;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use failure::{Exit, Failure};

use peerdma_suite::host::ctrl_c;
use peerdma_suite::nested;
use peerdma_support::say;

/// Printed below the long help.
const AFTER_HELP: &str = "\
Examples:
  peerdma doctor                       what this machine can do, and what it lacks
  peerdma test                         boot a guest, run the quick set, check every DMA transaction
  peerdma test --scenario basic --kernel ~/linux
  peerdma test --module my.ko --file my-test -- my-test --all
  peerdma boot                         a console in the guest; Ctrl-A x leaves
  peerdma boot -- lspci -vvv
  peerdma topology switch              draw a preset
  peerdma explain peer0 peer1 --topology switch-acs --iommu none
  peerdma findings iommu.stale         what a finding means, and how to fix it
  sudo peerdma machine capture >box.json    what a real machine has on PCIe

Exit codes:
  0  everything passed or was skipped, a replay was identical, a kernel decided as predicted
  1  tests failed, a guest was stopped on a finding, a replay or a decision was different
  2  usage error, or a file or folder on the command line is not valid
  3  this machine lacks something (see peerdma doctor), or a file cannot be written
  4  a guest hung or could not be run, or the program itself failed
  130  interrupted
  With -- CMD: the command's exit status, or 1 if that is 0 and the checker reported something; 126 if it cannot be
  executed, 127 if it was not found. A shell (boot without CMD) ends with 0.

Environment:
  PEERDMA_QEMU            the QEMU for the nested test host, instead of qemu-system-x86_64 in PATH
  PEERDMA_QEMU_CPU        the processor that it emulates, as its -cpu takes it, instead of qemu64,+svm,+npt
  PEERDMA_KERNEL_TREE     an unpacked Linux source for `kernel build`, instead of the distribution's
  PEERDMA_DEBIAN_MIRROR   a Debian mirror, where apt has none
  PEERDMA_TIMEOUT_FACTOR  stretches all time limits, for slow machines
  XDG_CACHE_HOME          where kernels and modules are kept (default ~/.cache)
  RUST_LOG, NO_COLOR      as usual";

#[derive(Debug, Parser)]
#[command(
    name = "peerdma",
    version,
    about = "A lab for PCIe peer-to-peer DMA: real Linux guests, checked devices, no hardware",
    after_long_help = AFTER_HELP,
    max_term_width = 110
)]
struct Arguments {
    /// Print more on stderr; twice: print much more
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what this machine can do, and where guests will run
    Doctor(doctor::Arguments),
    /// Boot guests and run the tests in them, or your own command
    Test(test::Arguments),
    /// Boot a guest with a console, or run one command in it
    Boot(boot::Arguments),
    /// Ask a guest that runs, hold it, change its machine
    Ctl(ctl::Arguments),
    /// Watch what a running guest's devices do
    Top(top::Arguments),
    /// Build the guest's kernel
    Kernel(kernel::Arguments),
    /// Draw a topology, or list the presets
    Topology(topology::Arguments),
    /// Show which path Linux chooses between two devices, and why
    Explain(explain::Arguments),
    /// Record the PCIe devices of a real machine, or show such a record
    Machine(machine::Arguments),
    /// Merge the reports of several test runs
    Report(report::Arguments),
    /// List the classes of findings, or explain one
    Findings(findings::Arguments),
    /// Replay a trace on fresh device models and compare the findings
    Replay(replay::Arguments),
    /// Look at a trace, check it, cut it, export it
    Trace(trace::Arguments),
    #[command(name = nested::SUBCOMMAND, hide = true)]
    NestedInit,
}

/// The command line, as clap knows it: for manual pages and shell completions, and for checks of
/// what others wrote about it.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    if let Some(status) = guest::run() {
        return ExitCode::from(status);
    }
    let arguments = match parse() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(failure) => {
            say!("{failure}");
            return ExitCode::from(failure.exit as u8);
        }
    };
    if matches!(arguments.command, Command::NestedInit) {
        nested::init_main();
    }
    start_log(arguments.verbose);
    match run(arguments.command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            say!("{failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// The command line, with what is in files of options; none if it was to be written into such a file.
fn parse() -> Result<Option<Arguments>, Failure> {
    let command = command();
    let words = boot_config::expand(std::env::args_os().collect(), &command)?;
    let matches = command.clone().get_matches_from(words);
    if boot_config::write(&matches, &command)? {
        return Ok(None);
    }
    Ok(Some(Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())))
}

fn run(command: Command) -> Result<u8, Failure> {
    ctrl_c::install().map_err(Failure::internal)?;
    let result = match command {
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Boot(arguments) => boot::run(&arguments),
        Command::Ctl(arguments) => ctl::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Kernel(arguments) => kernel::run(&arguments),
        Command::Topology(arguments) => topology::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Machine(arguments) => machine::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Findings(arguments) => findings::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::NestedInit => Ok(Exit::Usage as u8),
    };
    // Whatever an interrupted command says about itself, the reason was the user.
    if ctrl_c::interrupted() && !ctrl_c::has_quit() { Err(Failure::interrupted()) } else { result }
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_command_for_the_guest_keeps_its_flags() {
        let arguments =
            Arguments::try_parse_from(["peerdma", "test", "--module", "a.ko", "--", "x", "--help"]);
        let Command::Test(test) = arguments.unwrap().command else { panic!() };
        assert_eq!(test.command, ["x", "--help"]);
    }

    #[test]
    fn the_seed_of_the_jitter_may_be_left_out() {
        let jitter = |words: &[&str]| {
            let line = ["peerdma", "test"].iter().chain(words);
            let Command::Test(test) = Arguments::try_parse_from(line).unwrap().command else {
                panic!()
            };
            test.guest.jitter().seed
        };
        assert_eq!(jitter(&[]), None);
        assert_eq!(jitter(&["--jitter=7"]), Some(7));
        assert!(jitter(&["--jitter"]).is_some());
        assert!(jitter(&["--jitter", "--all"]).is_some());
        for wrong in ["--jitter=", "--jitter=x", "--jitter=-1"] {
            assert!(Arguments::try_parse_from(["peerdma", "test", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn typing_errors_get_a_hint() {
        let error = Arguments::try_parse_from(["peerdma", "tset"]).unwrap_err().to_string();
        assert!(error.contains("'test'"), "{error}");
        let error = Arguments::try_parse_from(["peerdma", "test", "--scenari", "x"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("'--scenario'"), "{error}");
    }
}
