//! A system in a test: RAM, a recording observer, and an endpoint that does what the test asks of
//! it.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use device_models::checker::Finding;
use device_models::endpoint::{Endpoint, Progress, ReadCompletion, ResetKind};
use device_models::fabric::{
    CompletionStatus, Delivery, InterruptSink, Observer, Port, Purpose, ReadOutcome, RouteKind,
    Tag, Transaction, WriteOutcome,
};
use device_models::iommu::Iommu;
use device_models::memory::Memory;
use device_models::pci::firmware::HostResources;
use device_models::pci::{
    AcsCapabilities, AcsControl, BarDescription, BarKind, Bdf, BridgeDescription,
    FunctionDescription, PortKind,
};
use device_models::system::{Function, System, Topology};
use vm_memory::{GuestAddress, GuestMemoryMmap};

pub const RAM: u64 = 16 << 20;

pub const RESOURCES: HostResources = HostResources {
    buses: 0..=15,
    memory: 0xc000_0000..=0xdfff_ffff,
    prefetchable: 0x10_0000_0000..=0x1f_ffff_ffff,
};

/// What a [`Robot`] has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Read {
        address: u64,
        length: usize,
    },
    Write {
        address: u64,
        data: Vec<u8>,
    },
    /// A completion record.
    Record {
        address: u64,
        data: Vec<u8>,
    },
    /// A message-signalled interrupt of the robot's own making.
    Signal {
        address: u64,
        data: Vec<u8>,
    },
    Raise(u16),
}

/// What it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saw {
    Read(CompletionStatus, Vec<u8>),
    Wrote(WriteOutcome),
    NotEmitted,
    Register { offset: u64, data: Vec<u8> },
}

#[derive(Debug, Default)]
pub struct Script {
    pub orders: VecDeque<Order>,
    pub saw: Vec<Saw>,
    /// Orders to carry out when a register is written.
    pub on_write: Vec<Order>,
    pub waiting: Option<Tag>,
    /// Completions that arrived, whether waited for or not.
    pub completions: usize,
}

/// An endpoint with 4 KiB of registers (BAR 0), 1 MiB of memory (BAR 2) and 4 MSI-X vectors (BAR
/// 4).
#[derive(Debug)]
pub struct Robot {
    pub script: Arc<Mutex<Script>>,
    memory: Memory,
}

impl Robot {
    pub fn new() -> (Self, Arc<Mutex<Script>>) {
        let script = Arc::default();
        let robot =
            Self { script: Arc::clone(&script), memory: Memory::new("robot", 1 << 20).unwrap() };
        (robot, script)
    }
}

impl Endpoint for Robot {
    fn description(&self) -> FunctionDescription {
        FunctionDescription {
            vendor: 0x1234,
            device: 0x5678,
            bars: vec![
                BarDescription { index: 0, size: 0x1000, kind: BarKind::Memory32 },
                BarDescription {
                    index: 2,
                    size: 1 << 20,
                    kind: BarKind::Memory64 { prefetchable: true },
                },
                BarDescription { index: 4, size: 0x1000, kind: BarKind::Memory32 },
            ],
            msix_vectors: 4,
            msix_bar: 4,
            flr: true,
            aer: true,
            ..FunctionDescription::default()
        }
    }

    fn register_read(&mut self, _bar: u8, offset: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte = at.to_le_bytes()[0];
        }
    }

    fn register_write(&mut self, _bar: u8, offset: u64, data: &[u8]) {
        let mut script = self.script.lock().unwrap();
        script.saw.push(Saw::Register { offset, data: data.to_vec() });
        let orders = script.on_write.clone();
        script.orders.extend(orders);
    }

    fn memory(&self, bar: u8) -> Option<&Memory> {
        (bar == 2).then_some(&self.memory)
    }

    fn completion(&mut self, tag: Tag, completion: ReadCompletion<'_>) {
        let mut script = self.script.lock().unwrap();
        script.completions += 1;
        if script.waiting == Some(tag) {
            script.waiting = None;
            script.saw.push(Saw::Read(completion.status, completion.data.to_vec()));
        }
    }

    fn step(&mut self, port: &mut Port<'_>) -> Progress {
        let mut script = self.script.lock().unwrap();
        if script.waiting.is_some() {
            return Progress::Idle;
        }
        let Some(order) = script.orders.pop_front() else { return Progress::Idle };
        match &order {
            Order::Read { address, length } => {
                let mut data = vec![0; *length];
                match port.read_bytes(Purpose::Data, *address, &mut data) {
                    ReadOutcome::Done { status, bytes, .. } => {
                        data.truncate(usize::try_from(bytes).unwrap());
                        script.saw.push(Saw::Read(status, data));
                    }
                    ReadOutcome::Pending { tag, .. } => script.waiting = Some(tag),
                    ReadOutcome::Retry { .. } => script.orders.push_front(order),
                    ReadOutcome::NotEmitted => script.saw.push(Saw::NotEmitted),
                }
            }
            Order::Write { address, data } => match port.write_bytes(Purpose::Data, *address, data)
            {
                WriteOutcome::Retry { .. } => script.orders.push_front(order),
                outcome => script.saw.push(Saw::Wrote(outcome)),
            },
            Order::Record { address, data } => {
                match port.write_bytes(Purpose::CompletionRecord, *address, data) {
                    WriteOutcome::Retry { .. } => script.orders.push_front(order),
                    outcome => script.saw.push(Saw::Wrote(outcome)),
                }
            }
            Order::Signal { address, data } => {
                match port.write_bytes(Purpose::Interrupt, *address, data) {
                    WriteOutcome::Retry { .. } => script.orders.push_front(order),
                    outcome => script.saw.push(Saw::Wrote(outcome)),
                }
            }
            Order::Raise(vector) => {
                let outcome = port.raise(*vector);
                script.saw.push(Saw::Wrote(outcome));
            }
        }
        Progress::Worked
    }

    fn reset(&mut self, _kind: ResetKind) {
        let mut script = self.script.lock().unwrap();
        script.orders.clear();
        script.waiting = None;
    }
}

/// Keeps what happened.
#[derive(Debug, Default)]
pub struct Log {
    pub transactions: Vec<(Transaction, Delivery)>,
    pub findings: Vec<Finding>,
    pub interrupts: Vec<(u64, u32)>,
}

#[derive(Debug, Clone, Default)]
pub struct Shared(pub Arc<Mutex<Log>>);

impl Observer for Shared {
    fn transaction(
        &mut self,
        transaction: &Transaction,
        delivery: &Delivery,
        _data: Option<&[u8]>,
    ) {
        self.0.lock().unwrap().transactions.push((*transaction, *delivery));
    }

    fn finding(&mut self, finding: &Finding) {
        self.0.lock().unwrap().findings.push(finding.clone());
    }
}

impl InterruptSink for Shared {
    fn signal_msi(&mut self, address: u64, data: u32) {
        self.0.lock().unwrap().interrupts.push((address, data));
    }
}

impl Shared {
    /// The classes found since the last call.
    pub fn classes(&self) -> Vec<&'static str> {
        let findings = std::mem::take(&mut self.0.lock().unwrap().findings);
        findings.iter().map(|finding| finding.class.name()).collect()
    }
}

pub struct World {
    pub system: System,
    pub log: Shared,
    pub ram: GuestMemoryMmap<()>,
    pub scripts: Vec<Arc<Mutex<Script>>>,
}

pub const COMMAND: u16 = 4;
pub const MEMORY_AND_MASTER: u32 = 6;

impl World {
    /// `topology` places the robots that it is given.
    pub fn new(
        robots: usize,
        iommu: Box<dyn Iommu>,
        topology: impl FnOnce(Vec<Robot>) -> Vec<Function>,
    ) -> Self {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), usize::try_from(RAM).unwrap())])
            .unwrap();
        let (robots, scripts): (Vec<_>, Vec<_>) = (0..robots).map(|_| Robot::new()).unzip();
        let log = Shared::default();
        let topology = Topology::of(topology(robots));
        let mut system = System::new(topology, &ram, iommu, Box::new(log.clone())).unwrap();
        system.run_firmware(&RESOURCES).unwrap();
        system.add_observer(Box::new(log.clone()));
        let mut world = Self { system, log, ram, scripts };
        for index in 0..world.scripts.len() {
            world.config_write(index, COMMAND, 2, MEMORY_AND_MASTER);
        }
        world
    }

    /// Two robots, each below a root port of its own.
    pub fn root_ports(iommu: Box<dyn Iommu>) -> Self {
        Self::new(2, iommu, |robots| {
            robots
                .into_iter()
                .zip(4..)
                .enumerate()
                .map(|(index, (robot, device))| {
                    let below = vec![Function::endpoint(0, format!("robot{index}"), robot)];
                    Function::bridge(
                        device,
                        format!("port{index}"),
                        port(PortKind::RootPort, true),
                        below,
                    )
                })
                .collect()
        })
    }

    /// Two robots below one switch, whose downstream ports have ACS if `acs`.
    pub fn switch(iommu: Box<dyn Iommu>, acs: bool) -> Self {
        Self::new(2, iommu, |robots| {
            let below = robots
                .into_iter()
                .zip(0..)
                .map(|(robot, index)| {
                    let robot = vec![Function::endpoint(0, format!("robot{index}"), robot)];
                    Function::bridge(
                        index,
                        format!("down{index}"),
                        port(PortKind::SwitchDownstream, acs),
                        robot,
                    )
                })
                .collect();
            let upstream = Function::bridge(0, "up", port(PortKind::SwitchUpstream, false), below);
            vec![Function::bridge(4, "port0", port(PortKind::RootPort, true), vec![upstream])]
        })
    }

    pub fn bdf(&self, name: &str) -> Bdf {
        let function = self.system.function(name).unwrap();
        self.system.address_map().node(function).requester
    }

    pub fn config_write(&mut self, robot: usize, offset: u16, length: u8, value: u32) {
        let bdf = self.bdf(&format!("robot{robot}"));
        self.system.config_write(bdf, offset, length, value);
    }

    /// Where the capability `id` of a function begins.
    pub fn capability(&mut self, bdf: Bdf, id: u32) -> u16 {
        let mut offset = u16::try_from(self.system.config_read(bdf, 0x34, 1)).unwrap();
        while self.system.config_read(bdf, offset, 1) != id {
            offset = u16::try_from(self.system.config_read(bdf, offset + 1, 1)).unwrap();
            assert_ne!(offset, 0, "{bdf} has no capability {id:#x}");
        }
        offset
    }

    /// Where the extended capability `id` of a function begins.
    pub fn extended_capability(&mut self, bdf: Bdf, id: u32) -> u16 {
        let mut offset = 0x100;
        while self.system.config_read(bdf, offset, 2) != id {
            offset = u16::try_from(self.system.config_read(bdf, offset + 2, 2) >> 4).unwrap();
            assert_ne!(offset, 0, "{bdf} has no extended capability {id:#x}");
        }
        offset
    }

    /// The programmed address of a robot's BAR.
    pub fn bar(&self, robot: usize, bar: u8) -> u64 {
        let function = self.system.function(&format!("robot{robot}")).unwrap();
        let node = self.system.address_map().node(function);
        node.bars.iter().find(|mapped| mapped.index == bar).unwrap().range.first
    }

    pub fn order(&self, robot: usize, order: Order) {
        self.scripts[robot].lock().unwrap().orders.push_back(order);
    }

    /// Steps until nothing happens any more.
    pub fn run(&mut self) {
        for _ in 0..100_000 {
            if self.system.step() == Progress::Idle {
                return;
            }
        }
        panic!("the system does not come to rest");
    }

    /// Carries out one order and gives back what the robot saw.
    pub fn now(&mut self, robot: usize, order: Order) -> Saw {
        self.scripts[robot].lock().unwrap().saw.clear();
        self.order(robot, order);
        self.run();
        self.scripts[robot].lock().unwrap().saw.last().cloned().expect("the order was carried out")
    }

    pub fn write(&mut self, robot: usize, address: u64, data: &[u8]) -> Saw {
        self.now(robot, Order::Write { address, data: data.to_vec() })
    }

    pub fn read(&mut self, robot: usize, address: u64, length: usize) -> Saw {
        self.now(robot, Order::Read { address, length })
    }
}

pub fn port(kind: PortKind, acs: bool) -> BridgeDescription {
    BridgeDescription {
        vendor: 0x1234,
        device: 1,
        acs: acs.then(AcsCapabilities::default),
        ..BridgeDescription::new(kind)
    }
}

impl World {
    /// The offset of the ACS capability (ID 0x0d) of the function called `name`.
    pub fn acs(&mut self, name: &str) -> u16 {
        let bdf = self.bdf(name);
        let mut offset = 0x100;
        while offset != 0 {
            let header = self.system.config_read(bdf, offset, 4);
            if header & 0xffff == 0xd {
                return offset;
            }
            offset = u16::try_from(header >> 20).unwrap();
        }
        panic!("{name} has no ACS capability");
    }

    /// Sets the ACS controls of the function called `name`.
    pub fn set_acs(&mut self, name: &str, control: AcsControl) {
        let (bdf, offset) = (self.bdf(name), self.acs(name));
        self.system.config_write(bdf, offset + 6, 2, control.bits().into());
    }

    /// The way that the last delivered transaction took.
    pub fn last_route(&self) -> Option<RouteKind> {
        match self.log.0.lock().unwrap().transactions.last()?.1 {
            Delivery::Delivered { route, .. } => Some(route),
            Delivery::Failed(_) => None,
        }
    }
}
