//! Commands from a file, from `-c`, or line by line.

use crate::arguments::Line;
use crate::commands;
use crate::error::{CtlError, USAGE};
use crate::output::{Answer, Output};
use crate::session::Session;
use clap::Parser;
use clap::error::ErrorKind;
use serde_json::json;
use std::io::Read;
use std::path::Path;

/// The longest script, in bytes.
const MAX_SCRIPT: u64 = 1 << 20;

/// What a line asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next one.
    Go,
    /// No more.
    Quit,
}

/// Splits a line into commands at `;`, and each into words as a shell does. `#` begins a comment.
///
/// # Errors
/// When a quote is not closed.
pub fn split_commands(line: &str) -> Result<Vec<Vec<String>>, String> {
    let mut commands = Vec::new();
    let (mut current, mut quote, mut is_escaped) = (String::new(), None, false);
    let mut is_begun = true;
    for c in line.chars() {
        if is_escaped {
            is_escaped = false;
        } else {
            match (quote, c) {
                (None | Some('"'), '\\') => is_escaped = true,
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), close) if open == close => quote = None,
                (None, ';') => {
                    commands.push(std::mem::take(&mut current));
                    is_begun = true;
                    continue;
                }
                (None, '#') if is_begun => break,
                _ => {}
            }
        }
        is_begun = quote.is_none() && c.is_whitespace();
        current.push(c);
    }
    commands.push(current);
    let words = |command: &String| {
        shlex::split(command).ok_or_else(|| format!("a quote is not closed: {}", command.trim()))
    };
    let all: Vec<_> = commands.iter().map(words).collect::<Result<_, _>>()?;
    Ok(all.into_iter().filter(|words| !words.is_empty()).collect())
}

/// Carries out the commands of one line; stops at the first that fails.
pub(crate) fn line(session: &mut Session, text: &str, output: Output) -> Result<Next, CtlError> {
    for words in split_commands(text).map_err(CtlError::usage)? {
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["quit" | "exit"] => return Ok(Next::Quit),
            words => one(session, words, output)?,
        }
    }
    Ok(Next::Go)
}

fn one(session: &mut Session, words: &[&str], output: Output) -> Result<(), CtlError> {
    match Line::try_parse_from(words) {
        Ok(parsed) => commands::run(session, &parsed.command, output),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp) => {
            let text = error.render().to_string();
            output.answer(&Answer::new(text.trim_end(), json!({ "help": text })));
            Ok(())
        }
        Err(error) => {
            let text = error.render().to_string();
            let text = text.trim_end();
            Err(CtlError::usage(text.strip_prefix("error: ").unwrap_or(text)))
        }
    }
}

/// Carries out the commands of a script, whose name is `name` in messages; gives the exit code.
pub(crate) fn run(
    session: &mut Session,
    name: &str,
    text: &str,
    keep_going: bool,
    output: Output,
) -> u8 {
    let mut code = 0;
    for (number, text) in (1..).zip(text.lines()) {
        match line(session, text, output) {
            Ok(Next::Go) => {}
            Ok(Next::Quit) => break,
            Err(error) => {
                output.error(&error, &format!("{name}:{number}: "));
                code = if code == 0 { error.code } else { code };
                if !keep_going {
                    break;
                }
            }
        }
    }
    code
}

/// The text of a script; `-` stands for standard input.
pub(crate) fn read(path: &Path) -> Result<String, CtlError> {
    let failed = |error: std::io::Error| CtlError {
        code: USAGE,
        message: format!("{}: {error}", path.display()),
        hint: None,
    };
    let mut text = String::new();
    let length = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_SCRIPT + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_SCRIPT + 1).read_to_string(&mut text))
    }
    .map_err(failed)?;
    if length as u64 > MAX_SCRIPT {
        return Err(CtlError::usage(format!("{} is longer than 1 MiB", path.display())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_into_commands_and_words() {
        let split = |line: &str| split_commands(line).unwrap();
        assert_eq!(split(""), Vec::<Vec<String>>::new());
        assert_eq!(split(" ; ;# only a comment; x"), Vec::<Vec<String>>::new());
        assert_eq!(split("a b;c"), [vec!["a", "b"], vec!["c"]]);
        assert_eq!(split("a ';' \"x;y\" z\\;1 # c"), [vec!["a", ";", "x;y", "z;1"]]);
        assert_eq!(split("a#b"), [vec!["a#b"]]);
        assert_eq!(split("a '#' b"), [vec!["a", "#", "b"]]);
        assert!(split_commands("a 'b").is_err());
        assert!(split_commands("a \"b").unwrap_err().contains("not closed"));
    }

    #[test]
    fn a_script_ends_at_its_first_error_unless_told_otherwise() {
        let mut session = Session::new();
        let mut run = |text: &str, keep_going| {
            super::run(&mut session, "test", text, keep_going, Output::Json)
        };
        assert_eq!(run("misuse --list\n# nothing\n\n", false), 0);
        assert_eq!(run("misuse nonsense\n", false), USAGE);
        assert_eq!(run("quit\nmisuse nonsense\n", false), 0);
        assert_eq!(run("show x\nverify\nnonsense 'x\n", true), USAGE);
        assert_eq!(run("copy --help; copy -h", false), 0);
        assert_eq!(run("show m0", false), USAGE);
    }
}
