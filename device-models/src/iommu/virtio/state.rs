//! The requests that change something, typed. Each call is one request: it takes the next request
//! number, and a refusal is kept for the checker.

use super::domain::{Conflict, Domain};
use super::refusal::{Reason, Request};
use super::{AttachFlags, Features, MapFlags, Status, VirtioIommu};
use crate::AddressRange;
use crate::pci::Bdf;

/// UNMAP requests that are noted until they are asked for.
const MAX_UNMAPPED: usize = 1 << 12;

impl VirtioIommu {
    /// Whether the addresses of UNMAP requests are noted, for [`VirtioIommu::take_unmapped`].
    pub fn note_unmaps(&mut self, on: bool) {
        self.notes_unmaps = on;
        self.unmapped.clear();
    }

    /// The domains and addresses of the UNMAP requests since the last call that have removed
    /// something: the first few thousand.
    pub fn take_unmapped(&mut self) -> Vec<(u32, AddressRange)> {
        std::mem::take(&mut self.unmapped)
    }

    /// ATTACH (5.13.6.3). `flags` may hold bits that do not exist: they are refused.
    ///
    /// # Errors
    ///
    /// The status that the driver reads.
    pub fn attach(&mut self, domain: u32, endpoint: u32, flags: u32) -> Result<(), Status> {
        self.requests += 1;
        let outcome = self.try_attach(domain, endpoint, flags);
        self.conclude(outcome, || Request::Attach { domain, endpoint, flags })
    }

    fn try_attach(&mut self, domain: u32, endpoint: u32, flags: u32) -> Result<(), Reason> {
        let flags = AttachFlags::from_bits(flags)
            .filter(|flags| flags.is_empty() || self.features.contains(Features::BYPASS_CONFIG))
            .ok_or(Reason::Flags)?;
        let id = self.served(endpoint)?;
        if !self.config.domain_range.contains(&domain) {
            return Err(Reason::DomainRange);
        }
        let bypass = flags.contains(AttachFlags::BYPASS);
        if self.domains.get(&domain).is_some_and(|existing| existing.bypass != bypass) {
            return Err(Reason::BypassMismatch);
        }
        if self.endpoints.get(&id).and_then(|endpoint| endpoint.domain) == Some(domain) {
            return Ok(());
        }
        self.leave_domain(id);
        let page_shift = self.config.page_size_mask.trailing_zeros();
        self.domains.entry(domain).or_insert_with(|| Domain::new(bypass, page_shift)).endpoints +=
            1;
        if let Some(endpoint) = self.endpoints.get_mut(&id) {
            endpoint.domain = Some(domain);
        }
        self.invalidate();
        Ok(())
    }

    /// DETACH (5.13.6.4).
    ///
    /// # Errors
    ///
    /// The status that the driver reads.
    pub fn detach(&mut self, domain: u32, endpoint: u32) -> Result<(), Status> {
        self.requests += 1;
        let outcome = self.try_detach(domain, endpoint);
        self.conclude(outcome, || Request::Detach { domain, endpoint })
    }

    fn try_detach(&mut self, domain: u32, endpoint: u32) -> Result<(), Reason> {
        let id = self.served(endpoint)?;
        if self.endpoints.get(&id).and_then(|endpoint| endpoint.domain) != Some(domain) {
            return Err(Reason::NotAttached);
        }
        self.leave_domain(id);
        self.invalidate();
        Ok(())
    }

    /// MAP (5.13.6.5) of the addresses from `virt_start` to `virt_end`, both included. `flags` may
    /// hold bits that do not exist: they are refused.
    ///
    /// # Errors
    ///
    /// The status that the driver reads, or would read if it looked.
    pub fn map(
        &mut self,
        domain: u32,
        virt_start: u64,
        virt_end: u64,
        phys_start: u64,
        flags: u32,
    ) -> Result<(), Status> {
        self.requests += 1;
        let outcome = self.try_map(domain, virt_start, virt_end, phys_start, flags);
        self.conclude(outcome, || Request::Map { domain, virt_start, virt_end, phys_start, flags })
    }

    fn try_map(
        &mut self,
        domain: u32,
        start: u64,
        end: u64,
        target: u64,
        flags: u32,
    ) -> Result<(), Reason> {
        let window = self.msi_window();
        let space = self.domains.get_mut(&domain).ok_or(Reason::NoDomain)?;
        if space.bypass {
            return Err(Reason::BypassDomain);
        }
        let flags = MapFlags::from_bits(flags)
            .filter(|flags| {
                !flags.contains(MapFlags::MMIO) || self.features.contains(Features::MMIO)
            })
            .ok_or(Reason::Flags)?;
        let granularity =
            1_u64.checked_shl(self.config.page_size_mask.trailing_zeros()).unwrap_or(1);
        // The end is inclusive: where it is the last address of all, the address behind it counts
        // as aligned.
        if (start | target | end.wrapping_add(1)) & (granularity - 1) != 0 {
            return Err(Reason::Alignment { granularity });
        }
        if end < start {
            return Err(Reason::Empty);
        }
        if start < *self.config.input_range.start() || end > *self.config.input_range.end() {
            return Err(Reason::InputRange);
        }
        if target.checked_add(end - start).is_none() {
            return Err(Reason::TargetWraps);
        }
        let range = AddressRange { first: start, last: end };
        if let Some(window) = window.filter(|window| window.overlaps(&range)) {
            return Err(Reason::Reserved(window));
        }
        if self.live_mappings >= self.config.max_mappings {
            return Err(Reason::TooMany { limit: self.config.max_mappings });
        }
        space.map(range, target, flags, self.requests).map_err(Reason::from)?;
        self.live_mappings += 1;
        Ok(())
    }

    /// UNMAP (5.13.6.6) of the addresses from `virt_start` to `virt_end`, both included: removes
    /// all mappings inside and returns their number.
    ///
    /// # Errors
    ///
    /// The status that the driver reads, or would read if it looked. Nothing was removed then.
    pub fn unmap(&mut self, domain: u32, virt_start: u64, virt_end: u64) -> Result<usize, Status> {
        self.requests += 1;
        let outcome = self.try_unmap(domain, virt_start, virt_end);
        self.conclude(outcome, || Request::Unmap { domain, virt_start, virt_end })
    }

    fn try_unmap(&mut self, domain: u32, start: u64, end: u64) -> Result<usize, Reason> {
        let space = self.domains.get_mut(&domain).ok_or(Reason::NoDomain)?;
        if space.bypass {
            return Err(Reason::BypassDomain);
        }
        if end < start {
            return Err(Reason::Empty);
        }
        let removed = space
            .unmap(AddressRange { first: start, last: end }, self.requests)
            .map_err(Reason::from)?;
        self.live_mappings = self.live_mappings.saturating_sub(removed);
        if removed != 0 {
            self.invalidate();
            if self.notes_unmaps && self.unmapped.len() < MAX_UNMAPPED {
                self.unmapped.push((domain, AddressRange { first: start, last: end }));
            }
        }
        Ok(removed)
    }

    /// The requester ID behind an endpoint ID, if the IOMMU serves it.
    pub(super) fn served(&self, endpoint: u32) -> Result<Bdf, Reason> {
        u16::try_from(endpoint)
            .map(Bdf)
            .ok()
            .filter(|id| self.endpoints.contains_key(id))
            .ok_or(Reason::NoEndpoint)
    }

    /// Takes an endpoint out of its domain, and ends the domain if it was the last one there
    /// (5.13.6.4).
    pub(super) fn leave_domain(&mut self, id: Bdf) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let Some(number) = endpoint.domain.take() else { return };
        endpoint.detached = Some(self.requests);
        let Some(domain) = self.domains.get_mut(&number) else { return };
        domain.endpoints = domain.endpoints.saturating_sub(1);
        if domain.endpoints == 0 {
            self.live_mappings = self.live_mappings.saturating_sub(domain.table.len());
            self.domains.remove(&number);
        }
    }
}

impl From<Conflict> for Reason {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Overlap(with) => Self::Overlap(with),
            Conflict::Split(of) => Self::Split(of),
        }
    }
}
