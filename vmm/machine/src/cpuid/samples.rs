//! Tables shaped as `KVM_GET_SUPPORTED_CPUID` gives them, for processors that no test machine has: put together from
//! published dumps, not captured; leaves without influence left out.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

fn table(rows: &[(u32, Option<u32>, [u32; 4])]) -> Vec<kvm_cpuid_entry2> {
    let entry = |&(function, index, [eax, ebx, ecx, edx]): &(u32, Option<u32>, [u32; 4])| {
        kvm_cpuid_entry2 {
            function,
            index: index.unwrap_or(0),
            flags: if index.is_some() { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 },
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        }
    };
    rows.iter().map(entry).collect()
}

/// EPYC 7xx3 (Zen 3): family 0x19, model 1.
pub(super) fn zen3() -> Vec<kvm_cpuid_entry2> {
    table(&[
        (0x0, None, [0x10, 0x6874_7541, 0x444D_4163, 0x6974_6E65]),
        (0x1, None, [0x00A0_0F11, 0x2B80_0800, 0xFEFA_3203, 0x178B_FBFF]),
        (0x6, None, [0x4, 0, 0, 0]),
        (0x7, Some(0), [0, 0x219C_97A9, 0x0040_068C, 0x10]),
        (0xA, None, [0, 0, 0, 0]),
        (0xB, Some(0), [0x1, 0x2, 0x100, 0x2B]),
        (0xB, Some(1), [0x7, 0x40, 0x201, 0x2B]),
        (0xD, Some(0), [0x207, 0x988, 0x988, 0]),
        (0xD, Some(1), [0xF, 0x348, 0x1800, 0]),
        (0xD, Some(2), [0x100, 0x240, 0, 0]),
        (0xD, Some(9), [0x8, 0x980, 0, 0]),
        (0xD, Some(11), [0x10, 0, 1, 0]),
        (0xD, Some(12), [0x18, 0, 1, 0]),
        (0xF, Some(0), [0, 0xFF, 0, 2]),
        (0x10, Some(0), [0, 2, 0, 0]),
        (0x4000_0000, None, [0x4000_0001, 0x4B4D_564B, 0x564B_4D56, 0x4D]),
        (0x4000_0001, None, [0x0100_7EFB, 0, 0, 0]),
        (0x8000_0000, None, [0x8000_0023, 0x6874_7541, 0x444D_4163, 0x6974_6E65]),
        (0x8000_0001, None, [0x00A0_0F11, 0x4000_0000, 0x75C2_37FF, 0x2FD3_FBFF]),
        (0x8000_0005, None, [0xFF40_FF40, 0xFF40_FF40, 0x2008_0140, 0x2008_0140]),
        (0x8000_0006, None, [0x4800_2200, 0x6800_4200, 0x0200_6140, 0x0200_9140]),
        (0x8000_0007, None, [0, 0, 0, 0x100]),
        (0x8000_0008, None, [0x3030, 0x191E_F657, 0x707F, 0x1_0000]),
        (0x8000_000A, None, [1, 0x8, 0, 0x119F_3E0F]),
        (0x8000_001D, Some(0), [0x4121, 0x01C0_003F, 0x3F, 0]),
        (0x8000_001D, Some(1), [0x4122, 0x01C0_003F, 0x3F, 0]),
        (0x8000_001D, Some(2), [0x4143, 0x01C0_003F, 0x3FF, 2]),
        (0x8000_001D, Some(3), [0x3C163, 0x03C0_003F, 0x7FFF, 1]),
        (0x8000_001D, Some(4), [0, 0, 0, 0]),
        (0x8000_001E, None, [0x2B, 0x115, 0x2, 0]),
        (0x8000_001F, None, [0x1_780F, 0x173, 0x1FD, 1]),
        (0x8000_0021, None, [0x45, 0, 0, 0]),
    ])
}

/// EPYC 9xx4 (Zen 4): family 0x19, model 0x11, with AVX-512 and extended topology.
pub(super) fn zen4() -> Vec<kvm_cpuid_entry2> {
    let mut zen4 = zen3();
    zen4.retain(|entry| !matches!(entry.function, 0x0 | 0xD | 0x8000_0000));
    for entry in &mut zen4 {
        match entry.function {
            0x1 | 0x8000_0001 => entry.eax = 0x00A1_0F11,
            0x7 => (entry.eax, entry.ebx, entry.ecx) = (1, 0xF1BF_97A9, 0x0040_5FCE),
            _ => {}
        }
    }
    zen4.extend(table(&[
        (0x0, None, [0x10, 0x6874_7541, 0x444D_4163, 0x6974_6E65]),
        (0xD, Some(0), [0x2E7, 0x988, 0x988, 0]),
        (0xD, Some(1), [0xF, 0x988, 0x1800, 0]),
        (0xD, Some(2), [0x100, 0x240, 0, 0]),
        (0xD, Some(5), [0x40, 0x340, 0, 0]),
        (0xD, Some(6), [0x200, 0x380, 0, 0]),
        (0xD, Some(7), [0x400, 0x580, 0, 0]),
        (0xD, Some(9), [0x8, 0x980, 0, 0]),
        (0xD, Some(11), [0x10, 0, 1, 0]),
        (0xD, Some(12), [0x18, 0, 1, 0]),
        (0x8000_0000, None, [0x8000_0028, 0x6874_7541, 0x444D_4163, 0x6974_6E65]),
        (0x8000_0022, None, [0x7, 0x4006, 0, 0]),
        (0x8000_0026, Some(0), [1, 2, 0x100, 0x2B]),
    ]));
    zen4
}

/// Xeon of the third generation (Ice Lake server): family 6, model 0x6A.
pub(super) fn ice_lake() -> Vec<kvm_cpuid_entry2> {
    table(&[
        (0x0, None, [0x1B, 0x756E_6547, 0x6C65_746E, 0x4965_6E69]),
        (0x1, None, [0x0006_06A6, 0x2A80_0800, 0xFFFA_32BF, 0x0F8B_FBFF]),
        (0x2, None, [0x00FE_FF01, 0xF0, 0, 0]),
        (0x4, Some(0), [0x7C00_4121, 0x02C0_003F, 0x3F, 0]),
        (0x4, Some(1), [0x7C00_4122, 0x01C0_003F, 0x3F, 0]),
        (0x4, Some(2), [0x7C00_4143, 0x04C0_003F, 0x3FF, 0]),
        (0x4, Some(3), [0x7C0F_C163, 0x02C0_003F, 0xFFFF, 4]),
        (0x5, None, [0x40, 0x40, 3, 0x2020]),
        (0x6, None, [0x77, 2, 9, 0]),
        (0x7, Some(0), [0, 0xF1BF_27EB, 0x4041_5F6E, 0xAC00_0410]),
        (0xA, None, [0x0830_0805, 0, 0, 0x8604]),
        (0xB, Some(0), [1, 2, 0x100, 0x2A]),
        (0xB, Some(1), [6, 0x40, 0x201, 0x2A]),
        (0xD, Some(0), [0x2E7, 0xA88, 0xA88, 0]),
        (0xD, Some(1), [0xF, 0xA08, 0x100, 0]),
        (0xD, Some(2), [0x100, 0x240, 0, 0]),
        (0xD, Some(5), [0x40, 0x440, 0, 0]),
        (0xD, Some(6), [0x200, 0x480, 0, 0]),
        (0xD, Some(7), [0x400, 0x680, 0, 0]),
        (0xD, Some(8), [0x80, 0, 1, 0]),
        (0xD, Some(9), [0x8, 0xA80, 0, 0]),
        (0x12, Some(0), [0x63, 1, 0, 0x241F]),
        (0x14, Some(0), [1, 0xF, 7, 0]),
        (0x15, None, [2, 0xE8, 0x017D_7840, 0]),
        (0x16, None, [0xB54, 0xDAC, 0x64, 0]),
        (0x1F, Some(0), [1, 2, 0x100, 0x2A]),
        (0x1F, Some(1), [6, 0x40, 0x201, 0x2A]),
        (0x4000_0000, None, [0x4000_0001, 0x4B4D_564B, 0x564B_4D56, 0x4D]),
        (0x4000_0001, None, [0x0100_7EFB, 0, 0, 0]),
        (0x8000_0000, None, [0x8000_0008, 0, 0, 0]),
        (0x8000_0001, None, [0, 0, 0x121, 0x2C10_0800]),
        (0x8000_0006, None, [0, 0, 0x0100_6040, 0]),
        (0x8000_0007, None, [0, 0, 0, 0x100]),
        (0x8000_0008, None, [0x3934, 0x0100_D000, 0, 0]),
    ])
}

/// Xeon of the fourth generation, as far as it differs: AMX, whose 8 KiB of state come last.
pub(super) fn sapphire_rapids() -> Vec<kvm_cpuid_entry2> {
    let mut table_with_amx = ice_lake();
    for entry in &mut table_with_amx {
        match (entry.function, entry.index) {
            (0x1, _) => entry.eax = 0x0008_06F8,
            (0x7, _) => entry.edx |= 1 << 22 | 1 << 24 | 1 << 25,
            (0xD, 0) => (entry.eax, entry.ecx) = (0x6_02E7, 0x2B00),
            _ => {}
        }
    }
    table_with_amx.extend(table(&[
        (0xD, Some(17), [0x40, 0xAC0, 2, 0]),
        (0xD, Some(18), [0x2000, 0xB00, 6, 0]),
        (0x1D, Some(0), [1, 0, 0, 0]),
        (0x1E, Some(0), [0, 0x4010, 0, 0]),
    ]));
    table_with_amx
}

/// What the nested test host has: QEMU's `qemu64` with SVM, family 0xF, no XSAVE.
pub(super) fn qemu64() -> Vec<kvm_cpuid_entry2> {
    table(&[
        (0x0, None, [0xD, 0x6874_7541, 0x444D_4163, 0x6974_6E65]),
        (0x1, None, [0x0006_0FB1, 0x0000_0800, 0x8020_2001, 0x078B_FBFD]),
        (0x7, Some(0), [0, 0x2, 0, 0x2000_0000]),
        (0xD, Some(0), [0, 0, 0, 0]),
        (0x4000_0000, None, [0x4000_0001, 0x4B4D_564B, 0x564B_4D56, 0x4D]),
        (0x4000_0001, None, [0x0100_7EFB, 0, 0, 0]),
        (0x8000_0000, None, [0x8000_000A, 0x6874_7541, 0x444D_4163, 0x6974_6E65]),
        (0x8000_0001, None, [0x0006_0FB1, 0, 0x105, 0x2193_FBFD]),
        (0x8000_0008, None, [0x3028, 0, 0, 0]),
        (0x8000_000A, None, [1, 0x10, 0, 0x1]),
    ])
}
