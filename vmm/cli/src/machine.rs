//! `peerdma machine`: what a real machine has on PCIe.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use peerdma_capture::{Acs, AcsFlags, Error, Function, Machine, Parent};
use peerdma_support::say;

use super::{Exit, Failure, output};

/// What to do.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Record the PCIe devices of this machine, for use on any other
    Capture(Capture),
    /// Show what a file says about a machine, and what is unknown
    Show(Show),
}

/// Where from, where to.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Reads sysfs and procfs, nothing else: functions, bridges, ACS as it is set, IOMMU groups, BARs, drivers, the kernel's \
release, whether it has CONFIG_PCI_P2PDMA, and those of its parameters that PCI and IOMMU code reads. Capabilities are \
readable for root only; without them ACS is unknown, and the record says so. Serial numbers, hardware addresses and the \
host's name are left out. docs/machine-files.md describes the record, and a shell script for machines where this \
program cannot run.

Examples:
  sudo peerdma machine capture >box.json
  peerdma machine capture --output box.json
  peerdma machine capture --root /mnt/copy            a copy of /sys and /proc")]
struct Capture {
    /// The root directory, with sys and proc in it
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Write the record to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Keep the whole command line of the kernel, and interface names that contain a hardware address
    #[arg(long)]
    with_identity: bool,
}

/// Which file.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The file is a record of `peerdma machine capture`, the output of the shell script in docs/machine-files.md, or what a \
bug report has: text of `lspci -vvv` (also -v, -nn, -D, -k), hex dumps (`lspci -xxxx`), a tree (`lspci -t`, -tv), also \
several of these in one file, indented, quoted, wrapped, or among other text. What is missing is unknown, not guessed.

A line for each function: what it hangs on, its type, ACS (+ on, - off, ? unknown), IOMMU group, driver, names.

Examples:
  peerdma machine show box.json
  peerdma machine show report.txt --json >box.json    convert it into a record
  lspci -vvv | peerdma machine show -")]
struct Show {
    /// The file; - for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the record instead of the table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    match &arguments.command {
        Command::Capture(arguments) => capture(arguments),
        Command::Show(arguments) => show(arguments),
    }
}

fn capture(arguments: &Capture) -> Result<u8, Failure> {
    let machine = peerdma_capture::capture(&arguments.root, arguments.with_identity);
    let machine = machine.map_err(Failure::environment)?;
    let text = machine.to_json().map_err(Failure::internal)?;
    match &arguments.output {
        Some(path) => fs::write(path, text)
            .map_err(|error| Failure::environment(format_args!("{}: {error}", path.display())))?,
        None => output::print(&text)?,
    }
    for note in &machine.notes {
        say!("note: {}", sentence(note));
    }
    Ok(Exit::Success as u8)
}

fn show(arguments: &Show) -> Result<u8, Failure> {
    let machine = load(&arguments.file)?;
    if arguments.json {
        output::print(&machine.to_json().map_err(Failure::internal)?)?;
    } else {
        output::print(&table(&machine))?;
    }
    Ok(Exit::Success as u8)
}

/// The machine that the file at `path` describes; `-` is stdin.
pub(super) fn load(path: &Path) -> Result<Machine, Failure> {
    let name = name_of(path);
    let wrong = |error: &dyn std::fmt::Display| Failure::usage(format_args!("{name}: {error}"));
    if path.is_dir() {
        return Err(wrong(&"a folder, not a file").hint(
            "`peerdma machine capture --root DIR` reads a copy of /sys and /proc, and writes a file",
        ));
    }
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there is more.
    let limit = peerdma_capture::MAX_INPUT as u64 + 1;
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| wrong(&error))?;
    peerdma_capture::read(&bytes).map_err(|error| match error {
        Error::NoFunction { .. } => {
            wrong(&error).hint("`peerdma machine show --help` says what can be read")
        }
        _ => wrong(&error),
    })
}

/// What to call the file in messages; `-` is stdin.
fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "standard input".into() } else { path.display().to_string() }
}

fn table(machine: &Machine) -> String {
    let mut text = heading(machine);
    let counted = machine.counted().into_iter().map(|(name, of)| (of.address, name));
    let counted: BTreeMap<_, _> = counted.collect();
    let functions = machine.functions.iter();
    let rows: Vec<[String; 7]> = functions
        .map(|function| row(function, counted.get(&function.address).map(String::as_str)))
        .collect();
    let heads = ["function", "below", "type", "ids", "ACS", "group", "driver, names"];
    let heads = heads.map(str::to_owned);
    let width = |column: usize| {
        let all = std::iter::once(&heads).chain(&rows);
        all.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    for row in std::iter::once(&heads).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    if !machine.notes.is_empty() {
        text += "\nnot known:\n";
        for note in &machine.notes {
            let _ = writeln!(text, "  {}", sentence(note));
        }
    }
    text
}

fn heading(machine: &Machine) -> String {
    let unknown = || "unknown".to_owned();
    let kernel = &machine.kernel;
    let mut text = format!("read from: {}\n", machine.source);
    let _ = writeln!(text, "kernel: {}", kernel.release.clone().unwrap_or_else(unknown));
    let p2pdma = kernel.p2pdma.map_or("unknown", |on| if on { "yes" } else { "no" });
    let _ = writeln!(text, "CONFIG_PCI_P2PDMA: {p2pdma}");
    let line = match kernel.command_line.as_deref() {
        Some("") => "none of those that matter".to_owned(),
        Some(line) => line.to_owned(),
        None => unknown(),
    };
    let _ = writeln!(text, "parameters: {line}");
    let groups = kernel.iommu_groups.map_or("unknown", |on| if on { "yes" } else { "no" });
    let _ = writeln!(text, "IOMMU groups: {groups}");
    let cpu = machine.cpu.as_ref().map_or_else(unknown, |cpu| {
        let number =
            |value: Option<u32>| value.map_or("?".to_owned(), |value| format!("{value:#x}"));
        let vendor = cpu.vendor.as_deref().unwrap_or("?");
        format!("{vendor}, family {}, model {}", number(cpu.family), number(cpu.model))
    });
    let _ = writeln!(text, "processor: {cpu}\n");
    text
}

fn row(function: &Function, counted: Option<&str>) -> [String; 7] {
    let below = match function.parent {
        Parent::Root => "root bus".to_owned(),
        Parent::Below(above) => above.to_string(),
        Parent::Unknown => "?".to_owned(),
    };
    let id = |id: Option<u16>| id.map_or("????".to_owned(), |id| format!("{id:04x}"));
    let acs = match &function.acs {
        Acs::Unknown => "?".to_owned(),
        Acs::Absent => "none".to_owned(),
        Acs::Present { control, .. } => controls(control),
    };
    let port = match function.port {
        peerdma_capture::PortType::Unknown => "?",
        port => port.name(),
    };
    let names = function.driver.as_deref().into_iter().chain(counted).chain(function.names.all());
    [
        function.address.to_string(),
        below,
        port.to_owned(),
        format!("{}:{}", id(function.vendor), id(function.device)),
        acs,
        function.iommu_group.map_or_else(|| "?".to_owned(), |group| group.to_string()),
        names.collect::<Vec<_>>().join(" "),
    ]
}

/// Those that are on or unknown: `SV+ RR+ EC?`; `-` if all are off.
fn controls(control: &AcsFlags) -> String {
    let values = control.values();
    let shown: Vec<_> = AcsFlags::NAMES
        .iter()
        .zip(values)
        .filter_map(|(name, value)| match value {
            Some(true) => Some(format!("{name}+")),
            Some(false) => None,
            None => Some(format!("{name}?")),
        })
        .collect();
    if shown.is_empty() { "-".to_owned() } else { shown.join(" ") }
}

/// A note with the line and the functions that it is about.
pub(super) fn sentence(note: &peerdma_capture::Note) -> String {
    /// More addresses than these make no reader wiser.
    const SHOWN: usize = 6;
    let mut text = String::new();
    if let Some(line) = note.line.filter(|line| *line > 0) {
        let _ = write!(text, "line {line}: ");
    }
    text += &note.text;
    if !note.functions.is_empty() {
        let list: Vec<_> = note.functions.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = note.functions.len().saturating_sub(SHOWN);
        let _ = write!(text, " ({}", list.join(", "));
        if more > 0 {
            let _ = write!(text, " and {more} more");
        }
        text.push(')');
    }
    text
}
