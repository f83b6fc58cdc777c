//! The life of a guest, seen from its first process.

mod child;
mod console;
pub(crate) mod module;
mod mount;
mod power;
mod processors;
mod rebind;
mod terminal;

use crate::exit::{self, Failure};
use crate::vmm::{Hello, Mode, PortWire, Vmm, VmmError};
use crate::{cases, ktap};
use child::Ended;
use guest_protocol::started::{self, is_started};
use std::fs;

pub(crate) use power::hang;

/// Where programs of the initramfs lie.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Shells in the order of preference; the first that exists is run.
const SHELLS: [&str; 3] = ["/bin/sh", "/bin/busybox", "/bin/bash"];

/// Runs the guest from its first to its last moment.
pub fn run() -> ! {
    power::own_the_system();
    set_panic_hook();
    match live() {
        Ok(code) => power::end(code, None),
        Err(failure) => {
            // It may have failed before there was anywhere to say so.
            console::ensure_streams();
            eprintln!("peerdma agent: {failure}");
            power::end(failure.code, Some(&failure.reason))
        }
    }
}

/// A panic in any thread ends the guest with a code of its own: a first process that dies takes the kernel down with a
/// message about itself, and a thread that dies silently would leave the guest hanging.
fn set_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        eprintln!("peerdma agent: {info}");
        power::end(exit::PANIC, Some(&info.to_string()));
    }));
}

fn live() -> Result<u8, Failure> {
    mount::mount_all()?;
    console::ensure_streams();
    let (hello, mut vmm) = greet()?;
    // First of all: it sees only what is mapped from then on. And while there is one processor: it changes the kernel's
    // code, and an emulator may run the old one on another processor for a while.
    if let Some(witness) = &hello.witness
        && let Err(failure) = module::load(witness)
    {
        eprintln!("peerdma agent: there is no witness of mappings: {failure}");
    }
    processors::start_all();
    hello.rebind.iter().try_for_each(|function| rebind::rebind(function))?;
    for module in &hello.modules {
        module::load(module)?;
    }
    match hello.mode {
        Mode::Test => run_tests(&hello, vmm.as_mut()),
        Mode::Command => run_command(&hello.command, &hello, vmm.as_mut()),
        Mode::Shell => run_shell(&hello, vmm.as_mut()),
    }
}

/// Asks the VMM what to do. On a machine that is not a guest of ours no VMM answers: a shell is
/// then the most useful thing to offer, unless it would have no terminal.
fn greet() -> Result<(Hello, Option<Vmm>), Failure> {
    let asked = PortWire::open().and_then(|wire| {
        let mut vmm = Vmm::new(Box::new(wire));
        vmm.hello().map(|hello| (hello, vmm))
    });
    match asked {
        Ok((hello, vmm)) => Ok((hello, Some(vmm))),
        Err(error @ (VmmError::Absent | VmmError::Permission(_) | VmmError::Refused { .. }))
            if !is_unattended() =>
        {
            println!("peerdma agent: {error}; here is a shell instead");
            Ok((Hello::default(), None))
        }
        Err(error) => Err(Failure::new(exit::PROTOCOL, error.to_string())),
    }
}

/// Whether `peerdma test` has started this machine.
fn is_unattended() -> bool {
    fs::read_to_string("/proc/cmdline").is_ok_and(|line| is_started(&line, started::BY_TEST))
}

fn run_tests(hello: &Hello, vmm: Option<&mut Vmm>) -> Result<u8, Failure> {
    let vmm = vmm.ok_or_else(|| Failure::new(exit::PROTOCOL, "tests need the VMM"))?;
    let selection = cases::select(&hello.groups)
        .map_err(|error| Failure::new(exit::USAGE, error.to_string()))?;
    let summary = cases::run(&selection, Some(vmm), ktap::Output::Vmm, hang)
        .map_err(|error| Failure::new(exit::PROTOCOL, error.to_string()))?;
    Ok(summary.exit_code())
}

fn run_command(argv: &[String], hello: &Hello, vmm: Option<&mut Vmm>) -> Result<u8, Failure> {
    match child::run(argv, hello, || report_started(vmm))? {
        Ended::Status(status) => Ok(status),
        Ended::Asked => Err(Failure::new(
            exit::INTERRUPTED,
            "the guest was asked to power off before its command ended",
        )),
    }
}

/// The command or shell begins, and reads what is sent to it.
fn report_started(vmm: Option<&mut Vmm>) -> Result<(), Failure> {
    let sent = vmm.map_or(Ok(()), Vmm::started);
    sent.map_err(|error| Failure::new(exit::PROTOCOL, error.to_string()))
}

fn run_shell(hello: &Hello, vmm: Option<&mut Vmm>) -> Result<u8, Failure> {
    let shell =
        SHELLS.into_iter().find(|path| std::path::Path::new(path).exists()).ok_or_else(|| {
            Failure::new(
                exit::NOT_FOUND,
                format!("the initramfs has no shell: none of {} exists", SHELLS.join(", ")),
            )
        })?;
    let mut argv = vec![shell.to_owned()];
    if shell.ends_with("busybox") {
        argv.push("sh".into());
    }
    // A login shell reads /etc/profile, where an image can put its greeting.
    argv.push("-l".into());
    match child::run(&argv, hello, || report_started(vmm))? {
        Ended::Status(status) => Ok(status),
        // `poweroff` at the prompt is the ordinary way out.
        Ended::Asked => Ok(exit::SUCCESS),
    }
}
