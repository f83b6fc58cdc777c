//! `peerdma boot`.

use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use clap::Args;
use guest_protocol::{END_OF_INPUT, Input};
use peerdma_suite::auto;
use peerdma_suite::drive::{JobEnd, drive};
use peerdma_suite::event::Event;
use peerdma_suite::hello::{self, Hello, Mode};
use peerdma_suite::host::choice::HostChoice;
use peerdma_suite::host::ctrl_c;
use peerdma_suite::host::terminal::{self, Key, Keys, RawTerminal};
use peerdma_suite::job::{GuestRun, Job};
use peerdma_suite::judge::MAX_FINDINGS;
use peerdma_suite::parameters::{Purpose, parameters};
use peerdma_suite::prepare::{self, Prepared, Quiet};
use peerdma_suite::report::{ScenarioReport, Status};
use peerdma_suite::scenario::{Scenario, Witness};
use peerdma_support::say;

use super::boot_config::{self, ConfigOptions};
use super::choose::{self, Devices, GuestOptions, prepare_failure};
use super::exchange::ExchangeOptions;
use super::record::RecordFlags;
use super::test::{prepare_folder, time_factor, venue};
use super::{Exit, Failure, output, rebind, reporting};

/// Whose guest is booted: its kernel parameters and its size.
const SCENARIO: &str = "user";
/// What Ctrl-A h prints.
const KEYS: &str = "\nCtrl-A x  leave    Ctrl-A Ctrl-A  a Ctrl-A for the guest    Ctrl-A h  this";

/// What to boot.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The guest's console is your terminal. Ctrl-A x leaves, Ctrl-A h lists the keys. Findings appear as they happen.

Examples:
  peerdma boot                          a shell in the guest
  peerdma boot -- lspci -vvv            one command; its exit status becomes ours, 1 with findings
  peerdma boot --topology switch --iommu none
  peerdma boot --device ioat --device peer,below=host-bridge
  peerdma boot --device ioat --modprobe ioatdma --modprobe 'dmatest iterations=10 run=1'
  peerdma boot --module my.ko --record bug.pcapng.zst
  peerdma boot --module my.ko --share my.ko --results out    then `guest-agent reload my.ko` in the guest")]
pub(super) struct Arguments {
    #[command(flatten)]
    guest: GuestOptions,
    /// Record everything that the devices do in this file, for `peerdma replay`, `peerdma trace` and Wireshark
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    recording: RecordFlags,
    #[command(flatten)]
    exchange: ExchangeOptions,
    #[command(flatten)]
    config: ConfigOptions,
    /// Seconds after which the guest counts as hung [default: 600 with -- CMD, none with a shell]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: Option<u64>,
    /// Run this command in the guest instead of a shell; its exit status becomes that of peerdma,
    /// and 0 becomes 1 if there were findings
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let kernel = arguments.guest.kernel_choice()?;
    let jitter = arguments.guest.jitter();
    let factor = time_factor(&kernel)?.saturating_mul(jitter.factor);
    let mut scenario =
        Scenario::select(&[SCENARIO.to_owned()]).map_err(Failure::internal)?.remove(0);
    arguments.guest.machine.apply(&mut scenario)?;
    let devices = Devices::of(&scenario)?;
    let expectations = arguments.guest.expectations(&scenario, &devices.plan)?;
    choose::tell_scenario_remarks(&scenario, &devices.plan);
    let record = arguments.record.as_deref().map(record_place).transpose()?;
    let suppressions = arguments.guest.reporting.suppressions(&scenario)?;
    let rebind = rebind::functions(&scenario, &arguments.guest.rebind, &devices.plan)?;
    if arguments.guest.reporting.to_stdout() {
        return Err(Failure::usage("stdout is the guest's console: give --findings a file"));
    }
    let mut findings = arguments.guest.reporting.writer()?;
    let exchange = arguments.exchange.exchange()?;
    let place = arguments.guest.place()?;
    if arguments.guest.is_substitute(&kernel) {
        say!("{}", auto::explain(None).map_err(Failure::internal)?);
    }
    let out = tempfile::tempdir()
        .map_err(|error| Failure::environment(format_args!("a temporary folder: {error}")))?;
    let progress = Quiet::for_stderr();
    let own = arguments.guest.own();
    let is_watched = arguments.guest.witness(&scenario) != Witness::Off;
    let prepared =
        prepare::prepare(&kernel, &own, is_watched, &progress).map_err(prepare_failure)?;
    let venue = venue(&place, &progress)?;
    progress.done();
    prepared.notes.iter().for_each(|note| say!("{note}"));
    if matches!(place, HostChoice::Nested { .. }) {
        say!("{place}");
    }
    let mut job = job(arguments, &scenario, devices, &prepared, out.path(), record, factor);
    for run in &mut job.runs {
        run.expectations.clone_from(&expectations);
        run.suppressions.clone_from(&suppressions);
        run.hello.rebind.clone_from(&rebind);
        run.stop_on.clone_from(&arguments.guest.reporting.stop_on);
    }
    job.jitter = jitter.seed;
    job.exchange = exchange;
    venue.adapt(&mut job);
    job.runs.iter().try_for_each(GuestRun::check).map_err(Failure::usage)?;

    if arguments.config.dry_run {
        let text = boot_config::describe(&job, &prepared.kernel_name, &place.to_string());
        return output::print(&text).map(|()| Exit::Success as u8);
    }

    let (ours, theirs) = UnixStream::pair().map_err(Failure::internal)?;
    let terminal = RawTerminal::enter().map_err(Failure::internal)?;
    if terminal.is_some() && arguments.command.is_empty() {
        say!("starting the guest; Ctrl-A x leaves");
    }
    let (running, is_running) = mpsc::channel();
    let screen = pump(&ours, is_running).map_err(Failure::internal)?;
    let mut report = None;
    let end = drive(&venue, &job, Some(theirs), factor, |event| match event {
        Event::Diagnostic { text, .. } => say!("\n[peerdma] {text}"),
        Event::Finding { text, note, suppressed, .. } => {
            let kind = if note { "note" } else { "finding" };
            match suppressed {
                None => say!("\n[peerdma] {kind}: {text}"),
                Some(reason) => say!("\n[peerdma] suppressed {kind}: {text}; {reason}"),
            }
        }
        Event::Found { found } => {
            if let Some(findings) = &mut findings {
                findings.write(&found);
            }
        }
        // The keys' thread may be gone.
        Event::Running { .. } => drop(running.send(())),
        Event::Ended { report: ended } => report = Some(*ended),
        _ => {}
    });
    // No more keys: readers of them stop, and what the guest has written can be read to its end.
    let _ = ours.shutdown(Shutdown::Write);
    if end.is_ok() && !ctrl_c::interrupted() {
        drop(screen.join());
    }
    drop(terminal);
    let command = !arguments.command.is_empty();
    reporting::finish(findings)?;
    for unused in report
        .iter()
        .flat_map(|report| reporting::unused(suppressions.iter(), std::slice::from_ref(report)))
    {
        say!("warning: nothing was found for the suppression {unused}");
    }
    conclude(end.map_err(Failure::environment)?, report, command)
}

fn job(
    arguments: &Arguments,
    scenario: &Scenario,
    devices: Devices,
    prepared: &Prepared,
    out: &Path,
    record: Option<(PathBuf, PathBuf)>,
    factor: u64,
) -> Job {
    let mode = if arguments.command.is_empty() { Mode::Shell } else { Mode::Command };
    let size = terminal::size(io::stdout());
    let mut all = parameters(scenario, Purpose::Use);
    all.extend(prepared.parameters.iter().cloned());
    let guest = devices.guest(scenario.iommu, &all);
    let mut hello = Hello {
        command: arguments.command.clone(),
        witness: arguments.guest.witness(scenario).module(prepared.witness.as_ref()),
        modules: prepared.modules.clone(),
        environment: std::env::var("TERM")
            .ok()
            .map(|term| format!("TERM={term}"))
            .into_iter()
            .collect(),
        peers: devices.plan.peer_names(),
        expected: Some(hello::expected(&devices.plan, &guest)),
        time_factor: u32::try_from(factor).unwrap_or(u32::MAX),
        input: if io::stdin().is_terminal() { Input::Terminal } else { Input::Pipe },
        rows: size.map(|(rows, _)| rows),
        columns: size.map(|(_, columns)| columns),
        ..Hello::new(mode, &scenario.name)
    };
    // What is expected of the kernel is for tests by hand: the user's command goes before it.
    if hello::line(&hello).is_err() {
        hello.expected = None;
    }
    let (folder, file) = record.unzip();
    let run = GuestRun {
        name: scenario.name.clone(),
        parameters: all,
        initramfs: None,
        hello,
        system: devices.config,
        setup: None,
        memory: scenario.memory,
        cpus: scenario.cpus,
        limit: limit(arguments, scenario, factor),
        at_least: 0,
        expectations: Vec::new(),
        suppressions: Vec::new(),
        stop_on: Vec::new(),
        console_log: None,
        record: file,
        interactive: true,
        all_findings: arguments.guest.all_findings,
    };
    Job {
        kernel: prepared.kernel.clone(),
        initramfs: prepared.initramfs.clone(),
        out: out.to_owned(),
        record: folder,
        recording: arguments.recording.options(),
        at_once: 1,
        jitter: None,
        exchange: peerdma_suite::exchange::Exchange::default(),
        runs: vec![run],
    }
}

/// When the guest is taken for hung, in seconds: a user at the console notices, a script does not.
fn limit(arguments: &Arguments, scenario: &Scenario, factor: u64) -> Option<u64> {
    match arguments.timeout {
        Some(seconds) => Some(seconds),
        None if arguments.command.is_empty() => None,
        None => Some(scenario.limit(factor)),
    }
}

/// the folder and the name of a trace.
fn record_place(path: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    let name = path
        .file_name()
        .ok_or_else(|| Failure::usage(format_args!("--record {} names no file", path.display())))?;
    if path.is_dir() {
        return Err(Failure::usage(format_args!(
            "--record {} is a folder; name a file",
            path.display()
        )));
    }
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((prepare_folder(folder, "record")?, name.into()))
}

/// Carries keys from stdin to the guest, and the guest's output to stdout. The thread that is given back ends when the
/// guest's output does. A file or a pipe waits until something in the guest reads it: what comes earlier gets lost there.
fn pump(stream: &UnixStream, is_running: Receiver<()>) -> io::Result<JoinHandle<()>> {
    let (mut keys, mut output) = (stream.try_clone()?, stream.try_clone()?);
    thread::Builder::new().name("keys".into()).spawn(move || {
        let interactive = io::stdin().is_terminal();
        if !interactive && is_running.recv().is_err() {
            return;
        }
        if carry_keys(&mut io::stdin(), &mut keys, interactive).is_ok() && !interactive {
            let _ = keys.write_all(&END_OF_INPUT);
        }
    })?;
    thread::Builder::new().name("screen".into()).spawn(move || {
        // For a file or a pipe, lines end as files have it.
        let bare = !io::stdout().is_terminal();
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            let bytes = buffer.get(..count).unwrap_or_default();
            let written = if bare {
                let bytes: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != b'\r').collect();
                write_out(&bytes)
            } else {
                write_out(bytes)
            };
            if written.is_err() {
                // The reader is gone: the guest goes on without a screen.
                let _ = io::copy(&mut output, &mut io::sink());
                return;
            }
        }
    })
}

fn write_out(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Until the input ends, the guest does, or the user leaves.
fn carry_keys(input: &mut impl Read, guest: &mut impl Write, interactive: bool) -> io::Result<()> {
    let mut decoder = Keys::default();
    let mut buffer = [0; 1024];
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        if !interactive {
            guest.write_all(bytes)?;
            continue;
        }
        for key in bytes.iter().filter_map(|byte| decoder.key(*byte)) {
            match key {
                Key::Byte(byte) => guest.write_all(&[byte])?,
                Key::Help => say!("{KEYS}"),
                Key::Quit => {
                    ctrl_c::quit();
                    return Ok(());
                }
            }
        }
    }
}

fn conclude(end: JobEnd, report: Option<ScenarioReport>, command: bool) -> Result<u8, Failure> {
    match end {
        JobEnd::Interrupted => return Ok(Exit::Success as u8),
        JobEnd::Lost { reason, last_words, .. } => {
            last_words.iter().for_each(|line| say!("  {line}"));
            return Err(Failure::internal(reason));
        }
        JobEnd::Done => {}
    }
    let Some(report) = report else { return Err(Failure::internal("the guest was not run")) };
    report.failures.iter().for_each(|failure| say!("{failure}"));
    report.scene.iter().for_each(|line| say!("{line}"));
    // A command's own status needs no words.
    let status = report.exit_code.map(|code| format!("exit status {code}"));
    let failed = report.cases.iter().filter(|case| case.status == Status::Failed);
    for case in failed.filter(|case| Some(&case.detail) != status.as_ref()) {
        say!("{}: {}", case.name, case.detail);
    }
    // They were printed when they happened.
    let findings = report.cases.iter().flat_map(|case| &case.findings);
    let mistakes: Vec<_> = findings.filter(|finding| finding.is_mistake()).collect();
    match mistakes.len() {
        0 => {}
        1 => say!("1 finding, see above"),
        // The report keeps no more of them.
        MAX_FINDINGS.. => say!("{MAX_FINDINGS} findings or more, see above"),
        count => say!("{count} findings, see above"),
    }
    if let Some(first) = mistakes.first() {
        say!("`peerdma findings {}` explains the first", first.class);
    }
    Ok(exit_code(&report, command))
}

/// A command's own status where it is not 0, otherwise whether something was found. A shell's end means nothing.
fn exit_code(report: &ScenarioReport, command: bool) -> u8 {
    match report.exit_code {
        None if report.stopped => Exit::Failed as u8,
        Some(_) if report.not_run => Exit::Internal as u8,
        Some(_) if !command => Exit::Success as u8,
        Some(0) if report.status == Status::Failed => Exit::Failed as u8,
        Some(code) => u8::try_from(code).unwrap_or(Exit::Failed as u8),
        None if report.failures.is_empty() => Exit::Success as u8,
        None => Exit::Internal as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_reach_the_guest_and_a_pipe_needs_no_escapes() {
        let mut guest = Vec::new();
        carry_keys(&mut &b"a\x01\x01b"[..], &mut guest, true).unwrap();
        assert_eq!(guest, b"a\x01b");
        let mut guest = Vec::new();
        carry_keys(&mut &b"a\x01xb"[..], &mut guest, false).unwrap();
        assert_eq!(guest, b"a\x01xb");
    }

    #[test]
    fn the_end_decides_the_exit_code() {
        let mut report = ScenarioReport::new("user");
        let code = |report: &ScenarioReport, command| {
            conclude(JobEnd::Done, Some(report.clone()), command).unwrap()
        };
        assert_eq!(conclude(JobEnd::Interrupted, None, true).unwrap(), 0);
        assert_eq!(code(&report, true), 0);
        report.exit_code = Some(0);
        report.status = Status::Failed;
        assert_eq!((code(&report, true), code(&report, false)), (1, 0));
        report.exit_code = Some(9);
        assert_eq!((code(&report, true), code(&report, false)), (9, 0));
        report.exit_code = None;
        report.failures.push("triple fault".into());
        assert_eq!((code(&report, true), code(&report, false)), (4, 4));
        report.exit_code = Some(123);
        report.not_run = true;
        assert_eq!((code(&report, true), code(&report, false)), (4, 4));
        let lost = JobEnd::Lost { reason: "gone".into(), hung: false, last_words: Vec::new() };
        assert_eq!(conclude(lost, None, true).unwrap_err().exit, Exit::Internal);
    }

    #[test]
    fn a_command_has_a_time_limit_and_a_shell_has_none() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let scenario = Scenario::select(&[SCENARIO.to_owned()]).unwrap().remove(0);
        let limit =
            |line: &[&str]| limit(&Line::try_parse_from(line).unwrap().arguments, &scenario, 2);
        assert_eq!(limit(&["boot"]), None);
        assert_eq!(limit(&["boot", "--", "true"]), Some(1200));
        assert_eq!(limit(&["boot", "--timeout", "5", "--", "true"]), Some(5));
    }

    #[test]
    fn a_record_needs_a_file_name() {
        assert_eq!(record_place(Path::new("/")).unwrap_err().exit, Exit::Usage);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(record_place(folder.path()).unwrap_err().exit, Exit::Usage);
        let (place, name) = record_place(&folder.path().join("new/x.trace")).unwrap();
        assert!(place.ends_with("new") && name == Path::new("x.trace"));
    }
}
