//! What a record lacks, and that nothing is guessed.

use super::{LISTED, UNLISTED, decide, present, small};
use crate::linux::MapType;
use crate::machine::RealMachine;

#[test]
fn acs_that_is_not_known_is_not_none() {
    let state = |acs: &str| {
        let machine = small(UNLISTED, acs, "");
        let report = RealMachine::new(&machine).pair_report(5, 6);
        let hop = report.cases[0].explanation.path[1].clone();
        (hop.acs_state, hop.acs.map(|acs| (acs.enabled, acs.unknown)))
    };
    assert_eq!(state(r#""absent""#), ("absent", None));
    assert_eq!(state(r#""unknown""#), ("unknown", None));
    assert_eq!(state(&present(r#""RR": true,"#)), ("known", Some((vec!["RR"], vec![]))));
    assert_eq!(state(&present("")), ("partly", Some((vec![], vec!["RR"]))));
}

#[test]
fn the_reason_is_what_may_allow_it() {
    let on = present(r#""RR": true,"#);
    let reason = |host: &str, more: &str| {
        let machine = small(host, &on, more);
        let report = RealMachine::new(&machine).pair_report(5, 6);
        let last = report.cases.last().unwrap();
        (report.cases.len(), last.explanation.decision.reason)
    };
    let intel = r#""cpu": { "vendor": "GenuineIntel" },"#;
    let zen = r#""cpu": { "vendor": "AuthenticAMD", "family": 25 },"#;
    assert_eq!(reason("", ""), (2, "listed-or-processor"));
    assert_eq!(reason("", intel), (2, "listed"));
    let other = r#""vendor": "1022", "device": "1234","#;
    assert_eq!(reason(other, ""), (2, "processor"));
    assert_eq!(reason("", zen), (1, "processor"));
    assert_eq!(reason(LISTED, ""), (1, "listed"));
    assert_eq!(reason(other, intel), (1, "not-listed"));
}

#[test]
fn a_transfer_that_is_refused_has_no_completions() {
    let machine = small(UNLISTED, &present(r#""RR": true,"#), "");
    let report = RealMachine::new(&machine).pair_report(5, 6);
    let explanation = &report.cases[0].explanation;
    assert_eq!((&explanation.requests, &explanation.completions), (&None, &None));
    let machine = small(UNLISTED, &present(r#""RR": false,"#), "");
    let report = RealMachine::new(&machine).pair_report(5, 6);
    assert!(report.cases[0].explanation.completions.as_ref().is_some_and(|leg| leg.arrives));
}

#[test]
fn advice_says_what_it_takes_for_granted() {
    let mut machine = small(UNLISTED, &present(r#""RR": true,"#), "");
    machine.functions[2].acs = peerdma_capture::Acs::Unknown;
    let given = |machine: &peerdma_capture::Machine| {
        let report = RealMachine::new(machine).pair_report(5, 6);
        report.cases[0].explanation.advice[0].given.clone()
    };
    assert_eq!(given(&machine), ["ACS does not redirect at 0000:01:00.0"]);
    machine.functions[2].acs = peerdma_capture::Acs::Absent;
    assert!(given(&machine).is_empty());
}

#[test]
fn a_bridge_that_the_record_lacks_is_above_both_ports_of_a_switch() {
    use MapType::{BusAddress, NotSupported, ThroughHostBridge};
    let mut machine = small("", &present(r#""RR": false,"#), "");
    // Without root port and upstream port; bus 02 remains.
    machine.functions.drain(..3);
    for port in &mut machine.functions[..2] {
        port.parent = peerdma_capture::Parent::Unknown;
    }
    assert_eq!(decide(&machine), [BusAddress, NotSupported, ThroughHostBridge]);
    let text = RealMachine::new(&machine).pair_text(2, 3);
    assert!(text.contains("the bridge above bus 0000:02, which the record lacks"), "{text}");
    // On two buses: they may meet above, or not.
    machine.functions[1].address = "0000:05:01.0".parse().unwrap();
    machine.functions[3].parent = peerdma_capture::Parent::Below(machine.functions[1].address);
    machine.functions.sort_by_key(|function| function.address);
    let real = RealMachine::new(&machine);
    let [a, b] = ["gpu0", "gpu1"].map(|name| real.find(name).unwrap());
    let verdict = real.decide(a, b);
    assert!(verdict.open && verdict.certain().is_none(), "{verdict:?}");
    assert_eq!(real.pair_report(a, b).map_type, "unknown");
    let text = real.pair_text(a, b);
    assert!(text.contains("To know: the bridges above both"), "{text}");
}
