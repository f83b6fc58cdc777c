//! One package, `vcpus` cores of one thread each, one last-level cache; the same in every leaf,
//! because Linux compares them.

use kvm_bindings::kvm_cpuid_entry2;

use super::Request;
use super::identity::Vendor;
use super::leaf::{Entry, Reg, Table};

/// Leaf 1 `edx`: several logical processors in the package.
const HTT: u32 = 1 << 28;
/// Leaf 0x8000_0001 `ecx`: the "threads" of leaf 1 are cores.
const CMP_LEGACY: u32 = 1 << 1;
/// Leaf 0x8000_0001 `ecx`: leaves 0x8000_001D and 0x8000_001E are there.
const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;

/// Level types of leaf 0xB (Intel SDM vol. 2, CPUID).
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

pub(super) fn apply(table: &mut Table, vendor: Vendor, request: &Request) {
    let vcpus = u32::from(request.vcpus.max(1));
    let id = u32::from(request.index);
    let id_bits = vcpus.next_power_of_two().trailing_zeros();
    let several = vcpus > 1;

    table.edit(0x1, |entry| {
        entry.ebx = entry.ebx & 0x0000_FFFF | id << 24 | vcpus << 16;
        entry.set(Reg::Edx, HTT, several);
    });
    table.edit(0x4, |entry| caches(entry, vcpus, id_bits));
    if table.highest(0) >= 0xB {
        let thread = [0, 1, LEVEL_THREAD, id];
        let core = [id_bits, vcpus, LEVEL_CORE | 1, id];
        table.replace(0xB, &[thread, core, [0, 0, 2, id]]);
    }
    if vendor != Vendor::Amd {
        return;
    }

    let extended = table.highest(0x8000_0000) >= 0x8000_001E && table.get(0x8000_001E).is_some();
    table.edit(0x8000_0001, |entry| {
        entry.set(Reg::Ecx, CMP_LEGACY, several);
        if !extended {
            entry.set(Reg::Ecx, TOPOLOGY_EXTENSIONS, false);
        }
    });
    // NC and ApicIdSize (AMD APM vol. 3, E.4.7).
    table.edit(0x8000_0008, |entry| entry.ecx = entry.ecx & !0xF0FF | id_bits << 12 | (vcpus - 1));
    table.edit(0x8000_001D, |entry| caches(entry, vcpus, id_bits));
    if extended {
        // Extended APIC ID; core ID and one thread a core; node 0 of one.
        table.replace(0x8000_001E, &[[id, id & 0xFF, 0, 0]]);
    } else {
        table.retain(|entry| !matches!(entry.function, 0x8000_001D | 0x8000_001E));
    }
}

/// Leaves 4 and 0x8000_001D have one layout: type, level, number of processors that share the cache; on Intel
/// also the number of cores in the package.
fn caches(entry: &mut kvm_cpuid_entry2, vcpus: u32, id_bits: u32) {
    let (kind, level) = (entry.eax & 0x1F, entry.eax >> 5 & 0x7);
    if kind == 0 {
        return;
    }
    let shared = if level >= 3 { vcpus - 1 } else { 0 };
    entry.eax = entry.eax & 0x3FFF | shared << 14;
    if entry.function == 0x4 {
        entry.eax |= ((1 << id_bits) - 1) << 26;
    }
}
