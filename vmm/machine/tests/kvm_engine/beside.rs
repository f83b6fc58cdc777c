//! Two machines in one process.

use libtest_mimic::Trial;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use peerdma_machine::{DeviceBus, MappedMemory};

use crate::harness::{LIMIT, Ran, expect_success, machine, platform, quiet};
use crate::program::program;

/// A bus on which a read waits for a read on the other machine.
#[derive(Debug, Default)]
struct Meeting {
    arrived: Mutex<u32>,
    both: Condvar,
}

impl DeviceBus for Meeting {
    fn config_read(&self, _: u16, _: u16, data: &mut [u8]) {
        data.fill(0xFF);
    }

    fn config_write(&self, _: u16, _: u16, _: &[u8]) {}

    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        let mut arrived = self.arrived.lock().unwrap();
        *arrived += 1;
        self.both.notify_all();
        let (arrived, _) =
            self.both.wait_timeout_while(arrived, LIMIT, |arrived| *arrived < 2).unwrap();
        data.fill(0);
        if let Some(first) = data.first_mut() {
            *first = u8::try_from(*arrived).unwrap_or(u8::MAX);
        }
    }

    fn mmio_write(&self, _: u64, _: &[u8]) {}

    fn memory_epoch(&self) -> u64 {
        0
    }

    fn memory(&self) -> Vec<MappedMemory> {
        Vec::new()
    }
}

/// Either machine goes on only if the other one runs at the same time.
fn two_machines_run_beside_each_other() -> Ran {
    let meeting = Arc::new(Meeting::default());
    let run = |meeting: Arc<Meeting>| {
        let platform = platform(1)?;
        // The window of the registers.
        let code = program!(
            "mov ebx, 0xC0000000",
            "mov r15d, 1",
            "mov eax, [rbx]",
            "cmp eax, 2",
            "jne 91f",
        );
        Ok(machine(platform, code, meeting, quiet()).run(Some(LIMIT)).unwrap())
    };
    let other = {
        let meeting = Arc::clone(&meeting);
        thread::spawn(move || run(meeting))
    };
    expect_success(&run(meeting)?);
    expect_success(&other.join().unwrap()?);
    Ok(())
}

pub(crate) fn trials() -> Vec<Trial> {
    trials![two_machines_run_beside_each_other,]
}
