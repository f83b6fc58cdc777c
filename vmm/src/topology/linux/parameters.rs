//! The kernel parameters that change ACS: `pci=disable_acs_redir=` and `pci=config_acs=`.

use device_models::pci::{AcsControl, Bdf};

use crate::assembly::{PEER_IDS, PORT_IDS};
use crate::topology::plan::{Kind, Plan};

/// What a parameter does to the functions that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// The controls that it sets or clears.
    pub(super) mask: AcsControl,
    /// Those of them that it sets.
    pub(super) flags: AcsControl,
}

/// One `FLAGS@DEVICE` or `DEVICE`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    change: Change,
    device: String,
}

/// The parameters, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AcsParameters {
    disable_redirection: Vec<Rule>,
    configure: Vec<Rule>,
}

impl AcsParameters {
    /// Reads them from the kernel's command line; of each the last one counts.
    pub(super) fn read(parameters: &[String]) -> Self {
        let mut read = Self::default();
        let options = parameters.iter().filter_map(|parameter| parameter.strip_prefix("pci="));
        for option in options.flat_map(|options| options.split(',')) {
            if let Some(devices) = option.strip_prefix("disable_acs_redir=") {
                let mask = AcsControl::P2P_REQUEST_REDIRECT
                    | AcsControl::P2P_COMPLETION_REDIRECT
                    | AcsControl::P2P_EGRESS_CONTROL;
                let change = Change { mask, flags: AcsControl::empty() };
                let rule = |device: &str| Rule { change, device: device.to_owned() };
                read.disable_redirection = devices.split(';').map(rule).collect();
            } else if let Some(rules) = option.strip_prefix("config_acs=") {
                read.configure = rules.split(';').map_while(configure).collect();
            }
        }
        read
    }

    /// What they do to a function; of both kinds the second has the last word.
    pub(super) fn of(&self, plan: &Plan, function: usize) -> Option<Change> {
        [&self.configure, &self.disable_redirection].into_iter().find_map(|rules| {
            let rule = rules.iter().find(|rule| names(&rule.device, plan, function));
            rule.map(|rule| rule.change)
        })
    }
}

/// What of these parameters changes nothing that is predicted here, and why: misspelled, or meant for another topology.
pub fn without_effect(parameters: &[String], plan: &Plan) -> Vec<String> {
    let nobody = |device: &str| {
        let hit = (0..plan.functions.len()).any(|function| names(device, plan, function));
        (!hit).then(|| format!("{device:?} names no function of this topology"))
    };
    let mut found = Vec::new();
    for parameter in parameters {
        let Some(options) = parameter.strip_prefix("pci=") else {
            if !parameter.starts_with("swiotlb=") {
                found.push(format!("{parameter}: {OTHERS}"));
            }
            continue;
        };
        for option in options.split(',') {
            if let Some(devices) = option.strip_prefix("disable_acs_redir=") {
                found.extend(
                    devices.split(';').filter_map(nobody).map(|why| format!("pci={option}: {why}")),
                );
            } else if let Some(rules) = option.strip_prefix("config_acs=") {
                let why = |rule: &str| match configure(rule) {
                    Some(rule) => nobody(&rule.device),
                    None => Some(format!(
                        "{rule:?} is not FLAGS@DEVICE, with flags of 0, 1 and x; Linux stops there"
                    )),
                };
                found.extend(
                    rules.split(';').filter_map(why).map(|why| format!("pci={option}: {why}")),
                );
            } else {
                found.push(format!("pci={option}: {OTHERS}"));
            }
        }
    }
    found
}

/// Why a parameter is not looked at.
const OTHERS: &str = "not looked at; what changes the prediction is pci=disable_acs_redir=, pci=config_acs= and \
                      swiotlb=force";

/// `FLAGS@DEVICE`: a digit for each control, the lowest bit last; `x` leaves it as it is.
fn configure(text: &str) -> Option<Rule> {
    let (digits, device) = text.split_once('@')?;
    let mut change = Change { mask: AcsControl::empty(), flags: AcsControl::empty() };
    for (bit, digit) in digits.chars().rev().enumerate() {
        let control = AcsControl::from_bits(1_u16.checked_shl(u32::try_from(bit).ok()?)?)?;
        match digit {
            '0' => change.mask |= control,
            '1' => {
                change.mask |= control;
                change.flags |= control;
            }
            'x' | 'X' => {}
            _ => return None,
        }
    }
    Some(Rule { change, device: device.to_owned() })
}

/// Whether `text` names the function: by IDs (`pci:VENDOR:DEVICE`), or by address and path
/// (`BUS:DEVICE.FUNCTION[/DEVICE.FUNCTION]...`), as `pci_dev_str_match()` understands it.
fn names(text: &str, plan: &Plan, function: usize) -> bool {
    if let Some(ids) = text.strip_prefix("pci:") {
        return has_ids(ids, plan, function);
    }
    let mut steps = text.split('/').collect::<Vec<_>>();
    let first = steps.remove(0);
    let mut at = function;
    for step in steps.iter().rev() {
        // The step's bus does not matter; any will do for reading it.
        let Ok(step) = format!("00:{step}").parse::<Bdf>() else { return false };
        if step.devfn() != plan.functions[at].bdf.devfn() {
            return false;
        }
        let Some(above) = plan.functions[at].parent else { return false };
        at = above;
    }
    first.parse() == Ok(plan.functions[at].bdf)
}

fn has_ids(text: &str, plan: &Plan, function: usize) -> bool {
    let function = &plan.functions[function];
    let (vendor, device) = match function.kind {
        Kind::RootPort | Kind::SwitchUpstream | Kind::SwitchDownstream => PORT_IDS,
        Kind::Peer(_) => PEER_IDS,
        Kind::Endpoint(_, id) => (id.vendor, id.device),
        Kind::HostBridge => {
            let id = plan.host_bridges[function.host_bridge].id;
            (id.vendor, id.device)
        }
        Kind::Iommu | Kind::Rng => return false,
    };
    let mut words = text.split(':').map(|word| u16::from_str_radix(word, 16));
    let mut matches = |own: u16| match words.next() {
        Some(Ok(wanted)) => Some(wanted == 0 || wanted == own),
        _ => None,
    };
    // Our ports and devices show their IDs as subsystem IDs, too.
    let main = matches(vendor).zip(matches(device));
    let sub = (matches(vendor).unwrap_or(true), matches(device).unwrap_or(true));
    main == Some((true, true)) && sub == (true, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    fn named(text: &str) -> Vec<String> {
        let plan = Plan::new(&Topology::load("switch-acs").unwrap(), true).unwrap();
        let hits = (0..plan.functions.len()).filter(|index| names(text, &plan, *index));
        hits.map(|index| plan.functions[index].name.clone()).collect()
    }

    #[test]
    fn functions_are_named_by_address_path_and_ids() {
        assert_eq!(named("02:01.0"), ["down1"]);
        assert_eq!(named("0000:02:01.0"), ["down1"]);
        assert_eq!(named("00:04.0/00.0/01.0"), ["down1"]);
        assert_eq!(named("00:04.0/00.0/01.0/0.0"), ["peer1"]);
        assert_eq!(named("pci:1af4:10f0"), ["peer0", "peer1"]);
        assert_eq!(named("pci:1b36:0").len(), 4);
        for nothing in ["", "down1", "pci:", "pci:zz:0", "00:04.0//0.0", "1/2/3", "02:02.0"] {
            assert!(named(nothing).is_empty(), "{nothing:?}");
        }
    }

    #[test]
    fn flags_are_read_from_the_right() {
        let rule = configure("x10x1@02:00.0").unwrap();
        assert_eq!(rule.change.mask.bits(), 0b01101);
        assert_eq!(rule.change.flags.bits(), 0b01001);
        for nonsense in ["101", "12@02:00.0", "100000000@02:00.0"] {
            assert_eq!(configure(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn the_last_of_several_counts() {
        let parameters = |list: &[&str]| {
            AcsParameters::read(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        let two = parameters(&[
            "pci=noaer,disable_acs_redir=01:00.0",
            "pci=disable_acs_redir=02:00.0;02:01.0",
        ]);
        let devices: Vec<_> =
            two.disable_redirection.iter().map(|rule| rule.device.as_str()).collect();
        assert_eq!(devices, ["02:00.0", "02:01.0"]);
        assert_eq!(parameters(&["quiet", "pci=nomsi"]), AcsParameters::default());
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let plan = Plan::new(&Topology::load("switch-acs").unwrap(), true).unwrap();
        let told = |parameter: &str| without_effect(&[parameter.to_owned()], &plan);
        assert!(told("pci=disable_acs_redir=02:00.0;02:01.0").is_empty());
        assert!(told("pci=config_acs=111x1@02:00.0").is_empty());
        assert!(told("swiotlb=force").is_empty());
        assert_eq!(told("pci=disable_acs_redir=02:00.0;zz").len(), 1);
        assert_eq!(told("pci=disable_acs_redir=05:00.0").len(), 1);
        assert_eq!(told("pci=config_acs=zzz").len(), 1);
        assert_eq!(told("pci=config_acs=111x1@05:00.0").len(), 1);
        assert_eq!(told("pci=disable_acs_redirr=02:00.0,noaer").len(), 2);
        assert_eq!(told("quiet").len(), 1);
    }
}
