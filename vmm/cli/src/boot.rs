//! `peerdma boot`.

mod console;
mod screen;

use std::io::{self, IsTerminal};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use clap::Args;
use guest_protocol::Input;
use peerdma_suite::auto;
use peerdma_suite::control::link::Link;
use peerdma_suite::control::server::Desk;
use peerdma_suite::drive::{JobEnd, Streams, drive};
use peerdma_suite::event::Event;
use peerdma_suite::hello::{self, Hello, Mode};
use peerdma_suite::host::choice::HostChoice;
use peerdma_suite::host::ctrl_c;
use peerdma_suite::host::terminal::{self, RawTerminal};
use peerdma_suite::job::{GuestRun, Job};
use peerdma_suite::judge::MAX_FINDINGS;
use peerdma_suite::parameters::{Purpose, parameters};
use peerdma_suite::prepare::{self, Prepared, Quiet, Symbols};
use peerdma_suite::report::{ScenarioReport, Status};
use peerdma_suite::scenario::{Scenario, Witness};
use peerdma_support::say;

use self::screen::Screen;
use super::boot_config::{self, ConfigOptions};
use super::choose::{self, Devices, GuestOptions, prepare_failure};
use super::control::ControlOptions;
use super::exchange::ExchangeOptions;
use super::record::{RecordFlags, forget_ring};
use super::test::{prepare_folder, time_factor, venue};
use super::{Exit, Failure, output, rebind, reporting};

/// Whose guest is booted: its kernel parameters and its size.
const SCENARIO: &str = "user";

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
    control: ControlOptions,
    #[command(flatten)]
    exchange: ExchangeOptions,
    #[command(flatten)]
    config: ConfigOptions,
    /// Seconds after which the guest counts as hung [default: 600 with -- CMD, none with a shell or with --pause-on or
    /// --gdb]
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
    if let Some((folder, name)) = &record {
        forget_ring(&folder.join(name))?;
    }
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
        run.pause_on.clone_from(&arguments.control.pause_on);
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
    let (control, guest_control) = UnixStream::pair().map_err(Failure::internal)?;
    let desk = Arc::new(Desk::new(Link::new(control).map_err(Failure::internal)?));
    let server = arguments.control.listen(Arc::clone(&desk))?;
    let (gdb, gdb_target) = arguments.control.listen_for_gdb()?.unzip();
    if let Some(target) = gdb_target {
        say!("{}", gdb_words(&target, &prepared));
    }
    let terminal = RawTerminal::enter().map_err(Failure::internal)?;
    if terminal.is_some() && arguments.command.is_empty() {
        say!("starting the guest; Ctrl-A x leaves");
    }
    let (running, is_running) = mpsc::channel();
    let shown = Arc::new(Screen::default());
    let screen = console::pump(&ours, is_running, Arc::clone(&desk), Arc::clone(&shown))
        .map_err(Failure::internal)?;
    let mut report = None;
    let streams = Streams { console: Some(theirs), control: Some(guest_control), gdb };
    let end = drive(&venue, &job, streams, factor, |event| match event {
        Event::Diagnostic { text, .. } => shown.say(format!("\n[peerdma] {text}")),
        Event::Finding { text, note, suppressed, .. } => {
            let kind = if note { "note" } else { "finding" };
            match suppressed {
                None => shown.say(format!("\n[peerdma] {kind}: {text}")),
                Some(reason) => {
                    shown.say(format!("\n[peerdma] suppressed {kind}: {text}; {reason}"))
                }
            }
        }
        Event::Found { found } => {
            if let Some(findings) = &mut findings {
                findings.write(&found);
            }
            desk.found(*found);
        }
        Event::Paused { reason, .. } => shown.say(format!("\n[peerdma] {}", paused(&reason))),
        Event::Resumed { .. } => shown.say("\n[peerdma] the guest goes on".into()),
        // The keys' thread may be gone.
        Event::Running { .. } => drop(running.send(())),
        Event::Ended { report: ended } => report = Some(*ended),
        _ => {}
    });
    shown.uncover();
    // No more keys: readers of them stop, and what the guest has written can be read to its end.
    let _ = ours.shutdown(Shutdown::Write);
    if end.is_ok() && !ctrl_c::interrupted() {
        drop(screen.join());
    }
    drop(server);
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
        pause_on: Vec::new(),
        gdb: arguments.control.gdb.is_some(),
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

/// How to attach.
fn gdb_words(target: &str, prepared: &Prepared) -> String {
    let Some(Symbols { vmlinux, modules, sources }) = &prepared.symbols else {
        return format!("attach with: gdb -ex 'target remote {target}'; no symbols are known");
    };
    let folders: Vec<_> = modules.iter().map(|folder| folder.display().to_string()).collect();
    // gdb loads the kernel's commands by itself from where the link in the build tree leads to, if it may.
    let scripts = vmlinux.with_file_name("vmlinux-gdb.py").canonicalize();
    let mut line = format!("attach with: gdb {}", vmlinux.display());
    match scripts {
        Ok(scripts) => {
            let directory = |source: &PathBuf| format!(" -ex 'directory {}'", source.display());
            let directories: String = sources.iter().map(directory).collect();
            line.push_str(&format!(
                " -iex 'add-auto-load-safe-path {}'{directories} -ex 'target remote {target}'\n  there, `lx-symbols {}` \
                 loads the modules' symbols",
                scripts.display(),
                folders.join(" ")
            ));
        }
        Err(_) => line.push_str(&format!(
            " -ex 'target remote {target}'\n  `--kernel gdb` boots a kernel with debug information and gdb's commands"
        )),
    }
    line
}

/// What is said of a guest that stands still.
fn paused(reason: &str) -> String {
    format!(
        "the guest and its devices are paused: {reason}\n[peerdma] look with `peerdma ctl status`, `peerdma ctl mappings \
         FUNCTION`; go on with Ctrl-A r or `peerdma ctl resume`"
    )
}

/// When the guest is taken for hung, in seconds: a user at the console notices, a script does not.
fn limit(arguments: &Arguments, scenario: &Scenario, factor: u64) -> Option<u64> {
    match arguments.timeout {
        Some(seconds) => Some(seconds),
        None if arguments.command.is_empty() || arguments.control.may_pause() => None,
        None => Some(scenario.limit(factor)),
    }
}

/// the folder and the name of a trace.
fn record_place(path: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    let name = path.file_name().ok_or_else(|| {
        Failure::usage(format_args!("--record {}: that is not the name of a file", path.display()))
    })?;
    if path.is_dir() {
        return Err(Failure::usage(format_args!(
            "--record {}: that is a folder; name a file in it, as run.pcapng.zst",
            path.display()
        )));
    }
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((prepare_folder(folder, "trace")?, name.into()))
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
    report.notes.iter().for_each(|note| say!("note: {note}"));
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
        assert_eq!(limit(&["boot", "--pause-on", "fault", "--", "true"]), None);
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
