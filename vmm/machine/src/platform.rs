//! The KVM virtual machine before it has devices: RAM, interrupt controllers, vCPUs.

use std::fmt;
use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_enable_cap, kvm_msr_entry};
use kvm_ioctls::{Cap, Kvm, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::cpuid::{self, CpuProfile};
use super::error::MachineError;
use super::irqchip::{self, MsiSignaller};
use super::layout;
use super::memory::GuestRam;
use super::slots::MemorySlots;
use super::tsc;
use super::vcpu::Vcpu;
use crate::boot::Entry;

/// APIC IDs are vCPU numbers and the MADT's plain entries hold 8 bits, of which 255 means all.
const MAX_VCPUS: u8 = 254;
/// `KVM_PMU_CAP_DISABLE`: the guest has no performance counters.
const PMU_DISABLE: u64 = 1;
/// MTRRdefType (Intel SDM vol. 3, 12.11.2.1): enabled, default write-back, as firmware leaves it.
const MSR_MTRR_DEF_TYPE: u32 = 0x2FF;
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;
/// IA32_MISC_ENABLE: fast string operations, which firmware enables.
const MSR_IA32_MISC_ENABLE: u32 = 0x1A0;
const FAST_STRINGS: u64 = 1;

/// What a machine is built on. Exists before the devices, because they need its RAM and its interrupts.
pub struct Platform {
    kvm: Kvm,
    vm: Arc<VmFd>,
    ram: GuestRam,
    vcpus: u8,
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform")
            .field("ram", &self.ram)
            .field("vcpus", &self.vcpus)
            .finish_non_exhaustive()
    }
}

/// KVM capabilities without which nothing works.
const REQUIRED: [(Cap, &str); 7] = [
    (Cap::Irqchip, "in-kernel interrupt controllers"),
    (Cap::UserMemory, "user memory slots"),
    (Cap::ExtCpuid, "CPUID tables"),
    (Cap::SignalMsi, "KVM_SIGNAL_MSI"),
    (Cap::Irqfd, "irqfd"),
    (Cap::ImmediateExit, "immediate_exit"),
    (Cap::TscDeadlineTimer, "the TSC deadline timer"),
];

impl Platform {
    /// Opens KVM and makes a VM with `ram_mib` MiB of RAM; the vCPUs come when the machine is built.
    ///
    /// # Errors
    /// [`MachineError`]: no KVM, a KVM that lacks something, or a size out of range.
    pub fn new(vcpus: u8, ram_mib: u32) -> Result<Self, MachineError> {
        let kvm = Kvm::new().map_err(|error| MachineError::KvmOpen(error.into()))?;
        if let Some((_, what)) = REQUIRED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            return Err(MachineError::KvmLacks(what));
        }
        let max = u8::try_from(kvm.get_max_vcpus()).unwrap_or(MAX_VCPUS).min(MAX_VCPUS);
        if vcpus == 0 || vcpus > max {
            return Err(MachineError::VcpuCount { count: vcpus.into(), max: max.into() });
        }
        let ram = GuestRam::new(ram_mib)?;
        let vm = kvm.create_vm().map_err(MachineError::kvm("KVM_CREATE_VM"))?;
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(MachineError::kvm("KVM_SET_IDENTITY_MAP_ADDR"))?;
        let tss = usize::try_from(layout::KVM_TSS).unwrap_or(0);
        vm.set_tss_address(tss).map_err(MachineError::kvm("KVM_SET_TSS_ADDR"))?;
        disable_pmu(&vm);
        exit_on_emulation_failure(&vm);
        irqchip::create(&vm)?;
        Ok(Self { kvm, vm: Arc::new(vm), ram, vcpus })
    }

    /// The guest's RAM.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Number of vCPUs that the machine will have.
    pub fn vcpu_count(&self) -> u8 {
        self.vcpus
    }

    /// Delivers message-signalled interrupts to this VM.
    pub fn msi(&self) -> MsiSignaller {
        MsiSignaller::new(Arc::clone(&self.vm))
    }

    /// The VM's file descriptor, for what only one place needs (ioeventfd).
    pub fn vm(&self) -> &Arc<VmFd> {
        &self.vm
    }

    pub(crate) fn wire(&self, event: &EventFd, gsi: u32) -> Result<(), MachineError> {
        self.vm.register_irqfd(event, gsi).map_err(MachineError::kvm("KVM_IRQFD"))
    }

    pub(crate) fn memory_slots(&self) -> Result<MemorySlots, MachineError> {
        MemorySlots::new(Arc::clone(&self.vm), self.ram.clone(), self.kvm.get_nr_memslots())
    }

    pub(crate) fn vcpus(
        &self,
        profile: CpuProfile,
        entry: &Entry,
    ) -> Result<Vec<Vcpu>, MachineError> {
        let supported = self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let supported = supported.map_err(MachineError::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        tsc::follow_host(&self.vm);
        (0..self.vcpus).map(|index| self.vcpu(index, profile, &supported, entry)).collect()
    }

    fn vcpu(
        &self,
        index: u8,
        profile: CpuProfile,
        supported: &CpuId,
        entry: &Entry,
    ) -> Result<Vcpu, MachineError> {
        let vcpu =
            self.vm.create_vcpu(index.into()).map_err(MachineError::kvm("KVM_CREATE_VCPU"))?;
        let request = cpuid::Request { profile, vcpus: self.vcpus, index, tsc_deadline: true };
        let table = cpuid::guest_table(supported.as_slice(), &request);
        let table = CpuId::from_entries(&table).map_err(|error| {
            MachineError::host("build a CPUID table")(std::io::Error::other(format!("{error:?}")))
        })?;
        vcpu.set_cpuid2(&table).map_err(MachineError::kvm("KVM_SET_CPUID2"))?;
        tsc::follow_host_vcpu(&vcpu);
        set_boot_msrs(&vcpu)?;
        // The others wait for INIT and SIPI, which the in-kernel APICs deal with.
        if index == 0 {
            let mut sregs = vcpu.get_sregs().map_err(MachineError::kvm("KVM_GET_SREGS"))?;
            entry.apply(&mut sregs);
            vcpu.set_sregs(&sregs).map_err(MachineError::kvm("KVM_SET_SREGS"))?;
            vcpu.set_regs(&entry.regs()).map_err(MachineError::kvm("KVM_SET_REGS"))?;
        }
        Vcpu::new(index, vcpu)
    }
}

/// A guest without counters has none to save at each exit. KVM before 5.18 cannot, which costs time only.
fn disable_pmu(vm: &VmFd) {
    let mut cap =
        kvm_enable_cap { cap: kvm_bindings::KVM_CAP_PMU_CAPABILITY, ..Default::default() };
    if let Some(arg) = cap.args.first_mut() {
        *arg = PMU_DISABLE;
    }
    if let Err(error) = vm.enable_cap(&cap) {
        log::debug!("KVM_CAP_PMU_CAPABILITY: {error}");
    }
}

/// An instruction that KVM cannot emulate ends the run: else a program in the guest gets SIGILL for
/// an instruction that the processor has, without a word why. KVM before 5.14 cannot.
fn exit_on_emulation_failure(vm: &VmFd) {
    let mut cap = kvm_enable_cap {
        cap: kvm_bindings::KVM_CAP_EXIT_ON_EMULATION_FAILURE,
        ..Default::default()
    };
    if let Some(arg) = cap.args.first_mut() {
        *arg = 1;
    }
    if let Err(error) = vm.enable_cap(&cap) {
        log::debug!("KVM_CAP_EXIT_ON_EMULATION_FAILURE: {error}");
    }
}

fn set_boot_msrs(vcpu: &kvm_ioctls::VcpuFd) -> Result<(), MachineError> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let wanted = [
        entry(MSR_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK),
        entry(MSR_IA32_MISC_ENABLE, FAST_STRINGS),
    ];
    let msrs = Msrs::from_entries(&wanted).map_err(|error| {
        MachineError::host("build a list of MSRs")(std::io::Error::other(format!("{error:?}")))
    })?;
    let set = vcpu.set_msrs(&msrs).map_err(MachineError::kvm("KVM_SET_MSRS"))?;
    if set != wanted.len() {
        log::debug!("KVM took {set} of {} start-up MSRs", wanted.len());
    }
    Ok(())
}
