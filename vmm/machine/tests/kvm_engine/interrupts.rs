//! Message-signalled interrupts reach the guest, also when it halts.

use libtest_mimic::Trial;
use std::sync::Arc;
use std::time::Duration;

use device_models::fabric::InterruptSink;
use peerdma_machine::runtime::Interrupts;
use peerdma_machine::{EmptyBus, MsiSignaller, ProtocolHandler, Reply};
use peerdma_support::testing::logged;

use crate::harness::{LIMIT, Ran, bare_vm, expect_success, machine, platform, with_port};
use crate::program::program;

/// `now` signals at once, `later` from another thread once the guest has had time to halt.
struct Signals(MsiSignaller);

const ADDRESS: u64 = 0xFEE0_0000;
const VECTOR: u32 = 0x40;

impl ProtocolHandler for Signals {
    fn line(&mut self, line: &str) -> Reply {
        match line {
            "now" => assert!(self.0.signal(ADDRESS, VECTOR).unwrap()),
            "later" => {
                let msi = self.0.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    assert!(msi.signal(ADDRESS, VECTOR).unwrap());
                });
            }
            other => match other.strip_prefix("exit ").map(str::parse) {
                Some(Ok(code)) => return Reply::Exit(code),
                _ => return Reply::fail(other),
            },
        }
        Reply::ok()
    }
}

fn messages_are_delivered_and_wake_a_halted_guest() -> Ran {
    let platform = platform(1)?;
    let port = Signals(platform.msi());
    let code = program!(
        "mov ebx, 0x300000",
        "lea rax, [rip + 50f]",
        "mov [rbx + 0x400], ax",
        "mov word ptr [rbx + 0x402], 0x10",
        "mov word ptr [rbx + 0x404], 0x8e00",
        "shr rax, 16",
        "mov [rbx + 0x406], ax",
        "shr rax, 16",
        "mov [rbx + 0x408], eax",
        "push rbx",
        "push 0",
        "mov word ptr [rsp + 6], 0x40f",
        "lidt [rsp + 6]",
        "mov ebx, 0xFEE00000",
        "mov dword ptr [rbx + 0xF0], 0x1FF",
        "xor ebp, ebp",
        "mov edx, 0x0d10",
        "cld",
        // While it runs: pending until interrupts are allowed, then taken.
        "lea rsi, [rip + 30f]",
        "mov ecx, 4",
        "rep outsb",
        "mov r15d, 1",
        "cmp ebp, 0",
        "jne 91f",
        "sti",
        "20:",
        "pause",
        "cmp ebp, 1",
        "jne 20b",
        "cli",
        // While it halts.
        "lea rsi, [rip + 31f]",
        "mov ecx, 6",
        "rep outsb",
        "sti",
        "hlt",
        "cli",
        "mov r15d, 2",
        "cmp ebp, 2",
        "jne 91f",
        "jmp 60f",
        "30: .ascii \"now\\n\"",
        "31: .ascii \"later\\n\"",
        "50:",
        "inc ebp",
        "mov ebx, 0xFEE00000",
        "mov dword ptr [rbx + 0xB0], 0",
        "iretq",
        "60:",
    );
    let outcome =
        machine(platform, code, Arc::new(EmptyBus), with_port(port)).run(Some(LIMIT)).unwrap();
    expect_success(&outcome);
    Ok(())
}

fn messages_that_are_refused_do_not_fill_the_log() -> Ran {
    // It has no interrupt controllers, so KVM refuses each message.
    let vm = Arc::new(bare_vm()?);
    let lines = logged(|| {
        let mut interrupts = Interrupts::new(MsiSignaller::new(vm));
        (0..500).for_each(|data| interrupts.signal_msi(0xfee0_0000, data));
    });
    assert_eq!(lines.len(), 8 + 1 + 1, "{lines:#?}");
    assert!(lines[9].contains("500 in all"), "{lines:#?}");
    Ok(())
}

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        messages_that_are_refused_do_not_fill_the_log,
        messages_are_delivered_and_wake_a_halted_guest,
    ]
}
