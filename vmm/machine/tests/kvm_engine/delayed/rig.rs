//! A machine with two peer devices, and their memory where its programs find it.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use device_models::checker::Finding;
use device_models::endpoint::peer::regs::{
    Descriptor, channel, channel_control, layout_of_bars as bars, opcode,
};
use device_models::fabric::{InterruptSink, Observer};
use device_models::pci::Bdf;
use peerdma_machine::runtime::{RuntimeBus, Stepper};
use peerdma_machine::{
    Backends, DeviceBus, DirectMap, GuestRam, Machine, MappedMemory, Platform, Withheld,
};
use peerdma_topology::assembly::{IommuKind, SystemConfig};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use crate::harness::machine;

/// Where programs find the address of the BAR.
pub(super) const BAR_AT: u64 = 0x7300;
/// What the device has written last to RAM, after it wrote to the BAR.
pub(super) const FLAG: u64 = 0x7200;
/// Ring and records, of 32 entries, and what is copied from.
const RING: u64 = 0x40_0000;
const RECORDS: u64 = 0x40_1000;
const SOURCE: u64 = 0x40_2000;
const ENTRIES: u32 = 32;
/// The page directory pointer table of a flat program, and a page for one page directory more.
const POINTERS: u64 = 0xa000;
const DIRECTORY: u64 = 0x31_0000;

struct NoInterrupts;

impl InterruptSink for NoInterrupts {
    fn signal_msi(&mut self, _address: u64, _data: u32) {}
}

#[derive(Clone, Debug, Default)]
struct Found(Arc<Mutex<Vec<String>>>);

impl Observer for Found {
    fn finding(&mut self, finding: &Finding) {
        self.0.lock().unwrap().push(finding.class.name().to_owned());
    }
}

/// The runtime's bus, with a count of what CPUs do to the BAR through it.
#[derive(Debug)]
struct Counting {
    bus: Arc<RuntimeBus>,
    bar: u64,
    reads: AtomicUsize,
    writes: AtomicUsize,
}

impl Counting {
    fn count(&self, counter: &AtomicUsize, address: u64) {
        if (self.bar..self.bar + (1 << 20)).contains(&address) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl DeviceBus for Counting {
    fn config_read(&self, function: u16, offset: u16, data: &mut [u8]) {
        self.bus.config_read(function, offset, data);
    }
    fn config_write(&self, function: u16, offset: u16, data: &[u8]) {
        self.bus.config_write(function, offset, data);
    }
    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        self.count(&self.reads, address);
        self.bus.mmio_read(address, data);
    }
    fn mmio_write(&self, address: u64, data: &[u8]) {
        self.count(&self.writes, address);
        self.bus.mmio_write(address, data);
    }
    fn memory_epoch(&self) -> u64 {
        self.bus.memory_epoch()
    }
    fn memory(&self) -> Vec<MappedMemory> {
        self.bus.memory()
    }
    fn attach(&self, map: Weak<dyn DirectMap>) {
        self.bus.attach(map);
    }
    fn withheld(&self) -> Vec<Withheld> {
        self.bus.withheld()
    }
}

/// See the module. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Rig {
    counting: Arc<Counting>,
    pub(super) ram: GuestRam,
    registers: u64,
    functions: [Bdf; 2],
    posted: Arc<AtomicU32>,
    found: Found,
    _stepper: Arc<Stepper>,
}

impl Rig {
    pub(super) fn new(platform: &Platform) -> Self {
        let ram = platform.ram().clone();
        let config = SystemConfig {
            iommu: IommuKind::None,
            local_memory: 1 << 20,
            ..SystemConfig::default()
        };
        let mut system =
            config.build(ram.memory(), Box::new(NoInterrupts), std::io::repeat(0)).unwrap();
        let found = Found::default();
        system.add_observer(Box::new(found.clone()));
        let functions = ["peer0", "peer1"].map(|name| {
            let function = system.function(name).unwrap();
            let bdf = system.address_map().node(function).requester;
            system.config_write(bdf, 4, 2, 6);
            bdf
        });
        let bar = |name: &str, index: u8| {
            let node = system.address_map().node(system.function(name).unwrap());
            node.bars.iter().find(|bar| bar.index == index).unwrap().range.first
        };
        let (registers, bar) = (bar("peer0", 0), bar("peer1", 2));
        let (bus, stepper) = RuntimeBus::new(system, None).unwrap();
        let (reads, writes) = Default::default();
        let counting = Arc::new(Counting { bus, bar, reads, writes });
        let (posted, _stepper) = (Arc::default(), Arc::new(stepper));
        let rig = Self { counting, ram, registers, functions, posted, found, _stepper };
        for (offset, value) in [
            (channel::RING_LO, RING),
            (channel::RING_SIZE, u64::from(ENTRIES.ilog2())),
            (channel::RECORD_LO, RECORDS),
            (channel::CTRL, u64::from(channel_control::ENABLE)),
        ] {
            rig.register(offset, u32::try_from(value).unwrap());
        }
        rig
    }

    /// A machine with the BAR in its programs' page tables.
    pub(super) fn machine(&self, platform: Platform, code: Vec<u8>, ends: Backends) -> Machine {
        let machine = machine(platform, code, self.counting.clone(), ends);
        let (bar, memory) = (self.counting.bar, self.ram.memory());
        let put = |value: u64, at: u64| memory.write_obj(value, GuestAddress(at)).unwrap();
        put(DIRECTORY | 3, POINTERS + 8 * (bar >> 30));
        // A page of 2 MiB, present and writable.
        put(bar & !0x1f_ffff | 0x83, DIRECTORY + 8 * (bar >> 21 & 0x1ff));
        put(bar, BAR_AT);
        machine
    }

    /// Delays what the first device posts to the second.
    pub(super) fn delay(&self, delay: &str) {
        let [from, to] = self.functions;
        self.counting.bus.delay_posted(from, Some(to), delay.parse().unwrap()).unwrap();
    }

    /// The first device writes `length` bytes of copies of a value to the second's memory, and one of it to [`FLAG`]
    /// behind that; it is at rest when this returns.
    pub(super) fn post(&self, value: u64, length: u32) {
        let memory = self.ram.memory();
        for at in (0..u64::from(length)).step_by(8) {
            memory.write_obj(value, GuestAddress(SOURCE + at)).unwrap();
        }
        for (to, length) in [(self.counting.bar, length), (FLAG, 8)] {
            let place = self.posted.load(Ordering::Relaxed) % ENTRIES;
            let copy = Descriptor {
                opcode: opcode::COPY,
                reserved0: 0,
                flags: 0.into(),
                length: length.into(),
                source: SOURCE.into(),
                destination: to.into(),
                pattern: 0.into(),
                cookie: 7.into(),
                reserved1: [0.into(); 3],
            };
            let at = RING + 64 * u64::from(place);
            memory.write_slice(copy.as_bytes(), GuestAddress(at)).unwrap();
            self.posted.store((place + 1) % ENTRIES, Ordering::Relaxed);
        }
        self.register(channel::TAIL, self.posted.load(Ordering::Relaxed));
        self.counting.bus.settle().unwrap();
    }

    fn register(&self, offset: u64, value: u32) {
        let address = self.registers + bars::CHANNEL_BASE + offset;
        self.counting.bus.mmio_write(address, &value.to_le_bytes());
    }

    /// Reads and writes of the BAR by CPUs that came to the runtime.
    pub(super) fn accesses(&self) -> (usize, usize) {
        let Counting { reads, writes, .. } = &*self.counting;
        (reads.load(Ordering::Relaxed), writes.load(Ordering::Relaxed))
    }

    /// What is in the BAR now, as a CPU's read that comes to the runtime finds it.
    pub(super) fn read(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.counting.bus.mmio_read(self.counting.bar + offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// The classes of what has been found.
    pub(super) fn findings(&self) -> Vec<String> {
        self.found.0.lock().unwrap().clone()
    }
}
