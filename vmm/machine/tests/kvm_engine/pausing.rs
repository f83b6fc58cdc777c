//! A guest that stands still, is looked at, and goes on.

use libtest_mimic::Trial;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peerdma_machine::{DebugError, EmptyBus, RunEnd};
use vm_memory::{Bytes, GuestAddress};

use crate::harness::{LIMIT, Ran, machine, platform, quiet};
use crate::program::program;

/// Where a program counts.
const COUNTER: u64 = 0x30_0000;

fn a_paused_guest_stands_still_can_be_looked_at_and_goes_on() -> Ran {
    // The second vCPU waits for an INIT that never comes: it can be paused all the same.
    let platform = platform(2)?;
    let ram = platform.ram().clone();
    let count = || ram.memory().read_obj::<u64>(GuestAddress(COUNTER)).unwrap();
    let code = program!(
        "mov ebx, 0x300000",
        "mov r12d, 0x1234",
        "20:",
        "inc qword ptr [rbx]",
        "cmp r12d, 0x1234",
        "je 20b",
    );
    let machine = machine(platform, code, Arc::new(EmptyBus), quiet());
    let debug = machine.debug_handle();
    let guest = std::thread::spawn(move || machine.run(Some(LIMIT)).unwrap());
    let until_it_counts = |from: u64| {
        let begun = Instant::now();
        while count() <= from {
            assert!(begun.elapsed() < LIMIT, "it does not go on");
            std::thread::yield_now();
        }
    };
    for _ in 0..20 {
        until_it_counts(count());
        debug.pause().unwrap();
        debug.pause().unwrap();
        let stands = count();
        assert!(debug.is_paused());
        let seen = debug.registers(0).unwrap().general;
        assert_eq!((seen.rbx, seen.r12), (COUNTER, 0x1234));
        debug.registers(1).unwrap();
        assert_eq!(debug.read(0, COUNTER, 8).unwrap(), stands.to_le_bytes());
        assert_eq!(count(), stands, "it went on");
        // Beyond RAM there is nothing to read, and nothing is written.
        assert!(debug.read(0, 0x8000_0000, 8).unwrap().is_empty());
        assert!(!debug.write(0, 0x8000_0000, vec![0; 8]).unwrap());
        debug.resume();
        assert!(!debug.is_paused());
    }
    assert!(matches!(debug.registers(0), Err(DebugError::NotPaused { vcpu: 0 })));
    debug.pause().unwrap();
    assert!(debug.write(0, COUNTER, vec![0; 8]).unwrap());
    assert_eq!(count(), 0);
    let mut general = debug.registers(0).unwrap().general;
    general.r12 = 0;
    debug.set_general(0, general).unwrap();
    debug.resume();
    let end = guest.join().unwrap();
    assert!(matches!(end, RunEnd::Exit(0)), "{end}");
    assert!(debug.ended());
    Ok(())
}

fn a_paused_guest_can_be_stopped_and_time_stands_still_for_it() -> Ran {
    let platform = platform(1)?;
    let machine = machine(platform, program!("20:", "jmp 20b"), Arc::new(EmptyBus), quiet());
    let (debug, stop) = (machine.debug_handle(), machine.stop_handle());
    debug.pause().unwrap();
    // Far beyond its limit: none of it counts.
    let guest = std::thread::spawn(move || machine.run(Some(Duration::from_millis(20))).unwrap());
    std::thread::sleep(Duration::from_millis(200));
    assert!(!guest.is_finished(), "its time went on");
    stop.stop();
    let begun = Instant::now();
    assert!(matches!(guest.join().unwrap(), RunEnd::Stopped));
    assert!(begun.elapsed() < Duration::from_secs(5));
    Ok(())
}

fn a_weak_handle_does_not_keep_a_machine() -> Ran {
    let platform = platform(1)?;
    let machine = machine(platform, program!("nop"), Arc::new(EmptyBus), quiet());
    let weak = machine.debug_handle().downgrade();
    assert!(weak.upgrade().is_some());
    drop(machine);
    assert!(weak.upgrade().is_none(), "its memory stays");
    Ok(())
}

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_paused_guest_stands_still_can_be_looked_at_and_goes_on,
        a_paused_guest_can_be_stopped_and_time_stands_still_for_it,
        a_weak_handle_does_not_keep_a_machine,
    ]
}
