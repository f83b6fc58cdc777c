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
    let all = changes(before, after, AcsControl::all() - REDIRECTION).into_iter();
    let one = |(functions, _, off): (Vec<usize>, AcsControl, AcsControl)| {
        let at: Vec<_> = functions.into_iter().map(|at| address(after.plan, at)).collect();
        let doubt = match after.plan.real {
            true => ", unless the firmware had switched that on itself",
            false => "",
        };
        let what = match off.contains(AcsControl::SOURCE_VALIDATION) {
            true => ": a device below may then pass for another",
            false => "",
        };
        let text = format!("{} goes off as well at {}{doubt}{what}", list(off).join(" "), at.join(", "));
        Remark { id: "other-controls-lost", at: None, text }
    };
    all.filter(|(_, _, off)| !off.is_empty()).map(one).collect()
}

fn same_tree(before: &View<'_>, after: &View<'_>) -> bool {
    let capabilities = |view: &View<'_>| -> Vec<_> {
        view.plan.functions.iter().map(|function| function.acs).collect()
    };
    capabilities(before) == capabilities(after)
}
