//! Delayed paths under a guest that does anything: nothing panics, nothing grows without bounds,
//! everything comes to rest, and the same inputs give the same transactions and findings.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::{Arc, Mutex};

use common::{COMMAND, Order, World};
use device_models::checker::Finding;
use device_models::endpoint::Progress;
use device_models::fabric::{Delivery, FunctionId, Input, Observer, PostedDelay, Transaction};
use device_models::iommu::NoIommu;
use device_models::pci::Bdf;
use proptest::prelude::*;

/// What the guest does next. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Act {
    Order { robot: usize, order: Order, times: usize },
    Arm { from: usize, to: Option<usize>, delay: PostedDelay },
    Fence(usize),
    Step(usize),
    Run,
    ReadRegisters(usize),
    ReadMemory(usize),
    WriteMemory(usize),
    ReadConfig(usize),
    WriteRegisters(usize),
    Config { what: usize, offset: u16, length: u8, value: u32 },
    Slot { port: usize, filled: bool },
}

/// The same as it was seen, with everything that a replay needs.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Order { robot: usize, order: Order, times: usize },
    Config { bdf: Bdf, offset: u16, length: u8, value: u32 },
    ConfigRead { bdf: Bdf, offset: u16, length: u8, value: u32 },
    Write { address: u64, data: Vec<u8> },
    Read { address: u64, data: Vec<u8> },
    CpuPush(FunctionId),
    Unplug(Bdf),
    Plug(Bdf),
    Delay { requester: Bdf, target: Option<Bdf>, delay: PostedDelay },
    Fence(Bdf),
    Step(FunctionId),
    Transaction(Transaction, Delivery, Option<Vec<u8>>),
    Finding(String),
}

impl Seen {
    fn is_cause(&self) -> bool {
        !matches!(self, Self::Transaction(..) | Self::Finding(_))
    }
}

#[derive(Debug, Clone, Default)]
struct Record(Arc<Mutex<Vec<Seen>>>);

impl Record {
    fn push(&self, seen: Seen) {
        self.0.lock().unwrap().push(seen);
    }
}

impl Observer for Record {
    fn transaction(&mut self, transaction: &Transaction, delivery: &Delivery, data: Option<&[u8]>) {
        self.push(Seen::Transaction(*transaction, *delivery, data.map(<[u8]>::to_vec)));
    }

    fn finding(&mut self, finding: &Finding) {
        self.push(Seen::Finding(finding.to_string()));
    }

    fn input(&mut self, input: &Input<'_>) {
        self.push(match *input {
            Input::ConfigWrite { bdf, offset, length, value } => {
                Seen::Config { bdf, offset, length, value }
            }
            Input::ConfigRead { bdf, offset, length, value } => {
                Seen::ConfigRead { bdf, offset, length, value }
            }
            Input::MmioWrite { address, data } => Seen::Write { address, data: data.to_vec() },
            Input::MmioRead { address, data } => Seen::Read { address, data: data.to_vec() },
            Input::CpuPush { function } => Seen::CpuPush(function),
            Input::Unplug { port } => Seen::Unplug(port),
            Input::Plug { port } => Seen::Plug(port),
            Input::DelayPosted { requester, target, delay } => {
                Seen::Delay { requester, target, delay }
            }
            Input::FenceSeen { requester } => Seen::Fence(requester),
            Input::Step { function } => Seen::Step(function),
            Input::Outside { .. } | Input::Witness { .. } => {
                unreachable!("robots take nothing from outside")
            }
        });
    }
}

/// Six paths of 1024 writes, each of five TLPs of 128 bytes, and the reads that wait.
const BOUND: u64 = 6 * 1024 * 5 + 2 * 64;

const NAMES: [[&str; 4]; 2] =
    [["robot0", "robot1", "port0", "port1"], ["robot0", "robot1", "down0", "down1"]];

/// Numbers and addresses as they were when everything was there: a guest may use them whenever it
/// likes.
struct Bench {
    world: World,
    record: Record,
    bdfs: [Bdf; 4],
    bars: [[u64; 2]; 2],
    functions: [FunctionId; 4],
    /// TLPs before the record began.
    issued: u64,
}

fn fresh(switch: bool) -> Bench {
    let mut world = if switch {
        World::switch(Box::new(NoIommu), false)
    } else {
        World::root_ports(Box::new(NoIommu))
    };
    let names = NAMES[usize::from(switch)];
    let record = Record::default();
    world.system.add_observer(Box::new(record.clone()));
    Bench {
        bdfs: names.map(|name| world.bdf(name)),
        functions: names.map(|name| world.system.function(name).unwrap()),
        bars: [0, 1].map(|robot| [0, 2].map(|bar| world.bar(robot, bar))),
        issued: world.system.transactions(),
        world,
        record,
    }
}

impl Bench {
    fn act(&mut self, act: Act) {
        let Self { world, record, bdfs, bars, functions, .. } = self;
        let system = &mut world.system;
        match act {
            Act::Order { robot, order, times } => {
                let order = place(order, bars);
                for _ in 0..times {
                    world.scripts[robot].lock().unwrap().orders.push_back(order.clone());
                }
                record.push(Seen::Order { robot, order, times });
            }
            Act::Arm { from, to, delay } => {
                // A function that is not there, or a path to itself, is the guest's own fault.
                let _ = system.delay_posted(bdfs[from], to.map(|to| bdfs[to]), delay);
            }
            Act::Fence(robot) => {
                let _ = system.fence_seen(bdfs[robot]);
            }
            Act::Step(function) => {
                system.step_function(functions[function]);
            }
            Act::Run => self.rest(),
            Act::ReadRegisters(robot) => {
                system.mmio_read(bars[robot][0], &mut [0; 4]);
            }
            Act::ReadMemory(robot) => {
                system.mmio_read(bars[robot][1], &mut [0; 8]);
            }
            Act::WriteMemory(robot) => {
                system.mmio_write(bars[robot][1], &[2; 8]);
            }
            Act::ReadConfig(what) => {
                system.config_read(bdfs[what], 0, 4);
            }
            Act::WriteRegisters(robot) => {
                system.mmio_write(bars[robot][0], &[1; 4]);
            }
            Act::Config { what, offset, length, value } => {
                system.config_write(bdfs[what], offset, length, value);
            }
            Act::Slot { port, filled } => {
                let port = bdfs[2 + port];
                let _ = if filled { system.plug(port) } else { system.unplug(port) };
            }
        }
    }

    /// TLPs that have been issued and have neither arrived nor failed.
    fn under_way(&self) -> u64 {
        let seen = self.record.0.lock().unwrap();
        let ended = seen.iter().filter_map(|seen| match seen {
            Seen::Transaction(transaction, ..) => Some(transaction.tlp_count()),
            _ => None,
        });
        self.world.system.transactions() - self.issued - ended.sum::<u64>()
    }

    /// Everything comes to rest, however long delays are.
    fn rest(&mut self) {
        let orders: usize =
            self.world.scripts.iter().map(|script| script.lock().unwrap().orders.len()).sum();
        let bound = 50_000 + 100 * orders;
        for _ in 0..bound {
            if self.world.system.step() == Progress::Idle {
                return;
            }
        }
        panic!("the system does not come to rest");
    }

    fn replay(&mut self, cause: &Seen) {
        let system = &mut self.world.system;
        match cause.clone() {
            Seen::Order { robot, order, times } => {
                for _ in 0..times {
                    self.world.scripts[robot].lock().unwrap().orders.push_back(order.clone());
                }
                self.record.push(cause.clone());
            }
            Seen::Config { bdf, offset, length, value } => {
                system.config_write(bdf, offset, length, value);
            }
            Seen::ConfigRead { bdf, offset, length, .. } => {
                system.config_read(bdf, offset, length);
            }
            Seen::Write { address, data } => {
                system.mmio_write(address, &data);
            }
            Seen::Read { address, data } => {
                system.mmio_read(address, &mut vec![0; data.len()]);
            }
            Seen::CpuPush(function) => {
                system.cpu_push(function);
            }
            Seen::Unplug(port) => system.unplug(port).unwrap(),
            Seen::Plug(port) => system.plug(port).unwrap(),
            Seen::Delay { requester, target, delay } => {
                // One path too many is in the record too.
                let _ = system.delay_posted(requester, target, delay);
            }
            Seen::Fence(requester) => system.fence_seen(requester).unwrap(),
            Seen::Step(function) => {
                system.step_function(function);
            }
            Seen::Transaction(..) | Seen::Finding(_) => {}
        }
    }
}

/// An order's address is a place, robot times two plus BAR, or RAM, and an offset.
fn place(order: Order, bars: &[[u64; 2]; 2]) -> Order {
    let at = |address: u64| match usize::try_from(address >> 32).unwrap() {
        place @ 0..4 => bars[place / 2][place % 2] + (address & 0xfff),
        _ => 0x1000 + (address & 0xfff),
    };
    match order {
        Order::Read { address, length } => Order::Read { address: at(address), length },
        Order::Write { address, data } => Order::Write { address: at(address), data },
        Order::Record { address, data } => Order::Record { address: at(address), data },
        Order::Signal { data, .. } => Order::Signal { address: 0xfee0_0000, data },
        order @ Order::Raise(_) => order,
    }
}

fn order() -> impl Strategy<Value = Order> {
    let address =
        || (0..5u64, (0..0x200u64).prop_map(|dword| dword * 4)).prop_map(|(p, o)| p << 32 | o);
    let data = || prop::collection::vec(any::<u8>(), 1..600);
    prop_oneof![
        2 => (address(), 1..64usize).prop_map(|(address, length)| Order::Read { address, length }),
        5 => (address(), data()).prop_map(|(address, data)| Order::Write { address, data }),
        1 => address().prop_map(|address| Order::Record { address, data: vec![1; 4] }),
        1 => prop::collection::vec(any::<u8>(), 1..6)
            .prop_map(|data| Order::Signal { address: 0, data }),
        1 => (0..5u16).prop_map(Order::Raise),
    ]
}

fn delay() -> impl Strategy<Value = PostedDelay> {
    prop_oneof![
        1 => Just(PostedDelay::Off),
        3 => Just(PostedDelay::UntilPushed),
        1 => (1..200u16).prop_map(PostedDelay::Turns),
        1 => Just(PostedDelay::Turns(u16::MAX)),
    ]
}

/// Command, BARs, the bus numbers and windows of bridges, Bridge Control (Secondary Bus Reset).
fn config() -> impl Strategy<Value = Act> {
    let write = |what, offset, length, value| Act::Config { what, offset, length, value };
    prop_oneof![
        (0..4usize, prop_oneof![Just(6), Just(4), Just(2), Just(0)])
            .prop_map(move |(what, value)| write(what, COMMAND, 2, value)),
        (0..4usize, 0x10..0x28u16, any::<u32>()).prop_map(move |(what, offset, value)| write(
            what,
            offset & !3,
            4,
            value
        )),
        (2..4usize, 0..5u32).prop_map(move |(what, bus)| write(
            what,
            0x18,
            4,
            bus << 16 | bus << 8
        )),
        (2..4usize, any::<bool>()).prop_map(move |(what, set)| write(
            what,
            0x3e,
            2,
            u32::from(set) << 6
        )),
        // Device Control, wherever it may be: among others, a function level reset.
        (0..2usize, 0x40..0x100u16).prop_map(move |(what, offset)| write(
            what,
            offset & !3,
            2,
            1 << 15
        )),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..2usize, order(), prop_oneof![4 => Just(1usize), 1 => 1..1500usize])
            .prop_map(|(robot, order, times)| Act::Order { robot, order, times }),
        4 => (0..2usize, prop::option::of(0..2usize), delay())
            .prop_map(|(from, to, delay)| Act::Arm { from, to, delay }),
        1 => (0..2usize).prop_map(Act::Fence),
        6 => (0..4usize).prop_map(Act::Step),
        4 => Just(Act::Run),
        2 => (0..2usize).prop_map(Act::ReadRegisters),
        2 => (0..2usize).prop_map(Act::ReadMemory),
        1 => (0..2usize).prop_map(Act::WriteMemory),
        1 => (0..4usize).prop_map(Act::ReadConfig),
        1 => (0..2usize).prop_map(Act::WriteRegisters),
        2 => config(),
        1 => (0..2usize, any::<bool>()).prop_map(|(port, filled)| Act::Slot { port, filled }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_to_delayed_paths_can_be_done_again(
        switch in any::<bool>(),
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut bench = fresh(switch);
        for act in acts {
            bench.act(act);
        }
        bench.rest();
        prop_assert!(bench.under_way() <= BOUND, "{} TLPs", bench.under_way());
        let seen = std::mem::take(&mut *bench.record.0.lock().unwrap());
        let mut again = fresh(switch);
        for (index, cause) in seen.iter().enumerate().filter(|(_, seen)| seen.is_cause()) {
            // What came of a cause is recorded behind it.
            let so_far = again.record.0.lock().unwrap().len();
            prop_assert_eq!(so_far, index, "events before {:?}", cause);
            again.replay(cause);
        }
        let replayed = std::mem::take(&mut *again.record.0.lock().unwrap());
        for (index, (first, second)) in seen.iter().zip(&replayed).enumerate() {
            prop_assert_eq!(first, second, "event {}", index);
        }
        prop_assert_eq!(seen.len(), replayed.len());
    }
}
