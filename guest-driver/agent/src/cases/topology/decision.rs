//! What the kernel decides about DMA into the memory of a peer device, against what the VMM expects.

use super::{can_follow, cannot_follow};
use crate::cases::{Bench, Verdict, ensure};
use crate::device::{self, Peer};
use crate::vmm::{Address, Other, Path, PathKind};
use std::fmt;

/// Whose DMA it is.
#[derive(Clone, Copy, Debug)]
pub(in crate::cases) enum Client<'a> {
    /// A peer device, by its number.
    Peer(u32),
    /// A device of another kind, by what is expected of it.
    Other(&'a Other),
}

impl fmt::Display for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(instance) => f.write_str(&device::name(*instance)),
            Self::Other(other) => f.write_str(&other.name),
        }
    }
}

/// What is expected of a client's DMA into the memory of another device.
#[derive(Debug)]
pub(in crate::cases) struct Expectation<'a> {
    /// The device that wants access.
    pub(in crate::cases) client: Client<'a>,
    /// Whose memory it is.
    pub(in crate::cases) owner: &'a Peer,
    /// What the kernel must decide, and what then becomes of the data.
    pub(in crate::cases) path: &'a Path,
}

/// What came of sharing a buffer with the client.
#[derive(Clone, Debug)]
pub(in crate::cases) enum Access {
    /// The exporter has refused the attachment: there is no way.
    NotAttached,
    /// Attached, but not mapped, for this reason.
    NotMapped(String),
    /// Something else went wrong: never expected.
    Failed(String),
    /// Its first byte has this DMA address.
    At(u64),
}

impl Expectation<'_> {
    /// What is wrong with the kernel's answer, a sentence for each thing.
    fn wrong(&self, distance: i32, access: &Access) -> Vec<String> {
        let mut wrong = Vec::from_iter(self.wrong_distance(distance));
        let expected = (self.path.way != PathKind::None).then_some(self.path.address);
        match (access, expected) {
            (Access::NotAttached, None) | (Access::NotMapped(_), Some(Address::None)) => {}
            (Access::NotAttached, Some(_)) => {
                wrong.push(format!(
                    "there is a way ({:?}), but the exporter refuses the attachment",
                    self.path.way
                ));
            }
            (Access::NotMapped(reason) | Access::Failed(reason), _) => {
                wrong.push(format!("no DMA address: {reason}"))
            }
            (Access::At(value), None) => {
                wrong.push(format!("there is no way, but {value:#x} is its DMA address"));
            }
            (Access::At(value), Some(address)) => {
                let kind = self.kind(*value);
                if kind != address {
                    wrong.push(format!(
                        "expected an address of kind {address:?}, {value:#x} is of kind {kind:?} (bus {:#x}, CPU {:#x})",
                        self.owner.info.memory_bus, self.owner.info.memory_phys
                    ));
                }
            }
        }
        wrong
    }

    fn wrong_distance(&self, distance: i32) -> Option<String> {
        let expected = self.path.distance;
        (distance != expected)
            .then(|| format!("expected a distance of {expected}, the kernel has {distance}"))
    }

    /// The kind of a DMA address: the expected one if it can be that. Where the host bridge does not translate, two of
    /// them look the same.
    fn kind(&self, address: u64) -> Address {
        let kinds = kinds_of(self.owner, address);
        if kinds.contains(&self.path.address) {
            self.path.address
        } else {
            kinds.first().copied().unwrap_or(Address::Iova)
        }
    }
}

/// The kernel's decisions of one test, and what is wrong with them.
#[derive(Debug, Default)]
pub(in crate::cases) struct Decisions {
    wrong: Vec<String>,
    /// Some that this kernel's driver cannot follow.
    beyond: bool,
}

impl Decisions {
    /// One more: sent to the VMM, shown in the report, and compared with what is expected.
    pub(in crate::cases) fn add(
        &mut self,
        bench: &mut Bench<'_>,
        expected: &Expectation<'_>,
        distance: i32,
        access: &Access,
    ) -> Verdict {
        let Expectation { client, owner, .. } = expected;
        let mapped = match access {
            Access::At(value) => Some((expected.kind(*value), *value)),
            Access::NotAttached | Access::NotMapped(_) | Access::Failed(_) => None,
        };
        if let Some(vmm) = bench.vmm.as_mut() {
            match client {
                Client::Peer(instance) => vmm.path(owner.instance, instance, distance, mapped)?,
                Client::Other(other) => {
                    vmm.path(owner.instance, &other.function, distance, mapped)?
                }
            }
        }
        let address =
            mapped.map_or("no DMA address".into(), |(_, value)| format!("DMA address {value:#x}"));
        bench.note(format!("{client} -> {}: distance {distance}, {address}", owner.name()));

        let wrong = if can_follow(bench, expected.path)? {
            expected.wrong(distance, access)
        } else {
            // A driver that cannot follow has its own way of being wrong: the test is skipped in the end.
            self.beyond = true;
            Vec::from_iter(expected.wrong_distance(distance))
        };
        let what = |wrong| format!("{client} into {}: {wrong}", owner.name());
        self.wrong.extend(wrong.into_iter().map(what));
        Ok(())
    }

    /// The verdict on all of them.
    pub(in crate::cases) fn verdict(self) -> Verdict {
        ensure!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        if self.beyond { cannot_follow() } else { Ok(()) }
    }
}

/// The kinds of address that a number can be.
pub(in crate::cases) fn kinds_of(owner: &Peer, address: u64) -> Vec<Address> {
    let within =
        |start: u64| (start..start.saturating_add(owner.info.memory_size)).contains(&address);
    let mut kinds = Vec::new();
    if within(owner.info.memory_bus) {
        kinds.push(Address::Bus);
    }
    if within(owner.info.memory_phys) {
        kinds.push(Address::Phys);
    }
    if kinds.is_empty() {
        kinds.push(Address::Iova);
    }
    kinds
}
