//! What the checker asks about mappings, to explain what has gone wrong. Nothing here changes
//! anything.
use super::domain::Domain;
use super::table::Mapping;
use super::{MapFlags, VirtioIommu};
use crate::AddressRange;
use crate::pci::Bdf;

/// Most requests of other processors between the MAP requests for two pieces of one scatterlist.
const INTERLEAVED: u64 = 64;
/// Most pieces of one scatterlist that are followed.
const MAX_PIECES: usize = 256;

/// A mapping in force, for the checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The addresses it covers.
    pub range: AddressRange,
    /// The MAP request that made it.
    pub request: u64,
}

impl From<&Mapping> for Piece {
    fn from(mapping: &Mapping) -> Self {
        Self { range: mapping.range, request: mapping.born() }
    }
}

/// Whether `next` can be the piece behind `piece` of what was mapped in one go: at the next
/// addresses, by a later request, with the same flags. Linux gives a scatterlist one range of
/// addresses and maps it piece by piece, upwards, each stretch of physical memory by a request of
/// its own; `others` requests may come in between.
fn goes_on(piece: &Mapping, next: &Mapping, others: u64) -> bool {
    piece.range.last.checked_add(1) == Some(next.range.first)
        && piece.flags() == next.flags()
        && (1..=others + 1).contains(&next.born().saturating_sub(piece.born()))
}

impl VirtioIommu {
    /// The domain that translates for `requester`; none if nothing does.
    #[must_use]
    pub fn translating_domain(&self, requester: Bdf) -> Option<u32> {
        self.space_of(requester).map(|(number, _)| number)
    }

    fn space_of(&self, requester: Bdf) -> Option<(u32, &Domain)> {
        let number = self.endpoints.get(&requester)?.domain?;
        let domain = self.domains.get(&number).filter(|domain| !domain.bypass)?;
        Some((number, domain))
    }

    /// The mapping that covers `address` for `requester`.
    #[must_use]
    pub fn mapping_at(&self, requester: Bdf, address: u64) -> Option<Piece> {
        self.space_of(requester)?.1.table.find(address).map(Piece::from)
    }

    /// The MAP request with which it began that `address` is mapped for `requester`: that of the
    /// first piece, where requests in a row have mapped pieces that lie side by side.
    #[must_use]
    pub fn mapped_since(&self, requester: Bdf, address: u64) -> Option<u64> {
        let table = &self.space_of(requester)?.1.table;
        let mut first = table.find(address)?;
        for _ in 0..MAX_PIECES {
            let before = first.range.first.checked_sub(1).and_then(|before| table.find(before));
            match before.filter(|before| goes_on(before, first, 0)) {
                Some(before) => first = before,
                None => break,
            }
        }
        Some(first.born())
    }

    /// The UNMAP request with which it began that `address` is not mapped for `requester` any more:
    /// that of the first piece, where requests in a row have unmapped pieces that lay side by side.
    /// None if it never was, as far back as the history goes.
    #[must_use]
    pub fn unmapped_since(&self, requester: Bdf, address: u64) -> Option<u64> {
        self.space_of(requester)?.1.gone_since(address)
    }

    /// The two mappings that meet at `address`, if `requester` has two there that were not made in
    /// one go.
    #[must_use]
    pub fn edge_at(&self, requester: Bdf, address: u64) -> Option<(Piece, Piece)> {
        let table = &self.space_of(requester)?.1.table;
        let (piece, next) = (table.find(address.checked_sub(1)?)?, table.find(address)?);
        let apart = next.range.first == address && !goes_on(piece, next, INTERLEAVED);
        apart.then(|| (piece.into(), next.into()))
    }

    /// Whether any of `range` may have been mapped or unmapped for `requester` since its request
    /// number `request`, or is mapped now.
    #[must_use]
    pub fn changed_since(&self, requester: Bdf, range: AddressRange, request: u64) -> bool {
        self.space_of(requester).is_some_and(|(_, domain)| {
            domain.table.overlap(range).is_some() || domain.lost_since(range, request)
        })
    }

    /// The mappings for `requester` that are nearest to `address`, at most `most`, by address and in words; and how many
    /// there are. None if nothing is translated for it.
    #[must_use]
    pub fn mappings_near(
        &self,
        requester: Bdf,
        address: u64,
        most: usize,
    ) -> Option<(Vec<String>, usize)> {
        let (_, domain) = self.space_of(requester)?;
        let distance = |mapping: &&Mapping| mapping.range.distance(address);
        let mut all: Vec<_> = domain.table.iter().collect();
        let count = all.len();
        all.sort_by_key(distance);
        all.truncate(most);
        all.sort_by_key(|mapping| mapping.range.first);
        let words = |mapping: &Mapping| {
            let flags = mapping.flags();
            let access = match (flags.contains(MapFlags::READ), flags.contains(MapFlags::WRITE)) {
                (true, true) => "reading and writing",
                (true, false) => "reading",
                (false, true) => "writing",
                (false, false) => "no access",
            };
            let mmio = if flags.contains(MapFlags::MMIO) { ", MMIO" } else { "" };
            format!("{} for {access}{mmio}, by request #{}", mapping.range, mapping.born())
        };
        Some((all.into_iter().map(words).collect(), count))
    }

    /// An address at or above 4 GiB that is mapped for `requester` and has `low` as its lower half.
    #[must_use]
    pub fn mapped_above(&self, requester: Bdf, low: u32) -> Option<u64> {
        self.space_of(requester)?.1.table.find_above(low)
    }
}
