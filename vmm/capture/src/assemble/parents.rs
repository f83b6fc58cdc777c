//! What is above each function: as a tree or sysfs states it, or by bus numbers.

use std::collections::{BTreeMap, BTreeSet};

use crate::gather::{Draft, Gathered, Notes};
use crate::{Address, Parent};

/// Most virtual functions that are looked for.
const MAX_VIRTUAL: usize = 1 << 20;

type Bus = (u32, u8);

fn bus(address: Address) -> Bus {
    (address.segment, address.bus)
}

/// The physical function of each virtual one: as stated, or by the offset and stride of the SR-IOV capability
/// (PCIe 6.0, 9.2.1.2).
pub(super) fn physical_functions(
    gathered: &Gathered,
    notes: &mut Notes,
) -> BTreeMap<Address, Address> {
    let mut physical = BTreeMap::new();
    for (address, draft) in &gathered.functions {
        let stated = draft.physical_function.get().filter(|of| gathered.functions.contains_key(of));
        if let Some(of) = stated {
            physical.insert(*address, *of);
        }
    }
    let mut left = MAX_VIRTUAL;
    for (address, draft) in &gathered.functions {
        let Some(virtuals) = draft.virtual_functions.get() else { continue };
        let mut id = u32::from(address.routing_id()) + u32::from(virtuals.offset);
        for _ in 0..virtuals.enabled {
            let Ok(routing_id) = u16::try_from(id) else { break };
            if left == 0 {
                notes.add("too many virtual functions: not all were looked for", None, None);
                return physical;
            }
            left -= 1;
            let at = Address::from_routing_id(address.segment, routing_id);
            if at != *address && gathered.functions.contains_key(&at) {
                physical.entry(at).or_insert(*address);
            }
            id += u32::from(virtuals.stride.max(1));
        }
    }
    physical
}

/// What is above each function.
pub(super) fn parents(
    gathered: &Gathered,
    physical: &BTreeMap<Address, Address>,
    notes: &mut Notes,
) -> BTreeMap<Address, Parent> {
    let buses = Buses::new(gathered, notes);
    let mut parents = BTreeMap::new();
    for (address, draft) in &gathered.functions {
        // A virtual function may be on a bus that no bridge leads to by its number.
        let of = physical.get(address);
        let (at, from) = match of.and_then(|of| Some((of, gathered.functions.get(of)?))) {
            Some((of, draft)) => (*of, draft),
            None => (*address, draft),
        };
        let parent = parent(at, from, &buses, gathered, notes);
        if parent == Parent::Unknown {
            let text =
                "the bridge above it is not known, so what it shares with others is not, either";
            notes.add(text, Some(*address), Some(draft.line));
        }
        parents.insert(*address, parent);
    }
    parents
}

fn parent(
    address: Address,
    draft: &Draft,
    buses: &Buses,
    gathered: &Gathered,
    notes: &mut Notes,
) -> Parent {
    if let Some((first, second)) = draft.parent.conflict() {
        let text = format!("what is above it is stated in two ways (lines {first} and {second})");
        notes.add(text, Some(address), Some(first));
        return Parent::Unknown;
    }
    match draft.parent.get() {
        // Bus numbers grow downwards, so no circle comes about.
        Some(Parent::Below(above))
            if above.bus < address.bus && above.segment == address.segment =>
        {
            if gathered.functions.contains_key(above) {
                return Parent::Below(*above);
            }
            return Parent::Unknown;
        }
        Some(Parent::Root) => return Parent::Root,
        Some(_) => return Parent::Unknown,
        None => {}
    }
    buses.above(bus(address))
}

/// What leads to each bus.
struct Buses {
    bridges: BTreeMap<Bus, Option<Address>>,
    roots: BTreeSet<Bus>,
}

impl Buses {
    fn new(gathered: &Gathered, notes: &mut Notes) -> Self {
        let mut bridges = BTreeMap::new();
        // For each segment one bit for each bus that is within the range of a bridge.
        let mut below: BTreeMap<u32, [bool; 256]> = BTreeMap::new();
        for (address, draft) in &gathered.functions {
            let Some(numbers) = draft.bus_numbers(*address) else { continue };
            // A bridge that is not set up has zeros.
            if numbers.secondary <= address.bus {
                continue;
            }
            let under = (address.segment, numbers.secondary);
            let range = usize::from(numbers.secondary)..=usize::from(numbers.subordinate);
            let within = below.entry(address.segment).or_insert([false; 256]);
            if let Some(within) = within.get_mut(range) {
                within.fill(true);
            }
            if let Some(other) = bridges.insert(under, Some(*address)) {
                let text = format!("two bridges lead to bus {:02x}", numbers.secondary);
                notes.add(text.clone(), Some(*address), Some(draft.line));
                notes.add(text, other, None);
                bridges.insert(under, None);
            }
        }
        let mut roots: BTreeSet<_> =
            gathered.roots.iter().map(|root| (root.segment, root.bus)).collect();
        for (address, draft) in &gathered.functions {
            let stated = draft.parent.get() == Some(&Parent::Root);
            // No bridge has 0 below it. A host bridge's own function and a root port are on a root bus; but what is
            // within the range of a bridge is below that, even if the one directly above is missing.
            let is_below =
                below.get(&address.segment).is_some_and(|within| within[usize::from(address.bus)]);
            let at_root = draft.port.get().is_some_and(|port| port.is_at_root())
                || draft.class.get() == Some(&0x0600);
            if stated || at_root && !is_below || address.bus == 0 {
                roots.insert(bus(*address));
            }
        }
        Self { bridges, roots }
    }

    fn above(&self, bus: Bus) -> Parent {
        match self.bridges.get(&bus) {
            Some(Some(bridge)) => Parent::Below(*bridge),
            Some(None) => Parent::Unknown,
            None if self.roots.contains(&bus) => Parent::Root,
            None => Parent::Unknown,
        }
    }
}
