//! Accesses that leave the guest: PCI windows, ECAM, ioeventfd, and where nothing is.

use kvm_ioctls::{IoEventAddress, NoDatamatch};
use libtest_mimic::Trial;
use vmm_sys_util::eventfd::EventFd;

use crate::harness::{
    Access, FakeBus, REGISTERS, Ran, expect_success, machine, platform, quiet, run,
};
use crate::program::program;

fn registers_are_read_and_written_in_all_widths() -> Ran {
    let bus = FakeBus::new();
    let code = program!(
        "mov ebx, 0xC0000000",
        "mov r15d, 1",
        "mov byte ptr [rbx + 1], 0x5A",
        "cmp byte ptr [rbx + 1], 0x5A",
        "jne 91f",
        "mov r15d, 2",
        "mov ax, 0xBEEF",
        "mov [rbx + 2], ax",
        "mov cx, [rbx + 2]",
        "cmp cx, ax",
        "jne 91f",
        "mov r15d, 3",
        "mov dword ptr [rbx + 4], 0x12345678",
        "mov ecx, [rbx + 4]",
        "cmp ecx, 0x12345678",
        "jne 91f",
        "mov r15d, 4",
        "movabs rax, 0x1122334455667788",
        "mov [rbx + 8], rax",
        "cmp rax, [rbx + 8]",
        "jne 91f",
    );
    expect_success(&run(code, bus.clone(), quiet())?);
    let (at, qword) = (|offset| REGISTERS + offset, 0x1122_3344_5566_7788_u64);
    let expected = [
        Access::Write(at(1), vec![0x5A]),
        Access::Read(at(1), 1),
        Access::Write(at(2), vec![0xEF, 0xBE]),
        Access::Read(at(2), 2),
        Access::Write(at(4), vec![0x78, 0x56, 0x34, 0x12]),
        Access::Read(at(4), 4),
        Access::Write(at(8), qword.to_le_bytes().to_vec()),
        Access::Read(at(8), 8),
    ];
    assert_eq!(bus.take_log(), expected);
    Ok(())
}

fn ecam_accesses_reach_the_function_they_name() -> Ran {
    let bus = FakeBus::new();
    // 01:02.3 lies at 1 MiB + 2 * 32 KiB + 3 * 4 KiB.
    let code = program!(
        "mov ebx, 0xE0113000",
        "mov dword ptr [rbx + 0x104], 0xCAFEF00D",
        "mov r15d, 1",
        "mov eax, [rbx + 0x104]",
        "cmp eax, 0xCAFEF00D",
        "jne 91f",
        "mov r15d, 2",
        "cmp word ptr [rbx + 0x106], 0xCAFE",
        "jne 91f",
        "mov r15d, 3",
        "cmp byte ptr [rbx + 0x105], 0xF0",
        "jne 91f",
        // Across a dword: no answer.
        "mov r15d, 4",
        "cmp word ptr [rbx + 0x103], 0xFFFF",
        "jne 91f",
        "mov r15d, 5",
        "cmp qword ptr [rbx + 0x104], -1",
        "jne 91f",
    );
    expect_success(&run(code, bus.clone(), quiet())?);
    let function = 0x0113;
    let expected = [
        Access::ConfigWrite(function, 0x104, 0xCAFE_F00D_u32.to_le_bytes().to_vec()),
        Access::ConfigRead(function, 0x104, 4),
        Access::ConfigRead(function, 0x106, 2),
        Access::ConfigRead(function, 0x105, 1),
    ];
    assert_eq!(bus.take_log(), expected);
    Ok(())
}

fn where_nothing_is_reads_give_ones() -> Ran {
    let bus = FakeBus::new();
    let code = program!(
        "mov r15d, 1",
        "mov ebx, 0xF8000000",
        "cmp dword ptr [rbx], -1",
        "jne 91f",
        "mov dword ptr [rbx], 0",
        "mov r15d, 2",
        "mov dx, 0x1234",
        "in eax, dx",
        "cmp eax, -1",
        "jne 91f",
        "out dx, eax",
    );
    expect_success(&run(code, bus.clone(), quiet())?);
    assert_eq!(bus.take_log(), []);
    Ok(())
}

fn an_ioeventfd_counts_writes_without_an_exit() -> Ran {
    let platform = platform(1)?;
    let bus = FakeBus::new();
    let event = EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap();
    platform
        .vm()
        .register_ioevent(&event, &IoEventAddress::Mmio(REGISTERS + 0x100), NoDatamatch)
        .unwrap();
    let code = program!(
        "mov ebx, 0xC0000100",
        "mov ecx, 5",
        "20:",
        "mov dword ptr [rbx], ecx",
        "dec ecx",
        "jnz 20b",
    );
    let outcome =
        machine(platform, code, bus.clone(), quiet()).run(Some(crate::harness::LIMIT)).unwrap();
    expect_success(&outcome);
    assert_eq!(event.read().unwrap(), 5);
    assert_eq!(bus.take_log(), []);
    Ok(())
}

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        registers_are_read_and_written_in_all_widths,
        ecam_accesses_reach_the_function_they_name,
        where_nothing_is_reads_give_ones,
        an_ioeventfd_counts_writes_without_an_exit,
    ]
}
