//! A driver: finds the structures by the capabilities, negotiates, sets up queues and rings them,
//! in the order in which Linux's `virtio_pci_modern` and `virtio_ring` do.

use std::sync::{Arc, Mutex};

use crate::checker::{Finding, FindingClass};
use crate::endpoint::Progress;
use crate::fabric::{Delivery, InterruptSink, Observer, Transaction};
use crate::iommu::virtio::{VirtioIommu, VirtioIommuConfig};
use crate::pci::Bdf;
use crate::pci::firmware::HostResources;
use crate::system::{Function, System, Topology};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::super::spec::{Status, TransportFeatures, common};
use super::super::{VirtioIommuFunction, VirtioPci, VirtioRng};

pub(super) const IOMMU: Bdf = Bdf::new(0, 1, 0);
pub(super) const RNG: Bdf = Bdf::new(0, 2, 0);

/// What came out of the system.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) transactions: Vec<Transaction>,
    pub(super) findings: Vec<Finding>,
    pub(super) interrupts: Vec<(u64, u32)>,
}

#[derive(Clone)]
struct Watch(Arc<Mutex<Seen>>);

impl Observer for Watch {
    fn transaction(&mut self, transaction: &Transaction, _: &Delivery, _: Option<&[u8]>) {
        self.0.lock().unwrap().transactions.push(*transaction);
    }

    fn finding(&mut self, finding: &Finding) {
        self.0.lock().unwrap().findings.push(finding.clone());
    }
}

impl InterruptSink for Watch {
    fn signal_msi(&mut self, address: u64, data: u32) {
        self.0.lock().unwrap().interrupts.push((address, data));
    }
}

/// Entropy that a test can foretell: 0, 1, 2 and so on.
#[derive(Debug, Default)]
struct Counting(u8);

impl std::io::Read for Counting {
    fn read(&mut self, data: &mut [u8]) -> std::io::Result<usize> {
        for byte in data.iter_mut() {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
        Ok(data.len())
    }
}

/// A machine with an IOMMU and a source of entropy behind it, after its firmware has run.
pub(super) struct Machine {
    pub(super) system: System,
    pub(super) ram: GuestMemoryMmap<()>,
    seen: Arc<Mutex<Seen>>,
}

impl Machine {
    pub(super) fn new() -> Self {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        let config = VirtioIommuConfig::default();
        let function = VirtioPci::new(VirtioIommuFunction::new(config.clone())).unwrap();
        let rng = VirtioPci::new(VirtioRng::new(Counting::default())).unwrap();
        let topology = Topology::of(vec![
            Function::endpoint(1, "iommu", function),
            Function::endpoint(2, "rng", rng),
        ]);
        let seen = Arc::new(Mutex::default());
        let watch = Watch(Arc::clone(&seen));
        let iommu = Box::new(VirtioIommu::new(config));
        let mut system = System::new(topology, &ram, iommu, Box::new(watch.clone())).unwrap();
        system
            .run_firmware(&HostResources {
                buses: 0..=255,
                memory: 0xc000_0000..=0xdfff_ffff,
                prefetchable: 0x10_0000_0000..=0x1f_ffff_ffff,
            })
            .unwrap();
        system.add_observer(Box::new(watch));
        Self { system, ram, seen }
    }

    /// What happened since the last call.
    pub(super) fn seen(&mut self) -> Seen {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// The classes of what was found since the last call.
    pub(super) fn found(&mut self) -> Vec<FindingClass> {
        self.seen().findings.iter().map(|finding| finding.class).collect()
    }

    /// Lets the devices work until they are done.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            if self.system.step() == crate::endpoint::Progress::Idle {
                return;
            }
        }
        panic!("the devices never come to rest");
    }

    pub(super) fn iommu(&mut self) -> &mut VirtioIommu {
        self.system.virtio_iommu().unwrap()
    }

    /// Writes to guest memory as a CPU does.
    pub(super) fn poke(&self, address: u64, data: &[u8]) {
        self.ram.write_slice(data, GuestAddress(address)).unwrap();
    }

    pub(super) fn peek<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0; N];
        self.ram.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }
}

/// What a driver knows of a function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Driver {
    pub(super) function: Bdf,
    pub(super) common: u64,
    pub(super) notify: u64,
    pub(super) isr: u64,
    pub(super) device: Option<u64>,
    /// The capability that opens a window into the BAR.
    pub(super) window: u16,
    multiplier: u64,
}

impl Driver {
    /// Enables the function and reads its capabilities.
    pub(super) fn probe(machine: &mut Machine, function: Bdf) -> Self {
        let system = &mut machine.system;
        assert_eq!(system.config_read(function, 0, 2), 0x1af4);
        system.config_write(function, 4, 2, 0x0406);
        let mut driver =
            Self { function, common: 0, notify: 0, isr: 0, device: None, window: 0, multiplier: 0 };
        let mut at = system.config_read(function, 0x34, 1) as u16;
        while at != 0 {
            let mut read =
                |offset, length| u64::from(system.config_read(function, at + offset, length));
            let (id, next) = (read(0, 1), read(1, 1));
            let (kind, bar, offset) = (read(3, 1), read(4, 1), read(8, 4));
            let multiplier = read(16, 4);
            let base =
                u64::from(system.config_read(function, 0x10 + 4 * bar as u16 % 24, 4)) & !0xf;
            match (id, kind) {
                (9, 1) => driver.common = base + offset,
                (9, 2) => (driver.notify, driver.multiplier) = (base + offset, multiplier),
                (9, 3) => driver.isr = base + offset,
                (9, 4) => driver.device = Some(base + offset),
                (9, 5) => driver.window = at,
                (0x11, _) => enable_msix(system, function, at),
                _ => {}
            }
            at = next as u16;
        }
        assert!(driver.common != 0 && driver.notify != 0 && driver.isr != 0 && driver.window != 0);
        driver
    }

    pub(super) fn read(&self, machine: &mut Machine, offset: u64, length: usize) -> u64 {
        let mut data = [0; 8];
        machine.system.mmio_read(self.common + offset, &mut data[..length]);
        u64::from_le_bytes(data)
    }

    pub(super) fn write(&self, machine: &mut Machine, offset: u64, length: usize, value: u64) {
        machine.system.mmio_write(self.common + offset, &value.to_le_bytes()[..length]);
    }

    pub(super) fn status(&self, machine: &mut Machine) -> Status {
        Status::from_bits_truncate(self.read(machine, common::DEVICE_STATUS, 1) as u8)
    }

    /// Adds bits to the device status and reads what became of it.
    pub(super) fn set_status(&self, machine: &mut Machine, status: Status) -> Status {
        let status = self.status(machine) | status;
        self.write(machine, common::DEVICE_STATUS, 1, status.bits().into());
        self.status(machine)
    }

    pub(super) fn reset(&self, machine: &mut Machine) {
        self.write(machine, common::DEVICE_STATUS, 1, 0);
        assert_eq!(self.status(machine), Status::empty());
    }

    pub(super) fn offered(&self, machine: &mut Machine) -> u64 {
        (0..2).fold(0, |features, select| {
            self.write(machine, common::DEVICE_FEATURE_SELECT, 4, select);
            features | self.read(machine, common::DEVICE_FEATURE, 4) << (32 * select)
        })
    }

    /// Goes through the initialization up to FEATURES_OK (3.1.1); whether the device agreed.
    pub(super) fn negotiate(&self, machine: &mut Machine, features: u64) -> bool {
        self.reset(machine);
        self.set_status(machine, Status::ACKNOWLEDGE | Status::DRIVER);
        for select in 0..2 {
            self.write(machine, common::DRIVER_FEATURE_SELECT, 4, select);
            self.write(machine, common::DRIVER_FEATURE, 4, features >> (32 * select) & 0xffff_ffff);
        }
        self.set_status(machine, Status::FEATURES_OK).contains(Status::FEATURES_OK)
    }

    /// Sets up a queue of 16 descriptors with its rings at `base`, telling the device that they are
    /// at `seen_at`.
    pub(super) fn queue(&self, machine: &mut Machine, index: u16, base: u64, seen_at: u64) -> Ring {
        self.queue_of(16, machine, index, base, seen_at)
    }

    /// The same with up to 64 descriptors.
    pub(super) fn queue_of(
        &self,
        size: u16,
        machine: &mut Machine,
        index: u16,
        base: u64,
        seen_at: u64,
    ) -> Ring {
        self.write(machine, common::QUEUE_SELECT, 2, index.into());
        assert!(self.read(machine, common::QUEUE_SIZE, 2) >= size.into());
        assert_eq!(self.read(machine, common::QUEUE_ENABLE, 2), 0);
        self.write(machine, common::QUEUE_SIZE, 2, size.into());
        for (register, offset) in
            [(common::QUEUE_DESC, 0), (common::QUEUE_DRIVER, 0x400), (common::QUEUE_DEVICE, 0x800)]
        {
            self.write(machine, register, 4, (seen_at + offset) & 0xffff_ffff);
            self.write(machine, register + 4, 4, (seen_at + offset) >> 32);
        }
        let vector = u64::from(index) + 1;
        self.write(machine, common::QUEUE_MSIX_VECTOR, 2, vector);
        assert_eq!(self.read(machine, common::QUEUE_MSIX_VECTOR, 2), vector);
        let offset = self.read(machine, common::QUEUE_NOTIFY_OFF, 2) * self.multiplier;
        self.write(machine, common::QUEUE_ENABLE, 2, 1);
        Ring { index, size, base, notify: self.notify + offset, available: 0, used: 0 }
    }

    /// Everything that the device offers, negotiated, all queues set up identity-mapped from 1 MiB
    /// on, DRIVER_OK.
    pub(super) fn start(&self, machine: &mut Machine) -> Vec<Ring> {
        let features = self.offered(machine);
        assert!(self.negotiate(machine, features));
        self.write(machine, common::CONFIG_MSIX_VECTOR, 2, 0);
        let queues = self.read(machine, common::NUM_QUEUES, 2) as u16;
        let base = 0x10_0000 + u64::from(self.function.0) * 0x4000;
        let rings = (0..queues)
            .map(|index| {
                let base = base + u64::from(index) * 0x1000;
                machine.poke(base, &[0; 0x1000]);
                self.queue(machine, index, base, base)
            })
            .collect();
        self.set_status(machine, Status::DRIVER_OK);
        rings
    }
}

/// The transport features that no device can do without here.
pub(super) fn needed() -> u64 {
    (TransportFeatures::VERSION_1 | TransportFeatures::ACCESS_PLATFORM).bits()
}

fn enable_msix(system: &mut System, function: Bdf, capability: u16) {
    let table = system.config_read(function, capability + 4, 4);
    let base = system.config_read(function, 0x10 + 4 * (table & 7) as u16, 4) & !0xf;
    for vector in 0..3_u32 {
        let entry = u64::from(base + (table & !7)) + u64::from(vector) * 16;
        for (offset, value) in
            [(0, 0xfee0_0000), (4, 0), (8, u32::from(function.0) << 8 | vector), (12, 0)]
        {
            system.mmio_write(entry + offset, &value.to_le_bytes());
        }
    }
    system.config_write(function, capability + 2, 2, 0x8000);
}

/// A split virtqueue as its driver sees it: table at `base`, rings 0x400 and 0x800 behind it.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) index: u16,
    size: u16,
    pub(super) base: u64,
    notify: u64,
    available: u16,
    used: u16,
}

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

impl Ring {
    /// Writes descriptor `index`.
    pub(super) fn describe(
        &self,
        machine: &Machine,
        index: u16,
        buffer: (u64, u32),
        flags: u16,
        next: u16,
    ) {
        write_descriptor(machine, self.base + 16 * u64::from(index), buffer, flags, next);
    }

    /// Makes the chain that begins with `head` available.
    pub(super) fn offer(&mut self, machine: &Machine, head: u16) {
        machine.poke(
            self.base + 0x404 + 2 * u64::from(self.available % self.size),
            &head.to_le_bytes(),
        );
        self.available = self.available.wrapping_add(1);
        machine.poke(self.base + 0x402, &self.available.to_le_bytes());
    }

    /// Makes a chain available: one buffer to read, one to write, as far as they are there.
    pub(super) fn offer_buffers(
        &mut self,
        machine: &Machine,
        head: u16,
        read: &[(u64, u32)],
        write: &[(u64, u32)],
    ) {
        let count = (read.len() + write.len()) as u16;
        let all =
            read.iter().map(|buffer| (buffer, 0)).chain(write.iter().map(|buffer| (buffer, WRITE)));
        for (index, (buffer, flags)) in (head..).zip(all) {
            let more = if index + 1 < head + count { NEXT } else { 0 };
            self.describe(machine, index, *buffer, flags | more, index + 1);
        }
        self.offer(machine, head);
    }

    /// Notifies the device; whether that leaves anything for a step of the system.
    pub(super) fn kick(&self, machine: &mut Machine) -> Progress {
        machine.system.mmio_write(self.notify, &self.index.to_le_bytes())
    }

    /// The next used element: head and length.
    pub(super) fn take(&mut self, machine: &Machine) -> Option<(u32, u32)> {
        if u16::from_le_bytes(machine.peek(self.base + 0x802)) == self.used {
            return None;
        }
        let at = self.base + 0x804 + 8 * u64::from(self.used % self.size);
        self.used = self.used.wrapping_add(1);
        Some((u32::from_le_bytes(machine.peek(at)), u32::from_le_bytes(machine.peek(at + 4))))
    }
}

pub(super) fn write_descriptor(
    machine: &Machine,
    at: u64,
    buffer: (u64, u32),
    flags: u16,
    next: u16,
) {
    machine.poke(at, &buffer.0.to_le_bytes());
    machine.poke(at + 8, &buffer.1.to_le_bytes());
    machine.poke(at + 12, &flags.to_le_bytes());
    machine.poke(at + 14, &next.to_le_bytes());
}
