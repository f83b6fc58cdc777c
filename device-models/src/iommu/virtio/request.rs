//! Requests as bytes (5.13.6): decode, let the typed function do the work, encode.

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::config_space::PROBE_SIZE;
use super::refusal::{Reason, Request};
use super::spec::{
    Attach, Detach, Head, Map, PROBE_RESV_MEM, Probe, RESERVED_MEMORY_LENGTH, RESV_MEM_MSI,
    ReservedMemory, TAIL_LENGTH, Unmap, request_type,
};
use super::{Features, Status, VirtioIommu};

impl VirtioIommu {
    /// The longest request, in bytes, that has a meaning: a transport need not read more of a
    /// readable part.
    pub const MAX_REQUEST: usize = size_of::<Head>() + size_of::<Probe>();
    /// The longest reply, in bytes, that has a meaning: properties and status of a PROBE.
    pub const MAX_REPLY: usize = PROBE_SIZE as usize + TAIL_LENGTH;

    /// Serves one request. `request` is what the device may read; `reply`, zeroed by the caller, is
    /// what it may write. Gives the bytes written, from the start of `reply`: 0 if the request
    /// cannot be answered, because it is too short or its type unknown. Bytes behind the parts that
    /// the type defines are ignored.
    pub fn request(&mut self, request: &[u8], reply: &mut [u8]) -> usize {
        match self.dispatch(request, reply) {
            Ok(written) => written,
            Err((reason, request_type)) => {
                self.requests += 1;
                let (readable, writable) = (request.len(), reply.len());
                let unknown = || Request::Unknown { request_type, readable, writable };
                // The status is for a driver that sees it; this one sees that nothing was written.
                let _ = self.conclude::<()>(Err(reason), unknown);
                0
            }
        }
    }

    fn dispatch(
        &mut self,
        request: &[u8],
        reply: &mut [u8],
    ) -> Result<usize, (Reason, Option<u8>)> {
        let (head, body) =
            Head::read_from_prefix(request).map_err(|_| (Reason::Truncated, None))?;
        let truncated = || (Reason::Truncated, Some(head.r#type));
        if reply.len() < TAIL_LENGTH {
            return Err(truncated());
        }
        let outcome = match head.r#type {
            request_type::ATTACH => {
                let body: Attach = prefix(body).ok_or_else(truncated)?;
                let (domain, endpoint, flags) =
                    (body.domain.get(), body.endpoint.get(), body.flags.get());
                if body.reserved == [0; 4] {
                    self.attach(domain, endpoint, flags)
                } else {
                    self.requests += 1;
                    self.conclude(Err(Reason::ReservedField), || Request::Attach {
                        domain,
                        endpoint,
                        flags,
                    })
                }
            }
            request_type::DETACH => {
                let body: Detach = prefix(body).ok_or_else(truncated)?;
                self.detach(body.domain.get(), body.endpoint.get())
            }
            request_type::MAP if self.features.contains(Features::MAP_UNMAP) => {
                let body: Map = prefix(body).ok_or_else(truncated)?;
                self.map(
                    body.domain.get(),
                    body.virt_start.get(),
                    body.virt_end.get(),
                    body.phys_start.get(),
                    body.flags.get(),
                )
            }
            request_type::UNMAP if self.features.contains(Features::MAP_UNMAP) => {
                let body: Unmap = prefix(body).ok_or_else(truncated)?;
                let (domain, virt_start, virt_end) =
                    (body.domain.get(), body.virt_start.get(), body.virt_end.get());
                if body.reserved == [0; 4] {
                    self.unmap(domain, virt_start, virt_end).map(|_| ())
                } else {
                    self.requests += 1;
                    let unmap = || Request::Unmap { domain, virt_start, virt_end };
                    self.conclude(Err(Reason::ReservedField), unmap)
                }
            }
            request_type::PROBE if self.features.contains(Features::PROBE) => {
                let body: Probe = prefix(body).ok_or_else(truncated)?;
                return Ok(self.probe(body.endpoint.get(), reply));
            }
            other => return Err((Reason::UnknownType, Some(other))),
        };
        Ok(answer(outcome, 0, reply))
    }

    /// PROBE (5.13.6.7): the reserved regions of the endpoint. The reply holds `probe_size` bytes
    /// of properties, then the status.
    fn probe(&mut self, endpoint: u32, reply: &mut [u8]) -> usize {
        self.requests += 1;
        // The tail sits at the end of what the driver gave, so a short buffer can still carry the
        // refusal.
        let room = reply.len().saturating_sub(TAIL_LENGTH);
        let properties = room.min(PROBE_SIZE.into());
        let outcome = if properties < PROBE_SIZE.into() {
            Err(Reason::ShortProperties)
        } else {
            self.served(endpoint).map(|_| ())
        };
        let outcome = self.conclude(outcome, || Request::Probe { endpoint });
        if outcome.is_ok()
            && let Some(window) = self.msi_window()
        {
            let property = ReservedMemory {
                r#type: U16::new(PROBE_RESV_MEM),
                length: U16::new(RESERVED_MEMORY_LENGTH),
                subtype: RESV_MEM_MSI,
                reserved: [0; 3],
                start: U64::new(window.first),
                end: U64::new(window.last),
            };
            // Cannot fail: there are PROBE_SIZE bytes, and the property fits into them.
            let _ = property.write_to_prefix(reply);
        }
        answer(outcome, properties, reply)
    }
}

impl Request {
    /// What the bytes of a request ask for; none where they are too few for their type, or have a
    /// type that is unknown.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let (head, body) = Head::read_from_prefix(bytes).ok()?;
        match head.r#type {
            request_type::ATTACH => prefix(body).map(|body: Attach| Self::Attach {
                domain: body.domain.get(),
                endpoint: body.endpoint.get(),
                flags: body.flags.get(),
            }),
            request_type::DETACH => prefix(body).map(|body: Detach| Self::Detach {
                domain: body.domain.get(),
                endpoint: body.endpoint.get(),
            }),
            request_type::MAP => prefix(body).map(|body: Map| Self::Map {
                domain: body.domain.get(),
                virt_start: body.virt_start.get(),
                virt_end: body.virt_end.get(),
                phys_start: body.phys_start.get(),
                flags: body.flags.get(),
            }),
            request_type::UNMAP => prefix(body).map(|body: Unmap| Self::Unmap {
                domain: body.domain.get(),
                virt_start: body.virt_start.get(),
                virt_end: body.virt_end.get(),
            }),
            request_type::PROBE => {
                prefix(body).map(|body: Probe| Self::Probe { endpoint: body.endpoint.get() })
            }
            _ => None,
        }
    }
}

/// Writes the tail at `offset` of the reply, and gives the bytes written by then.
fn answer(outcome: Result<(), Status>, offset: usize, reply: &mut [u8]) -> usize {
    let end = offset + TAIL_LENGTH;
    let Some(tail) = reply.get_mut(offset..end) else { return 0 };
    tail.copy_from_slice(&[outcome.err().map_or(0, |status| status as u8), 0, 0, 0]);
    end
}

/// The structure at the start of `bytes`, if they are enough.
fn prefix<T: FromBytes + KnownLayout + Immutable + Unaligned>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(value, _)| value)
}
