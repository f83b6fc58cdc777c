//! The guest as gdbstub sees it.

use std::num::NonZeroUsize;

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    kvm_guest_debug,
};

use super::super::breakpoints::INSTRUCTION;
use super::super::{DebugError, DebugHandle, Stop};
use super::Halt;
use super::registers::{from_gdb, to_gdb};

/// Why the session cannot go on.
pub(super) type TargetError = DebugError;

/// What a thread is to do when the guest goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Go,
    Step,
    Stand,
}

/// A breakpoint or watchpoint of the processor's own (Intel SDM vol. 3, 18.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DebugRegister {
    address: u64,
    /// R/W of DR7: 0 for execution, 1 for writes, 3 for reads and writes.
    access: u64,
    /// LEN of DR7.
    length: u64,
}

impl DebugRegister {
    /// The bits of DR7 for register `number`.
    fn control(self, number: usize) -> u64 {
        let enable = 2 << (number * 2);
        enable | (self.access | self.length << 2) << (16 + number * 4)
    }

    fn watch(address: u64, length: u64, kind: WatchKind) -> Option<Self> {
        let access = match kind {
            WatchKind::Write => 1,
            // x86 cannot watch reads alone.
            WatchKind::Read | WatchKind::ReadWrite => 3,
        };
        let encoded = match length {
            1 => 0,
            2 => 1,
            4 => 3,
            8 => 2,
            _ => return None,
        };
        // They match aligned addresses only.
        address.is_multiple_of(length).then_some(Self { address, access, length: encoded })
    }
}

/// A guest in a debugger.
#[derive(Debug)]
pub(super) struct Guest {
    machine: DebugHandle,
    halt: Box<dyn Halt>,
    /// By processor.
    actions: Vec<Action>,
    others: Action,
    registers: [Option<DebugRegister>; 4],
}

fn tid(vcpu: u8) -> Tid {
    NonZeroUsize::MIN.saturating_add(vcpu.into())
}

fn vcpu(tid: Tid) -> u8 {
    u8::try_from(tid.get() - 1).unwrap_or(u8::MAX)
}

/// A failure that gdb shows, and that does not end the session.
fn refused<T>(error: &DebugError) -> TargetResult<T, Guest> {
    log::debug!("gdb: {error}");
    Err(gdbstub::target::TargetError::NonFatal)
}

impl Guest {
    pub(super) fn new(machine: DebugHandle, halt: Box<dyn Halt>) -> Self {
        Self { machine, halt, actions: Vec::new(), others: Action::Go, registers: [None; 4] }
    }

    /// A debugger has come: the guest stands still.
    pub(super) fn attach(&mut self) {
        self.halt.attached(true);
        self.halt.pause();
        while self.machine.take_stop().is_some() {}
    }

    /// It is gone, whatever it has left behind: the guest goes on as if it had never been there.
    pub(super) fn detach(&mut self) {
        self.halt.pause();
        while let Some((address, byte)) = self.machine.0.control.breakpoints.first() {
            self.machine.0.control.breakpoints.remove(address);
            if let Err(error) = self.machine.write(0, address, vec![byte]) {
                log::warn!("the breakpoint at {address:#x} stays: {error}");
            }
        }
        self.registers = [None; 4];
        for vcpu in 0..self.machine.vcpus() {
            let _ = self.machine.set_debug(vcpu, kvm_guest_debug::default());
        }
        while self.machine.take_stop().is_some() {}
        self.halt.attached(false);
        self.halt.resume();
        self.machine.resume_but(0);
    }

    /// gdb's Ctrl-C.
    pub(super) fn interrupt(&mut self) {
        self.halt.pause();
    }

    /// Why the guest stands still, if it does.
    pub(super) fn stopped(&mut self) -> Option<MultiThreadStopReason<u64>> {
        if self.machine.ended() {
            return Some(MultiThreadStopReason::Exited(0));
        }
        if let Some((vcpu, stop)) = self.machine.take_stop() {
            // The devices, too.
            self.halt.pause();
            let tid = tid(vcpu);
            let signal = MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP };
            return Some(match stop {
                Stop::Breakpoint => MultiThreadStopReason::SwBreak(tid),
                Stop::Register(number) => match self.registers.get(usize::from(number)) {
                    Some(Some(DebugRegister { access: 0, .. })) => {
                        MultiThreadStopReason::HwBreak(tid)
                    }
                    Some(Some(DebugRegister { address, access, .. })) => {
                        let kind = match access {
                            1 => WatchKind::Write,
                            _ => WatchKind::ReadWrite,
                        };
                        MultiThreadStopReason::Watch { tid, kind, addr: *address }
                    }
                    _ => signal,
                },
                Stop::Step | Stop::Other => signal,
            });
        }
        // At a finding, or by another terminal.
        self.halt.is_paused().then_some(MultiThreadStopReason::Signal(Signal::SIGTRAP))
    }

    /// What KVM is to stop a processor for.
    fn debug(&self, step: bool) -> kvm_guest_debug {
        let mut debug = kvm_guest_debug::default();
        if step {
            // Without interrupts, or each step would end in the timer's.
            debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ;
        }
        for (number, register) in self.registers.iter().enumerate() {
            let Some(register) = register else { continue };
            debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
            if let Some(address) = debug.arch.debugreg.get_mut(number) {
                *address = register.address;
            }
            debug.arch.debugreg[7] |= register.control(number);
        }
        debug
    }

    fn add_register(&mut self, register: DebugRegister) -> bool {
        // The emulated processor has the registers, and nothing ever hits: gdb then steps where it has to watch.
        if is_emulated() {
            return false;
        }
        match self.registers.iter_mut().find(|place| place.is_none()) {
            Some(place) => {
                *place = Some(register);
                true
            }
            None => false,
        }
    }

    fn remove_register(&mut self, register: DebugRegister) -> bool {
        match self.registers.iter_mut().find(|place| **place == Some(register)) {
            Some(place) => {
                *place = None;
                true
            }
            None => false,
        }
    }
}

/// Whether the processor is QEMU's translator: its VMRUN takes a guest's debug registers without acting on them.
fn is_emulated() -> bool {
    const HYPERVISOR: u32 = 0x4000_0000;
    let leaf = std::arch::x86_64::__cpuid(HYPERVISOR);
    let name = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat();
    name == b"TCGTCGTCGTCG"
}

impl Target for Guest {
    type Arch = X86_64_SSE;
    type Error = TargetError;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Guest {
    fn read_registers(&mut self, all: &mut X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        let read = || Ok((self.machine.registers(vcpu(tid))?, self.machine.vectors(vcpu(tid))?));
        match read() {
            Ok((registers, vectors)) => {
                *all = to_gdb(&registers, &vectors);
                Ok(())
            }
            Err(error) => refused(&error),
        }
    }

    fn write_registers(&mut self, all: &X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        self.machine.set_general(vcpu(tid), from_gdb(all)).or_else(|error| refused(&error))
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let mut bytes = match self.machine.read(vcpu(tid), start, data.len()) {
            Ok(bytes) => bytes,
            Err(error) => return refused(&error),
        };
        self.machine.0.control.breakpoints.hide(start, &mut bytes);
        data.iter_mut().zip(&bytes).for_each(|(place, byte)| *place = *byte);
        Ok(bytes.len())
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let mut bytes = data.to_vec();
        self.machine.0.control.breakpoints.keep(start, &mut bytes);
        match self.machine.write(vcpu(tid), start, bytes) {
            Ok(true) => Ok(()),
            Ok(false) => Err(gdbstub::target::TargetError::NonFatal),
            Err(error) => refused(&error),
        }
    }

    fn list_active_threads(&mut self, is_active: &mut dyn FnMut(Tid)) -> Result<(), Self::Error> {
        (0..self.machine.vcpus()).for_each(|vcpu| is_active(tid(vcpu)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl ThreadExtraInfo for Guest {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        let text = format!("CPU#{}", vcpu(tid));
        let count = text.len().min(buffer.len());
        buffer.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
        Ok(count)
    }
}

impl MultiThreadResume for Guest {
    fn resume(&mut self) -> Result<(), Self::Error> {
        let mut held = 0;
        for vcpu in 0..self.machine.vcpus() {
            let action = self.actions.get(usize::from(vcpu)).copied().unwrap_or(self.others);
            self.machine.set_debug(vcpu, self.debug(action == Action::Step))?;
            if action == Action::Stand {
                held |= 1 << vcpu.min(63);
            }
        }
        self.halt.resume();
        self.machine.resume_but(held);
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Self::Error> {
        self.others = Action::Go;
        self.actions = vec![Action::Go; self.machine.vcpus().into()];
        Ok(())
    }

    fn set_resume_action_continue(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), Self::Error> {
        self.act(tid, Action::Go);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl Guest {
    fn act(&mut self, tid: Tid, action: Action) {
        if let Some(place) = self.actions.get_mut(usize::from(vcpu(tid))) {
            *place = action;
        }
    }
}

impl MultiThreadSingleStep for Guest {
    fn set_resume_action_step(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), Self::Error> {
        self.act(tid, Action::Step);
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Guest {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Self::Error> {
        // It comes behind the actions of those that are to go on.
        let stand = |action: &mut Action| {
            if *action == Action::Go {
                *action = Action::Stand;
            }
        };
        self.actions.iter_mut().for_each(stand);
        self.others = Action::Stand;
        Ok(())
    }
}

impl Breakpoints for Guest {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Guest {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let byte = match self.machine.read(0, address, 1) {
            Ok(bytes) => bytes.first().copied(),
            Err(error) => return refused(&error),
        };
        let Some(byte) = byte else { return Ok(false) };
        match self.machine.write(0, address, vec![INSTRUCTION]) {
            Ok(true) => {
                self.machine.0.control.breakpoints.add(address, byte);
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(error) => refused(&error),
        }
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let Some(byte) = self.machine.0.control.breakpoints.remove(address) else {
            return Ok(false);
        };
        self.machine.write(0, address, vec![byte]).or_else(|error| refused(&error))
    }
}

impl HwBreakpoint for Guest {
    fn add_hw_breakpoint(&mut self, address: u64, kind: usize) -> TargetResult<bool, Self> {
        if is_emulated() {
            // As good there, but for code that is not in memory yet.
            return self.add_sw_breakpoint(address, kind);
        }
        Ok(self.add_register(DebugRegister { address, access: 0, length: 0 }))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, kind: usize) -> TargetResult<bool, Self> {
        if is_emulated() {
            return self.remove_sw_breakpoint(address, kind);
        }
        Ok(self.remove_register(DebugRegister { address, access: 0, length: 0 }))
    }
}

impl HwWatchpoint for Guest {
    fn add_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let register = DebugRegister::watch(address, length, kind);
        Ok(register.is_some_and(|register| self.add_register(register)))
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let register = DebugRegister::watch(address, length, kind);
        Ok(register.is_some_and(|register| self.remove_register(register)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_registers_are_encoded_as_the_processor_has_them() {
        let watch = |address, length| DebugRegister::watch(address, length, WatchKind::Write);
        assert_eq!(watch(0x1004, 8), None, "not aligned");
        assert_eq!(watch(0x1000, 3), None);
        // LE of register 1, R/W 01 and LEN 11 at bit 20.
        assert_eq!(watch(0x1000, 4).unwrap().control(1), 0b1000 | 0b1101 << 20);
        let execute = DebugRegister { address: 0, access: 0, length: 0 };
        assert_eq!(execute.control(0), 0b10);
    }

    #[test]
    fn threads_are_processors_from_one_on() {
        assert_eq!((tid(0).get(), vcpu(tid(0)), vcpu(tid(7))), (1, 0, 7));
    }
}
