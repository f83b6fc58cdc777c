//! The kernel parameters that change ACS: `pci=disable_acs_redir=`, `pci=config_acs=` and `pci=noats`.

use std::fmt;

use device_models::pci::AcsControl;

use super::scan::Scan;
use crate::assembly::{PEER_IDS, PORT_IDS};
use crate::plan::{Kind, Plan};

/// The options of `pci=` that are read here.
pub(crate) const DISABLE_REDIRECTION: &str = "disable_acs_redir=";
pub(crate) const CONFIGURE: &str = "config_acs=";
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

/// As the flags of `config_acs`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bit in (0..7).rev() {
            let control = AcsControl::from_bits_truncate(1 << bit);
            f.write_str(match (self.mask.contains(control), self.flags.contains(control)) {
                (true, true) => "1",
                (true, false) => "0",
                (false, _) => "x",
            })?;
        }
        Ok(())
    }
}

/// The parameters, as the kernel keeps them: of each the text of the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AcsParameters {
    disable_redirection: Option<String>,
    configure: Option<String>,
    /// `pci=noats`: Linux switches Translation Blocking on with the other controls.
    pub(super) no_translation_services: bool,
}

impl AcsParameters {
    /// Reads them from the kernel's command line.
    pub(super) fn read(parameters: &[String]) -> Self {
        let mut read = Self::default();
        for option in options(parameters) {
            if option.starts_with(NO_ATS) {
                read.no_translation_services = true;
            } else if let Some(devices) = option.strip_prefix(DISABLE_REDIRECTION) {
                read.disable_redirection = Some(devices.into());
            } else if let Some(rules) = option.strip_prefix(CONFIGURE) {
                read.configure = Some(rules.into());
            }
        }
        read
    }

    /// What they do to a function; of both kinds `config_acs` has the last word.
    pub(super) fn of(&self, plan: &Plan, function: usize) -> Option<Change> {
        let known = plan.linux.has_config_acs();
        let configure = self.configure.as_deref().filter(|_| known).map(|text| (text, None));
        let disable = self.disable_redirection.as_deref().map(|text| (text, Some(NO_REDIRECTION)));
        [configure, disable].into_iter().flatten().find_map(|(text, change)| {
            entries(text, change.is_none())
                .map_while(Result::ok)
                .find_map(|entry| match names(entry.device, plan, function) {
                    Ok(true) => Some(Ok(entry.change.or(change))),
                    Ok(false) if entry.ends => Some(Err(NoDevice)),
                    Ok(false) => None,
                    // The kernel looks at nothing behind it.
                    Err(NoDevice) => Some(Err(NoDevice)),
                })?
                .ok()?
        })
    }
}

/// What `disable_acs_redir` does.
const NO_REDIRECTION: Change = Change {
    mask: AcsControl::P2P_REQUEST_REDIRECT
        .union(AcsControl::P2P_COMPLETION_REDIRECT)
        .union(AcsControl::P2P_EGRESS_CONTROL),
    flags: AcsControl::empty(),
};

/// One `FLAGS@DEVICE` or `DEVICE` of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'t> {
    change: Option<Change>,
    pub(super) device: &'t str,
    /// Whether the kernel reads nothing behind it, if it does not match.
    ends: bool,
}

/// Flags that the kernel refuses, and everything behind them: the text of the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadFlags<'t>(pub(super) &'t str);

/// The entries of a parameter as `__pci_config_acs()` goes through them; `flags`: each begins with
/// `FLAGS@`.
pub(super) fn entries(
    text: &str,
    flags: bool,
) -> impl Iterator<Item = Result<Entry<'_>, BadFlags<'_>>> {
    let mut rest = Some(text).filter(|text| !text.is_empty());
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let (change, device) = match flags {
            false => (None, text),
            // The next `@` counts, wherever it stands.
            true => match text
                .split_once('@')
                .and_then(|(digits, device)| Some((Some(configure(digits)?), device)))
            {
                Some(read) => read,
                None => return Some(Err(BadFlags(text.split(';').next().unwrap_or(text)))),
            },
        };
        let end = length(device);
        let (device, behind) = device.split_at(end);
        rest = behind.strip_prefix(';').filter(|text| !text.is_empty());
        let ends = !behind.is_empty() && !behind.starts_with(';');
        Some(Ok(Entry { change, device, ends }))
    })
}

/// The ACS controls of a function that these parameters set or clear, and those of the plan's own
/// kernel do not set or clear in the same way; none if there is no difference.
pub(crate) fn acs_mask(plan: &Plan, function: usize, parameters: &[String]) -> Option<AcsControl> {
    let then = AcsParameters::read(parameters).of(plan, function);
    let now = AcsParameters::read(&plan.found_with).of(plan, function);
    (then != now).then(|| then.map_or(AcsControl::empty(), |change| change.mask))
}

/// The entries of the last `option` (`config_acs=` or `disable_acs_redir=`) among the parameters that
/// name functions, but none of `without`.
pub(crate) fn kept_entries(
    parameters: &[String],
    option: &str,
    plan: &Plan,
    without: &[usize],
) -> Vec<String> {
    let last = options(parameters).filter_map(|it| it.strip_prefix(option)).last();
    let all = last.map(|text| entries(text, option == CONFIGURE).map_while(Result::ok));
    let named = |entry: &Entry<'_>, at: usize| names(entry.device, plan, at) == Ok(true);
    all.into_iter()
        .flatten()
        .filter(|entry| (0..plan.functions.len()).any(|at| named(entry, at)))
        .filter(|entry| !without.iter().any(|at| named(entry, *at)))
        .map(|entry| match entry.change {
            Some(change) => format!("{change}@{}", entry.device),
            None => entry.device.to_owned(),
        })
        .collect()
}

/// How many bytes of `text` the kernel takes for one device: IDs end where their digits do, anything
/// else at the semicolon.
fn length(text: &str) -> usize {
    let ids = text.strip_prefix("pci:").and_then(scan_ids);
    ids.map_or_else(|| text.find(';').unwrap_or(text.len()), |(_, rest)| text.len() - rest)
}

/// The flags of `config_acs`: a digit for each control, the lowest bit last; `x` leaves it as it
/// is.
fn configure(digits: &str) -> Option<Change> {
    let (mut mask, mut flags) = (0_u16, 0_u16);
    for (bit, digit) in (0_u32..).zip(digits.bytes().rev()) {
        // What does not fit into the kernel's 16 bits falls off, and it shifts modulo 32.
        let control = 1_u16.checked_shl(bit % 32).unwrap_or(0);
        match digit {
            b'0' => mask |= control,
            b'1' => {
                mask |= control;
                flags |= control;
            }
            b'x' | b'X' => {}
            _ => return None,
        }
    }
    let mask = AcsControl::from_bits(mask)?;
    Some(Change { mask, flags: AcsControl::from_bits_truncate(flags) })
}

/// What names no device in any form that Linux knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoDevice;

/// Whether `text` names the function: by IDs (`pci:VENDOR:DEVICE`), or by address and path
/// (`BUS:DEVICE.FUNCTION[/DEVICE.FUNCTION]...`), as `pci_dev_str_match()` understands it.
pub(super) fn names(text: &str, plan: &Plan, function: usize) -> Result<bool, NoDevice> {
    if let Some(ids) = text.strip_prefix("pci:") {
        let (ids, _) = scan_ids(ids).ok_or(NoDevice)?;
        return Ok(has_ids(ids, plan, function));
    }
    let (mut rest, mut at) = (text, function);
    while let Some((before, step)) = rest.rsplit_once('/') {
        if scan_devfn(step).ok_or(NoDevice)? != plan.functions[at].bdf.devfn() {
            return Ok(false);
        }
        let Some(above) = plan.functions[at].parent else { return Ok(false) };
        (rest, at) = (before, above);
    }
    let (segment, bus, devfn) =
        scan_address(rest, true).or_else(|| scan_address(rest, false)).ok_or(NoDevice)?;
    let own = plan.functions[at].bdf;
    if plan.functions[at].found.is_some_and(|found| found.missing) {
        return Ok(false);
    }
    let own_segment = plan.host_bridges[plan.functions[at].host_bridge].segment;
    Ok(segment == u64::from(own_segment) && bus == u64::from(own.bus()) && devfn == own.devfn())
}

/// `DEVICE.FUNCTION`, with nothing behind it; of both the kernel takes the bits that there are.
fn scan_devfn(text: &str) -> Option<u8> {
    let mut scan = Scan::new(text);
    let device = scan.hex(32)?;
    scan.literal(b'.')?;
    let function = scan.hex(32)?;
    scan.rest().is_empty().then_some(())?;
    u8::try_from((device & 0x1f) << 3 | function & 7).ok()
}

/// `[SEGMENT:]BUS:DEVICE.FUNCTION`.
fn scan_address(text: &str, with_segment: bool) -> Option<(u64, u64, u8)> {
    let mut scan = Scan::new(text);
    let mut number = || {
        let value = scan.hex(32)?;
        scan.literal(b':').map(|()| value)
    };
    let segment = if with_segment { number()? } else { 0 };
    let bus = number()?;
    let devfn = scan_devfn(std::str::from_utf8(scan.rest()).ok()?)?;
    Some((segment, bus, devfn))
}

/// Vendor, device, and subsystem IDs if there are four, and how many bytes are left behind them.
fn scan_ids(text: &str) -> Option<([u16; 4], usize)> {
    let take = |count: usize| {
        let mut scan = Scan::new(text);
        let mut ids = [0; 4];
        for (index, id) in ids.iter_mut().take(count).enumerate() {
            if index > 0 {
                scan.literal(b':')?;
            }
            *id = u16::try_from(scan.hex(16)?).ok()?;
        }
        Some((ids, scan.rest().len()))
    };
    take(4).or_else(|| take(2))
}

fn has_ids([vendor, device, sub_vendor, sub_device]: [u16; 4], plan: &Plan, at: usize) -> bool {
    let function = &plan.functions[at];
    let is = |wanted: u16, own: u16| wanted == 0 || wanted == own;
    if let Some(found) = function.found {
        let mut all = [vendor, device, sub_vendor, sub_device].into_iter().zip(found.ids);
        return all.all(|(wanted, own)| wanted == 0 || own.is_some_and(|own| is(wanted, own)));
    }
    let own = match function.kind {
        Kind::RootPort | Kind::SwitchUpstream | Kind::SwitchDownstream => PORT_IDS,
        Kind::Peer(_) => PEER_IDS,
        Kind::Endpoint(_, id) | Kind::Device(id) => (id.vendor, id.device),
        Kind::HostBridge => {
            let id = plan.host_bridges[function.host_bridge].id;
            (id.vendor, id.device)
        }
        Kind::Iommu | Kind::Rng | Kind::OtherBridge => return false,
    };
    // Our ports and devices show their IDs as subsystem IDs, too.
    let matches = |(vendor, device)| is(vendor, own.0) && is(device, own.1);
    matches((vendor, device)) && matches((sub_vendor, sub_device))
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
    fn entries_about_other_functions_are_kept() {
        let plan = Plan::new(&Topology::load("switch-acs").unwrap(), true).unwrap();
        let kept = |option: &str, text: &str, without: &str| {
            let own = [format!("pci=noaer,{option}{text}")];
            let without = plan.find(without).unwrap();
            kept_entries(&own, option, &plan, &[without])
        };
        let disable = |text: &str, without: &str| kept(DISABLE_REDIRECTION, text, without);
        assert_eq!(disable("02:00.0;02:01.0", "down0"), ["02:01.0"]);
        assert_eq!(disable("02:00.0;07:00.0;02:01.0", "down1"), ["02:00.0"], "07:00.0 is nothing");
        assert!(disable("pci:1b36:0", "down1").is_empty(), "it names both");
        assert_eq!(kept(CONFIGURE, "100x1@02:01.0;12@02:00.0", "down0"), ["xx100x1@02:01.0"]);
        assert!(kept_entries(&["quiet".into()], CONFIGURE, &plan, &[]).is_empty());
    }

    #[test]
    fn flags_are_read_from_the_right() {
        let change = configure("x10x1").unwrap();
        assert_eq!(change.mask.bits(), 0b01101);
        assert_eq!(change.flags.bits(), 0b01001);
        for nonsense in ["12", "10000000", "-1"] {
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
        assert_eq!(two.disable_redirection.as_deref(), Some("02:00.0;02:01.0"));
        assert_eq!(parameters(&["quiet", "pci=nomsi"]), AcsParameters::default());
    }
}
