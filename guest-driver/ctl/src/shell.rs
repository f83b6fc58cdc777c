//! Commands from the keyboard.

use crate::arguments::Line;
use crate::error::{CtlError, REFUSED};
use crate::output::Output;
use crate::script::{self, Next};
use crate::session::Session;
use clap::CommandFactory;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Context, Editor, Helper, Highlighter, Hinter, Validator};
use std::io::IsTerminal;

const PROMPT: &str = "peerdmactl> ";
const GREETING: &str = "\
Objects live until this shell ends. Begin with:
  list                       the devices, and which may reach which
  transfer peer0 peer1       one P2P transfer, each step as the command that does it
  misuse --list              mistakes to make on purpose
`help` lists the commands, `COMMAND --help` says what the kernel does then, Tab completes, Ctrl-D ends.";

/// Completes commands, and names of devices and objects.
#[derive(Debug, Default)]
struct Words {
    commands: Vec<String>,
    names: Vec<String>,
}

/// Completions of the last word of `line`, and where that begins.
fn complete(words: &Words, line: &str) -> (usize, Vec<String>) {
    let start = line.rfind([' ', ';']).map_or(0, |at| at + 1);
    let (before, last) = line.split_at(start);
    let is_command = before.trim_end().is_empty() || before.trim_end().ends_with(';');
    let known = if is_command { &words.commands } else { &words.names };
    let mut found: Vec<_> = known.iter().filter(|word| word.starts_with(last)).cloned().collect();
    // Only one: the next word can begin.
    if let [one] = found.as_mut_slice() {
        one.push(' ');
    }
    (start, found)
}

/// Reads lines with history and completion; gives the exit code, which is that of the last command.
pub(crate) fn run(session: &mut Session, output: Output) -> u8 {
    if !std::io::stdin().is_terminal() {
        return match script::read(std::path::Path::new("-")) {
            Ok(text) => script::run(session, "standard input", &text, true, output),
            Err(error) => report(output, &error),
        };
    }
    let mut editor = match editor() {
        Ok(editor) => editor,
        Err(error) => {
            let error = CtlError::refused(format!("the terminal cannot be used: {error}"))
                .hint("`peerdmactl run FILE` and -c 'COMMANDS' need none");
            return report(output, &error);
        }
    };
    if output == Output::People {
        println!("{GREETING}");
    }
    let commands = Line::command();
    let mut words = Words {
        commands: commands.get_subcommands().map(|one| one.get_name().to_owned()).collect(),
        names: Vec::new(),
    };
    words.commands.extend(["quit".to_owned()]);
    // Also opens the devices, so that their names are known.
    let devices = session.open_all().map_err(|error| report(output, &error)).unwrap_or_default();
    let mut code = 0;
    loop {
        words.names = devices.iter().map(|number| guest_agent::device::name(*number)).collect();
        words.names.extend(session.objects.keys().chain(session.buffers.keys()).cloned());
        editor.set_helper(Some(ShellHelper(std::mem::take(&mut words))));
        let line = editor.readline(PROMPT);
        if let Some(helper) = editor.helper_mut() {
            words = std::mem::take(&mut helper.0);
        }
        match line {
            Ok(line) => {
                // A history that is full forgets its oldest line.
                let _ = editor.add_history_entry(line.as_str());
                match script::line(session, &line, output) {
                    Ok(Next::Go) => code = 0,
                    Ok(Next::Quit) => return code,
                    Err(error) => code = report(output, &error),
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return code,
            Err(error) => {
                return report(output, &CtlError::refused(format!("the terminal: {error}")));
            }
        }
    }
}

fn report(output: Output, error: &CtlError) -> u8 {
    output.error(error, "");
    error.code.max(REFUSED)
}

#[derive(Helper, Highlighter, Hinter, Validator)]
struct ShellHelper(Words);

impl Completer for ShellHelper {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(&self.0, line.get(..position).unwrap_or(line)))
    }
}

fn editor() -> rustyline::Result<Editor<ShellHelper, MemHistory>> {
    // With the feature `buffer-redux` what is typed ahead is kept for the next line.
    let config = Config::builder().history_ignore_space(true).build();
    let history = MemHistory::with_config(&config);
    Editor::with_history(config, history)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_completed() {
        let words = Words {
            commands: vec!["copy".into(), "close".into(), "list".into()],
            names: vec!["peer0".into(), "peer1".into(), "m0".into()],
        };
        assert_eq!(complete(&words, "c"), (0, vec!["copy".into(), "close".into()]));
        assert_eq!(complete(&words, "alloc p"), (6, vec!["peer0".into(), "peer1".into()]));
        assert_eq!(complete(&words, "list; c").1, ["copy", "close"]);
        assert_eq!(complete(&words, "copy m0 x"), (8, Vec::new()));
        assert_eq!(complete(&words, "").1.len(), 3);
        assert_eq!(complete(&words, "copy m").1, ["m0 "]);
    }
}
