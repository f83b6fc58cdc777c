//! Functions that real machines have, and the lab's topologies have not: virtual functions, ACS
//! between the functions of one device, several segments.

use std::fmt::Write as _;

use peerdma_capture::Machine;

use super::present;
use crate::linux::MapType;
use crate::machine::RealMachine;

/// A root port with a device of two functions and a virtual one of the first, in a segment.
fn device(segment: &str, port: &str, functions: &str) -> Machine {
    let one = |address: &str, rest: &str| {
        format!(
            r#"{{ "address": "{segment}:{address}", "class": "0200", "vendor": "1234", "device": "0007", {rest} }},"#
        )
    };
    let below = format!(r#""parent": {{ "below": "{segment}:00:01.0" }}, "port": "endpoint""#);
    let mut text = one("00:00.0", r#""parent": "root", "port": "conventional", "acs": "absent""#)
        .replace("0200", "0600");
    text += &one("00:01.0", &format!(r#""parent": "root", "port": "root-port", "acs": {port}"#))
        .replace("0200", "0604");
    for address in ["01:00.0", "01:00.1"] {
        let more = r#""multi-function": true"#;
        text += &one(address, &format!(r#"{below}, {more}, "acs": {functions}"#));
    }
    let physical = format!(r#""physical-function": "{segment}:01:00.0""#);
    let _ = write!(
        text,
        "{}",
        one("02:00.2", &format!(r#"{physical}, "port": "endpoint", "acs": "absent""#))
    );
    let text = text.trim_end_matches(',');
    let text = format!(
        r#"{{ "schema": "peerdma-machine/1", "cpu": {{ "vendor": "GenuineIntel" }},
           "functions": [{text}] }}"#
    );
    Machine::from_json(&text).unwrap()
}

fn map(machine: &Machine, a: &str, b: &str) -> (Option<MapType>, u32) {
    let real = RealMachine::new(machine);
    let [a, b] = [a, b].map(|name| real.find(name).unwrap());
    let verdict = real.decide(a, b);
    (verdict.certain(), verdict.cases[0].decision.distance)
}

const ABSENT: &str = r#""absent""#;

#[test]
fn acs_of_the_functions_of_a_device_counts() {
    use MapType::{BusAddress, NotSupported};
    let (on, off) = (present(r#""RR": true,"#), present(r#""RR": false,"#));
    let of = |port: &str, functions: &str| map(&device("0000", port, functions), "nic0", "nic1");
    assert_eq!(of(ABSENT, ABSENT), (Some(BusAddress), 2));
    assert_eq!(of(ABSENT, &off), (Some(BusAddress), 2));
    // Linux looks at both ends, too, though what redirects is the device itself.
    assert_eq!(of(ABSENT, &on), (Some(NotSupported), 2));
    assert_eq!(of(&on, ABSENT), (Some(NotSupported), 2), "and at the bridge above both");
}

#[test]
fn a_virtual_function_is_below_the_bridge_of_its_physical_one() {
    use MapType::{BusAddress, NotSupported};
    let on = present(r#""RR": true,"#);
    let machine = device("0000", ABSENT, ABSENT);
    assert_eq!(map(&machine, "02:00.2", "nic0"), (Some(BusAddress), 2));
    assert_eq!(map(&machine, "02:00.2", "nic1"), (Some(BusAddress), 2));
    // Its own ACS counts, not that of its physical function.
    let machine = device("0000", ABSENT, &on);
    assert_eq!(map(&machine, "02:00.2", "nic0"), (Some(NotSupported), 2), "the other end's");
    let machine = device("0000", &on, ABSENT);
    assert_eq!(map(&machine, "02:00.2", "nic0"), (Some(NotSupported), 2));
    let mut machine = device("0000", ABSENT, ABSENT);
    let with_acs = device("0000", ABSENT, &on);
    machine.functions[4].acs = with_acs.functions[2].acs.clone();
    assert_eq!(map(&machine, "02:00.2", "nic1"), (Some(NotSupported), 2));
    assert_eq!(map(&machine, "nic0", "nic1"), (Some(BusAddress), 2), "not between others");
}

#[test]
fn addresses_of_another_segment_have_it_everywhere() {
    let on = present(r#""RR": true,"#);
    let machine = device("0002", &on, &on);
    let real = RealMachine::new(&machine);
    let report = real.pair_report(2, 3);
    let explanation = &report.cases[0].explanation;
    assert_eq!(explanation.client.bdf, "0002:01:00.0");
    assert!(explanation.path.iter().all(|hop| hop.bdf.starts_with("0002:")));
    assert!(explanation.decision.redirects.iter().all(|at| at.starts_with("0002:")));
    // What Linux is told needs it, too; otherwise it means segment 0.
    let real = RealMachine::new(&machine);
    let all = "pci=disable_acs_redir=0002:00:01.0;0002:01:00.0;0002:01:00.1";
    let with = |text: &str| {
        let real = RealMachine::new(&machine).booted_with(vec![text.to_owned()]);
        real.decide(2, 3).certain()
    };
    assert_eq!(real.decide(2, 3).certain(), Some(MapType::NotSupported));
    assert_eq!(with(all), Some(MapType::BusAddress));
    assert_eq!(with(&all.replace("0002:", "")), Some(MapType::NotSupported));
}

#[test]
fn equal_reasons_stand_in_one_place() {
    let machine = device("0000", ABSENT, ABSENT);
    let real = RealMachine::new(&machine);
    let text = real.matrix(real.endpoints()).to_text();
    let reason = "no ACS control between them redirects";
    assert_eq!(text.matches(reason).count(), 1, "{text}");
    assert!(text.contains("    nic0 <-> nic1, nic0 <-> 0000:02:00.2, nic1 <-> "), "{text}");
    // One pair alone has one line.
    let text = real.matrix(real.devices()[..2].to_vec()).to_text();
    assert!(text.contains("\nnic0 <-> nic1: B2 both are below"), "{text}");
}
