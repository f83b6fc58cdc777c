//! CPU accesses, as the machine makes them, to the device models.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use device_models::endpoint::Progress;
use device_models::fabric::{GuestMapping, PostedDelay};
use device_models::memory::Memory;
use device_models::pci::Bdf;
use device_models::system::{ConfigMapping, DelayError, PlugError, System};
use device_models::witness::Clock;
use guest_protocol::FunctionTraffic;

use super::bell::Bell;
use super::lock::PriorityLock;
use super::settle::{StillBusy, settle};
use super::stepper::Stepper;
use super::{RuntimeCounters, traffic};
use crate::jitter::Jitter;
use crate::{DeviceBus, DirectMap, HostMemory, MappedMemory, Withheld, layout};

/// Memory of the device models, as the machine maps it: what a BAR shows of a device's, or one configuration space.
#[derive(Debug)]
struct Mapped {
    memory: Memory,
    offset: u64,
    length: u64,
}

// SAFETY: a `Memory` maps its `len` bytes, of which these are a part, shared, readable, writable and page-aligned
// until its last clone is dropped, and all users access it as memory that others write to.
unsafe impl HostMemory for Mapped {
    fn host_address(&self) -> *mut u8 {
        let address = self.memory.host_address().saturating_add(self.offset.min(self.memory.len()));
        address as *mut u8
    }

    fn len(&self) -> u64 {
        self.length.min(self.memory.len().saturating_sub(self.offset))
    }
}

/// The host's monotonic clock.
#[derive(Debug)]
struct HostClock(Instant);

impl Clock for HostClock {
    fn nanoseconds(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The device models on a machine's bus.
pub struct RuntimeBus {
    system: Arc<PriorityLock<System>>,
    bell: Arc<Bell>,
    epoch: Arc<AtomicU64>,
    /// What was mapped last: the machine recognises a mapping that stays by its object.
    mapped: Mutex<Vec<MappedMemory>>,
    /// The machine's.
    map: Mutex<Option<Weak<dyn DirectMap>>>,
}

impl fmt::Debug for RuntimeBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeBus").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl RuntimeBus {
    /// Puts `system` onto a bus and starts the thread that steps it; both go on until the stepping thread is dropped. With `jitter`
    /// that thread stands still now and then.
    ///
    /// # Errors
    /// When the host gives no thread.
    pub fn new(mut system: System, jitter: Option<Jitter>) -> io::Result<(Arc<Self>, Stepper)> {
        system.set_witness_clock(Box::new(HostClock(Instant::now())));
        if let Err(error) = system.share_config_spaces() {
            log::warn!("each read of configuration space will leave the guest: {error}");
        }
        let epoch = Arc::new(AtomicU64::new(system.mapping_epoch()));
        let system = Arc::new(PriorityLock::new(system));
        let bell = Arc::new(Bell::default());
        let after = {
            let epoch = Arc::clone(&epoch);
            // A device's own reset moves its BARs too.
            move |system: &System| epoch.store(system.mapping_epoch(), Ordering::Release)
        };
        let engine = Stepper::start(Arc::clone(&system), Arc::clone(&bell), after, jitter)?;
        let (mapped, map) = (Mutex::default(), Mutex::default());
        Ok((Arc::new(Self { system, bell, epoch, mapped, map }), engine))
    }

    /// Works on the system ahead of the stepping thread.
    pub fn with<R>(&self, work: impl FnOnce(&mut System) -> R) -> R {
        work(&mut self.system.urgent())
    }

    /// The devices do nothing more of their own: the step that is under way is the last.
    pub fn halt(&self) {
        self.bell.end();
    }

    /// The devices stand still until [`RuntimeBus::resume`]: the step that is under way is the last. Who may have the
    /// system's lock in between, as by [`RuntimeBus::with`], finds it as it stands.
    pub fn pause(&self) {
        self.bell.hold();
    }

    /// The devices go on.
    pub fn resume(&self) {
        self.bell.let_go();
    }

    /// Pulls everything below the port at `port` out of its slot.
    ///
    /// # Errors
    /// When there is no such slot, or it is empty.
    pub fn unplug(&self, port: Bdf) -> Result<(), PlugError> {
        self.change(|system| system.unplug(port))
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// When there is no such slot, or it is occupied.
    pub fn plug(&self, port: Bdf) -> Result<(), PlugError> {
        self.change(|system| system.plug(port))
    }

    /// Keeps posted writes on a path under way; see [`System::delay_posted`]. By then no CPU reaches the target's memory
    /// directly any more, and once the path is off, they do again.
    ///
    /// # Errors
    /// When there is no such path, or too many.
    pub fn delay_posted(
        &self,
        requester: Bdf,
        target: Option<Bdf>,
        delay: PostedDelay,
    ) -> Result<(), DelayError> {
        let target_to_be = target.filter(|_| delay != PostedDelay::Off);
        // Out of the direct map first: a CPU that saw a record and then read the memory behind the system's back would find
        // old data there, as on no hardware.
        let withheld =
            target_to_be.and_then(|target| self.with_epoch(|system| system.withhold(target)));
        if withheld.is_some() {
            self.follow();
        }
        let done = self.change(|system| {
            let done = system.delay_posted(requester, target, delay);
            if let Some(function) = withheld {
                system.release(function);
            }
            done
        });
        self.follow();
        done
    }

    /// Switches off every delay: nothing is left that could push. What is found by that is found
    /// before this returns.
    pub fn end_delays(&self) {
        self.change(|lab| {
            lab.end_delays();
            // The last words of the guest's witness.
            lab.witness_drain();
        });
    }

    /// Has the CPUs reach what [`DeviceBus::memory`] says, and nothing else.
    fn follow(&self) {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let map = map.as_ref().and_then(Weak::upgrade);
        if let Some(map) = map
            && let Err(error) = map.follow(self)
        {
            // The vCPU that is here meets it once more, and ends the run.
            log::debug!("{error}");
        }
    }

    /// Software has seen a fence; see [`System::fence_seen`].
    ///
    /// # Errors
    /// When there is no such function.
    pub fn fence_seen(&self, requester: Bdf) -> Result<(), DelayError> {
        self.change(|system| system.fence_seen(requester))
    }

    /// Waits until the devices have nothing left to do.
    ///
    /// # Errors
    /// When they go on and on.
    pub fn settle(&self) -> Result<(), StillBusy> {
        settle(&self.system, |system| self.store_epoch(system))
    }

    /// What a function has moved, by target; none if there is no such function.
    pub fn traffic(&self, requester: Bdf) -> Option<FunctionTraffic> {
        self.with(|system| {
            let map = system.address_map();
            let (id, node) = map.functions().find(|(_, node)| node.requester == requester)?;
            Some(FunctionTraffic { name: node.name.to_string(), traffic: traffic::of(system, id) })
        })
    }

    /// The counters at this moment.
    pub fn counters(&self) -> RuntimeCounters {
        self.with(RuntimeCounters::of)
    }

    /// A write: afterwards there may be something to do.
    fn change<R>(&self, work: impl FnOnce(&mut System) -> R) -> R {
        let result = self.with_epoch(work);
        self.bell.ring();
        result
    }

    fn with_epoch<R>(&self, work: impl FnOnce(&mut System) -> R) -> R {
        self.with(|system| {
            let result = work(system);
            self.store_epoch(system);
            result
        })
    }

    fn store_epoch(&self, system: &System) {
        self.epoch.store(system.mapping_epoch(), Ordering::Release);
    }
}

impl DeviceBus for RuntimeBus {
    fn config_read(&self, function: u16, offset: u16, data: &mut [u8]) {
        let Ok(length) = u8::try_from(data.len()) else { return data.fill(0xff) };
        let value =
            self.with(|system| system.config_read(Bdf(function), offset, length)).to_le_bytes();
        data.iter_mut().zip(value).for_each(|(byte, value)| *byte = value);
    }

    fn config_write(&self, function: u16, offset: u16, data: &[u8]) {
        let Ok(length) = u8::try_from(data.len()) else { return };
        let mut value = [0; 4];
        value.iter_mut().zip(data).for_each(|(value, byte)| *value = *byte);
        let value = u32::from_le_bytes(value);
        self.change(|system| system.config_write(Bdf(function), offset, length, value));
    }

    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        // What it pushes may be work for a device.
        if self.with_epoch(|system| system.mmio_read(address, data)) == Progress::Worked {
            self.bell.ring();
        }
    }

    fn mmio_write(&self, address: u64, data: &[u8]) {
        // The engine is not woken for nothing: with each mapping that the guest's kernel makes, it would be.
        if self.with_epoch(|system| system.mmio_write(address, data)) == Progress::Worked {
            self.bell.ring();
        }
    }

    fn takes_witness(&self) -> bool {
        true
    }

    fn witness_attach(&self, frame: u32) {
        self.with(|lab| lab.witness_attach(frame));
    }

    fn witness_drain(&self) {
        self.with(System::witness_drain);
    }

    fn memory_epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn memory(&self) -> Vec<MappedMemory> {
        let (bars, spaces) =
            self.with(|system| (system.guest_mappings(), system.config_mappings()));
        let bars =
            bars.into_iter().map(|GuestMapping { guest_address, memory, length, .. }| {
                (guest_address, Mapped { memory, offset: 0, length }, true)
            });
        let spaces = spaces.into_iter().map(|ConfigMapping { bdf, memory, offset }| {
            let address = layout::config_space(bdf.0);
            (address, Mapped { memory, offset, length: layout::PAGE_SIZE }, false)
        });
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        let new = bars.chain(spaces).map(|(address, new, writable)| {
            let same = |old: &&MappedMemory| {
                old.address == address
                    && old.memory.host_address() == new.host_address()
                    && old.memory.len() == new.len()
            };
            let old = mapped.iter().find(same).cloned();
            old.unwrap_or_else(|| MappedMemory { address, memory: Arc::new(new), writable })
        });
        let new: Vec<_> = new.collect();
        mapped.clone_from(&new);
        new
    }

    fn attach(&self, map: Weak<dyn DirectMap>) {
        *self.map.lock().unwrap_or_else(PoisonError::into_inner) = Some(map);
    }

    fn withheld(&self) -> Vec<Withheld> {
        self.with(|system| {
            let withheld = system.withheld_mappings().into_iter();
            let named =
                withheld.map(|GuestMapping { guest_address, length, function, bar, .. }| {
                    let node = system.address_map().node(function);
                    Withheld {
                        addresses: guest_address..guest_address.saturating_add(length),
                        name: format!("BAR {bar} of {} ({})", node.name, node.requester),
                    }
                });
            named.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use device_models::fabric::InterruptSink;
    use peerdma_topology::assembly::SystemConfig;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    use super::*;
    use crate::MachineError;

    const MIB: u64 = 1 << 20;

    struct NoInterrupts;

    impl InterruptSink for NoInterrupts {
        fn signal_msi(&mut self, _address: u64, _data: u32) {}
    }

    fn bdf(system: &System, name: &str, index: u8) -> Bdf {
        let function = system.function(&format!("{name}{index}")).unwrap();
        system.address_map().node(function).requester
    }

    /// Makes the BAR of peer `index` `1 << size` MiB and moves it, with the window of its port, to `address`.
    fn resize(system: &mut System, index: u8, address: u64, size: u32) {
        let (port, peer) = (bdf(system, "port", index), bdf(system, "peer", index));
        let mut resizable_bar = 0x100;
        while system.config_read(peer, resizable_bar, 2) != 0x15 {
            resizable_bar =
                u16::try_from(system.config_read(peer, resizable_bar + 2, 2) >> 4).unwrap();
        }
        system.config_write(peer, 4, 2, 0);
        let control = system.config_read(peer, resizable_bar + 8, 4) & !0x3f00;
        system.config_write(peer, resizable_bar + 8, 4, control | size << 8);
        let [low, high] =
            [address & 0xffff_ffff, address >> 32].map(|half| u32::try_from(half).unwrap());
        system.config_write(peer, 0x18, 4, low);
        system.config_write(peer, 0x1c, 4, high);
        let [base, limit] = [low, low + (1 << (20 + size)) - 1].map(|end| end >> 16 & 0xfff0);
        system.config_write(port, 0x24, 4, limit << 16 | base);
        system.config_write(port, 0x28, 4, high);
        system.config_write(port, 0x2c, 4, high);
        system.config_write(port, 4, 2, 6);
        system.config_write(peer, 4, 2, 6);
    }

    #[test]
    fn configuration_spaces_are_mapped_where_ecam_has_them() {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let system =
            SystemConfig::default().build(&ram, Box::new(NoInterrupts), std::io::empty()).unwrap();
        let iommu = system.function("virtio-iommu").unwrap();
        let iommu = system.address_map().node(iommu).requester;
        let peer = bdf(&system, "peer", 0);
        let (bus, _stepper) = RuntimeBus::new(system, None).unwrap();
        let at = |function: Bdf| layout::config_space(function.0);
        let spaces = || bus.memory().into_iter().filter(|memory| !memory.writable);
        let addresses = || spaces().map(|space| space.address).collect::<Vec<_>>();
        let before = addresses();
        assert!(before.contains(&at(peer)) && !before.contains(&at(iommu)), "{before:x?}");

        for space in bus.with(|system| system.config_mappings()) {
            let slice = space.memory.slice(space.offset, 4).unwrap();
            let id = bus.with(|system| system.config_read(space.bdf, 0, 4));
            assert_eq!(slice.read_obj::<u32>(0).unwrap(), id);
            let mapped = spaces().find(|mapped| mapped.address == at(space.bdf)).unwrap();
            assert_eq!(
                mapped.memory.host_address() as u64,
                space.memory.host_address() + space.offset
            );
            assert_eq!(mapped.memory.len(), layout::PAGE_SIZE);
        }

        // One whose reads push is asked each time, and the machine hears of it.
        let epoch = bus.memory_epoch();
        bus.delay_posted(peer, None, PostedDelay::UntilPushed).unwrap();
        assert_ne!(bus.memory_epoch(), epoch);
        assert!(!addresses().contains(&at(peer)));
        bus.delay_posted(peer, None, PostedDelay::Off).unwrap();
        assert_eq!(addresses(), before);
    }

    /// Remembers which memory BARs there were each time that it was to follow.
    #[derive(Default)]
    struct Followed(Mutex<Vec<Vec<u64>>>);

    impl DirectMap for Followed {
        fn follow(&self, bus: &dyn DeviceBus) -> Result<(), MachineError> {
            let bars = bus.memory().into_iter().filter(|memory| memory.writable);
            self.0.lock().unwrap().push(bars.map(|memory| memory.address).collect());
            Ok(())
        }
    }

    #[test]
    fn a_bar_is_out_of_the_direct_map_before_writes_to_it_are_delayed() {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let mut system =
            SystemConfig::default().build(&ram, Box::new(NoInterrupts), std::io::empty()).unwrap();
        let peers = [bdf(&system, "peer", 0), bdf(&system, "peer", 1)];
        peers.iter().for_each(|&peer| system.config_write(peer, 4, 2, 6));
        let (bus, _stepper) = RuntimeBus::new(system, None).unwrap();
        let both: Vec<_> = bus.memory().iter().filter(|m| m.writable).map(|m| m.address).collect();
        let followed = Arc::new(Followed::default());
        let map: Weak<dyn DirectMap> = Arc::<Followed>::downgrade(&followed);
        bus.attach(map);
        let seen = || std::mem::take(&mut *followed.0.lock().unwrap());
        let [from, to] = peers;
        let one = vec![both[0]];
        assert_eq!(both.len(), 2);

        bus.delay_posted(from, Some(to), PostedDelay::UntilPushed).unwrap();
        assert_eq!(seen(), [one.clone(), one.clone()], "before the delay, and after");
        let withheld = bus.withheld();
        assert_eq!(withheld.len(), 1);
        assert!(withheld[0].addresses.contains(&both[1]));
        assert_eq!(withheld[0].name, format!("BAR 2 of peer1 ({to})"));
        let epoch = bus.memory_epoch();
        bus.delay_posted(from, Some(to), PostedDelay::Off).unwrap();
        assert_ne!(bus.memory_epoch(), epoch);
        assert_eq!(seen(), vec![both.clone()], "it is back when the answer comes");

        // One that cannot be has it back, too; and for RAM there is nothing to take out.
        bus.delay_posted(Bdf(0x7700), Some(to), PostedDelay::UntilPushed).unwrap_err();
        assert_eq!(seen(), [one, both.clone()]);
        bus.delay_posted(from, None, PostedDelay::UntilPushed).unwrap();
        assert_eq!(seen(), vec![both.clone()]);
        bus.end_delays();
        assert_eq!(bus.withheld(), []);
    }

    #[test]
    fn bars_that_the_guest_made_smaller_lie_side_by_side() {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let mut system =
            SystemConfig::default().build(&ram, Box::new(NoInterrupts), std::io::empty()).unwrap();
        let second = 0x18_0020_0000;
        resize(&mut system, 0, second - MIB, 0);
        resize(&mut system, 1, second, 0);
        let (bus, _stepper) = RuntimeBus::new(system, None).unwrap();
        let places = |memory: &[MappedMemory]| {
            let bars = memory.iter().filter(|m| m.writable);
            bars.map(|m| (m.address, m.memory.len())).collect::<Vec<_>>()
        };
        let small = bus.memory();
        assert_eq!(places(&small), [(second - MIB, MIB), (second, MIB)]);

        // One that grows where it stands is another mapping; the other stays what it was.
        bus.with(|system| resize(system, 1, second, 1));
        let large = bus.memory();
        assert_eq!(places(&large), [(second - MIB, MIB), (second, 2 * MIB)]);
        assert!(Arc::ptr_eq(&small[0].memory, &large[0].memory));
        assert!(!Arc::ptr_eq(&small[1].memory, &large[1].memory));
    }
}
