//! Slots: pulling and plugging, and waiting for the kernel's reaction.

use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::Peer;
use crate::sys;
use crate::sys::config_space::capability;
use crate::sys::patience::await_that;
use crate::sys::pci::Function;
use std::path::Path;
use std::time::Duration;

/// How long the kernel may take to see that a device came or went: it waits for links on its own account.
const PATIENCE: Duration = Duration::from_secs(20);

/// A device in its slot, and what the kernel does about it.
pub(super) struct Slot {
    pub(super) device: Function,
    port: Function,
    instance: u32,
    /// The kernel watches the slot.
    pub(super) watched: bool,
}

impl Slot {
    pub(super) fn of(peer: &Peer) -> Result<Self, Stop> {
        let device = peer.function();
        let port = device
            .upstream()
            .ok_or_else(|| Stop::Skip(format!("{} sits in no slot", device.name)))?;
        let watched =
            has_hot_plug(&port)? && Path::new("/sys/bus/pci_express/drivers/pciehp").exists();
        // Linux 7.3.4, pciehp_unconfigure_device(): reset_lock is taken under pci_rescan_remove_lock, and the other way
        // round. Readers and different slots: lockdep cannot know that it is harmless, and checks nothing any more
        // once it has complained.
        if watched && Path::new("/proc/lockdep").exists() {
            let why = "lockdep takes offence at pciehp's own locks and then falls silent; a slot without hot-plug shows \
                       the rest (scenario surprise-switch)";
            return Err(Stop::Skip(why.into()));
        }
        Ok(Self { device, port, instance: peer.instance, watched })
    }

    /// Pulls the device, does something, and puts it back whatever came of that: the next test wants it.
    pub(super) fn while_gone(
        &self,
        bench: &mut Bench<'_>,
        work: impl FnOnce(&mut Bench<'_>) -> Verdict,
    ) -> Verdict {
        self.pull(bench)?;
        let verdict = work(bench);
        if verdict.is_err() && self.device.exists() {
            // The test has failed already; without this the device could not come back.
            let _ = self.await_removal();
        }
        verdict.and(self.put_back(bench))
    }

    /// Out with it. The VMM does that between two transactions; what the guest's kernel makes of it comes later.
    fn pull(&self, bench: &mut Bench<'_>) -> Verdict {
        let vmm = bench.vmm.as_mut().ok_or_else(|| Stop::Skip("the VMM does not answer".into()))?;
        Ok(vmm.unplug(self.port.address())?)
    }

    /// Waits until the kernel has taken the device away, by itself or because it is asked to.
    pub(super) fn await_removal(&self) -> Verdict {
        if !self.watched {
            self.device.set_attribute("remove", "1")?;
        }
        let gone = await_that(PATIENCE, || -> Result<_, Stop> { Ok(!self.device.exists()) })?;
        ensure!(gone, "{} is still there", self.device.name);
        ensure!(
            !Peer::path(self.instance).exists(),
            "{} outlives its device",
            Peer::path(self.instance).display()
        );
        Ok(())
    }

    /// Back in, and waits until the driver has bound.
    fn put_back(&self, bench: &mut Bench<'_>) -> Verdict {
        let vmm = bench.vmm.as_mut().ok_or_else(|| Stop::Skip("the VMM does not answer".into()))?;
        vmm.plug(self.port.address())?;
        if !self.watched {
            sys::write("/sys/bus/pci/rescan", "1")?;
        }
        let path = Peer::path(self.instance);
        let back = await_that(PATIENCE, || -> Result<_, Stop> { Ok(path.exists()) })?;
        ensure!(back, "{} did not come back", path.display());
        let back = Peer::open(self.instance)?.function();
        ensure!(back == self.device, "{} is {} now", path.display(), back.name);
        Ok(())
    }
}

/// Whether the slot below `port` has hot-plug (PCIe 6.0, 7.5.3.9).
fn has_hot_plug(port: &Function) -> Result<bool, Stop> {
    const SLOT_CAPABILITIES: usize = 0x14;
    const HOT_PLUG_CAPABLE: u32 = 1 << 6;
    let config = port.config_space()?;
    let pcie = config.find(capability::PCI_EXPRESS);
    Ok(pcie.is_some_and(|at| config.u32(at + SLOT_CAPABILITIES) & HOT_PLUG_CAPABLE != 0))
}
