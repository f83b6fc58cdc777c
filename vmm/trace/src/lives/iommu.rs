//! Mappings that the IOMMU has been asked for: its requests, as it reads them from its virtqueue, and its answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use device_models::fabric::{Kind, Purpose};
use device_models::iommu::virtio::Request;

use super::{Life, MappedBy, Out, pick};
use crate::event::TlpRun;
use crate::filter::Context;
use crate::reader::Entry;

/// Bytes of the requests that change mappings: no descriptor, ring entry or index has as many.
const REQUESTS: [usize; 3] = [20, 28, 36];

/// Bytes of an answer: the status, and three zeroes.
const ANSWER: usize = 4;

/// Endpoints that are followed: there are not as many functions.
const MAX_ENDPOINTS: usize = 1 << 10;

/// Domain, first and last address.
type Key = (u32, u64, u64);

/// Follows the domains.
#[derive(Debug, Default)]
pub(super) struct Domains {
    live: BTreeMap<Key, Arc<Life>>,
    /// The domain of each endpoint.
    attached: BTreeMap<u32, u32>,
    /// A request that has not been answered yet.
    asked: Option<Request>,
}

impl Domains {
    /// Mappings that are followed.
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn transaction(
        &mut self,
        run: &TlpRun,
        entry: &Entry,
        context: &Context,
        out: &mut Out<'_>,
    ) {
        if run.purpose != Purpose::VirtQueue || !context.is_iommu(run.function) {
            return;
        }
        let data = run.data.as_deref().unwrap_or_default();
        match run.kind {
            Kind::MemoryRead if REQUESTS.contains(&data.len()) => self.asked = Request::of(data),
            Kind::MemoryRead => {}
            Kind::MemoryWrite if data.len() == ANSWER => {
                if let (Some(request), [0, ..]) = (self.asked.take(), data) {
                    self.serve(&request, entry, context, out);
                }
            }
            Kind::MemoryWrite => {}
        }
    }

    fn serve(&mut self, request: &Request, entry: &Entry, context: &Context, out: &mut Out<'_>) {
        match *request {
            Request::Attach { domain, endpoint, .. }
                if self.attached.len() < MAX_ENDPOINTS || self.attached.contains_key(&endpoint) =>
            {
                let before = self.attached.insert(endpoint, domain);
                self.left(before.filter(|before| *before != domain), entry.time, out);
            }
            Request::Detach { endpoint, .. } => {
                let before = self.attached.remove(&endpoint);
                self.left(before, entry.time, out);
            }
            Request::Map { domain, virt_start, virt_end, .. } => {
                let length = virt_end.saturating_sub(virt_start).saturating_add(1);
                let life = out.begin(Life {
                    id: 0,
                    by: MappedBy::Iommu,
                    function: self.name(domain, context),
                    address: virt_start,
                    length,
                    buffer: 0,
                    entry: entry.number,
                    begun: entry.time,
                });
                if let Some(life) = life {
                    self.live.insert((domain, virt_start, virt_end), life);
                }
            }
            Request::Unmap { domain, virt_start, virt_end } => {
                self.end(domain, virt_start, virt_end, entry.time, out);
            }
            _ => {}
        }
    }

    /// An endpoint has left a domain. With the last one its mappings are gone.
    fn left(&mut self, domain: Option<u32>, time: Duration, out: &mut Out<'_>) {
        if let Some(domain) = domain
            && !self.attached.values().any(|it| *it == domain)
        {
            self.end(domain, 0, u64::MAX, time, out);
        }
    }

    /// All that lies within these addresses is over.
    fn end(&mut self, domain: u32, first: u64, last: u64, time: Duration, out: &mut Out<'_>) {
        if first > last {
            return;
        }
        let within = self.live.range((domain, first, 0)..=(domain, last, u64::MAX));
        let keys = pick(within.map(|(key, _)| *key), |key: &Key| key.2 <= last);
        for life in keys.iter().filter_map(|key| self.live.remove(key)) {
            out.end(life, time);
        }
    }

    /// Who has the mappings of a domain.
    fn name(&self, domain: u32, context: &Context) -> Arc<str> {
        let mut endpoints =
            self.attached.iter().filter(|(_, it)| **it == domain).map(|(endpoint, _)| *endpoint);
        let Some(first) = endpoints.next().and_then(|endpoint| u16::try_from(endpoint).ok()) else {
            return format!("domain {domain}").into();
        };
        match endpoints.count() {
            0 => context.of(first).into(),
            others => format!("{} and {others} more", context.of(first)).into(),
        }
    }
}
