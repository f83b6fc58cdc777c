//! The frequency of the guest's time stamp counter.
//!
//! KVM gives a new vCPU the frequency that the host measured when KVM was initialised. Linux refines its
//! measurement a second or two after boot; where the two differ by more than 250 ppm, as they do in a virtual test
//! host on a busy machine, and the processor cannot scale, KVM either slows every exit ("catch-up") or leaves the
//! multiplier at zero: the counter then stands still and no TSC deadline ever comes. Asking for frequency 0, which
//! means "the host's, as of now", avoids both.

use kvm_ioctls::{VcpuFd, VmFd};
use vmm_sys_util::ioctl::ioctl_with_val;
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(KVM_SET_TSC_KHZ, kvm_bindings::KVMIO, 0xA2);

/// The host's own frequency.
const HOST_FREQUENCY: u32 = 0;

/// For vCPUs created from now on. Needs `KVM_CAP_VM_TSC_CONTROL`, which KVM before 6.1 lacks; then
/// [`follow_host_vcpu`] does most of it.
pub(super) fn follow_host(vm: &VmFd) {
    // SAFETY: the request takes a number and touches no memory of ours; the descriptor is a VM's.
    let result = unsafe { ioctl_with_val(vm, KVM_SET_TSC_KHZ(), HOST_FREQUENCY.into()) };
    if result != 0 {
        log::debug!("KVM_SET_TSC_KHZ for the VM: {}", std::io::Error::last_os_error());
    }
}

/// For one vCPU, in case the host refined its measurement just now.
pub(super) fn follow_host_vcpu(vcpu: &VcpuFd) {
    if let Err(error) = vcpu.set_tsc_khz(HOST_FREQUENCY) {
        log::debug!("KVM_SET_TSC_KHZ for a vCPU: {error}");
    }
}
