//! Assigning addresses. Sums are 128 bits wide: six BARs of 2^62 bytes must not wrap.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

use super::scan::{Bar, Bridge, Function};
use super::{AssignedBar, AssignedFunction, Assignment, FirmwareError, HostResources, WindowKind};
use crate::pci::config::Windows;
use crate::pci::spec::header::type1::WINDOW_GRANULE;

/// Room that is needed: `size` bytes from a multiple of `align` on.
#[derive(Clone, Copy, Debug)]
struct Demand {
    size: u128,
    align: u128,
}

/// What goes into a range, in the order in which it is placed.
enum Item<'a> {
    Bar(&'a Function, &'a Bar),
    Window(&'a Function, &'a Bridge),
}

/// Places everything below the host bridge.
pub(super) fn allocate(
    root: &[Function],
    host: &HostResources,
) -> Result<Assignment, FirmwareError> {
    let mut plan = Assignment::default();
    list(root, &mut plan);
    for (window, range) in
        [(WindowKind::Memory, &host.memory), (WindowKind::Prefetchable, &host.prefetchable)]
    {
        place(root, window, range, (*range.start()).into(), &mut plan)
            .map_err(|error| blame(error, root, window, range))?;
    }
    Ok(plan)
}

/// The BAR that found no room may be a small one, behind one that has taken it all: that one is
/// named then.
fn blame(
    error: FirmwareError,
    root: &[Function],
    window: WindowKind,
    range: &RangeInclusive<u64>,
) -> FirmwareError {
    match (&error, largest(root, window)) {
        (FirmwareError::NoSpace { size, .. }, Some((function, bar))) if bar.size > *size => {
            no_space(function, bar, window, range)
        }
        _ => error,
    }
}

/// Lists the functions, still without addresses.
fn list(functions: &[Function], plan: &mut Assignment) {
    for function in functions {
        let bridge = function.bridge.as_ref();
        plan.functions.push(AssignedFunction {
            function: function.bdf,
            bars: Vec::new(),
            bridge: bridge.map(|bridge| (bridge.buses, Windows::default())),
        });
        if let Some(bridge) = bridge {
            list(&bridge.below, plan);
        }
    }
}

/// The items of a bus for one window, those with the largest alignment first: then nothing is
/// lost between them, and what a bus needs does not depend on where it lies.
fn items(functions: &[Function], window: WindowKind) -> Vec<(Item<'_>, Demand)> {
    let mut items = Vec::new();
    for function in functions {
        for bar in function.bars.iter().filter(|bar| bar.window == window) {
            let size = u128::from(bar.size);
            items.push((Item::Bar(function, bar), Demand { size, align: size }));
        }
        if let Some(bridge) = &function.bridge {
            let needed = demand(&bridge.below, window);
            if needed.size > 0 {
                let granule = u128::from(WINDOW_GRANULE);
                let size = needed.size.next_multiple_of(granule);
                let align = needed.align.max(granule);
                items.push((Item::Window(function, bridge), Demand { size, align }));
            }
        }
    }
    items.sort_by_key(|(_, demand)| Reverse(demand.align));
    items
}

/// What a whole bus needs.
fn demand(functions: &[Function], window: WindowKind) -> Demand {
    items(functions, window).iter().fold(Demand { size: 0, align: 1 }, |bus, (_, item)| Demand {
        size: bus.size.next_multiple_of(item.align) + item.size,
        align: bus.align.max(item.align),
    })
}

/// Places the items of a bus from `next` on within the host bridge's `range`.
fn place(
    functions: &[Function],
    window: WindowKind,
    range: &RangeInclusive<u64>,
    mut next: u128,
    plan: &mut Assignment,
) -> Result<(), FirmwareError> {
    for (item, demand) in items(functions, window) {
        let start = next.next_multiple_of(demand.align);
        next = start + demand.size;
        let place = u64::try_from(start).ok().zip(u64::try_from(next - 1).ok());
        let place = place.filter(|(_, last)| last <= range.end());
        match item {
            Item::Bar(function, bar) => {
                let Some((first, last)) = place else {
                    return Err(no_space(function, bar, window, range));
                };
                let assigned = AssignedBar { index: bar.index, range: first..=last, window };
                if let Some(entry) = plan.entry(function) {
                    entry.bars.push(assigned);
                    entry.bars.sort_by_key(|bar| bar.index);
                }
            }
            Item::Window(function, bridge) => {
                if let Some((first, last)) = place
                    && let Some((_, windows)) =
                        plan.entry(function).and_then(|entry| entry.bridge.as_mut())
                {
                    *match window {
                        WindowKind::Memory => &mut windows.memory,
                        WindowKind::Prefetchable => &mut windows.prefetchable,
                    } = Some(first..=last);
                }
                // The bus below finds the BAR that does not fit.
                self::place(&bridge.below, window, range, start, plan)?;
                if place.is_none()
                    && let Some((function, bar)) = largest(&bridge.below, window)
                {
                    return Err(no_space(function, bar, window, range));
                }
            }
        }
    }
    Ok(())
}

/// The largest BAR below, the first of several.
fn largest(functions: &[Function], window: WindowKind) -> Option<(&Function, &Bar)> {
    let own =
        functions.iter().flat_map(|function| function.bars.iter().map(move |b| (function, b)));
    let below = functions.iter().filter_map(|function| function.bridge.as_ref());
    let below = below.filter_map(|bridge| largest(&bridge.below, window));
    own.filter(|(_, bar)| bar.window == window)
        .chain(below)
        .min_by_key(|(function, bar)| (Reverse(bar.size), function.bdf))
}

fn no_space(
    function: &Function,
    bar: &Bar,
    window: WindowKind,
    range: &RangeInclusive<u64>,
) -> FirmwareError {
    FirmwareError::NoSpace {
        function: function.bdf,
        index: bar.index,
        size: bar.size,
        window,
        range: range.clone(),
    }
}

impl Assignment {
    fn entry(&mut self, function: &Function) -> Option<&mut AssignedFunction> {
        self.functions.iter_mut().find(|entry| entry.function == function.bdf)
    }
}
