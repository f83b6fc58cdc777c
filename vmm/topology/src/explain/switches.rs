//! Which ACS controls a change switches.

use device_models::pci::AcsControl;

use super::address;
use super::report::{Remark, Switches};
use crate::acs::list;
use crate::linux::View;

/// What a kernel parameter about redirection is for.
const REDIRECTION: AcsControl = AcsControl::P2P_REQUEST_REDIRECT
    .union(AcsControl::P2P_COMPLETION_REDIRECT)
    .union(AcsControl::P2P_EGRESS_CONTROL);

/// Functions, with what goes on and off at each of them: those with equal changes together.
type Changes = Vec<(Vec<usize>, AcsControl, AcsControl)>;

fn changes(before: &View<'_>, after: &View<'_>, which: AcsControl) -> Changes {
    let mut found = Changes::new();
    for (at, (old, new)) in before.controls.iter().zip(&after.controls).enumerate() {
        let (on, off) = ((*new - *old) & which, (*old - *new) & which);
        if on.is_empty() && off.is_empty() {
            continue;
        }
        match found.iter_mut().find(|(_, other, another)| (*other, *another) == (on, off)) {
            Some((functions, ..)) => functions.push(at),
            None => found.push((vec![at], on, off)),
        }
    }
    found
}

/// All that changes.
pub(super) fn switches(before: &View<'_>, after: &View<'_>) -> Vec<Switches> {
    let all = changes(before, after, AcsControl::all()).into_iter();
    let one = |(functions, on, off): (Vec<usize>, AcsControl, AcsControl)| Switches {
        at: functions.into_iter().map(|at| address(after.plan, at)).collect(),
        on: list(on),
        off: list(off),
    };
    all.map(one).collect()
}

/// What goes off besides redirection: since Linux 6.12 both parameters go back to what the firmware
/// had set, and SV and UF, which Linux had switched on, are lost.
pub(super) fn lost(before: &View<'_>, after: &View<'_>) -> Vec<Remark> {
    if before.guest.iommu.has_iommu() != after.guest.iommu.has_iommu() || !same_tree(before, after)
    {
        return Vec::new();
    }
    let all = changes(before, after, AcsControl::all() - REDIRECTION);
    let off = all.into_iter().fold(AcsControl::empty(), |all, (_, _, off)| all | off);
    if off.is_empty() {
        return Vec::new();
    }
    let doubt = if after.plan.real { ", unless the firmware had them on" } else { "" };
    let what = match off.contains(AcsControl::SOURCE_VALIDATION) {
        true => ": devices there may use the requester ID of another",
        false => "",
    };
    let text = format!("{} off besides{doubt}{what}", list(off).join(" "));
    vec![Remark { id: "other-controls-lost", at: None, text }]
}

fn same_tree(before: &View<'_>, after: &View<'_>) -> bool {
    let capabilities = |view: &View<'_>| -> Vec<_> {
        view.plan.functions.iter().map(|function| function.acs).collect()
    };
    capabilities(before) == capabilities(after)
}
