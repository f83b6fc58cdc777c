//! The kernel's own test programs.

use super::super::{Bench, Stop, Verdict};
use super::{VFIO_SAYS, function};
use crate::device::Peer;
use crate::partner::binding::Lent;
use crate::partner::known::Known;
use crate::partner::tap::{Tap, summary_lines};
use crate::partner::vfio::DRIVER;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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

fn run_with(bench: &mut Bench<'_>, program: &str, arguments: &[&str]) -> Verdict {
    let known = Known::load()?;
    let output = output(program, arguments)?;
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{program}:");
    for line in summary_lines(&text) {
        println!("  {line}");
    }
    let judged = Tap::parse(&text, 0).judge(program, &known);
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
        Some(SKIP) if !text.contains("not ok") => {
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
