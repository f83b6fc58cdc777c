//! Tests of the engine, on a system with RAM and the engine on its root bus.

#![allow(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

mod hostile;
mod options;
mod stopping;

use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::regs::{channel, control, descriptor, device, error, fault, interrupt_control, status};
use super::{IoatConfig, IoatDevice};
use crate::endpoint::{Endpoint, Progress};
use crate::fabric::InterruptSink;
use crate::iommu::NoIommu;
use crate::pci::{Bdf, PcieKind};
use crate::system::{Function, System, Topology};

const BDF: Bdf = Bdf::new(0, 5, 0);
const REGISTERS: u64 = 0xc000_0000;
const MSIX: u64 = 0xc010_0000;
const CHAIN: u64 = 0x1_0000;
const RECORD: u64 = 0x2_0000;
const DATA: u64 = 0x10_0000;
const TARGET: u64 = 0x20_0000;
const NOWHERE: u64 = 0x8000_0000;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u32>>>);

impl InterruptSink for Sink {
    fn signal_msi(&mut self, _address: u64, data: u32) {
        self.0.lock().unwrap().push(data);
    }
}

struct Bench {
    system: System,
    ram: GuestMemoryMmap<()>,
    sink: Sink,
}

impl Bench {
    fn new() -> Self {
        Self::with(IoatConfig::default())
    }

    /// With an engine of this kind, wherever it is attached.
    fn with(config: IoatConfig) -> Self {
        Self::of(IoatDevice::new(&Self::attached(config)).unwrap())
    }

    /// The same on the root bus.
    fn attached(config: IoatConfig) -> IoatConfig {
        IoatConfig { attachment: PcieKind::RootComplexIntegratedEndpoint, ..config }
    }

    /// With this engine, which is [`attached`](Self::attached).
    fn of(engine: impl Endpoint + 'static) -> Self {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 8 << 20)]).unwrap();
        let place = Function::endpoint(5, "ioat0", engine);
        let sink = Sink::default();
        let topology = Topology::of(vec![place]);
        let system =
            System::new(topology, &ram, Box::new(NoIommu), Box::new(sink.clone())).unwrap();
        let mut bench = Self { system, ram, sink };
        bench.bring_up();
        bench
    }

    /// What firmware and driver do: addresses, MSI-X, the first channel.
    fn bring_up(&mut self) {
        self.assign();
        let msix = self.capability(0x11);
        self.system.config_write(BDF, msix + 2, 2, 0x8000);
        for (word, value) in [0xfee0_0000_u32, 0, 0x40, 0].into_iter().enumerate() {
            self.system.mmio_write(MSIX + 4 * word as u64, &value.to_le_bytes());
        }
        self.system.mmio_write(
            REGISTERS + device::INTERRUPT_CONTROL,
            &[interrupt_control::VECTORS | interrupt_control::MASTER],
        );
        let run = control::REARM | control::ERROR_COMPLETION | control::ERROR_INTERRUPT;
        self.write(channel::CONTROL, &run.to_le_bytes());
        self.write(channel::COMPLETION, &RECORD.to_le_bytes());
    }

    fn assign(&mut self) {
        self.system.config_write(BDF, 0x10, 4, REGISTERS as u32);
        self.system.config_write(BDF, 0x14, 4, 0);
        self.system.config_write(BDF, 0x18, 4, MSIX as u32);
        self.system.config_write(BDF, 0x04, 2, 0x6);
    }

    /// The place of the capability with this ID.
    fn capability(&mut self, id: u32) -> u16 {
        let mut at = self.system.config_read(BDF, 0x34, 1) as u16;
        while self.system.config_read(BDF, at, 1) != id {
            at = self.system.config_read(BDF, at + 1, 1) as u16;
        }
        at
    }

    /// Resets the function and gives it its addresses back.
    fn function_level_reset(&mut self) {
        let express = self.capability(0x10);
        self.system.config_write(BDF, express + 8, 2, 0x8000);
        self.system.step();
        self.assign();
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.system.mmio_write(REGISTERS + 0x80 + offset, data);
    }

    fn read(&mut self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.system.mmio_read(REGISTERS + 0x80 + offset, &mut data);
        u64::from_le_bytes(data)
    }

    fn error(&mut self) -> u32 {
        self.read(channel::ERROR) as u32
    }

    /// Puts descriptors one behind the other, each linked to the next place.
    fn put(&mut self, descriptors: &[[u64; 8]]) {
        for (at, words) in (0..).map(|index| CHAIN + index * 64).zip(descriptors) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            self.ram.write_slice(&bytes, GuestAddress(at)).unwrap();
        }
    }

    fn start(&mut self, count: u16) {
        self.write(channel::CHAIN, &CHAIN.to_le_bytes());
        self.write(channel::COUNT, &count.to_le_bytes());
    }

    fn run(&mut self) {
        for _ in 0..100_000 {
            if self.system.step() == Progress::Idle {
                return;
            }
        }
        panic!("the system does not come to rest");
    }

    fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.ram.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }

    fn record(&self) -> u64 {
        self.ram.read_obj(GuestAddress(RECORD)).unwrap()
    }

    fn interrupts(&self) -> usize {
        self.sink.0.lock().unwrap().len()
    }
}

/// First word: length, control, operation.
fn head(length: u32, control: u32, operation: u8) -> u64 {
    u64::from(length) | u64::from(control | u32::from(operation) << 24) << 32
}

const TELL: u32 = descriptor::COMPLETION | descriptor::INTERRUPT;

fn copy(source: u64, target: u64, length: u32) -> [u64; 8] {
    [head(length, TELL, descriptor::COPY), source, target, CHAIN + 64, 0, 0, 0, 0]
}

#[test]
fn a_copy_arrives_and_is_reported() {
    let mut bench = Bench::new();
    let data: Vec<u8> = (0..200_000_u32).map(|index| (index % 251) as u8).collect();
    bench.ram.write_slice(&data, GuestAddress(DATA)).unwrap();
    bench.put(&[copy(DATA, TARGET, 200_000)]);
    bench.start(1);
    bench.run();
    assert_eq!(bench.bytes(TARGET, data.len()), data);
    assert_eq!(bench.record(), CHAIN | status::DONE);
    assert_eq!(bench.read(channel::STATUS), CHAIN | status::DONE);
    assert_eq!((bench.interrupts(), bench.error()), (1, 0));
}

#[test]
fn a_fill_and_a_xor_of_eight_sources() {
    let mut bench = Bench::new();
    bench.put(&[[head(12, 0, descriptor::FILL), 0x1122_3344_5566_7788, TARGET, 0, 0, 0, 0, 0]]);
    bench.start(1);
    bench.run();
    let filled = bench.bytes(TARGET, 13);
    assert_eq!(filled[..9], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x88]);
    assert_eq!(filled[12], 0);

    let source = |index: u64| DATA + index * 0x1000;
    for index in 0..8 {
        bench.ram.write_slice(&[1 << index; 100], GuestAddress(source(index))).unwrap();
    }
    for (operation, expected) in [(descriptor::XOR, 0), (descriptor::XOR_CHECK, 0)] {
        let control = 6 << descriptor::SOURCES_SHIFT | TELL;
        bench.put(&[
            [
                head(100, control, operation),
                source(0),
                TARGET,
                CHAIN + 64,
                source(1),
                source(2),
                source(3),
                source(4),
            ],
            [source(5), source(6), source(7), CHAIN + 128, 0, 0, 0, 0],
        ]);
        bench.start(2);
        bench.run();
        assert_eq!(bench.bytes(TARGET, 100), [0xff; 100]);
        assert_eq!(bench.error(), expected);
        assert_eq!(bench.record(), CHAIN | status::DONE);
    }
    bench.ram.write_slice(&[0], GuestAddress(TARGET + 99)).unwrap();
    bench.start(2);
    bench.run();
    assert_eq!(bench.error(), error::XOR);
    assert_eq!(bench.record() & 7, status::HALTED);
}

#[test]
fn errors_halt_and_a_reset_helps() {
    let null = head(1, descriptor::NULL, descriptor::COPY);
    for (bad, bits) in [
        (copy(NOWHERE, TARGET, 64), error::READ_DATA),
        (copy(DATA, TARGET, 0), error::LENGTH),
        (copy(DATA, TARGET, (1 << 20) + 1), error::LENGTH),
        (copy(u64::MAX, TARGET, 2), error::SOURCE_ADDRESS),
        (copy(DATA, u64::MAX, 2), error::DESTINATION_ADDRESS),
        ([head(64, 0, 0x89), DATA, TARGET, 0, 0, 0, 0, 0], error::CONTROL),
        ([head(64, 7 << 5, descriptor::XOR), DATA, TARGET, 0, 0, 0, 0, 0], error::CONTROL),
        ([null, 0, 0, CHAIN + 4, 0, 0, 0, 0], error::NEXT_ALIGNMENT),
        ([null, 0, 0, NOWHERE, 0, 0, 0, 0], error::NEXT_ADDRESS),
    ] {
        let mut bench = Bench::new();
        bench.put(&[bad]);
        bench.start(2);
        bench.run();
        assert_eq!(bench.error(), bits);
        // What only leads to something bad is over.
        let completed = if bad[0] == null { CHAIN } else { 0 };
        assert_eq!(bench.read(channel::STATUS), completed | status::HALTED);
        assert_eq!((bench.record() & 7, bench.interrupts()), (status::HALTED, 1));

        bench.write(channel::ERROR, &bits.to_le_bytes());
        bench.write(channel::COMMAND, &[super::regs::command::RESET]);
        assert_eq!((bench.error(), bench.read(channel::COMMAND) as u8), (0, 0));
        bench.write(channel::COMPLETION, &RECORD.to_le_bytes());
        bench.put(&[copy(DATA, TARGET, 64)]);
        bench.start(1);
        bench.run();
        assert_eq!(bench.record(), CHAIN | status::DONE);
    }
}

#[test]
fn a_loop_ends_with_its_count_and_interrupts_wait_for_the_driver() {
    let mut bench = Bench::new();
    let mut own = copy(DATA, TARGET, 64);
    own[3] = CHAIN;
    bench.put(&[own]);
    bench.start(u16::MAX);
    bench.run();
    assert_eq!(bench.read(channel::STATUS) & 7, status::DONE);
    assert_eq!(bench.interrupts(), 1, "one until the driver asks for the next");
    bench.write(channel::CONTROL, &control::REARM.to_le_bytes());
    bench.run();
    assert_eq!(bench.interrupts(), 2, "what came meanwhile is not lost");
    bench.write(channel::COMMAND, &[super::regs::command::SUSPEND]);
    assert_eq!(bench.read(channel::STATUS) & 7, status::SUSPENDED);
}

#[test]
fn misbehaviour_on_request() {
    for kind in [fault::SWAP, fault::LOSE_COMPLETION, fault::DROP_INTERRUPT] {
        let mut bench = Bench::new();
        bench.ram.write_slice(&[7; 64], GuestAddress(DATA)).unwrap();
        bench.system.mmio_write(REGISTERS + device::LAB_FAULT, &kind.to_le_bytes());
        bench.put(&[copy(DATA, TARGET, 64)]);
        bench.start(1);
        bench.run();
        let arrived = bench.bytes(TARGET, 1) == [7];
        let seen = (arrived, bench.record() != 0, bench.interrupts() == 1);
        let is = |fault: u32| kind != fault;
        let expected = (is(fault::SWAP), is(fault::LOSE_COMPLETION), is(fault::DROP_INTERRUPT));
        assert_eq!(seen, expected);
    }
}
