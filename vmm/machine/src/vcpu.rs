//! One vCPU: its thread, its exits.

use std::sync::Arc;
use std::thread::JoinHandle;

use kvm_bindings::{
    KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES,
};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::bus::{self, DirectMap};
use super::control::Control;
use super::debug::Stop;
use super::error::MachineError;
use super::fault::{Access, Fault, FaultKind, Registers, RunEnd};
use super::kick::Kicker;
use super::layout;
use super::machine::Shared;
use super::ports;
use super::protocol_call::{Buffer, Call, VcpuMemory};
use crate::jitter::{Jitter, Stalls, Stream};
use rustix::io::Errno;

/// How often in a row `KVM_RUN` is called again after KVM says that an exit happened while an event was delivered.
///
/// KVM has changed nothing of the guest then, and delivers the event again if there is one. Often there is not: KVM
/// (since 6.14) reads the type of EXITINTINFO without its valid bit (AMD APM vol. 2, 15.7.2), and QEMU's TCG leaves a
/// type there when the guest has taken an exception of its own since it was entered. An access to a device that
/// follows before any other exit then looks like a fault on the way to the handler.
const DELIVERY_RETRIES: u32 = 16;

/// AMD's exit code of a nested page fault (APM vol. 2, appendix C).
const SVM_EXIT_NPF: u64 = 0x400;
/// The bit of a page fault's error code that says that it was a write.
const PAGE_FAULT_WRITE: u64 = 1 << 1;

/// Bytes of the longest x86 instruction (Intel SDM vol. 2, 2.3.11).
const MAX_INSTRUCTION: usize = 15;

/// What the run loop does after an exit.
enum Next {
    Resume,
    End(RunEnd),
    /// The length of the line of a protocol call; registers hold its address.
    ProtocolCall(u32),
}

/// A vCPU that has not started yet.
#[derive(Debug)]
pub(crate) struct Vcpu {
    pub(crate) index: u8,
    pub(crate) fd: VcpuFd,
    pub(crate) kicker: Arc<Kicker>,
    /// Decides when it stands still; none: never of itself.
    jitter: Option<Jitter>,
    /// The last exit's access has been completed: nothing of an instruction is left to do.
    completed: bool,
    /// The breakpoint that it has come to, whose instruction it is to execute when it goes on.
    broke_at: Option<u64>,
}

impl Vcpu {
    pub(crate) fn new(index: u8, fd: VcpuFd) -> Result<Self, MachineError> {
        let kicker = Arc::new(Kicker::new(&fd)?);
        Ok(Self { index, fd, kicker, jitter: None, completed: false, broke_at: None })
    }

    /// Starts the thread. It leaves when the run ends, and ends the run when it cannot go on.
    pub(crate) fn start(
        mut self,
        shared: Arc<Shared>,
        stalls: Option<&Stalls>,
    ) -> Result<JoinHandle<()>, MachineError> {
        shared.control.register(Arc::clone(&self.kicker));
        self.jitter = stalls.map(|stalls| stalls.stream(Stream::Processor(self.index)));
        std::thread::Builder::new()
            .name(format!("vcpu{}", self.index))
            .spawn(move || {
                let guard = PanicGuard { control: &shared.control, vcpu: self.index };
                let kicker = Arc::clone(&self.kicker);
                kicker.enter();
                self.run(&shared);
                kicker.leave();
                drop(guard);
            })
            .map_err(MachineError::host("start a vCPU thread"))
    }

    fn run(mut self, shared: &Shared) {
        let mut in_a_row = 0;
        while !shared.control.ending() {
            if shared.control.stands(self.index) && in_a_row == 0 && self.completed {
                if let Some(address) = self.broke_at.take() {
                    self.go_to(address);
                }
                shared.control.park(self.index, &self.fd);
                self.completed = false;
                continue;
            }
            let next = match self.kicker.inside(|| self.fd.run()) {
                Ok(exit) => {
                    self.completed = false;
                    match exit {
                        VcpuExit::Debug(debug) => {
                            let stop = Stop::of(debug.exception, debug.dr6);
                            shared.control.stop_at(self.index, stop);
                            Ok(Next::Resume)
                        }
                        // What stands in the place of an instruction with a breakpoint; see `debug::breakpoints`.
                        VcpuExit::IoOut(port, &[byte]) if shared.control.breakpoints.in_use() => {
                            self.output_or_breakpoint(port, byte, shared)
                        }
                        exit => serve(exit, shared),
                    }
                }
                Err(error) => match Errno::from_raw_os_error(error.errno()) {
                    // A kick, a signal for the process, or a vCPU that waits for its start-up IPI.
                    // KVM has completed the access that the guest had left for: its registers are those after it.
                    Errno::INTR | Errno::AGAIN => {
                        self.completed = true;
                        Ok(Next::Resume)
                    }
                    _ => Err(FaultKind::Run(error.into())),
                },
            };
            if matches!(next, Err(FaultKind::Internal { .. }))
                && in_a_row < DELIVERY_RETRIES
                && self.suberror() == KVM_INTERNAL_ERROR_DELIVERY_EV
            {
                in_a_row += 1;
                continue;
            }
            in_a_row = 0;
            let next = match next {
                Ok(Next::ProtocolCall(line)) => self.protocol_call(line, shared),
                other => other,
            };
            if let Some(jitter) = &mut self.jitter {
                jitter.moment();
            }
            match next {
                Ok(Next::Resume | Next::ProtocolCall(_)) => {}
                Ok(Next::End(outcome)) => shared.control.finish(outcome),
                Err(kind) => {
                    let fault = self.fault(kind, shared);
                    shared.control.finish(RunEnd::Fault(Box::new(fault)));
                }
            }
        }
        if let Some(registers) = self.registers() {
            shared.control.left(self.index, registers);
        }
    }

    /// An output of one byte: the guest's own, or that of a breakpoint.
    fn output_or_breakpoint(
        &mut self,
        port: u16,
        byte: u8,
        shared: &Shared,
    ) -> Result<Next, FaultKind> {
        let at = self.fd.get_regs().map_err(|error| FaultKind::Run(error.into()))?.rip;
        // KVM steps over an output to this port before it leaves the guest.
        let at = if port == 0x7e { at.wrapping_sub(1) } else { at };
        if !shared.control.breakpoints.is_at(at) {
            return serve(VcpuExit::IoOut(port, &[byte]), shared);
        }
        self.broke_at = Some(at);
        shared.control.stop_at(self.index, Stop::Breakpoint);
        Ok(Next::Resume)
    }

    /// Has it go on at `address`.
    fn go_to(&self, address: u64) {
        let moved = self.fd.get_regs().and_then(|mut registers| {
            registers.rip = address;
            self.fd.set_regs(&registers)
        });
        if let Err(error) = moved {
            log::warn!("a processor cannot be put back to its breakpoint: {error}");
        }
    }

    fn protocol_call(&self, line: u32, shared: &Shared) -> Result<Next, FaultKind> {
        let registers = self.fd.get_regs().map_err(|error| FaultKind::Run(error.into()))?;
        let call = Call { line, buffer: registers.rdi, room: registers.rcx };
        let memory = VcpuMemory::new(&self.fd, &shared.ram);
        match shared.ports.protocol_call(call, &memory) {
            Some(outcome) => Ok(Next::End(outcome)),
            None => after_access(shared),
        }
    }

    /// KVM's number of an internal error, which the last exit was.
    fn suberror(&mut self) -> u32 {
        // SAFETY: the exit reason was KVM_EXIT_INTERNAL_ERROR, for which the kernel fills this member; plain
        // integers, so any content is valid.
        unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal.suberror }
    }

    fn fault(&mut self, mut kind: FaultKind, shared: &Shared) -> Fault {
        if let FaultKind::Internal { suberror, instruction, access, withheld } = &mut kind {
            (*suberror, *instruction) = self.internal_error(shared);
            *access = self.failed_access();
            *withheld = shared.bus.withheld();
        }
        Fault { vcpu: self.index, kind, registers: self.registers() }
    }

    fn registers(&self) -> Option<Registers> {
        let general = self.fd.get_regs().ok()?;
        Some(Registers { general, system: self.fd.get_sregs().ok()? })
    }

    /// KVM's number of the error, and the bytes of the instruction at fault: from KVM if it says so, else
    /// from the guest's memory.
    fn internal_error(&mut self, shared: &Shared) -> (u32, Vec<u8>) {
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit reason was KVM_EXIT_INTERNAL_ERROR, for which the kernel fills this member; plain
        // integers, so any content is valid.
        let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
        let has_bytes = failure.ndata >= 3
            && failure.flags & u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
        if failure.suberror == KVM_INTERNAL_ERROR_EMULATION && has_bytes {
            // SAFETY: the flag says that the kernel filled this member; plain integers.
            let instruction = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
            let len = usize::from(instruction.insn_size).min(instruction.insn_bytes.len());
            return (failure.suberror, instruction.insn_bytes.iter().copied().take(len).collect());
        }
        (failure.suberror, self.bytes_at_rip(shared))
    }

    /// The access that was to be emulated, where KVM says it: since Linux 5.16 it adds the processor's words about the
    /// exit, and those of AMD's about a nested page fault have the guest physical address (APM vol. 2, 15.25.6); Intel's
    /// do not.
    fn failed_access(&mut self) -> Option<Access> {
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit reason was KVM_EXIT_INTERNAL_ERROR, for which the kernel fills this member; plain
        // integers, so any content is valid.
        let internal = unsafe { run.__bindgen_anon_1.internal };
        if internal.suberror != KVM_INTERNAL_ERROR_EMULATION {
            return None;
        }
        let count = usize::try_from(internal.ndata).ok()?.min(internal.data.len());
        let (flags, rest) = internal.data.get(..count)?.split_first()?;
        let has_bytes = flags & u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
        // The bytes and their number take two words.
        match rest.get(if has_bytes { 2 } else { 0 }..)? {
            [SVM_EXIT_NPF, error, address, _, _, ..] => {
                Some(Access { address: *address, write: error & PAGE_FAULT_WRITE != 0 })
            }
            _ => None,
        }
    }

    fn bytes_at_rip(&self, shared: &Shared) -> Vec<u8> {
        let Ok(regs) = self.fd.get_regs() else { return Vec::new() };
        let memory = VcpuMemory::new(&self.fd, &shared.ram);
        Buffer::reach(&memory, regs.rip, MAX_INSTRUCTION).read(0, MAX_INSTRUCTION)
    }
}

/// Ends the run if the thread unwinds: the others would wait for ever.
struct PanicGuard<'a> {
    control: &'a Control,
    vcpu: u8,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let fault = Fault { vcpu: self.vcpu, kind: FaultKind::Panicked, registers: None };
            self.control.finish(RunEnd::Fault(Box::new(fault)));
        }
    }
}

fn serve(exit: VcpuExit<'_>, shared: &Shared) -> Result<Next, FaultKind> {
    match exit {
        VcpuExit::MmioRead(address, data) => {
            bus::read(&*shared.bus, address, data);
            after_access(shared)
        }
        VcpuExit::MmioWrite(address, data) => {
            bus::write(&*shared.bus, address, data);
            after_access(shared)
        }
        VcpuExit::IoIn(port, data) => {
            if !ports::read_witness(&*shared.bus, port, data) {
                shared.ports.read(port, data);
            }
            Ok(Next::Resume)
        }
        // Narrower writes mean nothing there.
        VcpuExit::IoOut(layout::LAB_CALL, data) => Ok(match <[u8; 4]>::try_from(data) {
            Ok(line) => Next::ProtocolCall(u32::from_le_bytes(line)),
            Err(_) => Next::Resume,
        }),
        VcpuExit::IoOut(port @ (layout::WITNESS_ATTACH | layout::WITNESS_DRAIN), data) => {
            ports::write_witness(&*shared.bus, port, data);
            after_access(shared)
        }
        VcpuExit::IoOut(port, data) => match shared.ports.write(port, data) {
            Some(outcome) => Ok(Next::End(outcome)),
            None => after_access(shared),
        },
        VcpuExit::Shutdown => Err(FaultKind::TripleFault),
        VcpuExit::InternalError => {
            let (instruction, withheld) = (Vec::new(), Vec::new());
            Err(FaultKind::Internal { suberror: 0, instruction, access: None, withheld })
        }
        VcpuExit::FailEntry(reason, _) => Err(FaultKind::EntryFailed { reason }),
        // Interrupted; a halt is waited out in the kernel, but an old KVM may still report one.
        VcpuExit::Intr | VcpuExit::Hlt | VcpuExit::IrqWindowOpen => Ok(Next::Resume),
        other => Err(FaultKind::Unexpected(format!("{other:?}"))),
    }
}

/// What the CPUs see of devices may have changed: a BAR was moved, or the protocol port's listener has pulled a device.
fn after_access(shared: &Shared) -> Result<Next, FaultKind> {
    shared.slots.follow(&*shared.bus).map_err(FaultKind::Machine)?;
    Ok(Next::Resume)
}
