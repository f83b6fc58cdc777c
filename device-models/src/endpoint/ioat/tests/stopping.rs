//! What stops a channel, what makes it go on, and when it interrupts.

use super::*;
use crate::endpoint::ioat::regs::command;

const LONG: u32 = 1 << 20;

/// A bench in the middle of a long copy.
fn half_way() -> Bench {
    let mut bench = Bench::new();
    bench.ram.write_slice(&vec![9; LONG as usize], GuestAddress(DATA)).unwrap();
    bench.put(&[copy(DATA, DATA + u64::from(LONG), LONG), copy(DATA, TARGET + 0x20_0000, 64)]);
    bench.start(2);
    bench.system.step();
    bench.system.step();
    assert_eq!(bench.read(channel::STATUS) & 7, status::ACTIVE);
    bench
}

fn arrived(bench: &Bench) -> bool {
    bench.bytes(DATA + u64::from(LONG), LONG as usize).iter().all(|byte| *byte == 9)
}

#[test]
fn suspend_waits_for_the_descriptor_and_resume_goes_on_with_the_next() {
    let mut bench = half_way();
    bench.write(channel::COMMAND, &[command::SUSPEND]);
    assert_eq!(bench.read(channel::STATUS) & 7, status::ACTIVE, "one is under way");
    bench.run();
    assert_eq!(bench.read(channel::STATUS), CHAIN | status::SUSPENDED);
    assert!(arrived(&bench));
    assert_eq!(bench.bytes(TARGET + 0x20_0000, 1), [0]);
    bench.write(channel::COMMAND, &[command::RESUME]);
    bench.run();
    assert_eq!(bench.read(channel::STATUS), (CHAIN + 64) | status::DONE);
    assert_eq!(bench.bytes(TARGET + 0x20_0000, 64), [9; 64]);
}

#[test]
fn abort_reset_and_function_level_reset_stop_at_once_and_say_nothing() {
    let stops: [fn(&mut Bench); 3] = [
        |bench| bench.write(channel::COMMAND, &[command::ABORT]),
        |bench| bench.write(channel::COMMAND, &[command::RESET]),
        Bench::function_level_reset,
    ];
    for (index, stop) in stops.into_iter().enumerate() {
        let mut bench = half_way();
        stop(&mut bench);
        bench.run();
        assert!(!arrived(&bench), "{index}");
        assert_eq!((bench.record(), bench.interrupts(), bench.error()), (0, 0, 0), "{index}");
        assert_eq!(bench.read(channel::STATUS) & 7, status::HALTED, "{index}");
        bench.bring_up();
        bench.start(2);
        bench.run();
        assert!(arrived(&bench), "{index}");
        assert_eq!(bench.record(), (CHAIN + 64) | status::DONE, "{index}");
    }
}

#[test]
fn an_unknown_command_is_an_error() {
    let mut bench = Bench::new();
    bench.write(channel::COMMAND, &[command::SUSPEND | command::RESUME]);
    bench.run();
    assert_eq!((bench.error(), bench.read(channel::STATUS) & 7), (error::COMMAND, status::HALTED));
}

#[test]
fn delayed_interrupts_become_one() {
    for (delay, expected) in [(0_u16, 4), (2000, 1)] {
        let mut bench = Bench::new();
        bench.system.mmio_write(REGISTERS + device::INTERRUPT_DELAY, &delay.to_le_bytes());
        for round in 1..=4_u16 {
            let at = CHAIN + u64::from(round - 1) * 64;
            let mut own = copy(DATA, TARGET, 64);
            own[3] = at + 64;
            let bytes: Vec<u8> = own.iter().flat_map(|word| word.to_le_bytes()).collect();
            bench.ram.write_slice(&bytes, GuestAddress(at)).unwrap();
            if round == 1 {
                bench.start(1);
            } else {
                bench.write(channel::COUNT, &round.to_le_bytes());
            }
            for _ in 0..100 {
                bench.system.step();
            }
            bench.write(channel::CONTROL, &control::REARM.to_le_bytes());
        }
        bench.run();
        assert_eq!(bench.interrupts(), expected, "with a delay of {delay}");
    }
}

#[test]
fn a_masked_error_halts_and_does_not_interrupt() {
    for (mask, expected) in [(0, 1), (error::LENGTH, 0)] {
        let mut bench = Bench::new();
        bench.write(channel::ERROR_MASK, &mask.to_le_bytes());
        bench.put(&[copy(DATA, TARGET, 0)]);
        bench.start(1);
        bench.run();
        assert_eq!((bench.error(), bench.interrupts()), (error::LENGTH, expected));
        assert_eq!(bench.read(channel::STATUS) & 7, status::HALTED);
    }
}

#[test]
fn without_bus_mastering_nothing_is_emitted() {
    let mut bench = Bench::new();
    bench.system.config_write(BDF, 0x04, 2, 0x2);
    bench.put(&[copy(DATA, TARGET, 64)]);
    bench.start(1);
    bench.run();
    assert_eq!((bench.record(), bench.interrupts()), (0, 0));
    assert_eq!(bench.error() & error::NEXT_ADDRESS, error::NEXT_ADDRESS);
}
