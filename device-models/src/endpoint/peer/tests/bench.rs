//! A system with RAM and two peer devices under two root ports, and what a driver does with them.

use std::sync::{Arc, Mutex, PoisonError};

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};
use zerocopy::{FromBytes, IntoBytes};

use super::super::regs::{
    Descriptor, Record, channel, channel_control, flags, layout_of_bars as layout, opcode, state,
    status,
};
use super::super::{PeerConfig, PeerDevice};
use crate::checker::{Cause, Finding, FindingClass};
use crate::endpoint::Progress;
use crate::fabric::{InterruptSink, Observer};
use crate::iommu::{Iommu, NoIommu};
use crate::memory::Memory;
use crate::pci::{Bdf, BridgeDescription, PortKind};
use crate::system::{Function, System, Topology};

pub(super) const RAM_SIZE: u64 = 32 << 20;
/// RAM that the tests use for data; rings are below.
pub(super) const DATA: u64 = 1 << 20;
/// An address at which nothing is.
pub(super) const NOWHERE: u64 = 0x8000_0000;
pub(super) const LOCAL_SIZE: u64 = 4 << 20;
/// Descriptors in a ring.
pub(super) const ENTRIES: u32 = 8;

pub(super) type Shared<T> = Arc<Mutex<Vec<T>>>;

/// Keeps the data of every interrupt.
struct Sink(Shared<u32>);

impl InterruptSink for Sink {
    fn signal_msi(&mut self, address: u64, data: u32) {
        assert_eq!(address & !0xf_ffff, 0xfee0_0000);
        self.0.lock().unwrap().push(data);
    }
}

/// Keeps the classes and causes of all findings.
struct Findings(Shared<(FindingClass, Cause)>);

impl Observer for Findings {
    fn finding(&mut self, finding: &Finding) {
        self.0.lock().unwrap().push((finding.class, finding.cause));
    }
}

pub(super) struct Bench {
    pub(super) system: System,
    pub(super) ram: GuestMemoryMmap<()>,
    locals: Vec<Memory>,
    interrupts: Shared<u32>,
    findings: Shared<(FindingClass, Cause)>,
}

/// A channel as its driver sees it.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    pub(super) peer: u8,
    pub(super) channel: u8,
    pub(super) tail: u32,
    pub(super) sequence: u32,
}

impl Ring {
    pub(super) fn descriptors(&self) -> u64 {
        0x1_0000 + u64::from(self.peer) * 0x8000 + u64::from(self.channel) * 0x1000
    }

    pub(super) fn records(&self) -> u64 {
        self.descriptors() + 0x800
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with_iommu(Box::new(NoIommu))
    }

    pub(super) fn with_iommu(iommu: Box<dyn Iommu>) -> Self {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_SIZE as usize)]).unwrap();
        let interrupts = Shared::default();
        let findings = Shared::default();
        let mut locals = Vec::new();
        let mut port = |peer: u8| {
            let config = PeerConfig {
                local_size: LOCAL_SIZE,
                ..PeerConfig::new(format!("peer{peer}"), u64::from(peer))
            };
            let device = PeerDevice::new(&config).unwrap();
            locals.push(device.local_memory().clone());
            let below = vec![Function::endpoint(0, format!("peer{peer}"), device)];
            Function::bridge(
                4 + peer,
                format!("port{peer}"),
                BridgeDescription::new(PortKind::RootPort),
                below,
            )
        };
        let topology = Topology::of(vec![port(0), port(1)]);
        let mut system =
            System::new(topology, &ram, iommu, Box::new(Sink(Arc::clone(&interrupts)))).unwrap();
        system.add_observer(Box::new(Findings(Arc::clone(&findings))));
        let mut bench = Self { system, ram, locals, interrupts, findings };
        for peer in 0..2 {
            bench.assign_port(peer);
            bench.assign_device(peer);
        }
        bench
    }

    pub(super) fn bdf(peer: u8) -> Bdf {
        Bdf::new(1 + peer, 0, 0)
    }

    /// Address of the register BAR.
    pub(super) fn registers(peer: u8) -> u64 {
        0xc000_0000 + u64::from(peer) * 0x10_0000
    }

    /// Address of a channel's register.
    pub(super) fn register(peer: u8, channel: u8, offset: u64) -> u64 {
        Self::registers(peer)
            + layout::CHANNEL_BASE
            + u64::from(channel) * layout::CHANNEL_STRIDE
            + offset
    }

    fn msix_table(peer: u8) -> u64 {
        Self::registers(peer) + 0x8_0000
    }

    /// Address of the local memory BAR.
    pub(super) fn local(peer: u8) -> u64 {
        0x10_0000_0000 + u64::from(peer) * 0x1000_0000
    }

    fn assign_port(&mut self, peer: u8) {
        let bdf = Bdf::new(0, 4 + peer, 0);
        let bus = u32::from(1 + peer);
        let window = u32::try_from(Self::registers(peer) >> 16).unwrap();
        let local = u32::try_from(Self::local(peer) >> 16 & 0xffff).unwrap();
        self.system.config_write(bdf, 0x18, 4, bus << 16 | bus << 8);
        self.system.config_write(bdf, 0x20, 4, window | window << 16);
        self.system.config_write(bdf, 0x24, 4, local | (local + 0xff0) << 16);
        self.system.config_write(bdf, 0x28, 4, 0x10);
        self.system.config_write(bdf, 0x2c, 4, 0x10);
        self.system.config_write(bdf, 0x04, 2, 0x6);
    }

    /// What a driver finds after power-on or FLR: addresses, decode, bus mastering, MSI-X.
    pub(super) fn assign_device(&mut self, peer: u8) {
        let bdf = Self::bdf(peer);
        let low = |address: u64| u32::try_from(address & 0xffff_ffff).unwrap();
        self.system.config_write(bdf, 0x10, 4, low(Self::registers(peer)));
        self.system.config_write(bdf, 0x18, 4, low(Self::local(peer)));
        self.system.config_write(bdf, 0x1c, 4, low(Self::local(peer) >> 32));
        self.system.config_write(bdf, 0x20, 4, low(Self::msix_table(peer)));
        self.system.config_write(bdf, 0x04, 2, 0x6);
        let msix = self.capability(peer, 0x11);
        self.system.config_write(bdf, msix + 2, 2, 0x8000);
        for vector in 0..5u32 {
            let entry = Self::msix_table(peer) + u64::from(vector) * 16;
            for (word, value) in
                [0xfee0_0000, 0, u32::from(peer) << 4 | vector, 0].into_iter().enumerate()
            {
                self.system.mmio_write(entry + 4 * word as u64, &value.to_le_bytes());
            }
        }
    }

    /// Offset of a capability in configuration space.
    pub(super) fn capability(&mut self, peer: u8, id: u32) -> u16 {
        let bdf = Self::bdf(peer);
        let mut at = self.system.config_read(bdf, 0x34, 1);
        while at != 0 && at != 0xff {
            let header = self.system.config_read(bdf, u16::try_from(at).unwrap(), 2);
            if header & 0xff == id {
                return u16::try_from(at).unwrap();
            }
            at = header >> 8;
        }
        panic!("no capability {id:#x}");
    }

    pub(super) fn read32(&mut self, address: u64) -> u32 {
        let mut data = [0; 4];
        self.system.mmio_read(address, &mut data);
        u32::from_le_bytes(data)
    }

    pub(super) fn write32(&mut self, address: u64, value: u32) {
        self.system.mmio_write(address, &value.to_le_bytes());
    }

    pub(super) fn channel_read(&mut self, ring: &Ring, offset: u64) -> u32 {
        self.read32(Self::register(ring.peer, ring.channel, offset))
    }

    pub(super) fn channel_write(&mut self, ring: &Ring, offset: u64, value: u32) {
        self.write32(Self::register(ring.peer, ring.channel, offset), value);
    }

    /// Brings a channel up.
    pub(super) fn open(&mut self, peer: u8, channel: u8) -> Ring {
        let ring = Ring { peer, channel, tail: 0, sequence: 0 };
        self.ram.write_slice(&[0xaa; 0x1000], GuestAddress(ring.descriptors())).unwrap();
        self.channel_write(&ring, channel::CTRL, channel_control::RESET);
        for (low, high, address) in [
            (channel::RING_LO, channel::RING_HI, ring.descriptors()),
            (channel::RECORD_LO, channel::RECORD_HI, ring.records()),
        ] {
            self.channel_write(&ring, low, u32::try_from(address).unwrap());
            self.channel_write(&ring, high, 0);
        }
        self.channel_write(&ring, channel::RING_SIZE, ENTRIES.ilog2());
        self.channel_write(&ring, channel::VECTOR, channel.into());
        self.channel_write(&ring, channel::CTRL, channel_control::ENABLE);
        assert_eq!(self.channel_read(&ring, channel::STATUS), state::IDLE);
        ring
    }

    /// Writes a descriptor; the doorbell is another step.
    pub(super) fn put(&mut self, ring: &mut Ring, descriptor: Descriptor) {
        let address = ring.descriptors() + u64::from(ring.tail) * 64;
        self.ram.write_slice(descriptor.as_bytes(), GuestAddress(address)).unwrap();
        ring.tail = (ring.tail + 1) % ENTRIES;
    }

    pub(super) fn doorbell(&mut self, ring: &Ring) {
        self.channel_write(ring, channel::TAIL, ring.tail);
    }

    /// Steps until nothing happens any more.
    pub(super) fn run(&mut self) {
        for _ in 0..100_000 {
            if self.system.step() == Progress::Idle {
                return;
            }
        }
        panic!("the system does not come to rest");
    }

    /// The next record, which must be there.
    pub(super) fn take(&mut self, ring: &mut Ring) -> Record {
        let record = self.peek(ring);
        ring.sequence += 1;
        assert_eq!(record.sequence.get(), ring.sequence, "the record is not there: {record:?}");
        assert_eq!(record.reserved.get(), 0);
        record
    }

    /// What is where the next record will be.
    pub(super) fn peek(&self, ring: &Ring) -> Record {
        let slot = u64::from(ring.sequence % ENTRIES);
        let mut bytes = [0; 32];
        self.ram.read_slice(&mut bytes, GuestAddress(ring.records() + slot * 32)).unwrap();
        Record::read_from_bytes(&bytes).unwrap()
    }

    /// One descriptor from doorbell to record.
    pub(super) fn submit(&mut self, ring: &mut Ring, descriptor: Descriptor) -> Record {
        self.put(ring, descriptor);
        self.doorbell(ring);
        self.run();
        let record = self.take(ring);
        assert_eq!(record.cookie, descriptor.cookie);
        record
    }

    /// As [`submit`](Self::submit), and all must have gone well.
    pub(super) fn succeed(&mut self, ring: &mut Ring, descriptor: Descriptor) -> Record {
        let record = self.submit(ring, descriptor);
        assert_eq!(record.status.get(), status::SUCCESS);
        assert_eq!(self.channel_read(ring, channel::VERDICT), 0);
        record
    }

    fn memory(&self, address: u64, length: usize) -> VolatileSlice<'_> {
        if address < RAM_SIZE {
            return self.ram.get_slice(GuestAddress(address), length).unwrap();
        }
        let peer = usize::from(address >= Self::local(1));
        self.locals[peer].slice(address - Self::local(peer as u8), length).unwrap()
    }

    /// Writes to RAM or to a local memory, as a CPU does: the system does not see it.
    pub(super) fn poke(&mut self, address: u64, data: &[u8]) {
        self.memory(address, data.len()).copy_from(data);
    }

    /// Reads RAM or a local memory.
    pub(super) fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.memory(address, length).copy_to(&mut data[..]);
        data
    }

    pub(super) fn interrupts(&self) -> Vec<u32> {
        std::mem::take(&mut *self.interrupts.lock().unwrap())
    }

    pub(super) fn findings(&self) -> Vec<FindingClass> {
        self.causes().into_iter().map(|(class, _)| class).collect()
    }

    /// The same with their causes.
    pub(super) fn causes(&self) -> Vec<(FindingClass, Cause)> {
        std::mem::take(&mut *self.findings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A test that did not expect findings must not have had any.
impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.findings(), [], "findings that the test did not expect");
        }
    }
}

/// Bytes that repeat nowhere within 64 KiB.
pub(super) fn pattern(seed: u32, length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| {
            let mixed = (index as u32).wrapping_add(seed << 20).wrapping_mul(0x9e37_79b1);
            (mixed >> 17) as u8
        })
        .collect()
}

pub(super) fn copy(source: u64, destination: u64, length: u32, flags: u16) -> Descriptor {
    Descriptor {
        opcode: opcode::COPY,
        flags: flags.into(),
        length: length.into(),
        source: source.into(),
        destination: destination.into(),
        cookie: (0xc00c_0000_0000_0000 | u64::from(length)).into(),
        ..Descriptor::default()
    }
}

pub(super) const FROM_LOCAL: u16 = flags::SOURCE_LOCAL;
pub(super) const TO_LOCAL: u16 = flags::DESTINATION_LOCAL;
