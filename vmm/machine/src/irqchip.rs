//! The in-kernel interrupt controllers: local APICs and one I/O APIC.

use std::fmt;
use std::sync::Arc;

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip, kvm_msi,
};
use kvm_ioctls::VmFd;

use super::error::MachineError;

/// Pins of the I/O APIC; GSI n is pin n.
const IO_APIC_PINS: u32 = 24;

/// Creates the controllers. KVM's pair of 8259 comes with them, but no line is routed to it: hardware-reduced ACPI
/// says there is none, and a guest that believes it would take the 8259's vectors for exceptions.
pub(super) fn create(vm: &VmFd) -> Result<(), MachineError> {
    vm.create_irq_chip().map_err(MachineError::kvm("KVM_CREATE_IRQCHIP"))?;
    let routes: Vec<_> = (0..IO_APIC_PINS)
        .map(|pin| kvm_irq_routing_entry {
            gsi: pin,
            type_: KVM_IRQ_ROUTING_IRQCHIP,
            u: kvm_irq_routing_entry__bindgen_ty_1 {
                irqchip: kvm_irq_routing_irqchip { irqchip: KVM_IRQCHIP_IOAPIC, pin },
            },
            ..Default::default()
        })
        .collect();
    let routing = KvmIrqRouting::from_entries(&routes).map_err(|error| {
        MachineError::host("build the interrupt routes")(std::io::Error::other(format!(
            "{error:?}"
        )))
    })?;
    vm.set_gsi_routing(&routing).map_err(MachineError::kvm("KVM_SET_GSI_ROUTING"))
}

/// Signals message-signalled interrupts. Clones signal to the same VM.
#[derive(Clone)]
pub struct MsiSignaller(Arc<VmFd>);

impl fmt::Debug for MsiSignaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MsiSignaller").finish()
    }
}

impl MsiSignaller {
    /// Signals to the interrupt controllers of `vm`.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self(vm)
    }

    /// Delivers a write of `data` to `address` in the interrupt window. `Ok(false)`: no vCPU took it.
    ///
    /// # Errors
    /// [`MachineError::Kvm`] when KVM refuses.
    pub fn signal(&self, address: u64, data: u32) -> Result<bool, MachineError> {
        let [low, high] =
            [address & 0xFFFF_FFFF, address >> 32].map(|half| u32::try_from(half).unwrap_or(0));
        let msi = kvm_msi { address_lo: low, address_hi: high, data, ..Default::default() };
        let taken = self.0.signal_msi(msi).map_err(MachineError::kvm("KVM_SIGNAL_MSI"))?;
        Ok(taken > 0)
    }
}
