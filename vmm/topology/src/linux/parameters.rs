//! The kernel parameters that change ACS: `pci=disable_acs_redir=`, `pci=config_acs=` and `pci=noats`.

use device_models::pci::{AcsControl, Bdf};

use crate::assembly::{PEER_IDS, PORT_IDS};
use crate::plan::{Kind, Plan};

/// The options of `pci=` that are read here.
pub(super) const DISABLE_REDIRECTION: &str = "disable_acs_redir=";
pub(super) const CONFIGURE: &str = "config_acs=";
const NO_ATS: &str = "noats";

/// The options of every `pci=` among `parameters`, in their order.
pub(super) fn options(parameters: &[String]) -> impl Iterator<Item = &str> {
    let options = parameters.iter().filter_map(|parameter| parameter.strip_prefix("pci="));
    options.flat_map(|options| options.split(','))
}

/// Whether every mapping without an IOMMU goes through a bounce buffer (`setup_io_tlb_npages()`): `swiotlb=force`, whose
/// word stands behind up to two numbers. Of several each adds what it says, and `noforce` has the last word wherever it
/// stands: there are no buffers then.
pub(super) fn bounces(parameters: &[String]) -> bool {
    let of = |text: &str| {
        let mut rest = text;
        for _ in 0..2 {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        (rest.starts_with("force"), rest.starts_with("noforce"))
    };
    let all = parameters.iter().filter_map(|parameter| parameter.strip_prefix("swiotlb=")).map(of);
    let (force, never) = all.fold((false, false), |(a, b), (force, never)| (a | force, b | never));
    force && !never
}

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
pub(super) struct Rule {
    change: Change,
    pub(super) device: String,
}

/// The parameters, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AcsParameters {
    disable_redirection: Vec<Rule>,
    configure: Vec<Rule>,
    /// `pci=noats`: Linux switches Translation Blocking on with the other controls.
    pub(super) no_translation_services: bool,
}

impl AcsParameters {
    /// Reads them from the kernel's command line; of each the last one counts.
    pub(super) fn read(parameters: &[String]) -> Self {
        let mut read = Self::default();
        for option in options(parameters) {
            if option.starts_with(NO_ATS) {
                read.no_translation_services = true;
            } else if let Some(devices) = option.strip_prefix(DISABLE_REDIRECTION) {
                let mask = AcsControl::P2P_REQUEST_REDIRECT
                    | AcsControl::P2P_COMPLETION_REDIRECT
                    | AcsControl::P2P_EGRESS_CONTROL;
                let change = Change { mask, flags: AcsControl::empty() };
                let rule = |device: &str| Rule { change, device: device.to_owned() };
                read.disable_redirection = devices.split(';').map(rule).collect();
            } else if let Some(rules) = option.strip_prefix(CONFIGURE) {
                read.configure = rules.split(';').map_while(configure).collect();
            }
        }
        read
    }

    /// What they do to a function; of both kinds the second has the last word.
    pub(super) fn of(&self, plan: &Plan, function: usize) -> Option<Change> {
        [&self.configure, &self.disable_redirection].into_iter().find_map(|rules| {
            for rule in rules {
                match names(&rule.device, plan, function) {
                    Ok(true) => return Some(rule.change),
                    Ok(false) => {}
                    // Linux looks at nothing behind it.
                    Err(NoDevice) => return None,
                }
            }
            None
        })
    }
}

/// `FLAGS@DEVICE`: a digit for each control, the lowest bit last; `x` leaves it as it is.
pub(super) fn configure(text: &str) -> Option<Rule> {
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

/// What names no device in any form that Linux knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoDevice;

/// Whether `text` names the function: by IDs (`pci:VENDOR:DEVICE`), or by address and path
/// (`BUS:DEVICE.FUNCTION[/DEVICE.FUNCTION]...`), as `pci_dev_str_match()` understands it.
pub(super) fn names(text: &str, plan: &Plan, function: usize) -> Result<bool, NoDevice> {
    if let Some(ids) = text.strip_prefix("pci:") {
        return has_ids(ids, plan, function);
    }
    let mut steps = text.split('/').collect::<Vec<_>>();
    let first = steps.remove(0);
    let mut at = function;
    for step in steps.iter().rev() {
        // The step's bus does not matter; any will do for reading it.
        let step = format!("00:{step}").parse::<Bdf>().map_err(|_| NoDevice)?;
        if step.devfn() != plan.functions[at].bdf.devfn() {
            return Ok(false);
        }
        let Some(above) = plan.functions[at].parent else { return Ok(false) };
        at = above;
    }
    let first = first.parse::<Bdf>().map_err(|_| NoDevice)?;
    Ok(first == plan.functions[at].bdf)
}

fn has_ids(text: &str, plan: &Plan, function: usize) -> Result<bool, NoDevice> {
    let ids: Vec<_> = text.split(':').map(|word| u16::from_str_radix(word, 16)).collect();
    let (main, sub) = match ids.as_slice() {
        [Ok(vendor), Ok(device)] => ((*vendor, *device), (0, 0)),
        [Ok(vendor), Ok(device), Ok(sub_vendor), Ok(sub_device)] => {
            ((*vendor, *device), (*sub_vendor, *sub_device))
        }
        _ => return Err(NoDevice),
    };
    let function = &plan.functions[function];
    let own = match function.kind {
        Kind::RootPort | Kind::SwitchUpstream | Kind::SwitchDownstream => PORT_IDS,
        Kind::Peer(_) => PEER_IDS,
        Kind::Endpoint(_, id) => (id.vendor, id.device),
        Kind::HostBridge => {
            let id = plan.host_bridges[function.host_bridge].id;
            (id.vendor, id.device)
        }
        Kind::Iommu | Kind::Rng => return Ok(false),
    };
    let is = |wanted: u16, own: u16| wanted == 0 || wanted == own;
    // Our ports and devices show their IDs as subsystem IDs, too.
    let matches = |(vendor, device)| is(vendor, own.0) && is(device, own.1);
    Ok(matches(main) && matches(sub))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topology;

    fn named(text: &str) -> Vec<String> {
        let plan = Plan::new(&Topology::load("switch-acs").unwrap(), true).unwrap();
        let hits = (0..plan.functions.len()).filter(|at| names(text, &plan, *at) == Ok(true));
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
    fn what_linux_cannot_read_ends_the_list() {
        let plan = Plan::new(&Topology::load("switch-acs").unwrap(), true).unwrap();
        let of = |parameter: &str| {
            let read = AcsParameters::read(&[parameter.to_owned()]);
            (0..plan.functions.len()).filter(|at| read.of(&plan, *at).is_some()).count()
        };
        assert_eq!(of("pci=disable_acs_redir=02:00.0;02:01.0"), 2);
        assert_eq!(of("pci=disable_acs_redir=02:00.0;nonsense;02:01.0"), 1);
        assert_eq!(of("pci=disable_acs_redir=pci:1b36;02:01.0"), 0);
        assert_eq!(of("pci=disable_acs_redir=05:00.0;02:01.0"), 1);
        assert_eq!(of("pci=config_acs=111x1@02:00.0;zzz@02:01.0;111x1@00:04.0"), 1);
    }

    #[test]
    fn bouncing_is_what_the_kernel_makes_of_the_words() {
        let of = |list: &[&str]| bounces(&list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        for yes in ["swiotlb=force", "swiotlb=65536,force", "swiotlb=65536,2,force"] {
            assert!(of(&[yes]), "{yes}");
        }
        for no in ["swiotlb=65536", "swiotlb=noforce", "swiotlb=any,force", "quiet", "swiotlb="] {
            assert!(!of(&[no]), "{no}");
        }
        assert!(of(&["swiotlb=force", "swiotlb=65536"]));
        assert!(!of(&["swiotlb=noforce", "swiotlb=force"]));
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
}
