//! What a change costs: isolation, and other pairs.

use device_models::pci::AcsControl;

use super::advice::bypasses;
use super::report::Remark;
use super::{address, is_device, map_id, switches};
use crate::linux::{AddressKind, MapType, View};
use crate::plan::{Kind, Plan};
use crate::route::Arrival;

/// Names that are listed at most.
const LISTED: usize = 4;

/// What it costs to go from one view to the other for the sake of `a` and the memory of `b`.
pub(super) fn costs(
    before: &View<'_>,
    after: &View<'_>,
    (a, b): (usize, usize),
    kind: AddressKind,
) -> Vec<Remark> {
    let mut found = Vec::new();
    let cost = |id, text| Remark { id, at: None, text };
    let (was, is) = (before.guest.iommu, after.guest.iommu);
    if was.has_iommu() && !is.has_iommu() {
        found.push(cost("no-iommu", "no device is confined by an IOMMU any more".into()));
    } else if was.translates() && !is.translates() {
        let text = "the kernel's drivers get untranslated addresses: their devices reach all of \
                    memory";
        found.push(cost("passthrough", text.into()));
    }
    let map = after.decide(b, a).map;
    if bypasses(after, map, kind) && !bypasses(before, before.decide(b, a).map, AddressKind::Bus) {
        let text = "these requests bypass the IOMMU";
        found.push(cost("bypasses-iommu", text.into()));
    }
    if after.plan.real && !is.has_iommu() && map == MapType::BusAddress {
        let text = "if the kernel uses an IOMMU, these requests bypass it";
        found.push(cost("bypasses-iommu", text.into()));
    }
    found.extend(switches::lost(before, after));
    found.extend(groups(before, after));
    found.extend(pairs(before, after, (a, b)));
    found
}

/// Pairs of devices of a user's: one that does DMA, and one that has memory.
fn all_pairs(plan: &Plan) -> impl Iterator<Item = (usize, usize)> + '_ {
    let all = || 0..plan.functions.len();
    let of_a_user = |at: &usize| match plan.functions[*at].kind {
        Kind::Peer(_) | Kind::Endpoint(..) => true,
        // GPUs, network and NVMe controllers have names.
        Kind::Device(_) => plan.functions[*at].name != address(plan, *at),
        _ => false,
    };
    let clients = all().filter(of_a_user);
    clients.flat_map(move |client| {
        let providers = all().filter(move |at| plan.functions[*at].has_memory && *at != client);
        let providers = providers.filter(move |at| !plan.real || of_a_user(at));
        providers.map(move |provider| (client, provider))
    })
}

fn groups(before: &View<'_>, after: &View<'_>) -> Vec<Remark> {
    let plan = after.plan;
    let (old, new) = (before.groups(), after.groups());
    // A real machine's groups are as its kernel made them, quirks included.
    if plan.real {
        return real_groups(before, after).into_iter().collect();
    }
    if !before.guest.iommu.has_iommu() || !after.guest.iommu.has_iommu() {
        return Vec::new();
    }
    let devices: Vec<_> =
        (0..plan.functions.len()).filter(|at| is_device(&plan.functions[*at])).collect();
    let name = |at: usize| plan.functions[at].name.clone();
    let mut merged = Vec::new();
    let mut reached = Vec::new();
    for (index, &one) in devices.iter().enumerate() {
        for &other in &devices[index + 1..] {
            let apart = |groups: &[Option<usize>]| groups[one] != groups[other];
            if apart(&old) && !apart(&new) {
                merged.push(format!("{} and {}", name(one), name(other)));
            }
            for (from, to) in [(one, other), (other, one)] {
                let reach = |view: &View<'_>| {
                    view.routes_in_effect(from, to).by_bus_address.arrival == Arrival::Switch
                };
                if apart(&new) && reach(after) && !(apart(&old) && reach(before)) {
                    reached.push(format!("{} -> {}", name(from), name(to)));
                }
            }
        }
    }
    let mut found = Vec::new();
    let cost = |id, text| Remark { id, at: None, text };
    if !merged.is_empty() {
        let text = format!("IOMMU groups merge: {}", listed(&merged));
        found.push(cost("groups-merge", text));
    }
    if !reached.is_empty() {
        let text = format!(
            "IOMMU groups that stay apart reach each other past the IOMMU: {}",
            listed(&reached)
        );
        found.push(cost("groups-reach", text));
    }
    found
}

/// Linux isolates by what it requires of every function (`REQ_ACS_FLAGS`), or by a quirk for a
/// function's ID, which the record does not show.
fn real_groups(before: &View<'_>, after: &View<'_>) -> Option<Remark> {
    let required = AcsControl::SOURCE_VALIDATION
        | AcsControl::P2P_REQUEST_REDIRECT
        | AcsControl::P2P_COMPLETION_REDIRECT
        | AcsControl::UPSTREAM_FORWARDING;
    let lost = |at: &usize| (before.controls[*at] - after.controls[*at]).intersects(required);
    (0..after.controls.len()).any(|at| lost(&at)).then(|| Remark {
        id: "groups-may-merge",
        at: None,
        text: "IOMMU groups may merge there: vfio-pci then owns all of a group, or nothing".into(),
    })
}

fn pairs(before: &View<'_>, after: &View<'_>, own: (usize, usize)) -> Vec<Remark> {
    let plan = after.plan;
    let state = |view: &View<'_>, (client, provider): (usize, usize)| {
        let map = view.decide(provider, client).map;
        let address = view.dma_address(client, map);
        let modelled = view.models_routes(client, provider);
        let carries = !modelled || view.routes_in_effect(client, provider).carry(address);
        (map, address, carries)
    };
    let mut changed = Vec::new();
    let mut lost = Vec::new();
    let other_mode = before.guest.iommu != after.guest.iommu;
    let reverse = (own.1, own.0);
    for pair in all_pairs(plan).filter(|pair| *pair != own) {
        let (old, new) = (state(before, pair), state(after, pair));
        let name = || format!("{} -> {}", plan.functions[pair.0].name, plan.functions[pair.1].name);
        if new.0 != MapType::NotSupported && new.1 != AddressKind::Refused && !new.2 {
            if old.2 || old.0 == MapType::NotSupported || old.1 == AddressKind::Refused {
                lost.push(name());
            }
        } else if (old.0, old.1) != (new.0, new.1) && pair != reverse && !other_mode {
            changed.push(format!("{} ({})", name(), map_id(new.0)));
        }
    }
    let mut found = Vec::new();
    let cost = |id, text| Remark { id, at: None, text };
    if !lost.is_empty() {
        found.push(cost(
            "other-pairs-lost",
            format!("data of other pairs is lost: {}", listed(&lost)),
        ));
    }
    if !changed.is_empty() {
        let text = format!("other pairs change, too: {}", listed(&changed));
        found.push(cost("other-pairs-change", text));
    }
    found
}

/// The first of them, and how many more there are.
fn listed(all: &[String]) -> String {
    let first = all.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(LISTED) {
        0 => first,
        more => format!("{first}, and {more} more"),
    }
}
