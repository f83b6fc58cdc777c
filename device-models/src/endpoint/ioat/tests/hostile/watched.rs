//! A bench that compares every access of the engine with the ledger.

use std::sync::{Arc, Mutex, MutexGuard};

use super::acts::Act;
use super::ledger::Ledger;
use super::*;
use crate::endpoint::ioat::regs::{bars, command};
use crate::endpoint::{Endpoint, ReadCompletion, ResetKind};
use crate::fabric::{Delivery, Observer, Port, Tag, Transaction};
use crate::pci::FunctionDescription;

/// Data of a step, the descriptors and records that do not count as such, and the answers of
/// registers, of which each channel waits for one at most.
const BYTES_OF_A_STEP: u64 = (64 << 10) + 64 * 64 + 4 * 4096;

/// The fabric counts accesses to registers by TLP, of 128 bytes at least where the
/// data are not aligned.
const ACCESSES_OF_A_STEP: u64 = 2 * 64 + (64 << 10) / 128 + 4;

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap()
    }
}

impl Observer for Shared {
    fn transaction(&mut self, access: &Transaction, delivery: &Delivery, data: Option<&[u8]>) {
        let delivered = matches!(delivery, Delivery::Delivered { .. });
        self.lock().access(access, data.filter(|_| delivered));
    }
}

/// The engine, and behind each of its methods a look at what has become of its registers.
#[derive(Debug)]
struct Followed {
    device: IoatDevice,
    ledger: Shared,
}

impl Endpoint for Followed {
    fn description(&self) -> FunctionDescription {
        self.device.description()
    }

    fn register_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.device.register_read(bar, offset, data);
    }

    fn register_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.device.register_write(bar, offset, data);
        self.ledger.lock().look(&self.device);
    }

    fn completion(&mut self, tag: Tag, completion: ReadCompletion<'_>) {
        self.device.completion(tag, completion);
    }

    fn step(&mut self, port: &mut Port<'_>) -> Progress {
        self.ledger.lock().begin(&self.device);
        let progress = self.device.step(port);
        self.ledger.lock().end(&self.device, progress == Progress::Worked);
        progress
    }

    fn reset(&mut self, kind: ResetKind) {
        self.device.reset(kind);
        self.ledger.lock().look(&self.device);
    }
}

pub(super) struct Watched {
    pub(super) bench: Bench,
    ledger: Shared,
}

impl Watched {
    pub(super) fn new(config: IoatConfig) -> Self {
        let ledger = Shared::default();
        let device = IoatDevice::new(&Bench::attached(config)).unwrap();
        let mut bench = Bench::of(Followed { device, ledger: ledger.clone() });
        bench.system.add_observer(Box::new(ledger.clone()));
        Self { bench, ledger }
    }

    /// Steps in which the engine had something to do.
    pub(super) fn steps(&self) -> u64 {
        self.ledger.lock().steps
    }

    fn put_bytes(&mut self, channel: u64, offset: u64, data: &[u8]) {
        self.bench
            .system
            .mmio_write(REGISTERS + (channel + 1) * bars::CHANNEL_STRIDE + offset, data);
    }

    pub(super) fn perform(&mut self, act: Act) {
        match act {
            Act::Write { offset, data } => {
                self.bench.system.mmio_write(REGISTERS + offset, &data);
            }
            Act::Register { channel, offset, value } => {
                self.put_bytes(channel, offset, &value.to_le_bytes());
                let mut data = [0; 8];
                self.bench.system.mmio_read(REGISTERS + (channel + 1) * 0x80 + offset, &mut data);
            }
            Act::Start { channel, chain, record, count, control } => {
                self.put_bytes(channel, channel::COMMAND, &[command::RESET]);
                self.put_bytes(channel, channel::ERROR, &[0xff; 4]);
                self.put_bytes(channel, channel::CONTROL, &control.to_le_bytes());
                self.put_bytes(channel, channel::COMPLETION, &record.to_le_bytes());
                self.put_bytes(channel, channel::CHAIN, &chain.to_le_bytes());
                self.put_bytes(channel, channel::COUNT, &count.to_le_bytes());
            }
            Act::Descriptor { at, words } => {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                self.bench.ram.write_slice(&bytes, GuestAddress(at)).unwrap();
            }
            Act::Command(value) => self.bench.system.config_write(BDF, 4, 2, value),
            Act::Reset => self.bench.function_level_reset(),
            Act::BringUp => self.bench.bring_up(),
            Act::Step(count) => {
                for _ in 0..count {
                    if self.step() == Progress::Idle {
                        break;
                    }
                }
            }
        }
    }

    /// One step of the system, and as much work as one may be.
    fn step(&mut self) -> Progress {
        {
            let mut ledger = self.ledger.lock();
            (ledger.accesses, ledger.bytes) = (0, 0);
        }
        let progress = self.bench.system.step();
        let Ledger { accesses, bytes, .. } = *self.ledger.lock();
        assert!(bytes <= BYTES_OF_A_STEP, "{bytes} bytes in one step");
        assert!(accesses <= ACCESSES_OF_A_STEP, "{accesses} accesses in one step");
        progress
    }

    /// Whatever was before: after a reset the device does what an ordinary driver asks it for.
    pub(super) fn serves_an_ordinary_driver(&mut self) {
        let bench = &mut self.bench;
        bench.function_level_reset();
        bench.run();
        bench.bring_up();
        bench.ram.write_slice(b"still here", GuestAddress(DATA)).unwrap();
        bench.put(&[copy(DATA, TARGET, 10)]);
        bench.start(1);
        bench.run();
        assert_eq!(bench.bytes(TARGET, 10), b"still here");
        assert_eq!(bench.record(), CHAIN | status::DONE);
    }
}
