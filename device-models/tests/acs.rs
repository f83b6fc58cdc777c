//! Each ACS control by itself (PCIe 6.0, 6.12.1.1): what it changes, and that nothing else does.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{Saw, World, port};
use device_models::checker::FindingClass;
use device_models::fabric::{CompletionStatus, RouteKind, WriteOutcome};
use device_models::iommu::NoIommu;
use device_models::pci::{AcsCapabilities, AcsControl, BridgeDescription, PortKind};
use device_models::system::Function;

const CLEAN: Saw = Saw::Wrote(WriteOutcome::Posted { verdict: None });
const RR: AcsControl = AcsControl::P2P_REQUEST_REDIRECT;
const CR: AcsControl = AcsControl::P2P_COMPLETION_REDIRECT;
const UF: AcsControl = AcsControl::UPSTREAM_FORWARDING;
const EC: AcsControl = AcsControl::P2P_EGRESS_CONTROL;
const DIRECT: Option<RouteKind> = Some(RouteKind::BusAddress);
const REDIRECTED: Option<RouteKind> = Some(RouteKind::ThroughHostBridge);

fn found(class: FindingClass) -> Saw {
    Saw::Wrote(WriteOutcome::Posted { verdict: Some(class) })
}

fn arrived(data: Vec<u8>) -> Saw {
    Saw::Read(CompletionStatus::Success, data)
}

/// A port that has every control.
fn full(kind: PortKind, number: u8) -> BridgeDescription {
    defective(kind, number, AcsControl::empty())
}

/// The same, but some do nothing.
fn defective(kind: PortKind, number: u8, without_effect: AcsControl) -> BridgeDescription {
    let controls = AcsControl::all();
    let acs = AcsCapabilities { controls, egress_vector_bits: 32, without_effect };
    BridgeDescription { port_number: number, acs: Some(acs), ..port(kind, false) }
}

/// Two robots below a switch whose ports, the root port included, have every control.
fn switch() -> World {
    defective_switch(AcsControl::empty())
}

/// The same; some controls of its downstream ports, and of the root port, do nothing.
fn defective_switch(without_effect: AcsControl) -> World {
    World::new(2, Box::new(NoIommu), |robots| {
        let below = robots.into_iter().zip(0..).map(|(robot, index)| {
            let robot = vec![Function::endpoint(0, format!("robot{index}"), robot)];
            let kind = PortKind::SwitchDownstream;
            let port = defective(kind, index + 1, without_effect);
            Function::bridge(index, format!("down{index}"), port, robot)
        });
        let up = port(PortKind::SwitchUpstream, false);
        let upstream = Function::bridge(0, "up", up, below.collect());
        let port = defective(PortKind::RootPort, 1, without_effect);
        vec![Function::bridge(4, "port0", port, vec![upstream])]
    })
}

/// The same below two root ports.
fn root_ports() -> World {
    World::new(2, Box::new(NoIommu), |robots| {
        let ports = robots.into_iter().zip(0..).map(|(robot, index)| {
            let robot = vec![Function::endpoint(0, format!("robot{index}"), robot)];
            Function::bridge(
                4 + index,
                format!("port{index}"),
                full(PortKind::RootPort, index + 1),
                robot,
            )
        });
        ports.collect()
    })
}

#[test]
fn source_validation_checks_the_requesters_bus() {
    let mut world = root_ports();
    let bdf = world.bdf("port0");
    // A range without any bus: what is below has no number of its own any more.
    world.system.config_write(bdf, 0x18, 4, 0x0003_0900);
    assert_eq!(world.write(0, 0x1000, &[1; 4]), CLEAN);
    world.set_acs("port0", AcsControl::SOURCE_VALIDATION);
    assert_eq!(world.write(0, 0x1000, &[1; 4]), found(FindingClass::AcsViolation));
    assert_eq!(world.read(0, 0x1000, 4), Saw::Read(CompletionStatus::CompleterAbort, vec![]));
    let findings = std::mem::take(&mut world.log.0.lock().unwrap().findings);
    assert!(findings[0].to_string().contains("Source Validation at port0"), "{}", findings[0]);
    world.system.config_write(bdf, 0x18, 4, 0x0001_0100);
    assert_eq!(world.write(0, 0x1000, &[1; 4]), CLEAN);
}

#[test]
fn request_redirect_sends_requests_up_and_leaves_completions_alone() {
    let mut world = switch();
    let memory = world.bar(1, 2);
    assert_eq!(world.write(0, memory, &[1; 300]), CLEAN);
    assert_eq!(world.last_route(), DIRECT);
    world.set_acs("port0", UF);
    world.set_acs("down0", RR);
    assert_eq!(world.write(0, memory, &[2; 300]), CLEAN);
    assert_eq!(world.last_route(), REDIRECTED);
    // The completions leave by the port of the completer, which redirects nothing.
    assert_eq!(world.read(0, memory, 300), arrived(vec![2; 300]));
    assert_eq!(world.last_route(), DIRECT);
    // The other direction is the other port's.
    let other = world.bar(0, 2);
    assert_eq!(world.write(1, other, &[3; 300]), CLEAN);
    assert_eq!(world.last_route(), DIRECT);
    assert!(world.log.classes().is_empty());
}

#[test]
fn completion_redirect_sends_the_data_of_reads_up_and_leaves_writes_alone() {
    let mut world = switch();
    let memory = world.bar(1, 2);
    world.set_acs("port0", UF);
    world.set_acs("down1", CR);
    assert_eq!(world.write(0, memory, &[4; 300]), CLEAN);
    assert_eq!(world.last_route(), DIRECT);
    assert_eq!(world.read(0, memory, 300), arrived(vec![4; 300]));
    assert_eq!(world.last_route(), REDIRECTED);
    assert!(world.log.classes().is_empty());
    // At the root port they would have to turn around: without Upstream Forwarding they reach no
    // function.
    world.set_acs("port0", AcsControl::empty());
    assert_eq!(world.read(0, memory, 300), Saw::Read(CompletionStatus::Timeout, vec![]));
    assert_eq!(world.log.classes(), ["fabric.completion-timeout"]);
    assert_eq!(world.write(0, memory, &[5; 300]), CLEAN, "writes have no completions");
}

#[test]
fn upstream_forwarding_lets_requests_turn_around_further_up() {
    let mut world = switch();
    // For the requester's own side of the switch port, and of the root port.
    let own = world.bar(0, 2);
    let turned_back = |world: &mut World, port: &str| {
        assert_eq!(world.write(0, own, &[1; 4]), found(FindingClass::TurnedBack));
        let findings = std::mem::take(&mut world.log.0.lock().unwrap().findings);
        assert!(findings[0].to_string().contains(port), "{}", findings[0]);
    };
    world.set_acs("port0", UF);
    turned_back(&mut world, "down0");
    world.set_acs("down0", UF);
    world.set_acs("port0", AcsControl::empty());
    turned_back(&mut world, "port0");
    world.set_acs("port0", UF);
    assert_eq!(world.write(0, own, &[6; 4]), CLEAN);
    assert_eq!(world.last_route(), REDIRECTED);
    assert_eq!(world.read(0, own, 4), arrived(vec![6; 4]));
    // And for what a port further down has redirected.
    let memory = world.bar(1, 2);
    world.set_acs("down0", RR);
    assert_eq!(world.write(0, memory, &[7; 4]), CLEAN);
    world.set_acs("port0", AcsControl::empty());
    assert_eq!(world.write(0, memory, &[7; 4]), found(FindingClass::TurnedBack));
}

#[test]
fn egress_control_refuses_what_its_vector_names_and_lets_the_rest_through() {
    let mut world = switch();
    let memory = world.bar(1, 2);
    let vector = world.acs("down0") + 8;
    let down0 = world.bdf("down0");
    let named = |world: &mut World, ports: u32| world.system.config_write(down0, vector, 4, ports);
    world.set_acs("port0", UF);
    world.set_acs("down0", EC);
    assert_eq!(world.write(0, memory, &[1; 4]), CLEAN);
    assert_eq!(world.last_route(), DIRECT);
    // Port 2 is down1.
    named(&mut world, 1 << 2);
    assert_eq!(world.write(0, memory, &[1; 4]), found(FindingClass::AcsViolation));
    assert_eq!(world.read(0, memory, 4), Saw::Read(CompletionStatus::CompleterAbort, vec![]));
    let findings = std::mem::take(&mut world.log.0.lock().unwrap().findings);
    assert!(findings[0].to_string().contains("Egress Control at down0"), "{}", findings[0]);
    assert_eq!(world.write(0, 0x1000, &[1; 4]), CLEAN, "memory is not a peer");
    // With Request Redirect beside it, what is named is redirected, what is not goes directly.
    world.set_acs("down0", EC | RR);
    assert_eq!(world.write(0, memory, &[1; 4]), CLEAN);
    assert_eq!(world.last_route(), REDIRECTED);
    named(&mut world, !(1 << 2));
    assert_eq!(world.write(0, memory, &[1; 4]), CLEAN);
    assert_eq!(world.last_route(), DIRECT);
    // Off again, the vector says nothing.
    world.set_acs("down0", AcsControl::empty());
    named(&mut world, u32::MAX);
    assert_eq!(world.write(0, memory, &[1; 4]), CLEAN);
    assert_eq!(world.last_route(), DIRECT);
}

#[test]
fn egress_control_works_between_root_ports() {
    let mut world = root_ports();
    let memory = world.bar(1, 2);
    let (vector, port0) = (world.acs("port0") + 8, world.bdf("port0"));
    world.system.config_write(port0, vector, 4, 1 << 2);
    assert_eq!(world.write(0, memory, &[1; 4]), CLEAN);
    world.set_acs("port0", EC);
    assert_eq!(world.write(0, memory, &[1; 4]), found(FindingClass::AcsViolation));
    world.set_acs("port0", EC | RR);
    assert_eq!(world.write(0, memory, &[1; 4]), CLEAN);
    assert_eq!(world.last_route(), REDIRECTED);
}

#[test]
fn a_control_without_effect_reads_back_and_does_nothing() {
    let mut world = defective_switch(RR);
    let memory = world.bar(1, 2);
    world.set_acs("port0", UF);
    world.set_acs("down0", RR | CR);
    let (down0, control) = (world.bdf("down0"), world.acs("down0") + 6);
    assert_eq!(world.system.config_read(down0, control, 2), u32::from((RR | CR).bits()));
    assert_eq!(world.write(0, memory, &[1; 300]), CLEAN);
    assert_eq!(world.last_route(), DIRECT);
    // The others are as they were.
    let other = world.bar(0, 2);
    assert_eq!(world.read(1, other, 4), arrived(vec![0; 4]));
    assert_eq!(world.last_route(), REDIRECTED);

    let mut world = defective_switch(UF);
    let memory = world.bar(1, 2);
    world.set_acs("port0", UF);
    world.set_acs("down0", RR);
    assert_eq!(world.write(0, memory, &[1; 4]), found(FindingClass::TurnedBack));
    let findings = std::mem::take(&mut world.log.0.lock().unwrap().findings);
    assert!(findings[0].to_string().ends_with("is on there, without effect"), "{}", findings[0]);

    let mut world = defective_switch(CR);
    let memory = world.bar(1, 2);
    world.set_acs("port0", UF);
    world.set_acs("down1", CR);
    assert_eq!(world.read(0, memory, 4), arrived(vec![0; 4]));
    assert_eq!(world.last_route(), DIRECT);

    let mut world = defective_switch(AcsControl::SOURCE_VALIDATION);
    world.set_acs("port0", AcsControl::SOURCE_VALIDATION);
    let port0 = world.bdf("port0");
    // A range without any bus, as above.
    world.system.config_write(port0, 0x18, 4, 0x0003_0900);
    assert_eq!(world.write(0, 0x1000, &[1; 4]), CLEAN);

    let mut world = defective_switch(EC);
    let (memory, vector) = (world.bar(1, 2), world.acs("down0") + 8);
    let down0 = world.bdf("down0");
    world.system.config_write(down0, vector, 4, u32::MAX);
    world.set_acs("down0", EC);
    assert_eq!(world.write(0, memory, &[1; 4]), CLEAN);
    assert_eq!(world.last_route(), DIRECT);
}
