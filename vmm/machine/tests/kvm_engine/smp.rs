//! More than one vCPU.

use libtest_mimic::Trial;
use std::sync::Arc;

use peerdma_machine::EmptyBus;

use crate::harness::{LIMIT, Ran, expect_success, machine, platform, quiet};
use crate::program::program;

/// The first vCPU puts a trampoline at 0x8000, sends INIT and SIPI, and waits for the second one's sign of life.
fn a_second_vcpu_starts_by_init_and_sipi() -> Ran {
    let platform = platform(2)?;
    let code = program!(
        "cld",
        "lea rsi, [rip + 50f]",
        "mov edi, 0x8000",
        "mov ecx, 64",
        "rep movsb",
        "mov dword ptr [0x7000], 0",
        "mov ebx, 0xFEE00000",
        "mov dword ptr [rbx + 0xF0], 0x1FF",
        // To APIC 1: INIT, then SIPI with page 8.
        "mov dword ptr [rbx + 0x310], 0x01000000",
        "mov dword ptr [rbx + 0x300], 0x00004500",
        "mov dword ptr [rbx + 0x310], 0x01000000",
        "mov dword ptr [rbx + 0x300], 0x00004608",
        "20:",
        "pause",
        "cmp dword ptr [0x7000], 0x600D",
        "jne 20b",
        "jmp 60f",
        ".code16",
        "50:",
        "mov word ptr ds:[0x7000], 0x600D",
        "51:",
        "hlt",
        "jmp 51b",
        ".code64",
        ".skip 64",
        "60:",
    );
    let outcome = machine(platform, code, Arc::new(EmptyBus), quiet()).run(Some(LIMIT)).unwrap();
    expect_success(&outcome);
    Ok(())
}

pub(crate) fn trials() -> Vec<Trial> {
    trials![a_second_vcpu_starts_by_init_and_sipi,]
}
