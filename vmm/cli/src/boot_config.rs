//! Options of `boot` in a file: `--config`, `--write-config`; and `--dry-run`.
//!
//! A file holds what stands on the command line: its keys are the long options, without dashes, and `command` is what
//! follows `--`. It is put into the command line before clap reads that, so that an option has one meaning.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};
use peerdma_suite::job::Job;
use peerdma_support::names::nearest_name;
use toml::{Table, Value};

use super::Failure;

/// The subcommand whose options these are.
const SUBCOMMAND: &str = "boot";
/// The key of what follows `--`.
const COMMAND: &str = "command";
/// Options that are about such files.
const OWN: [&str; 5] = ["config", "write-config", "dry-run", "help", "version"];
/// The longest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Options that are about options.
#[derive(Debug, Clone, Args)]
pub(super) struct ConfigOptions {
    /// Take options from this file: its keys are the options without their dashes, `command` is CMD as an array. What is
    /// on the command line goes before it; options that may be repeated add up
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Write the options of this command line into a file for --config, and boot nothing
    #[arg(long, value_name = "FILE.toml")]
    write_config: Option<PathBuf>,
    /// Print what would be booted, and boot nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// The command line with the options of all files that it names in their places.
///
/// # Errors
/// When a file cannot be read, or holds what is not an option.
pub(super) fn expand(
    arguments: Vec<OsString>,
    command: &Command,
) -> Result<Vec<OsString>, Failure> {
    let Some(boot) = command.find_subcommand(SUBCOMMAND) else { return Ok(arguments) };
    // Behind the program's name and global flags.
    let first = arguments.iter().skip(1).position(|argument| !starts_with_dash(argument));
    let Some(at) = first.map(|first| first + 1) else { return Ok(arguments) };
    if arguments.get(at).is_none_or(|argument| argument != SUBCOMMAND) {
        return Ok(arguments);
    }
    let own = arguments.get(at + 1..).unwrap_or_default();
    let end = own.iter().position(|argument| argument == "--");
    let options = own.get(..end.unwrap_or(own.len())).unwrap_or_default();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for path in files(options) {
        let (more, command) = read(&path, boot, options)?;
        before.extend(more);
        after = if command.is_empty() { after } else { command };
    }
    let head = arguments.get(..=at).unwrap_or_default();
    let mut all: Vec<OsString> =
        head.iter().cloned().chain(before).chain(own.iter().cloned()).collect();
    if end.is_none() && !after.is_empty() {
        all.push("--".into());
        all.extend(after);
    }
    Ok(all)
}

fn starts_with_dash(argument: &OsStr) -> bool {
    argument.as_encoded_bytes().starts_with(b"-")
}

/// The files that `--config` names.
fn files(options: &[OsString]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if option == "--config" {
            files.extend(options.next().map(PathBuf::from));
        } else if let Some(path) = option.to_str().and_then(|text| text.strip_prefix("--config=")) {
            files.push(path.into());
        }
    }
    files
}

/// Options, and what follows `--`.
type Expanded = (Vec<OsString>, Vec<OsString>);

fn read(path: &Path, boot: &Command, given: &[OsString]) -> Result<Expanded, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::usage(format_args!("the file of options {}: {why}", path.display()))
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
        .map_err(|error| failed(&error))?;
    if text.len() as u64 > MAX_FILE {
        return Err(failed(&"it is longer than 1 MiB"));
    }
    let table: Table = text.parse().map_err(|error: toml::de::Error| failed(&error))?;
    let (mut options, mut command) = (Vec::new(), Vec::new());
    for (key, value) in &table {
        if key == COMMAND {
            let Value::Array(words) = value else {
                return Err(failed(&"`command` is an array of words"));
            };
            for word in words {
                command.push(
                    scalar(word).ok_or_else(|| failed(&"`command` is an array of words"))?.into(),
                );
            }
            continue;
        }
        let argument = option(boot, key).map_err(|why| failed(&why))?;
        let is_repeated = matches!(argument.get_action(), ArgAction::Append);
        let name = format!("--{key}");
        let is_given = given.iter().any(|own| {
            own.to_str().is_some_and(|own| own == name || own.starts_with(&format!("{name}=")))
        });
        if is_given && !is_repeated {
            continue;
        }
        words(argument, key, value, is_repeated)
            .map_err(|why| failed(&why))?
            .into_iter()
            .for_each(|word| options.push(word.into()));
    }
    Ok((options, command))
}

/// The option of this name.
fn option<'a>(boot: &'a Command, key: &str) -> Result<&'a Arg, String> {
    let known: Vec<_> = boot
        .get_arguments()
        .filter_map(|argument| Some((argument.get_long()?, argument)))
        .filter(|(long, _)| !OWN.contains(long))
        .collect();
    if let Some((_, found)) = known.iter().find(|(long, _)| *long == key) {
        return Ok(found);
    }
    let near = nearest_name(key, known.iter().map(|(long, _)| *long));
    let near = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
    Err(format!("`{key}` is not an option of boot{near}"))
}

/// The words of an option on the command line.
fn words(
    argument: &Arg,
    key: &str,
    value: &Value,
    is_repeated: bool,
) -> Result<Vec<String>, String> {
    let takes_value = argument.get_action().takes_values();
    let may_be_bare = argument.get_num_args().is_some_and(|range| range.min_values() == 0);
    match value {
        Value::Boolean(is_set) if !takes_value || may_be_bare => {
            Ok(if *is_set { vec![format!("--{key}")] } else { Vec::new() })
        }
        _ if !takes_value => Err(format!("`{key}` is true or false")),
        Value::Array(values) if is_repeated => values.iter().map(|value| one(key, value)).collect(),
        Value::Array(_) => Err(format!("`{key}` takes one value")),
        value => Ok(vec![one(key, value)?]),
    }
}

fn one(key: &str, value: &Value) -> Result<String, String> {
    match scalar(value) {
        Some(text) => Ok(format!("--{key}={text}")),
        None => Err(format!("`{key}` takes text or a number")),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.contains('\0') => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Writes the options of a command line, if it asks for that; whether it did.
///
/// # Errors
/// When the file cannot be written, or an option is not text.
pub(super) fn write(matches: &ArgMatches, command: &Command) -> Result<bool, Failure> {
    let Some((SUBCOMMAND, own)) = matches.subcommand() else { return Ok(false) };
    let Some(path) = own.get_one::<PathBuf>("write_config") else { return Ok(false) };
    let Some(boot) = command.find_subcommand(SUBCOMMAND) else { return Ok(false) };
    let table = table(own, boot)?;
    let text = toml::to_string(&table).map_err(Failure::internal)?;
    std::fs::write(path, text).map_err(|error| {
        Failure::environment(format_args!("the file of options {}: {error}", path.display()))
    })?;
    peerdma_support::say!("written; `peerdma boot --config {}` boots that", path.display());
    Ok(true)
}

fn table(matches: &ArgMatches, boot: &Command) -> Result<Table, Failure> {
    let mut table = Table::new();
    for argument in boot.get_arguments() {
        let id = argument.get_id().as_str();
        let key = argument.get_long().unwrap_or(COMMAND);
        // Global options have no source here.
        let source = matches.try_contains_id(id).ok().and_then(|_| matches.value_source(id));
        if OWN.contains(&key) || source != Some(ValueSource::CommandLine) {
            continue;
        }
        if !argument.get_action().takes_values() {
            if !argument.is_global_set() {
                table.insert(key.to_owned(), Value::Boolean(true));
            }
            continue;
        }
        let text = |value: &OsStr| {
            value.to_str().map(|text| Value::String(text.to_owned())).ok_or_else(|| {
                Failure::usage(format_args!(
                    "--{key} is not UTF-8, and so cannot be in such a file"
                ))
            })
        };
        let raw = matches.get_raw(id).into_iter().flatten();
        let mut values = raw.map(text).collect::<Result<Vec<_>, _>>()?;
        let is_list = key == COMMAND || matches!(argument.get_action(), ArgAction::Append);
        let value = match (is_list, values.pop()) {
            (false, Some(value)) => value,
            // An option without its optional value.
            (false, None) => Value::Boolean(true),
            (true, last) => Value::Array(values.into_iter().chain(last).collect()),
        };
        table.insert(key.to_owned(), value);
    }
    Ok(table)
}

/// What would be booted, for people.
pub(super) fn describe(job: &Job, kernel: &str, place: &str) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{name:16} {value}");
    };
    line("kernel", kernel.to_owned());
    line("where", place.to_owned());
    for run in &job.runs {
        line("memory", format!("{} MiB, {} CPUs", run.memory, run.cpus));
        line("command line", run.command_line());
        line("topology", run.system.topology.name.clone());
        run.hello.modules.iter().for_each(|module| {
            line("module", format!("{} {}", module.path, module.parameters).trim_end().to_owned());
        });
        let command = &run.hello.command;
        line("runs in it", if command.is_empty() { "a shell".into() } else { command.join(" ") });
        line("limit", run.limit.map_or("none".into(), |seconds| format!("{seconds} s")));
    }
    for share in &job.exchange.shares {
        line("share", format!("{} = {}", share.name, share.path.display()));
    }
    if let Some(results) = &job.exchange.results {
        line("results", results.display().to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arguments;
    use clap::{CommandFactory, FromArgMatches};

    fn expanded(content: &str, words: &[&str]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, content).unwrap();
        let mut line: Vec<OsString> = vec!["peerdma".into(), "-v".into(), "boot".into()];
        line.push(format!("--config={}", path.display()).into());
        line.extend(words.iter().map(OsString::from));
        let all = expand(line, &Arguments::command()).map_err(|failure| failure.to_string())?;
        let matches = Arguments::command().try_get_matches_from(&all).map_err(|e| e.to_string())?;
        Arguments::from_arg_matches(&matches).map_err(|e| e.to_string())?;
        let text = |word: OsString| word.into_string().unwrap();
        Ok(all.into_iter().map(text).filter(|word| !word.starts_with("--config")).skip(3).collect())
    }

    #[test]
    fn a_file_stands_for_the_command_line() {
        let file = "topology = 'switch'\nmodule = ['a.ko', 'b.ko']\nwith-driver = true\nno-witness = false\n\
                    timeout = 7\njitter = 3\ncommand = ['sh', '-c', 'exit 3']";
        let all = expanded(file, &["--topology", "two-bridges", "--module=c.ko"]).unwrap();
        let mut options = all.clone();
        options.truncate(all.iter().position(|word| word == "--").unwrap());
        options.sort();
        assert_eq!(
            options,
            [
                "--jitter=3",
                "--module=a.ko",
                "--module=b.ko",
                "--module=c.ko",
                "--timeout=7",
                "--topology",
                "--with-driver",
                "two-bridges"
            ]
        );
        assert!(all.ends_with(&["--", "sh", "-c", "exit 3"].map(str::to_owned)));
        assert!(expanded(file, &["--", "true"]).unwrap().ends_with(&["--".into(), "true".into()]));
        assert_eq!(expanded("jitter = true\nno-witness = true", &[]).unwrap().len(), 2);
        assert_eq!(expanded("", &[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_an_option_is_refused_with_the_file_s_name() {
        for (content, part) in [
            ("topologi = 'x'", "did you mean `topology`?"),
            ("config = 'x'", "is not an option"),
            ("no-witness = 'yes'", "is true or false"),
            ("topology = ['a', 'b']", "takes one value"),
            ("topology = true", "takes text or a number"),
            ("module = [['a']]", "takes text or a number"),
            ("command = 'sh'", "an array of words"),
            ("[guest]\nmemory = 1", "`guest` is not an option"),
            ("topology = ", "c.toml"),
            ("iommu = 'dance'", "possible values"),
        ] {
            let error = expanded(content, &[]).unwrap_err();
            assert!(error.contains(part), "{content}: {error}");
        }
        let none = expand(
            ["peerdma", "boot", "--config", "/no/such"].map(OsString::from).into(),
            &Arguments::command(),
        );
        assert!(none.unwrap_err().to_string().contains("/no/such"));
        // Of another subcommand, and behind `--`, it is another thing.
        for line in [
            &["peerdma", "test", "--config", "/no"][..],
            &["peerdma", "boot", "--", "--config", "/no"],
        ] {
            let line: Vec<_> = line.iter().map(OsString::from).collect();
            assert_eq!(expand(line.clone(), &Arguments::command()).unwrap(), line);
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let line = [
            "peerdma",
            "-v",
            "boot",
            "--write-config",
            "x",
            "--topology",
            "switch",
            "--module",
            "a",
            "--module",
            "b",
            "--jitter",
            "--no-witness",
            "--",
            "sh",
            "-c",
            "a b",
        ];
        let matches = Arguments::command().try_get_matches_from(line).unwrap();
        let command = Arguments::command();
        let boot = command.find_subcommand("boot").unwrap();
        let text = toml::to_string(&table(matches.subcommand().unwrap().1, boot).unwrap()).unwrap();
        let all = expanded(&text, &[]).unwrap();
        let mut options: Vec<_> = all.iter().map(String::as_str).collect();
        options.sort_unstable();
        assert_eq!(
            options,
            [
                "--",
                "--jitter",
                "--module=a",
                "--module=b",
                "--no-witness",
                "--topology=switch",
                "-c",
                "a b",
                "sh"
            ]
        );
    }
}
