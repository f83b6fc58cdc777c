//! How runs end: by faults with a clear message, and from outside at any moment.

use libtest_mimic::Trial;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use peerdma_machine::{DeviceBus, EmptyBus, FaultKind, MappedMemory, RunEnd, StopHandle};
use vm_memory::{Bytes, GuestAddress};

use crate::harness::{LIMIT, Ran, machine, platform, quiet, run};
use crate::program::program;

/// Ends within this, busy computer or not.
const SOON: Duration = Duration::from_secs(5);

fn a_triple_fault_says_where_it_happened() -> Ran {
    // No interrupt descriptor table: the exception cannot be delivered, nor the one that follows.
    let outcome = run(program!("mov ebx, 0x1234", "ud2"), Arc::new(EmptyBus), quiet())?;
    let RunEnd::Fault(fault) = &outcome else { panic!("{outcome}") };
    assert!(matches!(fault.kind, FaultKind::TripleFault));
    assert_eq!(fault.registers.unwrap().general.rbx, 0x1234);
    let text = outcome.to_string();
    assert!(text.starts_with("vCPU 0: triple fault"), "{text}");
    assert!(text.contains("rip=0x100005"), "{text}");
    Ok(())
}

fn an_instruction_that_kvm_cannot_emulate_is_named() -> Ran {
    let code = program!("and rsp, -16", "push 0", "push 0", "lock cmpxchg16b [rsp]");
    let outcome = run(code, Arc::new(EmptyBus), quiet())?;
    match &outcome {
        // A KVM that works.
        RunEnd::Exit(0) => {}
        RunEnd::Fault(fault) => match &fault.kind {
            FaultKind::Internal { suberror: 1, instruction, .. } => {
                assert!(instruction.starts_with(&[0xF0, 0x48, 0x0F, 0xC7]), "{outcome}");
                assert!(outcome.to_string().contains("instruction bytes f0 48 0f c7"), "{outcome}");
            }
            _ => panic!("{outcome}"),
        },
        _ => panic!("{outcome}"),
    }
    Ok(())
}

fn a_guest_is_stopped_from_another_thread_whatever_it_does() -> Ran {
    let spins = program!("20:", "jmp 20b");
    let halts = program!("cli", "20:", "hlt", "jmp 20b");
    let exits = program!("mov edx, 0x80", "20:", "out dx, al", "jmp 20b");
    for code in [spins, halts, exits] {
        // The second vCPU waits for an INIT that never comes.
        let platform = platform(2)?;
        let machine = machine(platform, code, Arc::new(EmptyBus), quiet());
        let stop = machine.stop_handle();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            stop.stop();
            Instant::now()
        });
        let outcome = machine.run(Some(LIMIT)).unwrap();
        let ended = Instant::now();
        assert!(matches!(outcome, RunEnd::Stopped), "{outcome}");
        assert!(ended.saturating_duration_since(stopper.join().unwrap()) < SOON);
    }
    Ok(())
}

/// Where a program counts.
const COUNTER: u64 = 0x30_0000;

fn a_frozen_guest_runs_no_more_when_freezing_returns() -> Ran {
    for _ in 0..20 {
        let platform = platform(1)?;
        let ram = platform.ram().clone();
        let count = || ram.memory().read_obj::<u64>(GuestAddress(COUNTER)).unwrap();
        let code = program!("mov ebx, 0x300000", "20:", "inc qword ptr [rbx]", "jmp 20b");
        let machine = machine(platform, code, Arc::new(EmptyBus), quiet());
        let stop = machine.stop_handle();
        let guest = std::thread::spawn(move || machine.run(Some(LIMIT)).unwrap());
        while count() == 0 {
            std::thread::yield_now();
        }
        stop.freeze();
        let frozen = count();
        assert!(matches!(guest.join().unwrap(), RunEnd::Stopped));
        assert_eq!(count(), frozen, "it went on");
    }
    Ok(())
}

/// Freezes its guest with each write.
#[derive(Debug, Default)]
struct FreezingBus(OnceLock<StopHandle>);

impl DeviceBus for FreezingBus {
    fn config_read(&self, _function: u16, _offset: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn config_write(&self, _function: u16, _offset: u16, _data: &[u8]) {}

    fn mmio_read(&self, _address: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn mmio_write(&self, _address: u64, _data: &[u8]) {
        self.0.get().unwrap().freeze();
    }

    fn memory_epoch(&self) -> u64 {
        0
    }

    fn memory(&self) -> Vec<MappedMemory> {
        Vec::new()
    }
}

fn a_vcpu_that_freezes_its_own_guest_does_not_wait_for_itself() -> Ran {
    let platform = platform(2)?;
    let bus = Arc::new(FreezingBus::default());
    // What follows the write is not executed.
    let code = program!("mov eax, 0xc0000000", "mov dword ptr [rax], 1", "mov r15d, 9");
    let machine = machine(platform, code, bus.clone(), quiet());
    bus.0.set(machine.stop_handle()).unwrap();
    let begun = Instant::now();
    assert!(matches!(machine.run(Some(LIMIT)).unwrap(), RunEnd::Stopped));
    assert!(begun.elapsed() < SOON);
    Ok(())
}

fn a_stop_before_the_start_counts() -> Ran {
    let platform = platform(2)?;
    let machine = machine(platform, program!("20:", "jmp 20b"), Arc::new(EmptyBus), quiet());
    let stop = machine.stop_handle();
    stop.stop();
    stop.finish(RunEnd::PowerOff);
    assert!(stop.ended());
    assert!(matches!(machine.run(None).unwrap(), RunEnd::Stopped));
    Ok(())
}

fn a_limit_ends_a_guest_that_hangs() -> Ran {
    let platform = platform(1)?;
    let machine = machine(platform, program!("20:", "jmp 20b"), Arc::new(EmptyBus), quiet());
    let stop = machine.stop_handle();
    let begin = Instant::now();
    assert!(matches!(machine.run(Some(Duration::from_millis(30))).unwrap(), RunEnd::Stopped));
    assert!(begin.elapsed() >= Duration::from_millis(30) && begin.elapsed() < SOON);
    // And one can say where it hung.
    let registers = stop.registers();
    assert_eq!(registers.len(), 1);
    assert_eq!(registers[0].1.general.rip, 0x10_0000);
    Ok(())
}

/// Panics when it is read.
#[derive(Debug)]
struct Broken;

impl DeviceBus for Broken {
    fn config_read(&self, _: u16, _: u16, _: &mut [u8]) {}
    fn config_write(&self, _: u16, _: u16, _: &[u8]) {}
    fn mmio_read(&self, _: u64, _: &mut [u8]) {
        panic!("on purpose");
    }
    fn mmio_write(&self, _: u64, _: &[u8]) {}
    fn memory_epoch(&self) -> u64 {
        0
    }
    fn memory(&self) -> Vec<MappedMemory> {
        Vec::new()
    }
}

fn a_panic_of_a_device_ends_the_run_instead_of_hanging_it() -> Ran {
    let platform = platform(2)?;
    let code = program!("mov ebx, 0xC0000000", "mov eax, [rbx]");
    let outcome = machine(platform, code, Arc::new(Broken), quiet()).run(Some(LIMIT)).unwrap();
    assert!(
        matches!(&outcome, RunEnd::Fault(fault) if matches!(fault.kind, FaultKind::Panicked)),
        "{outcome}"
    );
    Ok(())
}

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_triple_fault_says_where_it_happened,
        an_instruction_that_kvm_cannot_emulate_is_named,
        a_guest_is_stopped_from_another_thread_whatever_it_does,
        a_frozen_guest_runs_no_more_when_freezing_returns,
        a_vcpu_that_freezes_its_own_guest_does_not_wait_for_itself,
        a_stop_before_the_start_counts,
        a_limit_ends_a_guest_that_hangs,
        a_panic_of_a_device_ends_the_run_instead_of_hanging_it,
    ]
}
