//! `peerdma test`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Instant;

use clap::Args;
use guest_protocol::Input;
use peerdma_suite::carried::{self, Carried};
use peerdma_suite::collector::Collector;
use peerdma_suite::drive::{JobEnd, Streams, Venue, drive};
use peerdma_suite::event::Event;
use peerdma_suite::found::Writer;
use peerdma_suite::hello::{self, Hello, Mode};
use peerdma_suite::host::choice::HostChoice;
use peerdma_suite::job::{GuestRun, Job};
use peerdma_suite::parameters::{Purpose, parameters};
use peerdma_suite::prepare::{self, KernelChoice, Prepared, Quiet};
use peerdma_suite::report::{
    RunReport, ScenarioReport, Setup, Shard, junit, markdown, write_whole,
};
use peerdma_suite::scenario::{Scenario, Swiotlb, Witness};
use peerdma_suite::test_host;
use peerdma_support::say;
use rustix::fs::{FlockOperation, flock};

use super::choose::{self, Devices, GuestOptions, prepare_failure};
use super::record::{self, RecordFlags, RecordOn};
use super::shares::Shares;
use super::substitute;
use super::{Exit, Failure, list, output, rebind, reporting};

mod closing;
mod selection;
mod traces;

use selection::{have_peers, have_tests, scenarios, with_scenario_file};

/// The variable that stretches all time limits.
const FACTOR_VARIABLE: &str = "PEERDMA_TIMEOUT_FACTOR";
/// The scenario of a user's own command.
const USER_SCENARIO: &str = "user";

/// What to test.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
The report is KTAP on stdout, closed by `N passed, N failed, N skipped`, and in the output folder: junit.xml, \
summary.json, report.md (a row for each test), and SCENARIO/console.log.

Examples:
  peerdma test                                   all scenarios that run by default
  peerdma test --list                            which there are
  peerdma test --list --scenario matrix          and which tests are in one of them
  peerdma test --scenario basic --kernel debug   on the kernel that checks itself
  peerdma test --kernel ~/linux                  on your own build
  peerdma test --scenario topology-switch --iommu lazy
                                                 one scenario, with another IOMMU mode
  peerdma test --module my.ko --file my-test -- my-test --all
                                                 your driver, your test, every transaction checked
  peerdma test --scenario my-test.toml           all of that in a file, see docs/scenarios.md
  peerdma test --module my.ko --expect pci.link-down:peer0 --file my-test -- my-test --unplug
                                                 which passes only if this is found
  peerdma test --device ioat,channels=2 --module my.ko --file my-test -- my-test
                                                 with another device; --help lists the kinds
  peerdma test --device ioat --modprobe ioatdma --file my-test -- my-test
                                                 and with the kernel's own driver for it")]
pub(super) struct Arguments {
    /// List the scenarios with the number of their tests and exit; with --scenario, --all or --shard what these would run,
    /// every test by name
    #[arg(long, conflicts_with = "command")]
    list: bool,
    /// Run this scenario, one of the list or a file of your own; may be repeated [default: those that --list marks]
    #[arg(long, value_name = "NAME|FILE.toml")]
    scenario: Vec<String>,
    /// Run all scenarios that have tests of their own, including those that do not run by default
    #[arg(long, conflicts_with_all = ["scenario", "command"])]
    all: bool,
    /// With --all: include those that take many minutes
    #[arg(long, requires = "all")]
    long: bool,
    /// Run only part I of N of the scenarios; `peerdma report merge` merges the parts' reports
    #[arg(long, value_name = "I/N", conflicts_with = "command")]
    shard: Option<Shard>,
    /// Guests that run in parallel [default: one per processor, up to four; half as many on other
    /// kernels than the lab's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: Option<u8>,
    #[command(flatten)]
    pub(super) guest: GuestOptions,
    /// Folder for reports and logs [default: target/vm-test; on the debug, stock and lts kernels target/vm-test-KERNEL]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Record everything that the devices do, a file per scenario in this folder, for `peerdma replay`, `peerdma trace` and
    /// Wireshark
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Which traces are kept
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, requires = "record")]
    record_on: RecordOn,
    #[command(flatten)]
    recording: RecordFlags,
    /// Seconds after which a guest counts as hung, instead of the scenario's limit
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: Option<u64>,
    /// Print the report as JSON instead of KTAP
    #[arg(long)]
    json: bool,
    /// Run this command in the guest instead of the lab's tests; its exit status becomes that of
    /// peerdma
    #[arg(last = true, value_name = "CMD")]
    pub(super) command: Vec<String>,
}

impl Arguments {
    /// Of the scenarios of a whole run those that are this one's.
    fn part(&self, all: Vec<Scenario>) -> Vec<Scenario> {
        match self.shard {
            Some(shard) => shard.select(all),
            None => all,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let (begun, mut shares) = (Instant::now(), Shares::begin());
    if arguments.list {
        let is_wanted =
            arguments.all || arguments.shard.is_some() || !arguments.scenario.is_empty();
        let wanted = is_wanted.then(|| scenarios(arguments)).transpose()?;
        let wanted = wanted.map(|all| arguments.part(all));
        report_if_empty(arguments.shard, wanted.as_deref());
        return list::run(wanted.as_deref(), arguments.json);
    }
    if arguments.shard.is_some() && arguments.guest.jitter_without_seed() {
        return Err(Failure::usage(
            "each part would have a jitter of its own, and their reports not be one",
        )
        .hint("give all parts the same --jitter=SEED"));
    }
    if arguments.json && arguments.guest.reporting.to_stdout() {
        return Err(Failure::usage("--json and --findings - both want stdout")
            .hint("give --findings a file"));
    }
    let mut scenarios = scenarios(arguments)?;
    let arguments = &with_scenario_file(arguments, &scenarios)?;
    have_tests(arguments, &scenarios)?;
    let kernel = arguments.guest.kernel_choice()?;
    let out = arguments.out.clone().unwrap_or_else(|| substitute::default_folder(&kernel));
    let follows = arguments.out.is_none().then_some(&*out);
    let substitute = match arguments.guest.is_substitute(&kernel) {
        true => substitute::explain(
            &mut scenarios,
            follows,
            arguments.all,
            arguments.command.is_empty(),
        )?,
        false => Vec::new(),
    };
    let split = match arguments.shard {
        Some(_) => scenarios.iter().map(|scenario| scenario.name.clone()).collect(),
        None => Vec::new(),
    };
    let mut scenarios = arguments.part(scenarios);
    scenarios.iter_mut().try_for_each(|scenario| arguments.guest.machine.apply(scenario))?;
    report_if_empty(arguments.shard, Some(&scenarios));
    report_useless_bouncing(&scenarios);
    let all_devices = scenarios.iter().map(Devices::of).collect::<Result<Vec<_>, _>>()?;
    scenarios
        .iter()
        .zip(&all_devices)
        .for_each(|(scenario, devices)| choose::tell_scenario_remarks(scenario, &devices.plan));
    for (scenario, devices) in scenarios.iter().zip(&all_devices) {
        arguments.guest.expectations(scenario, &devices.plan)?;
        arguments.guest.reporting.suppressions(scenario)?;
        rebind::functions(scenario, &arguments.guest.rebind, &devices.plan)?;
    }
    if arguments.command.is_empty() && arguments.guest.machine.topology.is_some() {
        scenarios
            .iter()
            .zip(&all_devices)
            .try_for_each(|(scenario, devices)| have_peers(scenario, &devices.config))?;
    }
    let jitter = arguments.guest.jitter();
    let factor = time_factor(&kernel)?.saturating_mul(jitter.factor);
    let out = prepare_folder(&out, "output")?;
    let _lock = lock(&out, "--out")?;
    let record = arguments.record.as_deref().filter(|_| arguments.record_on != RecordOn::Never);
    if let Some(file) = record.filter(|record| record.is_file()) {
        return Err(Failure::usage(format_args!(
            "--record {}: that is a file; name a folder, in which each scenario gets a trace",
            file.display()
        )));
    }
    let record = record.map(|folder| prepare_folder(folder, "trace")).transpose()?;
    let _record_lock = record
        .as_ref()
        .filter(|record| **record != out)
        .map(|record| lock(record, "--record"))
        .transpose()?;
    let mut findings = arguments.guest.reporting.writer()?;
    let place = arguments.guest.place()?;
    if matches!(place, HostChoice::Nested { .. }) {
        say!("{place}");
    }
    substitute.iter().for_each(|line| say!("{line}"));
    let progress = Quiet::for_stderr();
    prepare::fetch(&kernel, &arguments.guest.own(), &progress).map_err(prepare_failure)?;
    shares.part("the kernel");
    let own = arguments.guest.own();
    let is_watched =
        scenarios.iter().any(|scenario| arguments.guest.witness(scenario) != Witness::Off);
    let prepared =
        prepare::prepare(&kernel, &own, is_watched, &progress).map_err(prepare_failure)?;
    let carried = scenarios
        .iter()
        .map(|scenario| carried::pack(&prepared, scenario, &progress))
        .collect::<Result<Vec<_>, _>>()
        .map_err(prepare_failure)?;
    let venue = venue(&place, &progress)?;
    progress.done();
    let processors = if venue.takes_turns() { 1 } else { processors() };
    let at_once = arguments.jobs.map_or_else(|| guests_at_once(&kernel, processors), usize::from);
    let factor = factor.saturating_mul(crowding(at_once, processors));
    shares.part("driver, initramfs and test host");
    let notes = carried.iter().flat_map(|carried| &carried.notes);
    prepared.notes.iter().chain(notes).for_each(|note| say!("{note}"));
    let guests: Vec<_> = scenarios.iter().zip(all_devices).zip(carried).collect();
    let mut job = job(arguments, &guests, &prepared, factor, out.clone(), record, at_once)?;
    job.jitter = jitter.seed;
    venue.adapt(&mut job);
    job.runs.iter().try_for_each(GuestRun::check).map_err(Failure::usage)?;
    let has_stdout = !arguments.json && !arguments.guest.reporting.to_stdout();
    traces::forget_rings(&job)?;
    let (scenarios, lost) = execute(&venue, &job, factor, has_stdout, &mut findings)?;
    let suppressions = job.runs.iter().flat_map(|run| &run.suppressions);
    let unused_suppressions = reporting::unused(suppressions, &scenarios);
    if arguments.record_on == RecordOn::Failed {
        traces::forget_passed(&job, &scenarios)?;
    }
    let report = RunReport {
        version: RunReport::VERSION,
        totals: RunReport::totals_of(&scenarios),
        host: place.name().into(),
        host_reason: format!("{}{}", place.reason(), venue.remark()),
        kernel: prepared.kernel_name.clone(),
        jitter: job.jitter,
        milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        shard: arguments.shard,
        split,
        unused_suppressions,
        scenarios,
    };
    write_reports(&report, &out)?;
    if arguments.json {
        output::json(&report)?;
    }
    closing::failures(&report, &out);
    closing::notes(&report);
    closing::suppressions(&report);
    reporting::finish(findings)?;
    if let Some(watched) = report.watched() {
        say!("{watched}");
    }
    traces::tell(&job);
    shares.part("guests");
    if let Some(line) = shares.line() {
        say!("{line}");
    }
    // Not for programs, for parts of a run, or for a user's own test.
    if has_stdout && arguments.shard.is_none() && arguments.command.is_empty() {
        closing::next(&report, &out);
    }
    Ok(exit_code(&report, lost, !arguments.command.is_empty()))
}

/// More parts than scenarios: there is nothing to run in this one, and its report says as much.
fn report_if_empty(shard: Option<Shard>, scenarios: Option<&[Scenario]>) {
    if let (Some(shard), Some([])) = (shard, scenarios) {
        say!("no scenario falls to part {shard}: there are fewer scenarios than parts");
    }
}

/// A guest bounces nothing where an IOMMU translates, whatever its command line says.
fn report_useless_bouncing(scenarios: &[Scenario]) {
    for scenario in scenarios {
        if scenario.swiotlb == Swiotlb::Force && scenario.iommu.translates() {
            say!(
                "{}: swiotlb=force has no effect where the IOMMU translates; --iommu none or passthrough makes room for it",
                scenario.name
            );
        }
    }
}

/// By how much limits are stretched, by the kernel and by the user's wish.
pub(super) fn time_factor(kernel: &KernelChoice) -> Result<u64, Failure> {
    let wish = match std::env::var(FACTOR_VARIABLE) {
        Ok(text) => {
            text.parse().ok().filter(|factor| (1..=1000).contains(factor)).ok_or_else(|| {
                Failure::usage(format_args!(
                    "{FACTOR_VARIABLE} is a whole number from 1 to 1000, not {text:?}"
                ))
            })?
        }
        Err(_) => 1,
    };
    Ok(kernel.time_factor().saturating_mul(wish))
}

/// The venue, its test host's kernel built if need be.
pub(super) fn venue(place: &HostChoice, progress: &Quiet) -> Result<Venue, Failure> {
    match place {
        HostChoice::Kvm { .. } => Ok(Venue::Here),
        HostChoice::Nested { qemu, .. } => {
            // Whatever it lacks, the user did not name it on the command line.
            let kernel = test_host::kernel(progress).map_err(Failure::environment)?;
            Ok(Venue::nested(qemu, kernel))
        }
    }
}

/// Makes the folder; gives its absolute path.
pub(super) fn prepare_folder(folder: &Path, what: &str) -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| {
        Failure::environment(format_args!(
            "the {what} folder {} cannot be used: {error}",
            folder.display()
        ))
    };
    fs::create_dir_all(folder).map_err(failed)?;
    // Found out now rather than after minutes of testing.
    tempfile::tempfile_in(folder).map_err(failed)?;
    folder.canonicalize().map_err(failed)
}

/// Held as long as this run writes into the folder. The lock goes with the process, however it ends.
fn lock(folder: &Path, option: &str) -> Result<File, Failure> {
    let path = folder.join(".lock");
    let failed =
        |error: io::Error| Failure::environment(format_args!("{}: {error}", path.display()));
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Failure::environment(format_args!("another run writes to {}", folder.display()))
                .hint(format!("wait for it, or give this one another folder with {option}")))
        }
        Err(error) => Err(failed(error.into())),
    }
}

fn job(
    arguments: &Arguments,
    guests: &[((&Scenario, Devices), Carried)],
    prepared: &Prepared,
    factor: u64,
    out: PathBuf,
    record: Option<PathBuf>,
    at_once: usize,
) -> Result<Job, Failure> {
    let run = |((scenario, devices), carried): &((&Scenario, Devices), Carried)| {
        let (mode, purpose) = match arguments.command.as_slice() {
            [] => (Mode::Test, Purpose::Tests),
            [..] => (Mode::Command, Purpose::OwnTest),
        };
        let mut parameters = parameters(scenario, purpose);
        parameters.extend(prepared.parameters.iter().cloned());
        let guest = devices.guest(scenario.iommu, &parameters);
        let hello = Hello {
            groups: scenario.groups.clone(),
            command: arguments.command.clone(),
            witness: arguments.guest.witness(scenario).module(prepared.witness.as_ref()),
            rebind: rebind::functions(scenario, &arguments.guest.rebind, &devices.plan)?,
            modules: prepared.modules.iter().chain(&carried.modules).cloned().collect(),
            peers: devices.plan.peer_names(),
            // A user's own command needs the room of the line, and would not read it.
            expected: match mode {
                Mode::Test => Some(hello::expected(&devices.plan, &guest)),
                Mode::Command | Mode::Shell => None,
            },
            input: Input::Nothing,
            time_factor: u32::try_from(factor).unwrap_or(u32::MAX),
            ..Hello::new(mode, &scenario.name)
        };
        Ok(GuestRun {
            name: scenario.name.clone(),
            parameters,
            initramfs: carried.initramfs.clone(),
            hello,
            system: devices.config.clone(),
            setup: Some(Box::new(Setup { topology: devices.config.topology.clone(), guest })),
            memory: scenario.memory,
            cpus: scenario.cpus,
            limit: Some(arguments.timeout.unwrap_or_else(|| scenario.limit(factor))),
            expectations: arguments.guest.expectations(scenario, &devices.plan)?,
            suppressions: arguments.guest.reporting.suppressions(scenario)?,
            stop_on: arguments.guest.reporting.stop_on.clone(),
            pause_on: Vec::new(),
            gdb: false,
            at_least: if arguments.command.is_empty() { scenario.at_least } else { 0 },
            console_log: Some(Path::new(&scenario.name).join("console.log")),
            record: record
                .is_some()
                .then(|| PathBuf::from(format!("{}.{}", scenario.name, record::EXTENSION))),
            interactive: false,
            all_findings: arguments.guest.all_findings,
        })
    };
    Ok(Job {
        kernel: prepared.kernel.clone(),
        initramfs: prepared.initramfs.clone(),
        exchange: peerdma_suite::exchange::Exchange::default(),
        runs: guests.iter().map(run).collect::<Result<_, Failure>>()?,
        out,
        record,
        recording: arguments.recording.options(),
        at_once,
        jitter: None,
    })
}

/// A guest has two processors and leaves one of them idle most of the time. One whose kernel checks itself does not; the
/// others' guests are slower than the lab kernel's as well, or their speed is unknown, and the kernel's own tests have time limits that
/// nothing stretches.
fn guests_at_once(kernel: &KernelChoice, processors: usize) -> usize {
    let share = if kernel.time_factor() > 1 { 2 } else { 1 };
    processors.div_euclid(share).clamp(1, 4)
}

/// By how much guests slow each other down, when there are more than the processors can serve.
fn crowding(at_once: usize, processors: usize) -> u64 {
    u64::try_from(at_once.saturating_mul(2).div_ceil(processors)).unwrap_or(u64::MAX).max(1)
}

fn processors() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Runs the job; the scenarios' reports, and why they are not complete if so.
fn execute(
    venue: &Venue,
    job: &Job,
    factor: u64,
    has_stdout: bool,
    findings: &mut Option<Writer>,
) -> Result<(Vec<ScenarioReport>, bool), Failure> {
    let stdout = has_stdout.then(|| Box::new(io::stdout()) as Box<dyn Write>);
    let broken =
        |error: io::Error| Failure::environment(format_args!("writing to stdout: {error}"));
    let mut collector = Collector::new(stdout, job.runs.len()).map_err(broken)?;
    collector.status(match venue {
        Venue::Here => "starting",
        Venue::Nested(_) => "starting the nested test host",
    });
    let each = |event| {
        if let (Event::Found { found }, Some(findings)) = (&event, findings.as_mut()) {
            findings.write(found);
        }
        collector.event(event);
    };
    let end = drive(venue, job, Streams::default(), factor, each).map_err(Failure::environment)?;
    let names: Vec<String> = job.runs.iter().map(|run| run.name.clone()).collect();
    let lost = match end {
        JobEnd::Done => false,
        JobEnd::Interrupted => {
            collector.quiet();
            return Err(Failure::interrupted());
        }
        JobEnd::Lost { reason, hung, last_words } => {
            collector.abandon(&reason, hung, &last_words, &names);
            true
        }
    };
    Ok((collector.finish().map_err(broken)?, lost))
}

fn write_reports(report: &RunReport, out: &Path) -> Result<(), Failure> {
    let summary = serde_json::to_vec_pretty(report).map_err(Failure::internal)?;
    let written = write_whole(&out.join("summary.json"), &summary)
        .and_then(|()| junit::write(report, &out.join("junit.xml")))
        .and_then(|()| markdown::write(report, &out.join("report.md")));
    written.map_err(|error| {
        Failure::environment(format_args!("writing the report to {}: {error}", out.display()))
    })
}

fn exit_code(report: &RunReport, lost: bool, command: bool) -> u8 {
    if lost || report.broke_down() {
        return Exit::Internal as u8;
    }
    let status = report.scenarios.first().and_then(|scenario| scenario.exit_code);
    match (command, status) {
        // The command's own status, unless it is fine and the checker is not.
        (true, Some(status)) if status != 0 => u8::try_from(status).unwrap_or(Exit::Failed as u8),
        _ if report.totals.failed > 0 => Exit::Failed as u8,
        _ => Exit::Success as u8,
    }
}

#[cfg(test)]
mod tests {
    use peerdma_suite::report::Totals;

    use super::*;

    fn report(failed: usize, exit_code: Option<i32>, hung: bool) -> RunReport {
        let mut scenario = ScenarioReport::new("s");
        scenario.exit_code = exit_code;
        scenario.hung = hung;
        RunReport {
            version: 1,
            totals: Totals { passed: 1, failed, skipped: 0 },
            host: String::new(),
            host_reason: String::new(),
            jitter: None,
            kernel: String::new(),
            milliseconds: 0,
            shard: None,
            split: Vec::new(),
            unused_suppressions: Vec::new(),
            scenarios: vec![scenario],
        }
    }

    #[test]
    fn exit_codes_are_as_documented() {
        assert_eq!(exit_code(&report(0, Some(0), false), false, false), 0);
        assert_eq!(exit_code(&report(1, Some(1), false), false, false), 1);
        assert_eq!(exit_code(&report(1, None, true), false, false), 4);
        assert_eq!(exit_code(&report(1, None, false), true, false), 4);
        // A command's own status, and a finding although it was content.
        assert_eq!(exit_code(&report(1, Some(77), false), false, true), 77);
        assert_eq!(exit_code(&report(1, Some(0), false), false, true), 1);
        assert_eq!(exit_code(&report(1, Some(300), false), false, true), 1);
        // A command that was not run has no status.
        let mut not_run = report(1, Some(123), false);
        not_run.scenarios[0].not_run = true;
        assert_eq!(exit_code(&not_run, false, true), 4);
    }

    #[test]
    fn only_the_lab_kernel_s_guests_share_processors() {
        let at_once = |kernel: &str| {
            let kernel = KernelChoice::parse(kernel);
            [1, 2, 4, 16].map(|processors| guests_at_once(&kernel, processors))
        };
        assert_eq!(at_once("lab"), [1, 2, 4, 4]);
        for kernel in ["debug", "stock", "lts", "./vmlinux"] {
            assert_eq!(at_once(kernel), [1, 1, 2, 4], "{kernel}");
        }
    }

    #[test]
    fn a_second_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path(), "--out").unwrap();
        let error = lock(folder.path(), "--out").unwrap_err();
        assert_eq!(error.exit, Exit::Environment);
        assert!(error.to_string().contains("--out"));
        drop(first);
        assert!(lock(folder.path(), "--out").is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = prepare_folder(&folder.path().join("file/out"), "output").unwrap_err();
        assert!(error.to_string().contains("the output folder"), "{error}");
    }
}
