//! Memory BARs and configuration spaces come and go while the guest runs.

use libtest_mimic::Trial;
use std::sync::Arc;

use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use crate::harness::{Access, FakeBus, Ran, expect_success, quiet, run};
use crate::program::program;

/// Maps 2 MiB of device memory at 0xC800_0000, moves it to the 64-bit window, takes it away.
fn device_memory_is_mapped_moved_and_unmapped() -> Ran {
    let region: Arc<MmapRegion> = Arc::new(MmapRegion::new(2 << 20).unwrap());
    let bus = FakeBus::with_memory(region.clone());
    let code = program!(
        // The 64-bit window starts at 64 GiB: entry 64 of the page directory pointer table at 0xA000.
        "mov dword ptr [0xA200], 0x310003",
        "mov dword ptr [0xA204], 0",
        "mov dword ptr [0x310000], 0x83",
        "mov dword ptr [0x310004], 0x10",
        "mov ebx, 0xE0000010",
        // Not there yet.
        "mov esi, 0xC8000000",
        "mov r15d, 1",
        "cmp dword ptr [rsi], -1",
        "jne 91f",
        "mov dword ptr [rbx], 0xC80",
        "mov r15d, 2",
        "cmp dword ptr [rsi], 0",
        "jne 91f",
        "mov dword ptr [rsi + 0x1FFFFC], 0x11111111",
        "mov dword ptr [rsi], 0x22222222",
        // Moved: the content moves with it, and the old place is empty.
        "mov dword ptr [rbx], 0x10000",
        "mov r15d, 3",
        "cmp dword ptr [rsi], -1",
        "jne 91f",
        "movabs rdi, 0x1000000000",
        "mov r15d, 4",
        "cmp dword ptr [rdi], 0x22222222",
        "jne 91f",
        "cmp dword ptr [rdi + 0x1FFFFC], 0x11111111",
        "jne 91f",
        "mov dword ptr [rdi + 8], 0x33333333",
        // Gone.
        "mov dword ptr [rbx], 0",
        "mov r15d, 5",
        "cmp dword ptr [rdi], -1",
        "jne 91f",
    );
    expect_success(&run(code, bus.clone(), quiet())?);
    let slice = region.as_volatile_slice();
    assert_eq!(slice.read_obj::<u32>(0).unwrap(), 0x2222_2222);
    assert_eq!(slice.read_obj::<u32>(8).unwrap(), 0x3333_3333);
    assert_eq!(slice.read_obj::<u32>(0x1F_FFFC).unwrap(), 0x1111_1111);
    // While it was mapped, no access left the guest.
    let reads: Vec<_> =
        bus.take_log().into_iter().filter(|access| matches!(access, Access::Read(..))).collect();
    let expected = [
        Access::Read(0xC800_0000, 4),
        Access::Read(0xC800_0000, 4),
        Access::Read(0x10_0000_0000, 4),
    ];
    assert_eq!(reads, expected);
    Ok(())
}

/// A BAR where it must not be is not there, as on hardware; RAM stays RAM.
fn device_memory_outside_of_the_windows_is_not_mapped() -> Ran {
    let region: Arc<MmapRegion> = Arc::new(MmapRegion::new(2 << 20).unwrap());
    let code = program!(
        "mov ebx, 0xE0000010",
        "mov dword ptr [0x400000], 0x44444444",
        "mov dword ptr [rbx], 4",
        "mov r15d, 1",
        "cmp dword ptr [0x400000], 0x44444444",
        "jne 91f",
        // Right behind the 32-bit window, and across its end.
        "mov esi, 0xDFF00000",
        "mov dword ptr [rbx], 0xDFF",
        "mov r15d, 2",
        "cmp dword ptr [rsi], -1",
        "jne 91f",
        "mov esi, 0xF0000000",
        "mov dword ptr [rbx], 0xF00",
        "mov r15d, 3",
        "cmp dword ptr [rsi], -1",
        "jne 91f",
    );
    expect_success(&run(code, FakeBus::with_memory(region), quiet())?);
    Ok(())
}

/// A configuration space that is mapped is read without an exit, and written as ever.
fn a_mapped_configuration_space_is_for_reads_only() -> Ran {
    let region: Arc<MmapRegion> = Arc::new(MmapRegion::new(0x1000).unwrap());
    region.as_volatile_slice().write_obj(0x1234_5678_u32, 0xFFC).unwrap();
    let bus = FakeBus::with_memory(region.clone());
    let code = program!(
        "mov ebx, 0xE0000010",
        // That of 10:00.0, which was not written before.
        "mov esi, 0xE1000FFC",
        "mov r15d, 1",
        "cmp dword ptr [rsi], 0",
        "jne 91f",
        "mov dword ptr [rbx], 0xE10",
        "mov r15d, 2",
        "cmp dword ptr [rsi], 0x12345678",
        "jne 91f",
        "cmp word ptr [rsi + 2], 0x1234",
        "jne 91f",
        "mov dword ptr [rsi], 0xCAFEF00D",
        "mov r15d, 3",
        "cmp dword ptr [rsi], 0x12345678",
        "jne 91f",
        // Gone: asked for again.
        "mov dword ptr [rbx], 0",
        "mov r15d, 4",
        "cmp dword ptr [rsi], 0xCAFEF00D",
        "jne 91f",
    );
    expect_success(&run(code, bus.clone(), quiet())?);
    let slice = region.as_volatile_slice();
    assert_eq!(slice.read_obj::<u32>(0xFFC).unwrap(), 0x1234_5678);
    let of_the_space = |access: &Access| {
        matches!(access, Access::ConfigRead(0x1000, ..) | Access::ConfigWrite(0x1000, ..))
    };
    let accesses: Vec<_> = bus.take_log().into_iter().filter(of_the_space).collect();
    let read = Access::ConfigRead(0x1000, 0xFFC, 4);
    let written = Access::ConfigWrite(0x1000, 0xFFC, 0xCAFE_F00D_u32.to_le_bytes().to_vec());
    assert_eq!(accesses, [read.clone(), written, read]);
    Ok(())
}

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        device_memory_is_mapped_moved_and_unmapped,
        device_memory_outside_of_the_windows_is_not_mapped,
        a_mapped_configuration_space_is_for_reads_only,
    ]
}
