use kvm_bindings::kvm_cpuid_entry2;
use proptest::prelude::*;

use super::samples::{ice_lake, qemu64, sapphire_rapids, zen3, zen4};
use super::{CpuProfile, Request, guest_table, identity};

type Table = Vec<kvm_cpuid_entry2>;

fn all() -> [(&'static str, Table); 5] {
    [
        ("Zen 3", zen3()),
        ("Zen 4", zen4()),
        ("Ice Lake", ice_lake()),
        ("Sapphire Rapids", sapphire_rapids()),
        ("qemu64", qemu64()),
    ]
}

fn request(vcpus: u8, index: u8) -> Request {
    Request { profile: CpuProfile::default(), vcpus, index, tsc_deadline: true }
}

fn leaf(table: &[kvm_cpuid_entry2], function: u32) -> kvm_cpuid_entry2 {
    sub(table, function, 0)
}

fn sub(table: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
    let found: Vec<_> =
        table.iter().filter(|entry| entry.function == function && entry.index == index).collect();
    assert!(found.len() <= 1, "{function:#x}.{index} occurs {} times", found.len());
    // What is not in the table reads as zero.
    found.first().copied().copied().unwrap_or_default()
}

/// What Linux looks at (`cpu_supports_p2pdma()`).
fn has_p2p_rule(table: &[kvm_cpuid_entry2]) -> bool {
    let vendor = leaf(table, 0);
    let amd = [vendor.ebx, vendor.edx, vendor.ecx] == [0x6874_7541, 0x6974_6E65, 0x444D_4163];
    amd && identity::family(leaf(table, 1).eax) >= 0x17
}

#[test]
fn whether_the_processor_allows_p2p_is_our_choice_on_every_host() {
    for (name, supported) in all() {
        for p2p_cpu_override in [false, true] {
            let profile = CpuProfile { p2p_cpu_override };
            let table = guest_table(&supported, &Request { profile, ..request(2, 0) });
            assert_eq!(has_p2p_rule(&table), p2p_cpu_override, "{name}");
        }
    }
}

#[test]
fn a_processor_that_fits_keeps_its_name() {
    assert_eq!(leaf(&guest_table(&ice_lake(), &request(2, 0)), 1).eax, 0x0006_06A6);
    assert_eq!(leaf(&guest_table(&qemu64(), &request(2, 0)), 1).eax, 0x0006_0FB1);
    let profile = CpuProfile { p2p_cpu_override: true };
    let table = guest_table(&zen4(), &Request { profile, ..request(2, 0) });
    assert_eq!(leaf(&table, 1).eax, 0x00A1_0F11);
}

#[test]
fn amd_says_the_same_signature_in_both_leaves() {
    let table = guest_table(&zen3(), &request(2, 0));
    assert_eq!(identity::family(leaf(&table, 1).eax), 0x16);
    assert_eq!(leaf(&table, 1).eax, leaf(&table, 0x8000_0001).eax);
}

#[test]
fn a_guest_of_another_vendor_is_offered_no_hypercalls() {
    let profile = CpuProfile { p2p_cpu_override: true };
    let foreign = guest_table(&ice_lake(), &Request { profile, ..request(2, 0) });
    let native = guest_table(&ice_lake(), &request(2, 0));
    let send_ipi = 1 << 11;
    assert_ne!(leaf(&native, 0x4000_0001).eax & send_ipi, 0);
    assert_eq!(leaf(&foreign, 0x4000_0001).eax & send_ipi, 0);
    // Clocks stay, and what only Intel has goes.
    assert_ne!(leaf(&foreign, 0x4000_0001).eax & 1 << 3, 0);
    assert_eq!(leaf(&foreign, 0x4), kvm_cpuid_entry2::default());
    assert_eq!(leaf(&foreign, 0x15), kvm_cpuid_entry2::default());
}

#[test]
fn a_guest_has_a_timer_a_hypervisor_and_nothing_that_nobody_models() {
    for (name, supported) in all() {
        let table = guest_table(&supported, &request(2, 0));
        let one = leaf(&table, 1);
        assert_ne!(one.ecx & 1 << 24, 0, "{name}: TSC deadline");
        assert_ne!(one.ecx & 1 << 31, 0, "{name}: hypervisor");
        assert_ne!(one.ecx & 1 << 21, 0, "{name}: x2APIC");
        assert_eq!(one.ecx & (1 << 3 | 1 << 5), 0, "{name}: MONITOR, VMX");
        assert_eq!(leaf(&table, 0x8000_0001).ecx & (1 << 2 | 1 << 23), 0, "{name}: SVM, counters");
        for withheld in [0xA, 0xF, 0x10, 0x12, 0x14, 0x1F, 0x8000_000A, 0x8000_001F, 0x8000_0022] {
            assert_eq!(
                leaf(&table, withheld),
                kvm_cpuid_entry2::default(),
                "{name}: leaf {withheld:#x}"
            );
        }
        let kvm = leaf(&table, 0x4000_0000);
        assert_eq!([kvm.ebx, kvm.ecx, kvm.edx], [0x4B4D_564B, 0x564B_4D56, 0x4D], "{name}");
        assert_ne!(leaf(&table, 0x4000_0001).eax & 1 << 3, 0, "{name}: kvm-clock");
    }
    let no_timer = Request { tsc_deadline: false, ..request(1, 0) };
    assert_eq!(leaf(&guest_table(&zen3(), &no_timer), 1).ecx & 1 << 24, 0);
}

#[test]
fn each_vcpu_is_a_core_of_one_package() {
    for (name, supported) in all() {
        for index in 0..3 {
            let table = guest_table(&supported, &request(3, index));
            let id = u32::from(index);
            let one = leaf(&table, 1);
            assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xFF), (id, 3), "{name}");
            assert_ne!(one.edx & 1 << 28, 0, "{name}: HTT");
            let (thread, core) = (sub(&table, 0xB, 0), sub(&table, 0xB, 1));
            assert_eq!(
                [thread.eax, thread.ebx, thread.ecx, thread.edx],
                [0, 1, 0x100, id],
                "{name}"
            );
            assert_eq!([core.eax, core.ebx, core.ecx, core.edx], [2, 3, 0x201, id], "{name}");
            assert_eq!(sub(&table, 0xB, 2).ecx, 2, "{name}");
        }
        let alone = guest_table(&supported, &request(1, 0));
        assert_eq!(leaf(&alone, 1).edx & 1 << 28, 0, "{name}: one vCPU has no siblings");
        assert_eq!(sub(&alone, 0xB, 1).eax, 0, "{name}");
    }
}

#[test]
fn amd_topology_agrees_with_the_rest() {
    for supported in [zen3(), zen4()] {
        let table = guest_table(&supported, &request(4, 3));
        let sizes = leaf(&table, 0x8000_0008).ecx;
        assert_eq!((sizes & 0xFF, sizes >> 12 & 0xF), (3, 2));
        let own = leaf(&table, 0x8000_001E);
        assert_eq!([own.eax, own.ebx, own.ecx, own.edx], [3, 3, 0, 0]);
        assert_ne!(leaf(&table, 0x8000_0001).ecx & 1 << 22, 0);
        // Level 1 and 2 are a core's own, level 3 is shared by all.
        let sharing: Vec<_> =
            (0..4).map(|index| sub(&table, 0x8000_001D, index).eax >> 14).collect();
        assert_eq!(sharing, [0, 0, 0, 3]);
    }
    // Where leaf 0x8000_001E is not there, nothing must say that it is.
    let table = guest_table(&qemu64(), &request(2, 1));
    assert_eq!(leaf(&table, 0x8000_0001).ecx & 1 << 22, 0);
    assert_ne!(leaf(&table, 0x8000_0001).ecx & 1 << 1, 0);
}

#[test]
fn intel_caches_agree_with_the_rest() {
    let table = guest_table(&ice_lake(), &request(4, 0));
    let caches: Vec<_> = (0..4).map(|index| sub(&table, 0x4, index).eax).collect();
    assert_eq!(caches.iter().map(|eax| eax >> 14 & 0xFFF).collect::<Vec<_>>(), [0, 0, 0, 3]);
    assert!(caches.iter().all(|eax| eax >> 26 == 3));
}

#[test]
fn xsave_sizes_are_those_of_what_is_shown() {
    // AVX-512 and protection keys end at 0xA88; the supervisor state counts in the compacted format alone:
    // 0x240 + 0x100 + 0x40 + 0x200 + 0x400 + 0x80 + 8.
    for supported in [ice_lake(), sapphire_rapids()] {
        let table = guest_table(&supported, &request(1, 0));
        let main = sub(&table, 0xD, 0);
        assert_eq!([main.eax, main.ebx, main.ecx, main.edx], [0x2E7, 0x240, 0xA88, 0]);
        assert_eq!(sub(&table, 0xD, 1).ebx, 0xA08);
        assert_eq!(sub(&table, 0xD, 18), kvm_cpuid_entry2::default());
        assert_eq!(leaf(&table, 0x7).edx & (1 << 22 | 1 << 24 | 1 << 25), 0);
    }
    let table = guest_table(&zen3(), &request(1, 0));
    assert_eq!(sub(&table, 0xD, 0).ecx, 0x988);
    assert_eq!(sub(&table, 0xD, 1).ebx, 0x240 + 0x100 + 8 + 0x10 + 0x18);
    // Without the feature there is no leaf.
    assert_eq!(leaf(&guest_table(&qemu64(), &request(1, 0)), 0xD), kvm_cpuid_entry2::default());
}

#[test]
fn xsave_sizes_of_a_nonsense_host_stay_in_range() {
    // A component of 4 GiB, and another one behind it that has to be aligned.
    let mut supported = ice_lake();
    for entry in supported.iter_mut().filter(|entry| entry.function == 0xD && entry.index >= 2) {
        (entry.eax, entry.ebx, entry.ecx) = (u32::MAX, u32::MAX, 1 << 1);
    }
    let table = guest_table(&supported, &request(1, 0));
    assert_eq!(sub(&table, 0xD, 0).ecx, u32::MAX);
    assert_eq!(sub(&table, 0xD, 1).ebx, u32::MAX);
}

proptest! {
    /// Whatever a host's KVM says, there is a table, and the decisions hold.
    #[test]
    fn no_table_makes_us_panic(
        rows in prop::collection::vec((prop::sample::select(vec![
            0, 1, 4, 6, 7, 0xB, 0xD, 0x4000_0000, 0x4000_0001, 0x8000_0000, 0x8000_0001, 0x8000_0008, 0x8000_001D,
            0x8000_001E,
        ]), 0..70_u32, any::<[u32; 4]>()), 0..40),
        vcpus in any::<u8>(),
        index in any::<u8>(),
        p2p_cpu_override in any::<bool>(),
    ) {
        let supported: Vec<_> = rows.into_iter().map(|(function, index, [eax, ebx, ecx, edx])| kvm_cpuid_entry2 {
            function, index, eax, ebx, ecx, edx, ..Default::default()
        }).collect();
        let profile = CpuProfile { p2p_cpu_override };
        let request = Request { profile, vcpus, index, tsc_deadline: true };
        let table = guest_table(&supported, &request);
        for entry in table.iter().filter(|entry| entry.function == 1) {
            prop_assert_ne!(entry.ecx & 1 << 31, 0);
            prop_assert_eq!(entry.ebx >> 24, u32::from(index));
        }
    }
}
