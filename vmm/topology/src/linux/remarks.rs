//! What is worth saying about kernel parameters: those that do not do what a user may expect of
//! them, and those that the prediction leaves out.

use super::parameters::{
    BadFlags, CONFIGURE, DISABLE_REDIRECTION, NoDevice, entries, names, options,
};
use super::pci_options::{self, PciOption};
use crate::plan::Plan;

/// A sentence about one kernel parameter, which it begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The sentence.
    pub text: String,
    /// Whether it says no more than that the prediction does not look at the parameter.
    pub only_left_out: bool,
}

/// Those of which Linux keeps the last one only.
const LAST_COUNTS: [&str; 3] = [DISABLE_REDIRECTION, CONFIGURE, "resource_alignment="];

const OTHERS: &str = "not looked at; what changes the prediction is pci=disable_acs_redir=, pci=config_acs= and \
                      swiotlb=force";

/// What there is to say of the parameters of a kernel that meets this topology.
pub fn remarks(parameters: &[String], plan: &Plan) -> Vec<Remark> {
    let mut found = Vec::new();
    for parameter in parameters {
        if let Some(all) = parameter.strip_prefix("pci=") {
            found.extend(all.split(',').flat_map(|option| of_option(option, plan)).map(said));
        } else if let Some((text, only_left_out)) = of_another(parameter, plan.real) {
            found.push(Remark { text: format!("{parameter}: {text}"), only_left_out });
        }
    }
    found.extend(replaced(parameters).map(said));
    found
}

fn said(text: String) -> Remark {
    Remark { text, only_left_out: false }
}

/// One of those that do not begin with `pci=`.
fn of_another(parameter: &str, real: bool) -> Option<(String, bool)> {
    let name = parameter.split('=').next().unwrap_or_default();
    match name {
        // Of a real machine it is known whether there is an IOMMU, and as what the parameter says.
        "iommu" if real && ["iommu=pt", "iommu=nopt"].contains(&parameter) => None,
        "iommu.passthrough" if real => None,
        "iommu" | "intel_iommu" | "amd_iommu" if real => Some((
            "not looked at: whether there is an IOMMU is as the file says, and so is what ACS Linux \
             switches on for its sake"
                .into(),
            false,
        )),
        "swiotlb" => None,
        "pcie_acs_override" => Some((
            "not in mainline Linux, but in a patch of some distributions' kernels; what switches redirection off is \
             pci=config_acs=FLAGS@DEVICE and pci=disable_acs_redir=DEVICE"
                .into(),
            false,
        )),
        "intel_iommu" | "amd_iommu" => Some((
            "there is no such IOMMU here; say --iommu strict, lazy, passthrough or none".into(),
            false,
        )),
        // Of words that Linux does not know it makes arguments of the first process.
        _ if pci_options::find(parameter).is_some() => {
            Some((format!("does nothing; it is an option of pci=: pci={parameter}"), false))
        }
        _ => Some((OTHERS.into(), true)),
    }
}

fn of_option(option: &str, plan: &Plan) -> Vec<String> {
    let one = |text: String| vec![format!("pci={option}: {text}")];
    match pci_options::find(option) {
        // Linux passes over it.
        _ if option.is_empty() => Vec::new(),
        None => one(format!("Linux has no such option{}", pci_options::meant(option))),
        Some(PciOption::Elsewhere(place)) => one(format!("does nothing: Linux has it {place}")),
        // What else there is of options was judged by the lab's devices.
        Some(PciOption::Changes(_) | PciOption::Idle(_)) if plan.real => {
            one("not looked at".into())
        }
        Some(PciOption::Changes(what)) => {
            one(format!("the prediction leaves it out; what it changes: {what}"))
        }
        Some(PciOption::Idle(why)) => one(format!("changes nothing: {why}")),
        Some(PciOption::Modelled) => {
            if let Some(devices) = option.strip_prefix(DISABLE_REDIRECTION) {
                of_entries(devices, false, plan).into_iter().flat_map(one).collect()
            } else if let Some(rules) = option.strip_prefix(CONFIGURE) {
                of_entries(rules, true, plan).into_iter().flat_map(one).collect()
            } else if plan.real {
                one("switches Translation Blocking on, which changes no way".into())
            } else {
                one(
                    "besides ATS, which nothing here has, it switches ACS Translation Blocking on, together with the \
                     other controls; no way changes"
                        .into(),
                )
            }
        }
    }
}

/// What is wrong with the entries of a parameter, up to where Linux stops reading.
fn of_entries(text: &str, flags: bool, plan: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    let functions = 0..plan.functions.len();
    for entry in entries(text, flags) {
        let device = match entry {
            Ok(entry) => entry.device,
            Err(BadFlags(text)) => {
                found.push(format!(
                    "{text:?} is not FLAGS@DEVICE, with flags of 0, 1 and x; Linux stops there"
                ));
                break;
            }
        };
        let all: Vec<_> = functions.clone().map(|at| names(device, plan, at)).collect();
        if all.contains(&Ok(true)) {
            continue;
        }
        // A step of a path is read by those functions only that the steps behind it name.
        let broken = all.contains(&Err(NoDevice));
        let stops = if broken { "; Linux cannot read it, and stops there" } else { "" };
        let whose = if plan.real { "the file" } else { "this topology" };
        found.push(format!("{device:?} names no function of {whose}{stops}"));
        if all.iter().all(|it| *it == Err(NoDevice)) {
            break;
        }
    }
    found
}

/// All but the last of several options of which Linux keeps the last.
fn replaced(parameters: &[String]) -> impl Iterator<Item = String> {
    let of_one = move |name: &'static str| {
        let mut all: Vec<_> = options(parameters).filter(|it| it.starts_with(name)).collect();
        let last = all.pop().unwrap_or_default();
        let text = move |option: &str| {
            format!(
                "pci={option}: does nothing: of several pci={name} Linux takes the last, pci={last}"
            )
        };
        all.into_iter().map(text).collect::<Vec<_>>()
    };
    LAST_COUNTS.into_iter().flat_map(of_one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topology;

    fn remarks_on(parameters: &[&str]) -> Vec<String> {
        let plan = Plan::new(&Topology::load("switch-acs").unwrap(), true).unwrap();
        let parameters: Vec<_> = parameters.iter().map(|text| (*text).to_owned()).collect();
        remarks(&parameters, &plan).into_iter().map(|remark| remark.text).collect()
    }

    #[test]
    fn what_has_no_effect_is_named() {
        for silent in [
            "pci=disable_acs_redir=02:00.0;02:01.0",
            "pci=config_acs=111x1@02:00.0",
            "swiotlb=force",
            "pci=",
        ] {
            assert_eq!(remarks_on(&[silent]), Vec::<String>::new(), "{silent}");
        }
        for one in [
            "pci=disable_acs_redir=02:00.0;zz",
            "pci=disable_acs_redir=05:00.0",
            "pci=config_acs=zzz",
            "pci=config_acs=111x1@05:00.0",
            "quiet",
        ] {
            assert_eq!(remarks_on(&[one]).len(), 1, "{one}");
        }
        assert_eq!(remarks_on(&["pci=disable_acs_redirr=02:00.0,noaer"]).len(), 2);
        let [broken] = remarks_on(&["pci=disable_acs_redir=zz;02:00.0"]).try_into().unwrap();
        assert!(broken.ends_with("and stops there"), "{broken}");
    }

    #[test]
    fn what_linux_never_had_is_told_apart_from_what_is_left_out() {
        let one = |parameter: &str| remarks_on(&[parameter]).remove(0);
        assert!(one("pci=noacs").contains("Linux has no such option"));
        assert!(one("pci=nommconf").contains("leaves it out; what it changes: the guest finds no"));
        assert!(one("pci=noats").contains("Translation Blocking"));
        assert!(one("pci=noari").contains("changes nothing"));
        assert!(one("pci=nomio").contains("s390"));
        assert!(one("noats").contains("an option of pci="));
        assert!(one("disable_acs_redir=02:00.0").contains("pci=disable_acs_redir=02:00.0"));
        assert!(one("pcie_acs_override=downstream").contains("not in mainline"));
        assert!(one("quiet").contains("not looked at"));
    }

    #[test]
    fn of_several_only_the_last_counts() {
        let [first] = remarks_on(&["pci=config_acs=111x1@02:00.0", "pci=config_acs=111x1@02:01.0"])
            .try_into()
            .unwrap();
        assert_eq!(
            first,
            "pci=config_acs=111x1@02:00.0: does nothing: of several pci=config_acs= Linux takes the last, \
             pci=config_acs=111x1@02:01.0"
        );
        let three =
            "pci=disable_acs_redir=02:00.0,disable_acs_redir=02:01.0,disable_acs_redir=02:00.0";
        assert_eq!(remarks_on(&[three]).len(), 2);
        // Of two different ones both count.
        assert!(remarks_on(&["pci=config_acs=111x1@02:00.0,disable_acs_redir=02:01.0"]).is_empty());
    }
}
