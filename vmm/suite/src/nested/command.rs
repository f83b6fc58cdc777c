//! QEMU's command line for the test host.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread::available_parallelism;

use crate::drive::Streams;

use super::{Recipe, SUBCOMMAND, clock, descriptor_path, inside};

/// RAM of the test host in MiB for itself: its kernel, this program, and the guests' kernels and folders, all of which
/// are in its memory.
const OWN_MIB: u32 = 1536;
/// Local memory of a guest's devices that is touched, in MiB: for each guest that runs beside another.
const LOCAL_MIB: u32 = 512;

/// Kernel parameters of the test host. Most save time: no calibration, no self-tests, no waiting for devices that are
/// not there.
const PARAMETERS: &[&str] = &[
    "console=ttyS0",
    "quiet",
    "panic=-1",
    "reboot=t",
    "tsc=reliable",
    "no_timer_check",
    "random.trust_cpu=on",
    "8250.nr_uarts=1",
    "i8042.noprobe",
    "cryptomgr.notests",
    "rcupdate.rcu_expedited=1",
    "dma_debug=off",
    "nowatchdog",
    // Nothing there is secret, and each of these costs time under emulation.
    "mitigations=off",
    "nokaslr",
    // KVM takes the counter's frequency when it starts, the kernel corrects its own a few seconds later. When they
    // differ by more than this allows, KVM wants to scale the guest's counter; QEMU's SVM cannot, and KVM then computes
    // with a counter that stands still: no timer of the guest ever fires.
    "kvm.tsc_tolerance_ppm=900000",
    // The guest's RAM and BARs in large pages: two levels of page tables are walked for each of its accesses.
    "transparent_hugepage_shmem=always",
];

/// All that the command line is made of.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) recipe: &'a Recipe,
    /// The test host's initramfs.
    pub(super) archive: &'a OwnedFd,
    pub(super) events: &'a UnixStream,
    pub(super) files: &'a UnixStream,
    pub(super) streams: &'a Streams,
    /// Requests of the guest about files; none if nothing is exchanged.
    pub(super) exchange: Option<&'a UnixStream>,
    /// What the test host's serial port sends.
    pub(super) log: &'a UnixStream,
    /// How many guests run beside each other.
    pub(super) at_once: usize,
    /// RAM of the guests, in MiB.
    pub(super) guest_memory: Vec<u32>,
}

/// A command, and the descriptors that it must inherit.
#[derive(Debug)]
pub(super) struct WithDescriptors {
    pub(super) command: Command,
    pub(super) descriptors: Vec<RawFd>,
}

impl Machine<'_> {
    pub(super) fn command(&self) -> WithDescriptors {
        let mut command = Command::new(&self.recipe.qemu.path);
        let kernel = &self.recipe.kernel.image.elf;
        let mut descriptors = vec![self.archive.as_raw_fd(), kernel.as_raw_fd()];
        descriptors.extend([self.log, self.events, self.files].map(AsRawFd::as_raw_fd));
        let threads = if self.recipe.takes_turns() { "single" } else { "multi" };
        command
            .args(["-name", "peerdma-test-host", "-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-machine", "q35,hpet=off,vmport=off,smbus=off,sata=off"])
            .args(["-accel", &format!("tcg,thread={threads},tb-size=256")])
            .args(["-cpu", &self.recipe.qemu.cpu_model()])
            .args(["-m", &self.ram().to_string(), "-smp", &cpus(self.at_once).to_string()]);
        if let Some(firmware) = self.recipe.qemu.quick_firmware() {
            command.arg("-bios").arg(firmware);
        }
        command.arg("-kernel").arg(descriptor_path(kernel));
        command.arg("-initrd").arg(descriptor_path(self.archive));
        command.arg("-append").arg(kernel_command_line());

        command.arg("-chardev").arg(format!("socket,id=log,fd={}", self.log.as_raw_fd()));
        // Port 0 is kept for a console of the kernel's.
        command.args(["-serial", "chardev:log", "-device", "virtio-serial-pci,max_ports=8"]);
        port(&mut command, "events", inside::EVENTS, self.events.as_raw_fd());
        port(&mut command, "files", inside::FILES, self.files.as_raw_fd());
        let Streams { console, control, gdb } = self.streams;
        for (id, name, stream) in [
            ("console", inside::CONSOLE, console),
            ("control", inside::CONTROL, control),
            ("gdb", inside::GDB, gdb),
        ] {
            if let Some(stream) = stream {
                descriptors.push(stream.as_raw_fd());
                port(&mut command, id, name, stream.as_raw_fd());
            }
        }
        if let Some(exchange) = self.exchange {
            descriptors.push(exchange.as_raw_fd());
            port(&mut command, "exchange", inside::EXCHANGE, exchange.as_raw_fd());
        }
        WithDescriptors { command, descriptors }
    }

    /// RAM in MiB: enough for the largest guests that can come to run beside each other. A guest may use all of what it
    /// has, and a test host that is short of memory has nothing to end but the guest that asks for more.
    fn ram(&self) -> u32 {
        let mut guests = self.guest_memory.clone();
        guests.sort_unstable_by(|one, other| other.cmp(one));
        let largest = guests.iter().take(self.at_once.max(1));
        largest.fold(OWN_MIB, |sum, guest| sum.saturating_add(*guest).saturating_add(LOCAL_MIB))
    }
}

/// A virtio-serial port whose other end is the socket `fd`.
fn port(command: &mut Command, id: &str, name: &str, fd: RawFd) {
    command.arg("-chardev").arg(format!("socket,id={id},fd={fd}"));
    command.arg("-device").arg(format!("virtserialport,chardev={id},name={name}"));
}

/// As many as this machine has, within reason: guests have two, and what emulates devices wants one too. And one more,
/// the first, which runs no guest: [`super::init`] says why.
fn cpus(at_once: usize) -> usize {
    let most = at_once.saturating_mul(2).max(4);
    available_parallelism().map_or(2, |cpus| cpus.get().clamp(2, most)).saturating_add(1)
}

fn kernel_command_line() -> String {
    let frequency = clock::tsc_khz().map(|khz| format!(" tsc_early_khz={khz}")).unwrap_or_default();
    format!("{}{frequency} rdinit={} -- {SUBCOMMAND}", PARAMETERS.join(" "), inside::PROGRAM)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use peerdma_images::kernel_image::{ImageKind, KernelImage};

    use super::*;
    use crate::host::qemu::{Qemu, Version};
    use crate::test_host::TestHostKernel;

    fn recipe(major: u32, minor: u32, patches_itself: bool) -> Recipe {
        let image = KernelImage {
            elf: std::fs::File::open("/dev/null").unwrap(),
            has_pvh: true,
            kind: ImageKind::Vmlinux,
            build_tree: None,
            release: None,
        };
        Recipe {
            qemu: Qemu { path: "/q/qemu".into(), version: Version { major, minor, micro: 0 } },
            kernel: TestHostKernel {
                image: Arc::new(image),
                name: "lab".into(),
                modules: Vec::new(),
                workaround: None,
                patches_itself,
            },
            program: "/p".into(),
        }
    }

    #[test]
    fn processors_take_turns_where_replaced_code_may_run() {
        for (major, minor) in [(7, 2), (8, 1), (10, 0)] {
            for patches in [true, false] {
                let turns = recipe(major, minor, patches).takes_turns();
                assert_eq!(turns, patches, "{major}.{minor}");
            }
        }
    }

    #[test]
    fn descriptors_arrive_and_nothing_else_of_this_machine() {
        let recipe = recipe(10, 0, false);
        let archive = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let (events, console) = UnixStream::pair().unwrap();
        let (files, log) = UnixStream::pair().unwrap();
        let (control, _other) = UnixStream::pair().unwrap();
        let (exchange, _another) = UnixStream::pair().unwrap();
        let inner = [&console, &control, &exchange].map(AsRawFd::as_raw_fd);
        let machine = Machine {
            recipe: &recipe,
            archive: &archive,
            events: &events,
            files: &files,
            streams: &Streams { console: Some(console), control: Some(control), gdb: None },
            exchange: Some(&exchange),
            log: &log,
            at_once: 2,
            guest_memory: vec![512, 3072, 512, 700],
        };
        // The two largest beside each other.
        assert_eq!(machine.ram(), 1536 + 3072 + 512 + 700 + 512);
        let WithDescriptors { command, descriptors } = machine.command();
        let sockets = [&log, &events, &files].map(AsRawFd::as_raw_fd);
        let sockets: Vec<_> = sockets.into_iter().chain(inner).collect();
        let opened = [archive.as_raw_fd(), recipe.kernel.image.elf.as_raw_fd()];
        assert_eq!((&descriptors[..2], &descriptors[2..]), (&opened[..], &sockets[..]));
        let line =
            command.get_args().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ");
        for part in [
            &format!("socket,id=events,fd={}", events.as_raw_fd()),
            &format!("socket,id=files,fd={}", files.as_raw_fd()),
            &format!("socket,id=log,fd={}", log.as_raw_fd()),
            "-cpu qemu64,+svm,+npt",
            "rdinit=/peerdma -- nested-init",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        for share in ["-fsdev", "-virtfs", "9p", "path="] {
            assert!(!line.contains(share), "{share} is in {line}");
        }
        assert!(kernel_command_line().len() < 2000);
    }
}
