//! `peerdma replay --step`: a replay that stops, takes commands on stdin, and goes on.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;

use peerdma_suite::host::ctrl_c;
use peerdma_suite::report::ktap::plain;
use peerdma_support::names::nearest_name;
use peerdma_support::say;
use peerdma_trace::{Entry, Event, Session, Stepped, Until};

use super::replay::{TraceFile, failure, open_quietly, text};
use super::{Exit, Failure, output};

/// Bytes of a command line that are read; a longer one makes no sense.
const MAX_LINE: u64 = 4096;

/// The commands and what they do.
const COMMANDS: [(&str, &str); 8] = [
    (
        "step [N]",
        "replay the next cause, or N of them: an access by a CPU, a turn of a function, with what comes of it",
    ),
    (
        "continue [UNTIL]",
        "go on to `finding`, a class or group of findings, a TLP as #1042, or the number of an entry; without it, as before",
    ),
    ("show", "print where the replay is, and what came of the last cause"),
    ("mappings FUNCTION [ADDRESS]", "what is mapped for a function, the nearest to an address"),
    (
        "registers FUNCTION",
        "its configuration registers, and the last access to each of its others",
    ),
    ("topology", "functions, buses, ACS controls that are on, links that are down"),
    ("help", "print this"),
    ("quit", "end"),
];

/// A replay under the user's hand.
struct Steps<'a> {
    path: &'a Path,
    session: Session<TraceFile>,
    until: Until,
    last: Option<Stepped>,
    /// How many commands made no sense.
    refused: u32,
}

pub(super) fn run(path: &Path, until: &Until) -> Result<u8, Failure> {
    let session = Session::new(open_quietly(path)?).map_err(|error| failure(path, &error))?;
    // A command line is waited for where Ctrl-C would not be noticed.
    let _hook = ctrl_c::Hook::new(|| std::process::exit(ctrl_c::EXIT_CODE));
    let mut steps = Steps { path, session, until: until.clone(), last: None, refused: 0 };
    steps.go_on()?;
    let stdin = io::stdin().lock();
    let asks = stdin.is_terminal();
    steps.take_commands(stdin, asks)?;
    let refused = steps.refused;
    let stopped = steps.last.as_ref().map_or(0, Stepped::last);
    let is_over = steps.session.is_over();
    let result = steps.session.finish().map_err(|error| failure(path, &error))?;
    if is_over {
        output::print(&text(&result))?;
    } else {
        output::print(&format!("stopped after entry {stopped}\n"))?;
    }
    Ok(match (result.difference.is_some(), refused) {
        (true, _) => Exit::Failed as u8,
        // A script that asks for something else than it thinks is wrong.
        (false, 1..) if !asks => Exit::Usage as u8,
        _ => Exit::Success as u8,
    })
}

impl Steps<'_> {
    /// Takes commands up to `quit` or the end of the input.
    fn take_commands(&mut self, mut input: impl BufRead, asks: bool) -> Result<(), Failure> {
        if asks {
            say!("`help` lists the commands");
        }
        loop {
            if asks {
                output::print("(replay) ")?;
            }
            let mut line = Vec::new();
            let read = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
            let failed = |error| Failure::environment(format_args!("reading stdin: {error}"));
            if read.map_err(failed)? == 0 {
                if asks {
                    output::print("\n")?;
                }
                return Ok(());
            }
            if line.last() != Some(&b'\n') && line.len() as u64 == MAX_LINE {
                return Err(Failure::usage(format_args!(
                    "a command is longer than {MAX_LINE} bytes"
                )));
            }
            let line = String::from_utf8_lossy(&line);
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                ["quit" | "q" | "exit"] => return Ok(()),
                [word, ..] if word.starts_with('#') => {}
                words => self.command(words)?,
            }
        }
    }

    fn command(&mut self, words: &[&str]) -> Result<(), Failure> {
        let text = match *words {
            // An empty line repeats nothing: a script may have some.
            [] => return Ok(()),
            ["step" | "s"] => return self.step(1),
            ["step" | "s", count] => match count.parse() {
                Ok(count) => return self.step(count),
                Err(_) => return self.refuse(&format!("{count:?} is not a number of steps")),
            },
            ["continue" | "c"] => return self.go_on(),
            ["continue" | "c", until] => match until.parse() {
                Ok(until) => {
                    self.until = until;
                    return self.go_on();
                }
                Err(error) => return self.refuse(&error),
            },
            ["show"] => self.place(),
            ["mappings", name] => return self.mappings(name, 0),
            ["mappings", name, address] => {
                let digits = address.strip_prefix("0x").unwrap_or(address);
                match u64::from_str_radix(digits, 16) {
                    Ok(address) => return self.mappings(name, address),
                    Err(_) => {
                        return self
                            .refuse(&format!("{address:?} is not an address, as 0xffff0000"));
                    }
                }
            }
            ["registers", name] => match self.session.registers(name) {
                Some(lines) => lines_of(&lines),
                None => return self.no_function(name),
            },
            ["topology"] => lines_of(&self.session.topology()),
            ["help" | "?"] => help(),
            [command, ..] => {
                let is_it = |(usage, _): &&(&str, &str)| usage.split(' ').next() == Some(command);
                let why = match COMMANDS.iter().find(is_it) {
                    Some((usage, _)) => format!("it is `{usage}`"),
                    None => format!("there is no command {command:?}; `help` lists them"),
                };
                return self.refuse(&why);
            }
        };
        output::print(&text)
    }

    /// Replays `count` causes, and prints each.
    fn step(&mut self, count: u64) -> Result<(), Failure> {
        for _ in 0..count {
            if !self.advance()? {
                return self.print_end();
            }
            output::print(&self.place())?;
        }
        Ok(())
    }

    /// Goes on to the next place where it is to stop.
    fn go_on(&mut self) -> Result<(), Failure> {
        while self.advance()? {
            if self.last.as_ref().is_some_and(|stepped| self.until.is_reached(stepped)) {
                return output::print(&self.place());
            }
        }
        self.print_end()
    }

    fn advance(&mut self) -> Result<bool, Failure> {
        let stepped = self.session.step().map_err(|error| failure(self.path, &error))?;
        let has_gone_on = stepped.is_some();
        self.last = stepped.or(self.last.take());
        Ok(has_gone_on)
    }

    fn print_end(&self) -> Result<(), Failure> {
        output::print("the replay is at its end\n")
    }

    /// The last cause, and what came of it.
    fn place(&self) -> String {
        let Some(Stepped { cause, events, test }) = &self.last else {
            return "at the beginning\n".to_owned();
        };
        let mut text = format!("{:.6} s", self.session.time(cause).as_secs_f64());
        // Writing to a string does not fail.
        if let Some(test) = test {
            let _ = write!(text, ", test {}", plain(test));
        }
        text += "\n";
        for entry in [cause].into_iter().chain(events) {
            let _ = writeln!(text, "{:>8} {}", entry.number, self.words(entry));
        }
        text
    }

    /// An entry in words, with names of functions instead of their numbers where it has nothing else.
    fn words(&self, entry: &Entry) -> String {
        let name = |number: usize| {
            self.session
                .functions()
                .into_iter()
                .nth(number)
                .unwrap_or_else(|| format!("function {number}"))
        };
        plain(&match &entry.event {
            Event::Step { function } => format!("turn of {}", name(*function)),
            Event::CpuPush { function } => {
                format!("a CPU's access pushes what is under way to {}", name(*function))
            }
            event => event.to_string(),
        })
    }

    fn mappings(&mut self, name: &str, address: u64) -> Result<(), Failure> {
        match self.session.mappings(name, address) {
            Some(lines) => output::print(&lines_of(&lines)),
            None => self.no_function(name),
        }
    }

    fn no_function(&mut self, name: &str) -> Result<(), Failure> {
        let all = self.session.functions();
        let near = nearest_name(name, all.iter().map(String::as_str));
        let near = near.map(|near| format!(", did you mean {near:?}?"));
        let near = near.unwrap_or_else(|| format!("; there are {}", all.join(", ")));
        self.refuse(&format!("there is no function {name:?}{near}"))
    }

    fn refuse(&mut self, why: &str) -> Result<(), Failure> {
        self.refused = self.refused.saturating_add(1);
        say!("{}", plain(why));
        Ok(())
    }
}

fn lines_of(lines: &[String]) -> String {
    let line = |line: &String| {
        let indent = line.len() - line.trim_start_matches(' ').len();
        format!("{:indent$}{}\n", "", plain(line))
    };
    lines.iter().map(line).collect()
}

fn help() -> String {
    let width = COMMANDS.iter().map(|(usage, _)| usage.len()).max().unwrap_or(0);
    COMMANDS.iter().map(|(usage, what)| format!("{usage:width$}  {what}\n")).collect()
}
