//! The address windows of host bridges: which bridge gets which share.

use device_models::AddressRange;
use device_models::fabric::HostWindow;

use super::description::{HostBridge, Topology, Window};
use super::problem::{Item, Problem};
use crate::address_space;

const MIB: u64 = 1 << 20;

/// The memory and the prefetchable window of each host bridge, as the bridge's own `_TRA` puts them.
///
/// # Errors
/// A window of the description that leaves the machine's ranges, or overlaps another on the CPUs' side.
pub(super) fn share_out(topology: &Topology) -> Result<Vec<[HostWindow; 2]>, Problem> {
    let bridges = &topology.host_bridges;
    let mut all = Vec::new();
    let mut taken: Vec<(AddressRange, &str)> = Vec::new();
    for (index, bridge) in bridges.iter().enumerate() {
        let item = Item::HostBridge(index);
        if !bridge.translation.is_multiple_of(MIB) {
            let what = "the translation is not a multiple of 1 MiB".to_owned();
            return Err(Problem::new(item, "translation", what));
        }
        let share = |range: &std::ops::Range<u64>| {
            let size = (range.end - range.start) / (bridges.len() as u64).next_power_of_two();
            let first = range.start + size * index as u64;
            AddressRange { first, last: first + size - 1 }
        };
        let pair = [
            one(bridge, item, "memory", bridge.memory, share(&address_space::PCI_WINDOW_32))?,
            one(
                bridge,
                item,
                "prefetchable",
                bridge.prefetchable,
                share(&address_space::PCI_WINDOW_64),
            )?,
        ];
        for (window, key) in pair.iter().zip(["memory", "prefetchable"]) {
            let seen = window.seen_by_cpu();
            let overlaps =
                |other: &AddressRange| seen.first <= other.last && other.first <= seen.last;
            if let Some((other, whose)) = taken.iter().find(|(other, _)| overlaps(other)) {
                let what = format!(
                    "on the CPUs' side its {key} window {:#x} to {:#x} overlaps {:#x} to {:#x} of {whose:?}",
                    seen.first, seen.last, other.first, other.last
                );
                return Err(Problem::new(item, key, what));
            }
            taken.push((seen, &bridge.name));
        }
        all.push(pair);
    }
    Ok(all)
}

fn one(
    bridge: &HostBridge,
    item: Item,
    key: &'static str,
    window: Option<Window>,
    share: AddressRange,
) -> Result<HostWindow, Problem> {
    let wrong = |what: String| Err(Problem::new(item, key, what));
    let bus = window.map_or(share, AddressRange::from);
    let whole = match key {
        "memory" => address_space::PCI_WINDOW_32,
        _ => address_space::PCI_HIGH,
    };
    if bus.first > bus.last
        || !bus.first.is_multiple_of(MIB)
        || !bus.last.wrapping_add(1).is_multiple_of(MIB)
    {
        return wrong(format!("{:#x} to {:#x} is not a window of whole MiB", bus.first, bus.last));
    }
    if bus.first < whole.start || bus.last >= whole.end {
        return wrong(format!(
            "{:#x} to {:#x} does not fit: on the bus such windows lie from {:#x} to {:#x}",
            bus.first,
            bus.last,
            whole.start,
            whole.end - 1
        ));
    }
    let first = bus.first.checked_add(bridge.translation);
    let last = bus.last.checked_add(bridge.translation);
    let fits = first.zip(last).is_some_and(|(first, last)| {
        let inside = |range: std::ops::Range<u64>| range.start <= first && last < range.end;
        inside(address_space::PCI_WINDOW_32) || inside(address_space::PCI_HIGH)
    });
    if !fits {
        let key = if bridge.translation == 0 { key } else { "translation" };
        let what = format!(
            "with a translation of {:#x} the window {:#x} to {:#x} does not fit: on the CPUs' side there is room from \
             {:#x} to {:#x}",
            bridge.translation,
            bus.first,
            bus.last,
            address_space::PCI_HIGH.start,
            address_space::PCI_HIGH.end - 1
        );
        return Err(Problem::new(item, key, what));
    }
    Ok(HostWindow { bus, offset: bridge.translation })
}
