//! What a kernel would decide with more parameters than it has.

use peerdma_capture::Machine;

use super::{LISTED, UNLISTED, present, small};
use crate::linux::{MapType, Version};
use crate::machine::RealMachine;

fn maps(machine: &Machine, version: Version, appended: &[&str]) -> Vec<MapType> {
    let appended = appended.iter().map(|text| (*text).to_owned()).collect();
    let real = RealMachine::by_rules_of(version, machine).booted_with(appended);
    let [a, b] = ["gpu0", "gpu1"].map(|name| real.find(name).unwrap());
    real.decide(a, b).cases.iter().map(|case| case.decision.map).collect()
}

fn with_line(machine: &mut Machine, line: &str, groups: Option<bool>) {
    machine.kernel.command_line = Some(line.into());
    machine.kernel.iommu_groups = groups;
}

#[test]
fn parameters_change_what_was_found() {
    use MapType::{BusAddress, NotSupported};
    let on = present(r#""RR": true,"#);
    let machine = small(UNLISTED, &on, "");
    let of = |appended: &[&str]| maps(&machine, Version::V7_3, appended);
    assert_eq!(of(&[]), [NotSupported]);
    assert_eq!(of(&["pci=disable_acs_redir=02:00.0;02:01.0"]), [BusAddress]);
    assert_eq!(of(&["pci=disable_acs_redir=02:00.0"]), [NotSupported], "one is enough");
    assert_eq!(of(&["pci=disable_acs_redir=0001:02:00.0;02:01.0"]), [NotSupported], "a segment");
    assert_eq!(of(&["pci=disable_acs_redir=pci:1234:0001"]), [BusAddress], "by ID");
    assert_eq!(of(&["pci=disable_acs_redir=pci:1234:0002"]), [NotSupported]);
    assert_eq!(of(&["pci=disable_acs_redir=zz;02:00.0;02:01.0"]), [NotSupported], "it stops at zz");
    let config = "pci=config_acs=x00xx@02:00.0;x00xx@02:01.0";
    assert_eq!(of(&[config]), [BusAddress]);
    assert_eq!(maps(&machine, Version::V6_1, &[config]), [NotSupported], "6.1 ignores it");
    // And the other way round.
    let off = small(UNLISTED, &present(r#""RR": false,"#), "");
    assert_eq!(maps(&off, Version::V7_3, &["pci=config_acs=xx1xx@02:00.0"]), [NotSupported]);
}

#[test]
fn what_only_the_firmware_knows_gives_both_answers() {
    use MapType::{BusAddress, NotSupported};
    let on = present(r#""RR": true,"#);
    let mut machine = small(UNLISTED, &on, "");
    machine.kernel.iommu_groups = Some(true);
    // x: as the firmware had it; Linux may have switched RR on for the IOMMU's sake.
    let keep = "pci=config_acs=1xxxx@02:00.0;1xxxx@02:01.0";
    assert_eq!(maps(&machine, Version::V7_3, &[keep]), [BusAddress, NotSupported]);
    let real = RealMachine::new(&machine).booted_with(vec![keep.into()]);
    let text = real.pair_text(5, 6);
    assert!(text.contains("To know: what the firmware sets of ACS at"), "{text}");
    // Without an IOMMU it was the firmware.
    machine.kernel.iommu_groups = Some(false);
    assert_eq!(maps(&machine, Version::V7_3, &[keep]), [NotSupported]);
}

#[test]
fn a_parameter_of_the_record_loses_its_place() {
    use MapType::{BusAddress, NotSupported};
    let off = present(r#""RR": false,"#);
    let mut machine = small(UNLISTED, &off, "");
    with_line(&mut machine, "pci=noaer,disable_acs_redir=02:00.0;02:01.0", Some(true));
    assert_eq!(maps(&machine, Version::V7_3, &[]), [BusAddress]);
    // Of two the last counts: at 02:00.0 Linux switches redirection on again.
    let one = "pci=disable_acs_redir=02:01.0";
    assert_eq!(maps(&machine, Version::V7_3, &[one]), [NotSupported]);
    // Without an IOMMU nothing does, but the firmware may have.
    machine.kernel.iommu_groups = Some(false);
    assert_eq!(maps(&machine, Version::V7_3, &[one]), [BusAddress, NotSupported]);
    let same = "pci=disable_acs_redir=02:01.0;02:00.0";
    assert_eq!(maps(&machine, Version::V7_3, &[same]), [BusAddress]);
}

#[test]
fn advice_keeps_what_a_parameter_of_the_record_does_elsewhere() {
    let on = present(r#""RR": true,"#);
    let mut machine = small(UNLISTED, &on, "");
    machine.functions[1].acs = machine.functions[3].acs.clone();
    with_line(&mut machine, "pci=disable_acs_redir=00:01.0", Some(true));
    let report = RealMachine::new(&machine).pair_report(5, 6);
    let advice = &report.cases[0].explanation.advice[0];
    assert_eq!(
        advice.change,
        "kernel parameter 'pci=disable_acs_redir=02:00.0;02:01.0;00:01.0' in place of the one that \
         is there"
    );
    // It leads to what it promises.
    let parameter = "pci=disable_acs_redir=02:00.0;02:01.0;00:01.0";
    assert_eq!(maps(&machine, Version::V7_3, &[parameter]), [MapType::BusAddress]);
}

#[test]
fn the_answer_says_what_it_is_without_the_parameters() {
    let machine = small(LISTED, &present(r#""RR": true,"#), "");
    let parameter = "pci=disable_acs_redir=02:00.0;02:01.0".to_owned();
    let real = RealMachine::new(&machine).booted_with(vec![parameter, "pci=noacs".into()]);
    let report = real.pair_report(5, 6);
    assert_eq!(report.map_type, "bus-address");
    assert_eq!(report.map_type_without, Some("through-host-bridge"));
    assert_eq!(report.kernel.appended.len(), 2);
    assert!(report.warnings.iter().any(|it| it.contains("no such option")), "{report:?}");
    let text = real.pair_text(5, 6);
    assert!(text.contains("; without: through the host bridge\n"), "{text}");
    assert!(text.contains("ACS SV- TB- RR- CR-"), "the path is that of the other boot:\n{text}");
    // A machine that is asked nothing has nothing to compare with.
    assert_eq!(RealMachine::new(&machine).pair_report(5, 6).map_type_without, None);
}

#[test]
fn the_last_word_about_passthrough_counts() {
    let mut machine = small(LISTED, &present(r#""RR": true,"#), "");
    machine.kernel.iommu_groups = Some(true);
    let address = |line: &str, appended: &[&str]| {
        let mut machine = machine.clone();
        machine.kernel.command_line = Some(line.into());
        let appended = appended.iter().map(|text| (*text).to_owned()).collect();
        let real = RealMachine::new(&machine).booted_with(appended);
        real.pair_report(5, 6).cases[0].explanation.decision.address
    };
    assert_eq!(address("", &[]), "iova");
    assert_eq!(address("", &["iommu=pt"]), "physical");
    assert_eq!(address("iommu=pt", &[]), "physical");
    assert_eq!(address("iommu=pt", &["iommu.passthrough=0"]), "iova");
}

#[test]
fn controls_that_go_with_redirection_are_a_cost_since_6_12() {
    let rest = r#""TB": false, "CR": true, "UF": true, "EC": false, "DT": false"#;
    let acs = format!(
        r#"{{ "present": {{ "capabilities": {{ "SV": true, "RR": true, {rest} }},
           "control": {{ "SV": true, "RR": true, {rest} }} }} }}"#
    );
    let mut machine = small(UNLISTED, &acs, "");
    machine.kernel.iommu_groups = Some(true);
    let costs = |version: Version| {
        let report = RealMachine::by_rules_of(version, &machine).pair_report(5, 6);
        let advice = report.cases[0].explanation.advice[0].clone();
        assert!(advice.change.contains("disable_acs_redir"), "{advice:?}");
        let costs: Vec<_> = advice.costs.iter().map(|cost| cost.id).collect();
        (advice.switches[0].off.clone(), costs.contains(&"other-controls-lost"))
    };
    assert_eq!(costs(Version::V6_1), (vec!["RR", "CR"], false));
    for later in [Version::V6_12, Version::V7_3] {
        assert_eq!(costs(later), (vec!["SV", "RR", "CR", "UF"], true), "{later}");
    }
}
