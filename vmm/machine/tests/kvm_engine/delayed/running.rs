//! Removal and return under vCPUs that use the BAR without pause.

use libtest_mimic::Trial;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peerdma_machine::RunEnd;
use vm_memory::{Bytes, GuestAddress};

use super::rig::{FLAG, Rig};
use crate::harness::{Ran, expect_success, platform, quiet};
use crate::program::program;

/// Rounds of the device's at least, and how often the path is armed and disarmed meanwhile.
const ROUNDS: u64 = 1000;
const SWITCHES: usize = 2000;
const LIMIT: Duration = Duration::from_secs(120);

/// The round that the consumer has seen.
const SEEN: u64 = 0x7210;
/// Not zero: this round is the last one.
const LAST: u64 = 0x7230;
/// How often the other vCPU has written its word, and its verdict.
const COUNT: u64 = 0x7220;
const LOST: u64 = 0x7228;

/// The first vCPU waits for the word that the device writes to RAM, and reads at once what it has written to the BAR before
/// that, which must not be older. The second one writes a counter to another page of the BAR and reads it back.
fn program() -> Vec<u8> {
    program!(
        // What the second one needs on its way to long mode.
        "cld",
        "sgdt [0x7010]",
        "mov rax, cr3",
        "mov [0x7020], eax",
        "mov rax, cr4",
        "mov [0x7028], eax",
        "lea rax, [rip + 60f]",
        "mov [0x7030], eax",
        "mov dword ptr [0x7034], 0x10",
        "lea rsi, [rip + 50f]",
        "mov edi, 0x8000",
        "mov ecx, 128",
        "rep movsb",
        "mov ebx, 0xFEE00000",
        "mov dword ptr [rbx + 0xF0], 0x1FF",
        "mov dword ptr [rbx + 0x310], 0x01000000",
        "mov dword ptr [rbx + 0x300], 0x00004500",
        "mov dword ptr [rbx + 0x310], 0x01000000",
        "mov dword ptr [rbx + 0x300], 0x00004608",
        "mov rdi, [0x7300]",
        "xor ecx, ecx",
        "20:",
        "inc rcx",
        "21:",
        "pause",
        "cmp [0x7200], rcx",
        "jb 21b",
        "mov r15d, 1",
        "mov rax, [rdi]",
        "cmp rax, rcx",
        "jne 91f",
        "mov rax, [rdi + 56]",
        "mov r15d, 2",
        "cmp rax, rcx",
        "jne 91f",
        "mov [0x7210], rcx",
        "mov r15d, 3",
        "cmp qword ptr [0x7228], 0",
        "jne 91f",
        "cmp dword ptr [0x7230], 0",
        "je 20b",
        "mov r15d, 4",
        "cmp qword ptr [0x7220], 1",
        "jb 91f",
        "jmp 80f",
        ".code16",
        "50:",
        "cli",
        "xor ax, ax",
        "mov ds, ax",
        // lgdt [0x7010], with a base of 32 bits
        ".byte 0x66, 0x0f, 0x01, 0x16, 0x10, 0x70",
        "mov eax, dword ptr ds:[0x7028]",
        "mov cr4, eax",
        "mov eax, dword ptr ds:[0x7020]",
        "mov cr3, eax",
        "mov ecx, 0xC0000080",
        "rdmsr",
        "or eax, 0x100",
        "wrmsr",
        "mov eax, cr0",
        "or eax, 0x80000001",
        "mov cr0, eax",
        // jmp far [0x7030], to a 32-bit offset
        ".byte 0x66, 0xff, 0x2e, 0x30, 0x70",
        ".code64",
        ".skip 64",
        "60:",
        "mov rdi, [0x7300]",
        "xor ecx, ecx",
        "61:",
        "inc rcx",
        "mov [rdi + 0x1000], rcx",
        "mov [rdi + 0x1ff8], rcx",
        "cmp [rdi + 0x1000], rcx",
        "jne 62f",
        "cmp [rdi + 0x1ff8], rcx",
        "jne 62f",
        "mov [0x7220], rcx",
        "jmp 61b",
        "62:",
        "mov [0x7228], rcx",
        "63:",
        "pause",
        "jmp 63b",
        "80:",
    )
}

fn a_bar_that_leaves_and_returns_under_running_vcpus_loses_nothing() -> Ran {
    let platform = platform(2)?;
    let rig = Rig::new(&platform);
    let machine = rig.machine(platform, program(), quiet());
    let stop = machine.stop_handle();
    let (over, switches) = (AtomicBool::new(false), AtomicUsize::new(0));
    let word = |at: u64| rig.ram.memory().read_obj::<u64>(GuestAddress(at)).unwrap();
    let outcome = thread::scope(|scope| {
        let guest = scope.spawn(|| {
            let outcome = machine.run(Some(LIMIT)).unwrap();
            over.store(true, Ordering::Release);
            outcome
        });
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                rig.delay("pushed");
                rig.delay("off");
                switches.fetch_add(1, Ordering::Relaxed);
            }
        });
        let begun = Instant::now();
        for round in 1.. {
            let last = round >= ROUNDS && switches.load(Ordering::Relaxed) >= SWITCHES
                || over.load(Ordering::Acquire);
            rig.ram.memory().write_obj(u64::from(last), GuestAddress(LAST)).unwrap();
            rig.post(round, 64);
            assert_eq!(word(FLAG), round);
            // The next one when the consumer has seen this one: or it would see that.
            while word(SEEN) != round && !over.load(Ordering::Acquire) {
                if begun.elapsed() > LIMIT {
                    stop.stop();
                }
                thread::yield_now();
            }
            if last {
                break;
            }
        }
        guest.join().unwrap()
    });
    if let RunEnd::Exit(1 | 2) = outcome {
        panic!("round {}: the vCPU saw the word in RAM and then older data", word(SEEN) + 1);
    }
    assert_eq!(word(LOST), 0, "a write of the second vCPU's was lost");
    expect_success(&outcome);
    // The second one may be between its two words.
    let (count, last) = (word(COUNT), rig.read(0x1000));
    assert!((count..=count + 1).contains(&last), "{count} written, {last} there");
    let (reads, writes) = rig.accesses();
    let switches = switches.into_inner();
    eprintln!("armed {switches} times; {count} writes; {reads} reads, {writes} writes by exits");
    assert!(reads > 0 && writes > 0, "nothing ever came to the runtime");
    Ok(())
}

pub(crate) fn trials() -> Vec<Trial> {
    trials![a_bar_that_leaves_and_returns_under_running_vcpus_loses_nothing,]
}
