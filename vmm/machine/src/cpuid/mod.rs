//! What the guest's `CPUID` says: pure functions from what KVM supports to what a vCPU is shown.
//!
//! Three things are decided here and nowhere else:
//! - the processor's *family*, because an AMD family of 0x17 or later makes Linux allow peer-to-peer DMA through
//!   any host bridge (`cpu_supports_p2pdma()`), which would make a test's outcome depend on the host;
//! - the topology: one package, one core for each vCPU, one thread a core, APIC ID = vCPU number;
//! - what is kept from the guest because nothing here models it (nested virtualisation, performance counters,
//!   SGX, processor trace, resource control, AMX).

mod identity;
mod leaf;
mod topology;
mod xsave;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use kvm_bindings::kvm_cpuid_entry2;
use peerdma_topology::{Cpu, Topology};

pub use identity::Vendor;
use leaf::{Entry, Reg, Table};

/// What the guest's processor is to look like, whatever the host's is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuProfile {
    /// Whether the processor alone makes Linux allow peer-to-peer DMA through the host bridge (AMD family 0x17 or
    /// later). Off by default: then the host bridge's ID decides, on every host alike.
    pub p2p_cpu_override: bool,
}

impl CpuProfile {
    /// The processor that `topology` asks for.
    pub fn of(topology: &Topology) -> Self {
        Self { p2p_cpu_override: topology.cpu == Cpu::TrustedForPeerToPeer }
    }
}

/// What a vCPU's table depends on besides what KVM supports.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The look of the processor.
    pub profile: CpuProfile,
    /// Number of vCPUs, at least 1.
    pub vcpus: u8,
    /// Number of this vCPU, which is its APIC ID.
    pub index: u8,
    /// Whether KVM emulates the TSC deadline timer (`KVM_CAP_TSC_DEADLINE_TIMER`). Without PIT and HPET it is the
    /// guest's only timer that needs no calibration.
    pub tsc_deadline: bool,
}

/// KVM's paravirtual features (`Documentation/virt/kvm/x86/cpuid.rst`), by bit of leaf 0x4000_0001's `eax`.
mod kvm_feature {
    pub(super) const CLOCKSOURCE: u32 = 1 << 0;
    pub(super) const NOP_IO_DELAY: u32 = 1 << 1;
    pub(super) const CLOCKSOURCE2: u32 = 1 << 3;
    pub(super) const STEAL_TIME: u32 = 1 << 5;
    pub(super) const PV_EOI: u32 = 1 << 6;
    pub(super) const PV_UNHALT: u32 = 1 << 7;
    pub(super) const PV_SEND_IPI: u32 = 1 << 11;
    pub(super) const PV_SCHED_YIELD: u32 = 1 << 13;
    pub(super) const CLOCKSOURCE_STABLE: u32 = 1 << 24;
    /// Clocks, fewer exits; no asynchronous page faults, which have nothing to wait for here. Nor flushes of the TLB that
    /// do not wait for a vCPU that is not in the guest: a protocol call follows page tables while it is not.
    pub(super) const OFFERED: u32 = CLOCKSOURCE
        | NOP_IO_DELAY
        | CLOCKSOURCE2
        | STEAL_TIME
        | PV_EOI
        | PV_UNHALT
        | PV_SEND_IPI
        | PV_SCHED_YIELD
        | CLOCKSOURCE_STABLE;
    /// Those whose use is a hypercall. On a guest of another vendor than the host's, the guest's hypercall
    /// instruction is the wrong one, and KVM's attempt to patch it meets read-only kernel text.
    pub(super) const BY_HYPERCALL: u32 = PV_UNHALT | PV_SEND_IPI | PV_SCHED_YIELD;
}

/// First leaf of KVM's own range, and the one that holds its features.
const KVM_SIGNATURE: u32 = 0x4000_0000;
const KVM_FEATURES: u32 = 0x4000_0001;

/// Bits of leaf 1 (Intel SDM vol. 2, CPUID): what is offered always, and what never.
mod leaf1 {
    pub(super) const ECX_TSC_DEADLINE: u32 = 1 << 24;
    pub(super) const ECX_HYPERVISOR: u32 = 1 << 31;
    /// DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, PDCM.
    pub(super) const ECX_WITHHELD: u32 =
        1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 15;
    /// DS, ACPI, TM, PBE.
    pub(super) const EDX_WITHHELD: u32 = 1 << 21 | 1 << 22 | 1 << 29 | 1 << 31;
}

/// Bits of leaf 7.
mod leaf7 {
    /// SGX, RDT monitoring, RDT allocation, processor trace.
    pub(super) const EBX_WITHHELD: u32 = 1 << 2 | 1 << 12 | 1 << 15 | 1 << 25;
    /// SGX launch control.
    pub(super) const ECX_WITHHELD: u32 = 1 << 30;
    /// AMX bfloat16, tile and int8: their state would need a permission of the host process.
    pub(super) const EDX_WITHHELD: u32 = 1 << 22 | 1 << 24 | 1 << 25;
}

/// Bits of leaf 0x8000_0001's `ecx` (AMD APM vol. 3, E.4.2).
mod extended1 {
    /// SVM, IBS, SKINIT, watchdog, lightweight profiling, node ID MSR, core / northbridge / L3 counters, TSC counter,
    /// MONITORX.
    pub(super) const ECX_WITHHELD: u32 = 1 << 2
        | 1 << 10
        | 1 << 12
        | 1 << 13
        | 1 << 15
        | 1 << 19
        | 1 << 23
        | 1 << 24
        | 1 << 27
        | 1 << 28
        | 1 << 29;
}

/// Leaves of which nothing is shown: MONITOR, performance counters, RDT, SGX, processor trace, AMX, LBR, V2
/// topology (the plain one is shown), SVM, IBS, platform QoS, SEV, AMD counters V2, AMD extended topology.
const WITHHELD: [u32; 17] = [
    0x5,
    0xA,
    0xF,
    0x10,
    0x12,
    0x14,
    0x1C,
    0x1D,
    0x1E,
    0x1F,
    0x23,
    0x8000_000A,
    0x8000_001B,
    0x8000_001F,
    0x8000_0020,
    0x8000_0022,
    0x8000_0026,
];

/// `ARAT`, the one power feature shown: the local APIC's timer never stops.
const LEAF6_EAX_ARAT: u32 = 1 << 2;

/// The table of one vCPU, from the one that `KVM_GET_SUPPORTED_CPUID` gives.
pub fn guest_table(supported: &[kvm_cpuid_entry2], request: &Request) -> Vec<kvm_cpuid_entry2> {
    let mut table = Table::new(supported);
    let host = identity::vendor(&table);
    table.retain(|entry| !WITHHELD.contains(&entry.function));
    features(&mut table, request);
    let guest = identity::apply(&mut table, host, request.profile);
    if guest != host {
        table.edit(KVM_FEATURES, |entry| entry.eax &= !kvm_feature::BY_HYPERCALL);
    }
    topology::apply(&mut table, guest, request);
    xsave::apply(&mut table);
    table.into_entries()
}

fn features(table: &mut Table, request: &Request) {
    table.edit(0x1, |entry| {
        entry.ecx &= !leaf1::ECX_WITHHELD;
        entry.ecx |= leaf1::ECX_HYPERVISOR;
        entry.set(Reg::Ecx, leaf1::ECX_TSC_DEADLINE, request.tsc_deadline);
        entry.edx &= !leaf1::EDX_WITHHELD;
    });
    table.edit(0x6, |entry| {
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = (entry.eax & LEAF6_EAX_ARAT, 0, 0, 0);
    });
    table.edit_sub(0x7, 0, |entry| {
        entry.ebx &= !leaf7::EBX_WITHHELD;
        entry.ecx &= !leaf7::ECX_WITHHELD;
        entry.edx &= !leaf7::EDX_WITHHELD;
    });
    table.edit(0x8000_0001, |entry| entry.ecx &= !extended1::ECX_WITHHELD);
    table.edit(KVM_SIGNATURE, |entry| entry.eax = KVM_FEATURES);
    table.edit(KVM_FEATURES, |entry| {
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = (entry.eax & kvm_feature::OFFERED, 0, 0, 0);
    });
}
