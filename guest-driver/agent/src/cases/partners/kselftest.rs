//! The kernel's own test programs.

use super::super::{Bench, Stop, Verdict, ensure, ioat};
use super::known::Known;
use super::tap::{Tap, summary_lines};
use super::{VFIO_SAYS, function};
use crate::device::Peer;
use crate::partner::binding::Lent;
use crate::partner::vfio::DRIVER;
use crate::sys::pci::Function;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

/// Where the initramfs has them.
const FOLDER: &str = "/lib/kselftests";
/// `KSFT_SKIP` in `kselftest.h`.
const SKIP: i32 = 4;
/// How many lines of a program's report are shown when it fails outside of its tests.
const TAIL: usize = 8;

/// Runs a program and takes what it prints; only what is worth an exit for each character goes to the console.
pub(super) fn output(program: &str, arguments: &[&str]) -> Result<Output, Stop> {
    let path = Path::new(FOLDER).join(program);
    if !path.exists() {
        return Err(Stop::Skip(format!(
            "the guest does not carry {program}: its kernel's source does not have it, or was not there"
        )));
    }
    // iommufd counts what it pins even for root, and the tests of VFIO want a whole GiB; the limit passes to children.
    let unlimited = Rlimit { current: None, maximum: None };
    setrlimit(Resource::Memlock, unlimited)
        .map_err(|errno| Stop::Fail(format!("lifting RLIMIT_MEMLOCK failed: {errno}")))?;
    let output = Command::new(&path)
        .args(arguments)
        .current_dir("/tmp")
        .env("PATH", "/bin:/usr/bin:/sbin")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Stop::Fail(format!("running {} failed: {error}", path.display())))?;
    Ok(output)
}

/// Runs a program that reports in TAP.
pub(super) fn run(bench: &mut Bench<'_>, program: &str) -> Verdict {
    run_with(bench, program, &[])
}

/// The same with a peer device that VFIO has meanwhile.
pub(super) fn run_with_device(bench: &mut Bench<'_>, program: &str) -> Verdict {
    const INSTANCE: u32 = 1;
    bench.close_peers();
    bench.expect_messages(VFIO_SAYS);
    let lent = Lent::new(function(INSTANCE as usize)?, DRIVER)?;
    let name = lent.function.name.clone();
    let verdict = run_with(bench, program, &[&name]);
    lent.give_back(&Peer::path(INSTANCE))?;
    verdict
}

/// The same with an I/OAT engine, which the tests have a driver of their own for; `options` go before its name.
pub(super) fn run_with_ioat(bench: &mut Bench<'_>, program: &str, options: &[&str]) -> Verdict {
    let (engine, channels) = engine(bench)?;
    let lent = Lent::new(engine, DRIVER)?;
    let name = lent.function.name.clone();
    let verdict = run_with(bench, program, &[options, &[&name]].concat());
    lent.give_back(&channels)?;
    verdict
}

/// The kernel's test of VFIO with a driver in user space.
const PROGRAM: &str = "vfio_pci_driver_test";

/// The variant of it that maps its GiB of memory a page at a time.
pub(super) const SMALL_PAGES: &str = "iommufd_compat_type1";

/// That variant, where the guest is fast enough for it.
pub(super) fn run_small_pages(bench: &mut Bench<'_>) -> Verdict {
    let (engine, channels) = engine(bench)?;
    let lent = Lent::new(engine, DRIVER)?;
    let name = lent.function.name.clone();
    let first = format!("{PROGRAM}.{SMALL_PAGES}.init_remove");
    let output = output(PROGRAM, &["-r", &first, &name])?;
    let is_slow = String::from_utf8_lossy(&output.stderr).contains("terminated by timeout");
    let verdict = if is_slow {
        Err(Stop::Skip(
            "iommufd maps each of 262144 pages by a request of its own in this mode (batch_iommu_map_small()), which \
             takes longer than the test's own limit of 30 s in this guest"
                .into(),
        ))
    } else {
        run_part(bench, PROGRAM, &["-v", SMALL_PAGES, &name], &format!("{PROGRAM} {SMALL_PAGES}"))
    };
    // Waits for what the kernel still unmaps for a test that was killed.
    lent.give_back(&channels)?;
    verdict
}

/// The engine that is lent, and what is gone meanwhile: it is back when ioatdma has set up its channels again.
fn engine(bench: &mut Bench<'_>) -> Result<(Function, PathBuf), Stop> {
    bench.expect_messages(VFIO_SAYS);
    bench.expect_message(ioat::LETTING_GO);
    let engine = ioat::skylake(0)?;
    let channels = engine.path().join("dma");
    Ok((engine, channels))
}

/// The engine of those that has nothing wrong with it: the fourth.
const HEALTHY: usize = 3;

/// One test of `vfio_pci_driver_test` with the broken engine number `index`, which must fail with this in its report;
/// no other test of it is run. With a healthy engine it passes: a guest that is only too slow for it would fail both.
pub(super) fn must_notice(bench: &mut Bench<'_>, index: usize, test: &str, says: &str) -> Verdict {
    bench.expect_messages(VFIO_SAYS);
    let (status, text) = one_test(HEALTHY, test)?;
    ensure!(
        status.success() && text.contains(&format!("\nok 1 {PROGRAM}.iommufd.{test}")),
        "a healthy engine, and {PROGRAM} ends with {status} and says\n{text}"
    );
    let (status, text) = one_test(index, test)?;
    let failed = format!("not ok 1 {PROGRAM}.iommufd.{test}");
    ensure!(
        status.code() == Some(1) && text.contains(&failed) && text.contains(says),
        "a broken engine, and {PROGRAM} ends with {status} and says\n{text}"
    );
    bench.note(format!("{PROGRAM}: {failed} ({says}), and ok with a healthy engine"));
    Ok(())
}

/// Status and report of one test with the engine of this number.
fn one_test(index: usize, test: &str) -> Result<(ExitStatus, String), Stop> {
    let lent = Lent::new(ioat::skylake(index)?, DRIVER)?;
    let output =
        output(PROGRAM, &["-r", &format!("{PROGRAM}.iommufd.{test}"), &lent.function.name])?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    println!("{PROGRAM}:");
    summary_lines(&text).for_each(|line| println!("  {line}"));
    Ok((output.status, text))
}

fn run_with(bench: &mut Bench<'_>, program: &str, arguments: &[&str]) -> Verdict {
    run_part(bench, program, arguments, program)
}

/// Runs tests of a program that the list of how many must pass has as `listed`.
fn run_part(bench: &mut Bench<'_>, program: &str, arguments: &[&str], listed: &str) -> Verdict {
    let known = Known::load()?;
    let output = output(program, arguments)?;
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{program}:");
    for line in summary_lines(&text) {
        println!("  {line}");
    }
    let judged = Tap::parse(&text, 0).judge(listed, &known);
    bench.note(judged.figures.to_string());
    judged.remarks.into_iter().for_each(|remark| bench.note(remark));
    let last = || {
        let lines: Vec<_> = text.lines().chain(errors.lines()).collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    };
    match output.status.code() {
        Some(0) if judged.verdict.is_ok() => Ok(()),
        // Known failures make it 1; whether all failures are known is what was judged.
        Some(1) if judged.verdict.is_ok() && judged.figures.known > 0 => Ok(()),
        // Where a number of tests must pass, a program that skips them all is as bad as one that fails them.
        Some(SKIP) if !text.contains("not ok") && known.least(listed) == 0 => {
            Err(Stop::Skip(format!("{program} skips all:\n{}", last())))
        }
        _ => {
            let reason = match judged.verdict {
                Ok(()) => String::new(),
                Err(Stop::Fail(reason)) => reason,
                skip @ Err(Stop::Skip(_)) if matches!(output.status.code(), Some(0 | SKIP)) => {
                    return skip;
                }
                Err(Stop::Skip(reason)) => reason,
            };
            Err(Stop::Fail(format!("{reason}\n{program}: {}\n{}", output.status, last())))
        }
    }
}
