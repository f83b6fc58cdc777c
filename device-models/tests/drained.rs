//! Posted writes that are under way to RAM while the IOMMU takes their mapping away.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{Saw, World};
use device_models::endpoint::{Endpoint, Progress, ResetKind};
use device_models::fabric::{Port, PostedDelay, Purpose, WriteOutcome};
use device_models::iommu::VirtioIommu;
use device_models::iommu::virtio::VirtioIommuConfig;
use device_models::pci::{BarDescription, BarKind, Bdf, FunctionDescription, PortKind};
use device_models::system::Function;
use vm_memory::{Bytes, GuestAddress};

const POSTED: Saw = Saw::Wrote(WriteOutcome::Posted { verdict: None });
const ROBOT: Bdf = Bdf::new(1, 0, 0);
const DOMAIN: u32 = 1;
const IOVA: u64 = 0x10_0000;
const PAGE: u64 = 0x20_0000;
const ANSWER: u64 = 0x30_0000;

/// What the driver asks the IOMMU for, by writing it to a register.
const MAP: u8 = 1;
const UNMAP: u8 = 2;
const DETACH: u8 = 3;

/// The IOMMU's programming interface: it serves a request and says so in RAM.
#[derive(Debug, Default)]
struct Interface {
    request: Option<u8>,
}

impl Endpoint for Interface {
    fn description(&self) -> FunctionDescription {
        let bars = vec![BarDescription { index: 0, size: 0x1000, kind: BarKind::Memory32 }];
        FunctionDescription { vendor: 0x1af4, device: 0x1057, bars, ..Default::default() }
    }

    fn register_read(&mut self, _bar: u8, _offset: u64, _data: &mut [u8]) {}

    fn register_write(&mut self, _bar: u8, _offset: u64, data: &[u8]) {
        self.request = data.first().copied();
    }

    fn step(&mut self, port: &mut Port<'_>) -> Progress {
        let Some(request) = self.request.take() else { return Progress::Idle };
        let iommu = port.virtio_iommu().unwrap();
        match request {
            MAP => {
                iommu.map(DOMAIN, IOVA + 0x1000, IOVA + 0x1fff, PAGE + 0x1000, 3).unwrap();
            }
            UNMAP => assert_eq!(iommu.unmap(DOMAIN, IOVA, IOVA + 0xfff), Ok(1)),
            _ => iommu.detach(DOMAIN, ROBOT.0.into()).unwrap(),
        }
        port.write_bytes(Purpose::VirtQueue, ANSWER, &[1]);
        Progress::Worked
    }

    fn reset(&mut self, _kind: ResetKind) {}

    fn served_in_exit(&self) -> bool {
        true
    }
}

fn world() -> World {
    let mut iommu = VirtioIommu::new(VirtioIommuConfig::default());
    iommu.add_endpoint(ROBOT);
    iommu.attach(DOMAIN, ROBOT.0.into(), 0).unwrap();
    iommu.map(DOMAIN, IOVA, IOVA + 0xfff, PAGE, 3).unwrap();
    let mut world = World::new(1, Box::new(iommu), |robots| {
        let robot =
            robots.into_iter().map(|robot| Function::endpoint(0, "robot0", robot)).collect();
        vec![
            Function::endpoint(2, "iommu", Interface::default()),
            Function::bridge(4, "port0", common::port(PortKind::RootPort, true), robot),
        ]
    });
    assert_eq!(world.bdf("robot0"), ROBOT);
    let interface = world.bdf("iommu");
    world.system.config_write(interface, common::COMMAND, 2, common::MEMORY_AND_MASTER);
    world
}

fn request(world: &mut World, request: u8) {
    let interface = world.system.function("iommu").unwrap();
    let register = world.system.address_map().node(interface).bars[0].range.first;
    world.system.mmio_write(register, &[request]);
}

fn page(world: &World) -> [u8; 4] {
    let mut bytes = [0; 4];
    world.ram.read_slice(&mut bytes, GuestAddress(PAGE)).unwrap();
    bytes
}

#[test]
fn what_was_translated_arrives_before_the_invalidation_is_answered() {
    for invalidation in [UNMAP, DETACH] {
        let mut world = world();
        world.system.delay_posted(ROBOT, None, PostedDelay::UntilPushed).unwrap();
        assert_eq!(world.write(0, IOVA, &[9; 4]), POSTED);
        request(&mut world, MAP);
        assert_eq!(page(&world), [0; 4], "no translation was taken away");
        world.log.0.lock().unwrap().transactions.clear();
        request(&mut world, invalidation);
        assert_eq!(page(&world), [9; 4]);
        let log = world.log.0.lock().unwrap();
        let order: Vec<_> = log.transactions.iter().map(|(t, _)| t.address).collect();
        assert_eq!(order, [IOVA, ANSWER], "the data comes first");
        drop(log);
        assert!(world.log.classes().is_empty());
    }
}
