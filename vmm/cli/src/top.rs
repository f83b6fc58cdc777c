//! `peerdma top`, and the same view inside `peerdma boot`.

mod rates;
mod state;
mod view;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use peerdma_suite::control::client::{Client, ClientError};
use peerdma_suite::control::message::{Command, Findings, Machine, Status, Traffic};
use peerdma_suite::control::server::Desk;
use peerdma_suite::host::ctrl_c::{Hook, interrupted};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde_json::Value;

use self::state::{Action, State};
use super::{Exit, Failure, control, output};

/// How long to wait for a key before the guest is asked whether it is time.
const TICK: Duration = Duration::from_millis(100);

/// What to look at.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Keys: q leaves, Space holds the view, p pauses the guest and lets it go on, / shows only functions whose name has a text,
Up and Down choose a finding, Enter opens it with what happened before it, ? lists the keys.
In a guest's own terminal Ctrl-A d shows the same.")]
pub(super) struct Arguments {
    /// The socket of the guest [default: that of the only one that runs]
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// Seconds between two readings
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
    /// Print the rates of one interval and end; needs no terminal
    #[arg(long)]
    once: bool,
}

/// Whatever answers requests.
pub(super) trait Source {
    /// Answers one.
    ///
    /// # Errors
    /// Why there is no answer.
    fn ask(&mut self, command: &Command) -> Result<Value, ClientError>;
}

impl Source for Client {
    fn ask(&mut self, command: &Command) -> Result<Value, ClientError> {
        Self::ask(self, command)
    }
}

impl Source for &Desk {
    fn ask(&mut self, command: &Command) -> Result<Value, ClientError> {
        self.answer(command).map_err(ClientError::Refused)
    }
}

/// All that is shown, read at one moment.
#[derive(Debug, Clone, Default)]
struct Reading {
    status: Status,
    machine: Machine,
    traffic: Traffic,
    /// Those that are new.
    findings: Findings,
}

impl Reading {
    fn take(source: &mut impl Source, known: u64) -> Result<Self, ClientError> {
        fn get<T: serde::de::DeserializeOwned>(
            source: &mut impl Source,
            command: &Command,
        ) -> Result<T, ClientError> {
            serde_json::from_value(source.ask(command)?)
                .map_err(|error| ClientError::Lost(io::Error::other(error)))
        }
        Ok(Self {
            status: get(source, &Command::Status {})?,
            machine: get(source, &Command::Topology {})?,
            traffic: get(source, &Command::Traffic {})?,
            // One that is known may have grown.
            findings: get(source, &Command::Findings { after: known.saturating_sub(1) })?,
        })
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    if !(0.1..=3600.0).contains(&arguments.interval) {
        return Err(Failure::usage("--interval is between 0.1 and 3600 seconds"));
    }
    let interval = Duration::from_secs_f64(arguments.interval);
    let mut source = control::connect(arguments.control.as_deref())?;
    if arguments.once {
        return once(&mut source, interval);
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::usage("the view needs a terminal")
            .hint("--once prints one reading; `peerdma ctl traffic --json` gives the counters"));
    }
    let shown = show(&mut source, interval, &|| false);
    shown.map_err(super::ctl::failure)?;
    Ok(Exit::Success as u8)
}

fn once(source: &mut impl Source, interval: Duration) -> Result<u8, Failure> {
    let mut state = State::default();
    for number in 0..2 {
        if number > 0 {
            std::thread::sleep(interval);
        }
        let reading = Reading::take(source, state.newest()).map_err(super::ctl::failure)?;
        state.take(reading);
    }
    output::print(&view::text(&state))?;
    Ok(Exit::Success as u8)
}

/// Shows the view until the user leaves it, the guest ends, or `is_over` says so. The terminal is as it was afterwards.
///
/// # Errors
/// Why the guest could not be asked any more; its end is none.
pub(super) fn show(
    source: &mut impl Source,
    interval: Duration,
    is_over: &dyn Fn() -> bool,
) -> Result<(), ClientError> {
    let mut state = State::default();
    // Before the screen is taken: what fails here is said on the user's own.
    state.take(Reading::take(source, 0)?);
    let _hook = Hook::new(ratatui::restore);
    let mut terminal = ratatui::try_init().map_err(ClientError::Lost)?;
    let end = follow(&mut terminal, source, &mut state, interval, is_over);
    ratatui::restore();
    match end {
        // The guest has ended, or is about to.
        Err(ClientError::Lost(_)) => Ok(()),
        end => end,
    }
}

fn follow(
    terminal: &mut DefaultTerminal,
    source: &mut impl Source,
    state: &mut State,
    interval: Duration,
    is_over: &dyn Fn() -> bool,
) -> Result<(), ClientError> {
    let mut read = Instant::now();
    while !interrupted() && !is_over() {
        terminal.draw(|frame| view::draw(frame, state)).map_err(ClientError::Lost)?;
        if event::poll(TICK.min(interval)).map_err(ClientError::Lost)?
            && let Event::Key(key) = event::read().map_err(ClientError::Lost)?
            && key.kind == KeyEventKind::Press
        {
            match state.key(key) {
                Action::Nothing => {}
                Action::Leave => return Ok(()),
                Action::Ask(command) => {
                    // What is refused is shown, and does not end the view.
                    state.answered(source.ask(&command).err().map(|error| error.to_string()));
                    read = Instant::now().checked_sub(interval).unwrap_or(read);
                }
            }
        }
        if read.elapsed() >= interval {
            read = Instant::now();
            let reading = Reading::take(source, state.newest())?;
            state.take(reading);
        }
    }
    Ok(())
}
