//! A function's handle on the fabric.

use vm_memory::VolatileSlice;

use super::request::Request;
use super::{Fabric, FunctionId, Input, Kind, MAX_RUN, Purpose, ReadOutcome, Tag, WriteOutcome};
use crate::checker::{Cause, FindingClass};
use crate::iommu::VirtioIommu;
use crate::iommu::virtio::Request as IommuRequest;
use crate::pci::Bdf;

/// The only way by which a model reaches memory, other functions and the interrupt controllers.
///
/// Everything that goes through it carries the function's requester ID and is routed, translated
/// and checked.
#[derive(Debug)]
pub struct Port<'a> {
    fabric: &'a mut Fabric,
    function: FunctionId,
    /// Where the addresses begin that the next requests are parts of; none: with each request.
    begun: Option<u64>,
}

impl<'a> Port<'a> {
    pub(crate) fn new(fabric: &'a mut Fabric, function: FunctionId) -> Self {
        Self { fabric, function, begun: None }
    }

    /// The function's requester ID at present.
    pub fn requester(&self) -> Bdf {
        self.fabric.map.node(self.function).requester
    }

    /// The same port for requests that are parts of one range of addresses, which the function was
    /// given as a whole and which begins at `begun`: findings say where a range leaves its mapping,
    /// and what its first address is. Without it each request counts as a range of its own.
    pub fn part_of(&mut self, begun: u64) -> Port<'_> {
        Port { fabric: self.fabric, function: self.function, begun: Some(begun) }
    }

    /// Where the range begins that a request to `address` is a part of.
    fn begin(&self, address: u64) -> u64 {
        self.begun.filter(|begun| *begun <= address).unwrap_or(address)
    }

    /// Reads `destination.len()` bytes, 64 KiB at most, from `address` on.
    ///
    /// More than that is cut off and reported as [`Retry`](ReadOutcome::Retry).
    pub fn read(
        &mut self,
        purpose: Purpose,
        address: u64,
        destination: &VolatileSlice<'_>,
    ) -> ReadOutcome {
        let short = shorten(destination);
        let outcome = self.fabric.read(&Request {
            from: self.function,
            kind: Kind::MemoryRead,
            purpose,
            address,
            begun: self.begin(address),
            buffer: short,
        });
        match outcome {
            ReadOutcome::Done { status: super::CompletionStatus::Success, bytes, verdict }
                if short.len() < destination.len() =>
            {
                ReadOutcome::Retry { bytes, verdict }
            }
            outcome => outcome,
        }
    }

    /// Writes `source.len()` bytes, 64 KiB at most, to `address`.
    ///
    /// More than that is cut off and reported as [`Retry`](WriteOutcome::Retry).
    pub fn write(
        &mut self,
        purpose: Purpose,
        address: u64,
        source: &VolatileSlice<'_>,
    ) -> WriteOutcome {
        let short = shorten(source);
        let outcome = self.fabric.write(&Request {
            from: self.function,
            kind: Kind::MemoryWrite,
            purpose,
            address,
            begun: self.begin(address),
            buffer: short,
        });
        match outcome {
            WriteOutcome::Posted { verdict } if short.len() < source.len() => {
                WriteOutcome::Retry { bytes: short.len() as u64, verdict }
            }
            outcome => outcome,
        }
    }

    /// [`read`](Self::read) into a plain buffer.
    pub fn read_bytes(
        &mut self,
        purpose: Purpose,
        address: u64,
        destination: &mut [u8],
    ) -> ReadOutcome {
        self.read(purpose, address, &VolatileSlice::from(destination))
    }

    /// [`write`](Self::write) from a plain buffer.
    pub fn write_bytes(&mut self, purpose: Purpose, address: u64, source: &[u8]) -> WriteOutcome {
        // A volatile slice is always writable, so the bytes move to a buffer of our own first;
        // these are records of a few bytes.
        let mut copy = [0; 64];
        match copy.get_mut(..source.len()) {
            Some(copy) => {
                copy.copy_from_slice(source);
                self.write(purpose, address, &VolatileSlice::from(copy))
            }
            None => self.write(purpose, address, &VolatileSlice::from(&mut source.to_vec()[..])),
        }
    }

    /// Signals MSI-X vector `vector`: a memory write if it is enabled and unmasked, a pending bit
    /// if it is masked (PCIe 6.0, 6.1.4). Nothing happens while MSI-X is disabled or for a vector
    /// that does not exist.
    pub fn raise(&mut self, vector: u16) -> WriteOutcome {
        self.fabric.raise(self.function, vector)
    }

    /// Takes a value from outside the system into account: entropy, or what was computed from bulk
    /// data. A record keeps it; a replay puts the recorded one into `value`.
    pub fn outside_input(&mut self, value: &mut [u8]) {
        if let Some(observer) = self.fabric.watch.observer() {
            observer.replace_outside(self.function, value);
            observer.input(&Input::Outside { function: self.function, data: value });
        }
    }

    /// Reports something that is wrong with what the driver asked the device for. Reports of one
    /// class with the same cause count as one mistake.
    pub fn report(&mut self, class: FindingClass, cause: Cause, explanation: String) {
        self.fabric.report(self.function, class, cause, None, explanation);
    }

    /// Shows observers a request to the IOMMU, which has just been served.
    pub(crate) fn show_iommu_request(&mut self, bytes: &[u8]) {
        let number = self.fabric.iommu.as_virtio().map_or(0, |iommu| iommu.requests());
        if let (Some(observer), Some(request)) =
            (self.fabric.watch.observer(), IommuRequest::of(bytes))
        {
            observer.iommu_request(number, &request);
        }
    }

    /// Gives up waiting for a read: its completion will be dropped.
    pub fn abandon(&mut self, tag: Tag) {
        self.fabric.outstanding[self.function.index()].remove(tag);
    }

    /// The IOMMU, for the function that is its programming interface; nothing for all others.
    pub fn virtio_iommu(&mut self) -> Option<&mut VirtioIommu> {
        if self.fabric.exempt != Some(self.function) {
            return None;
        }
        self.fabric.iommu.as_virtio()
    }
}

fn shorten<'a>(slice: &VolatileSlice<'a>) -> VolatileSlice<'a> {
    let limit = usize::try_from(MAX_RUN).unwrap_or(usize::MAX);
    if slice.len() <= limit { *slice } else { slice.subslice(0, limit).unwrap_or(*slice) }
}
