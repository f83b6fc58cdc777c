//! Configuration spaces within the system: what a guest's kernel finds and does, from enumeration
//! to error reporting.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{Order, Saw, World, port};
use device_models::checker::FindingClass;
use device_models::endpoint::peer::{PeerConfig, PeerDevice};
use device_models::fabric::WriteOutcome;
use device_models::iommu::NoIommu;
use device_models::pci::{Bdf, BridgeDescription, PortKind};
use device_models::system::{self, FunctionKind};

const CLEAN: Saw = Saw::Wrote(WriteOutcome::Posted { verdict: None });
const LOST: Saw = Saw::Wrote(WriteOutcome::Posted { verdict: Some(FindingClass::NoTarget) });

/// An address that no function claims.
const NOWHERE: u64 = 0x8000_0000;

/// A configuration space as software sees it.
struct Function<'a>(&'a mut World, Bdf);

impl Function<'_> {
    fn read(&mut self, offset: u16, length: u8) -> u32 {
        self.0.system.config_read(self.1, offset, length)
    }

    fn write(&mut self, offset: u16, length: u8, value: u32) {
        self.0.system.config_write(self.1, offset, length, value);
    }

    fn capability(&mut self, id: u32) -> u16 {
        let mut at = 0x34;
        for _ in 0..48 {
            let offset = u16::try_from(self.read(at, 1)).unwrap();
            assert_ne!(offset, 0, "no capability {id:#x} in {}", self.1);
            if self.read(offset, 1) == id {
                return offset;
            }
            at = offset + 1;
        }
        panic!("the list does not end");
    }

    fn extended(&mut self, id: u32) -> u16 {
        let mut at = 0x100;
        while at != 0 {
            let header = self.read(at, 4);
            if header & 0xffff == id {
                return at;
            }
            at = u16::try_from(header >> 20).unwrap();
        }
        panic!("no extended capability {id:#x} in {}", self.1);
    }

    /// Sets error reporting up as Linux does.
    fn report_errors(&mut self) {
        let (device, aer) = (self.capability(0x10) + 8, self.extended(1));
        let control = self.read(device, 2);
        self.write(device, 2, control | 0xf);
        self.write(aer + 0x14, 4, 0);
    }
}

fn function<'a>(world: &'a mut World, name: &str) -> Function<'a> {
    let bdf = world.bdf(name);
    Function(world, bdf)
}

/// Switches MSI and the error interrupt of a root port on; where its AER capability is.
fn serve_errors(root: &mut Function<'_>) -> u16 {
    root.report_errors();
    let (msi, aer) = (root.capability(5), root.extended(1));
    root.write(msi + 4, 4, 0xfee0_0000);
    root.write(msi + 12, 2, 0x41);
    root.write(msi + 2, 2, 1);
    root.write(aer + 0x2c, 4, 7);
    aer
}

/// PCIe 6.0, 6.2: a write that no function claims is logged by the root port and interrupts.
#[test]
fn a_lost_write_shows_in_the_root_port() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let aer = serve_errors(&mut function(&mut world, "port1"));
    assert_eq!(world.write(1, NOWHERE, &[1, 2, 3, 4]), LOST);
    world.run();
    let own = world.bdf("port1");
    let mut root = function(&mut world, "port1");
    assert_eq!(root.read(aer + 4, 4), 1 << 20, "unsupported request");
    assert_eq!(root.read(aer + 0x30, 4), 0b10_0100);
    assert_eq!(root.read(aer + 0x34, 4) >> 16, u32::from(own.0));
    assert_eq!(root.read(aer + 0x1c, 4), 0x4000_0001);
    assert_eq!(root.read(aer + 0x24, 4), 0x8000_0000);
    assert_eq!(world.log.0.lock().unwrap().interrupts, [(0xfee0_0000, 0x41)]);
    // The other port knows nothing of it.
    let mut other = function(&mut world, "port0");
    let aer = other.extended(1);
    assert_eq!(other.read(aer + 4, 4), 0);
}

/// An error logged by a switch port reaches the root port through the bridges above.
#[test]
fn a_switch_port_reports_to_the_root_port() {
    let mut world = World::switch(Box::new(NoIommu), true);
    for name in ["up", "down0"] {
        function(&mut world, name).report_errors();
    }
    let aer = serve_errors(&mut function(&mut world, "port0"));
    // With bus mastering off in the downstream port, what comes from below is unsupported there.
    let source = world.bdf("down0");
    function(&mut world, "down0").write(4, 2, 2);
    world.write(0, 0x1000, &[1; 4]);
    world.run();
    let mut root = function(&mut world, "port0");
    assert_eq!(root.read(aer + 0x34, 4) >> 16, u32::from(source.0));
    assert_eq!(root.read(aer + 4, 4), 0, "the error is not the root port's own");
    let mut down = function(&mut world, "down0");
    let aer = down.extended(1);
    assert_eq!(down.read(aer + 4, 4), 1 << 20);
    assert_eq!(world.log.0.lock().unwrap().interrupts.len(), 1);
}

/// PCIe 6.0, 6.6.1: what is below a bridge is gone while its reset bit is set, and as new after.
#[test]
fn a_secondary_bus_reset_clears_what_is_below() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let bar = world.bar(0, 2);
    let device = world.bdf("robot0");
    let mut bridge = function(&mut world, "port0");
    let control = bridge.read(0x3e, 2);
    bridge.write(0x3e, 2, control | 0x40);
    world.run();
    assert_eq!(world.now(1, Order::Read { address: bar, length: 4 }), refused());
    function(&mut world, "port0").write(0x3e, 2, control);
    world.run();
    let mut below = Function(&mut world, device);
    assert_eq!(below.read(0, 4), 0x5678_1234);
    assert_eq!(below.read(4, 2), 0, "Command");
    assert_eq!(below.read(0x18, 4), 0xc, "BAR 2");
}

/// PCIe 6.0, 7.5.3.7: what is below a disabled link is gone; a retrain at another target speed
/// shows at both ends.
#[test]
fn a_link_is_disabled_and_retrained() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let (device, memory) = (world.bdf("robot0"), world.bar(0, 2));
    let mut port = function(&mut world, "port0");
    let link = port.capability(0x10) + 0x10;
    port.write(link, 2, 0x10);
    assert_eq!(port.read(link + 2, 2) & 0x2000, 0);
    world.run();
    assert_eq!(Function(&mut world, device).read(0, 4), u32::MAX);
    assert_eq!(world.now(1, Order::Read { address: memory, length: 4 }), refused());
    let mut port = function(&mut world, "port0");
    port.write(link, 2, 0);
    port.write(link + 0x20, 2, 2);
    port.write(link, 2, 0x20);
    assert_eq!(port.read(link + 2, 2) & 0x200f, 0x2002);
    world.run();
    let mut below = Function(&mut world, device);
    assert_eq!(below.read(4, 2), 0, "it was reset");
    let link = below.capability(0x10) + 0x10;
    assert_eq!(below.read(link + 2, 2) & 0xf, 2);
}

/// PCIe 6.0, 7.8.6: a VMM maps as much of the memory as the BAR shows, and the fabric ends there
/// too.
#[test]
fn a_smaller_bar_shows_less_memory() {
    let config = PeerConfig { local_size: 4 << 20, ..PeerConfig::new("peer", 1) };
    let peer = PeerDevice::new(&config).unwrap();
    let mut world = World::new(1, Box::new(NoIommu), |robots| {
        let robots = robots.into_iter().map(|robot| system::Function::endpoint(6, "robot0", robot));
        let below = vec![system::Function::endpoint(0, "peer", peer)];
        let port = system::Function::bridge(4, "port0", port(PortKind::RootPort, true), below);
        robots.chain([port]).collect()
    });
    function(&mut world, "peer").write(4, 2, 2);
    let id = world.system.function("peer").unwrap();
    let mapped = |world: &World| {
        let mappings = world.system.address_map().guest_mappings();
        let found = mappings.into_iter().find(|mapping| mapping.function == id).unwrap();
        (found.guest_address, found.length)
    };
    let (address, length) = mapped(&world);
    assert_eq!(length, 4 << 20);
    let mut peer = function(&mut world, "peer");
    let control = peer.extended(0x15) + 8;
    let value = peer.read(control, 4) & !0x3f00;
    peer.write(control, 4, value);
    assert_eq!(mapped(&world), (address, 1 << 20));
    assert_eq!(world.write(0, address + (1 << 20) - 4, &[1; 4]), CLEAN);
    assert_ne!(world.write(0, address + (1 << 20), &[1; 4]), CLEAN);
}

fn refused() -> Saw {
    Saw::Read(device_models::fabric::CompletionStatus::UnsupportedRequest, Vec::new())
}

/// Enumeration as Linux does it (bus by bus, by header type and bus numbers) finds each function
/// once, below links that are up, at the addresses that the address map has.
#[test]
fn enumeration_finds_what_was_built() {
    let mut world = World::switch(Box::new(NoIommu), true);
    let map = world.system.address_map().clone();
    let (mut buses, mut found) = (vec![0], Vec::new());
    while let Some(bus) = buses.pop() {
        for devfn in 0..=255 {
            let bdf = Bdf(u16::from_be_bytes([bus, devfn]));
            let mut function = Function(&mut world, bdf);
            if function.read(0, 4) == u32::MAX {
                continue;
            }
            found.push(bdf);
            let [primary, secondary, subordinate, _] = function.read(0x18, 4).to_le_bytes();
            if function.read(0x0e, 1) & 0x7f == 1 {
                assert!(primary == bus && secondary > bus && secondary <= subordinate, "{bdf}");
                buses.push(secondary);
            }
        }
    }
    found.sort();
    let built: Vec<Bdf> = map.by_bdf.keys().copied().collect();
    assert_eq!(found, built);
    assert_eq!(found.len(), map.nodes.len());
}

/// A device with several functions says so in its function 0, and a slot with nothing in it shows
/// no link.
#[test]
fn empty_slots_and_further_functions_are_shown() {
    let slot = |number| BridgeDescription { slot_number: number, ..port(PortKind::RootPort, true) };
    let mut world = World::new(2, Box::new(NoIommu), |robots| {
        let [first, second] = <[_; 2]>::try_from(robots).unwrap();
        let mut further = system::Function::bridge(
            4,
            "full",
            slot(2),
            vec![system::Function::endpoint(0, "robot0", first)],
        );
        further.function = 1;
        let on_root = system::Function {
            device: 6,
            function: 0,
            name: "robot1".to_owned(),
            kind: FunctionKind::Endpoint(Box::new(second)),
        };
        vec![system::Function::bridge(4, "empty", slot(1), Vec::new()), further, on_root]
    });
    for (name, link, presence) in [("empty", 0, 0), ("full", 0x2000, 0x40)] {
        let mut port = function(&mut world, name);
        let pcie = port.capability(0x10);
        assert_eq!(port.read(pcie + 0x12, 2) & 0x2000, link, "{name}");
        assert_eq!(port.read(pcie + 0x1a, 2), presence, "{name}");
        assert_eq!(port.read(0x0e, 1), 0x81, "{name}");
    }
    assert_eq!(function(&mut world, "robot1").read(0x0e, 1), 0);
    assert_eq!(world.bdf("robot0"), Bdf::new(2, 0, 0), "firmware found the second function");
}
