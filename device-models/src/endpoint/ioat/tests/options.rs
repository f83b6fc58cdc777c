//! What can be chosen about an engine.

use super::*;
use crate::endpoint::ioat::{BadConfig, TRANSFER_CAPACITIES};

#[test]
fn a_smaller_transfer_capacity_is_reported_and_is_the_limit() {
    for (length, errors) in [(4096, 0), (4097, error::LENGTH)] {
        let mut bench = Bench::with(IoatConfig { transfer_capacity: 12, ..IoatConfig::default() });
        let mut capacity = [0];
        bench.system.mmio_read(REGISTERS + device::TRANSFER_CAPACITY, &mut capacity);
        assert_eq!(capacity, [12]);
        bench.put(&[copy(DATA, TARGET, length)]);
        bench.start(1);
        bench.run();
        assert_eq!(bench.error(), errors, "{length} bytes");
    }
    for transfer_capacity in [TRANSFER_CAPACITIES.start() - 1, TRANSFER_CAPACITIES.end() + 1] {
        let config = IoatConfig { transfer_capacity, ..IoatConfig::default() };
        let error = IoatDevice::new(&config).unwrap_err();
        assert_eq!(error, BadConfig::TransferCapacity(transfer_capacity));
    }
}

#[test]
fn a_broken_engine_stays_broken() {
    let mut bench = Bench::with(IoatConfig { fault: fault::CORRUPT_DATA, ..IoatConfig::default() });
    for _ in 0..2 {
        bench.ram.write_slice(&[7; 64], GuestAddress(DATA)).unwrap();
        for _ in 0..2 {
            bench.put(&[copy(DATA, TARGET, 64)]);
            bench.start(1);
            bench.run();
            assert_eq!(bench.bytes(TARGET, 2), [!7, 7]);
        }
        bench.function_level_reset();
        bench.bring_up();
    }
}

#[test]
fn a_hidden_completion_is_never_told_by_the_status() {
    let mut bench =
        Bench::with(IoatConfig { fault: fault::HIDE_COMPLETION, ..IoatConfig::default() });
    bench.ram.write_slice(&[7; 64], GuestAddress(DATA)).unwrap();
    bench.put(&[copy(DATA, TARGET, 64)]);
    bench.start(1);
    bench.run();
    assert_eq!(bench.bytes(TARGET, 64), [7; 64]);
    assert_eq!(bench.read(channel::STATUS), status::ACTIVE);
    bench.write(channel::COMMAND, &[super::super::regs::command::RESET]);
    assert_eq!(bench.read(channel::STATUS), status::HALTED);
}
