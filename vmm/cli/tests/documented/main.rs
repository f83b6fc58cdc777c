//! The commands in README.md, CONTRIBUTING.md, docs/ and the help: each is one that the program or the Makefile takes, and
//! those that need no guest give what the documents show.

#![allow(clippy::unwrap_used, reason = "tests")]

mod blocks;
#[path = "../program/mod.rs"]
mod program;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use blocks::{Shown, commands};

/// The kind of device that docs/add-a-device.md adds in its course.
const ADDED_BY_THE_READER: &str = "stamp,first=41";

/// The source tree; a package has no documents.
fn tree() -> Option<PathBuf> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    tree.join("docs/tutorial.md").exists().then_some(tree)
}

fn skip() {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let line = format!("SKIP {name}: the documents are not part of the package\n");
    // Not captured by libtest; `make test` counts it.
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
}

/// All commands of all pages.
fn documented(tree: &Path) -> Vec<Shown> {
    let pages = fs::read_dir(tree.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> =
        pages.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    pages.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| tree.join(name)));
    pages.sort();
    let commands = pages.iter().flat_map(|page| {
        let name = page.strip_prefix(tree).unwrap().display().to_string();
        commands(&name, &fs::read_to_string(page).unwrap())
    });
    commands.collect()
}

/// The examples that the program's own help shows.
fn helped() -> Vec<Shown> {
    let command = peerdma::command();
    let mut texts = vec![("peerdma", command.get_after_long_help())];
    texts.extend(command.get_subcommands().map(|one| (one.get_name(), one.get_after_long_help())));
    let lines = texts.into_iter().flat_map(|(name, help)| {
        let help = help.map(ToString::to_string).unwrap_or_default();
        let examples = help.lines().filter(|line| line.starts_with("  peerdma "));
        let examples: Vec<_> = examples.map(str::to_owned).collect();
        // The remark stands two blanks or more behind the command.
        examples.into_iter().map(move |line| {
            let line = line.trim();
            let command = line.split("  ").next().unwrap_or(line);
            Shown::of(&format!("help of {name}"), command)
        })
    });
    lines.collect()
}

fn is_peerdma(shown: &Shown) -> bool {
    matches!(shown.words[0].as_str(), "peerdma" | "target/peerdma")
}

/// Why the program does not take these arguments. A subcommand alone is a name, not a command.
fn refused(words: &[String]) -> Option<String> {
    if names_subcommand(words) {
        return None;
    }
    let words = [&["peerdma".to_owned()][..], words].concat();
    match peerdma::command().try_get_matches_from(words) {
        Ok(_) => None,
        // Asking for help is an error to clap, and alone the program shows it.
        Err(error) if !error.use_stderr() => None,
        Err(error) => Some(error.to_string()),
    }
}

/// Also `machine show`, a subcommand of a subcommand.
fn names_subcommand(words: &[String]) -> bool {
    let mut command = &peerdma::command();
    for word in words {
        match command.find_subcommand(word) {
            Some(found) => command = found,
            None => return false,
        }
    }
    !words.is_empty()
}

/// Files of this tree that a command names and that are missing.
fn missing(tree: &Path, words: &[String]) -> Vec<String> {
    let folders = ["examples/", "ci/", "vmm/", "docs/", "guest-driver/"];
    let named = words.iter().filter(|word| folders.iter().any(|folder| word.starts_with(folder)));
    named.filter(|word| !tree.join(word).exists()).cloned().collect()
}

#[test]
fn the_program_takes_every_command_that_is_shown() {
    let Some(tree) = tree() else { return skip() };
    let shown: Vec<_> = documented(&tree).into_iter().chain(helped()).filter(is_peerdma).collect();
    assert!(shown.len() > 70, "{} commands: the pages are not read as they should", shown.len());
    let mut wrong = Vec::new();
    for shown in &shown {
        if shown.words.iter().any(|word| word == ADDED_BY_THE_READER) {
            continue;
        }
        if let Some(why) = refused(&shown.words[1..]) {
            wrong.push(format!("{}: {}\n    {why}", shown.page, shown.text));
        }
        for file in missing(&tree, &shown.words) {
            wrong.push(format!("{}: {}\n    {file} is missing", shown.page, shown.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn make_has_every_target_and_variable_that_is_shown() {
    let Some(tree) = tree() else { return skip() };
    let makefile = fs::read_to_string(tree.join("Makefile")).unwrap();
    let targets: BTreeSet<_> = makefile
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(target, _)| target)
        .filter(|target| target.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'))
        .collect();
    let variables =
        ["KERNEL", "KERNELS", "SCENARIO", "OUT", "COUNT", "SEED", "PREFIX", "DESTDIR", "ARGS"];
    // Whose ARGS are the program's.
    let subcommands = [("vm", "boot"), ("vm-test", "test")];
    let shown: Vec<_> =
        documented(&tree).into_iter().filter(|one| one.words[0] == "make").collect();
    assert!(shown.len() > 30, "{} commands: the pages are not read as they should", shown.len());
    let mut wrong = Vec::new();
    for shown in &shown {
        let mut target = "";
        for word in &shown.words[1..] {
            let why = match word.split_once('=') {
                None => {
                    target = word;
                    (!targets.contains(target)).then(|| format!("{target} is not a target"))
                }
                Some(("ARGS", "...")) => None,
                Some(("ARGS", arguments)) => {
                    let of = subcommands.iter().find(|(name, _)| *name == target);
                    of.and_then(|(_, subcommand)| {
                        let mut words = vec![(*subcommand).to_owned()];
                        words.extend(shlex::split(arguments).unwrap());
                        refused(&words)
                    })
                }
                Some((name, _)) => {
                    (!variables.contains(&name)).then(|| format!("{name} is not a variable"))
                }
            };
            if let Some(why) = why {
                wrong.push(format!("{}: {}\n    {why}", shown.page, shown.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let help = Command::new("make").arg("help").current_dir(&tree).output().unwrap();
    assert!(help.status.success());
}

/// Whether a command needs no guest, nothing that an earlier one left behind, and no file of the reader's.
fn runs_here(tree: &Path, words: &[String]) -> bool {
    let is_asked = |option: &str| words.iter().any(|word| word == option);
    let alone = match words.first().map(String::as_str) {
        Some("topology" | "doctor" | "--help") => true,
        Some("explain") => !is_asked("--run"),
        Some("test") => is_asked("--list") && !is_asked("NAME"),
        _ => is_asked("--help"),
    };
    let complete = refused(words).is_none() && (!names_subcommand(words) || words[0] != "explain");
    let is_file = |word: &str| [".toml", ".json", ".txt"].iter().any(|end| word.ends_with(end));
    let readers = |word: &&String| is_file(word) && !tree.join(word).exists();
    alone && complete && !is_asked("NAME") && !words.iter().any(|word| readers(&word))
}

#[test]
fn commands_that_need_no_guest_give_what_is_shown() {
    let Some(tree) = tree() else { return skip() };
    let (mut count, mut compared) = (0, 0);
    let mut done = BTreeSet::new();
    let all: Vec<_> = documented(&tree).into_iter().chain(helped()).collect();
    for shown in all.iter().filter(|shown| is_peerdma(shown)) {
        let is_new = !shown.output.is_empty() || done.insert(&shown.words[1..]);
        if !is_new || !runs_here(&tree, &shown.words[1..]) {
            continue;
        }
        let words: Vec<_> = shown.words[1..].iter().map(String::as_str).collect();
        let output = program::peerdma(&words).current_dir(&tree).output().unwrap();
        let (code, out, err) = program::outcome(&output);
        let doctor = words[0] == "doctor";
        assert!(code == 0 || doctor && code == 3, "{}: {}: {code}: {err}", shown.page, shown.text);
        // What a machine can do differs.
        for line in shown.output.iter().filter(|line| !doctor && !line.contains("...")) {
            let is_there =
                out.lines().chain(err.lines()).any(|real| real.trim_end() == line.trim_end());
            assert!(
                is_there,
                "{}: {} does not print\n{line}\nbut\n{out}{err}",
                shown.page, shown.text
            );
            compared += 1;
        }
        count += 1;
    }
    eprintln!("{count} commands run, {compared} lines compared");
    assert!(count > 15 && compared > 0, "{count} commands run, {compared} lines compared");
}
