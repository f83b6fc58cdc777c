//! The common configuration structure (virtio 1.3, 4.1.4.3) and the negotiation that runs through
//! it (3.1).

use virtio_queue::QueueT;
use vm_memory::GuestAddress;

use super::queue::VirtQueue;
use super::spec::{NO_VECTOR, Status, TransportFeatures, common};

/// What a write to the structure asks of the function, beyond a change of state here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The driver resets the device.
    Reset,
    /// Device and driver have agreed on features.
    Features(u64),
}

/// The state behind the structure. The queues are the function's.
#[derive(Debug)]
pub(crate) struct Common {
    /// All features on offer.
    offered: u64,
    /// MSI-X vectors of the function.
    vectors: u16,
    pub(crate) status: Status,
    pub(crate) config_vector: u16,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    /// The driver accepted a feature beyond the first 64.
    driver_features_beyond: bool,
    queue_select: u16,
}

impl Common {
    pub(crate) fn new(offered: u64, vectors: u16) -> Self {
        Self {
            offered,
            vectors,
            status: Status::empty(),
            config_vector: NO_VECTOR,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            driver_features_beyond: false,
            queue_select: 0,
        }
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.offered, self.vectors);
    }

    /// Whether queues may be served.
    pub(crate) fn running(&self) -> bool {
        self.status.contains(Status::DRIVER_OK) && !self.status.contains(Status::NEEDS_RESET)
    }

    /// Reads at `offset`. Nothing here changes by being read, so any width does.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8], queues: &[VirtQueue]) {
        let image = self.image(queues);
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte = usize::try_from(at).ok().and_then(|at| image.get(at)).copied().unwrap_or(0);
        }
    }

    fn image(&self, queues: &[VirtQueue]) -> [u8; common::LENGTH as usize] {
        let mut image = [0; common::LENGTH as usize];
        let mut put = |offset: u64, value: &[u8]| {
            let place =
                usize::try_from(offset).ok().and_then(|at| image.get_mut(at..at + value.len()));
            if let Some(place) = place {
                place.copy_from_slice(value);
            }
        };
        put(common::DEVICE_FEATURE_SELECT, &self.device_feature_select.to_le_bytes());
        put(common::DEVICE_FEATURE, &half(self.offered, self.device_feature_select).to_le_bytes());
        put(common::DRIVER_FEATURE_SELECT, &self.driver_feature_select.to_le_bytes());
        put(
            common::DRIVER_FEATURE,
            &half(self.driver_features, self.driver_feature_select).to_le_bytes(),
        );
        put(common::CONFIG_MSIX_VECTOR, &self.config_vector.to_le_bytes());
        put(common::NUM_QUEUES, &u16::try_from(queues.len()).unwrap_or(u16::MAX).to_le_bytes());
        put(common::DEVICE_STATUS, &[self.status.bits()]);
        // The devices we have never change their configuration on their own.
        put(common::CONFIG_GENERATION, &[0]);
        put(common::QUEUE_SELECT, &self.queue_select.to_le_bytes());
        // A queue that does not exist shows a size of 0 (4.1.4.3.1).
        if let Some(queue) = queues.get(usize::from(self.queue_select)) {
            put(common::QUEUE_SIZE, &queue.ring.size().to_le_bytes());
            put(common::QUEUE_MSIX_VECTOR, &queue.vector.to_le_bytes());
            put(common::QUEUE_ENABLE, &u16::from(queue.ring.ready()).to_le_bytes());
            put(common::QUEUE_NOTIFY_OFF, &self.queue_select.to_le_bytes());
            put(common::QUEUE_DESC, &queue.ring.desc_table().to_le_bytes());
            put(common::QUEUE_DRIVER, &queue.ring.avail_ring().to_le_bytes());
            put(common::QUEUE_DEVICE, &queue.ring.used_ring().to_le_bytes());
        }
        image
    }

    /// Writes a field in its natural width (4.1.3.1); 64-bit fields in one or in halves. Anything
    /// else is ignored.
    pub(crate) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        queues: &mut [VirtQueue],
    ) -> Option<Event> {
        match *data {
            [value] if offset == common::DEVICE_STATUS => return self.write_status(value),
            [a, b] => self.write_u16(offset, u16::from_le_bytes([a, b]), queues),
            [a, b, c, d] => self.write_u32(offset, u32::from_le_bytes([a, b, c, d]), queues),
            [a, b, c, d, e, f, g, h] => {
                self.write_u32(offset, u32::from_le_bytes([a, b, c, d]), queues);
                self.write_u32(offset.wrapping_add(4), u32::from_le_bytes([e, f, g, h]), queues);
            }
            _ => {}
        }
        None
    }

    fn write_status(&mut self, value: u8) -> Option<Event> {
        if value == 0 {
            self.reset();
            return Some(Event::Reset);
        }
        // What the device has set, it alone takes back, by a reset; and a driver never clears a bit
        // (2.1.1).
        let written = Status::from_bits_truncate(value) - Status::NEEDS_RESET;
        let mut added = written - self.status;
        let agreed = self.acceptable(self.driver_features) && !self.driver_features_beyond;
        if added.contains(Status::FEATURES_OK) && !agreed {
            // The driver reads the status again and finds that it was not understood (2.2.2).
            added -= Status::FEATURES_OK;
        }
        if !(self.status | added).contains(Status::FEATURES_OK) {
            added -= Status::DRIVER_OK;
        }
        self.status |= added;
        added.contains(Status::FEATURES_OK).then_some(Event::Features(self.driver_features))
    }

    /// Whether the device can work with these features: nothing it did not offer, and what it
    /// cannot do without. Without ACCESS_PLATFORM a driver would give addresses that mean nothing
    /// to the platform (6.1).
    fn acceptable(&self, features: u64) -> bool {
        let needed = TransportFeatures::VERSION_1 | TransportFeatures::ACCESS_PLATFORM;
        let needed = needed.bits() & self.offered;
        features & !self.offered == 0 && features & needed == needed
    }

    fn negotiated(&self, feature: TransportFeatures) -> bool {
        self.status.contains(Status::FEATURES_OK) && self.driver_features & feature.bits() != 0
    }

    fn write_u16(&mut self, offset: u64, value: u16, queues: &mut [VirtQueue]) {
        let vector = if value < self.vectors { value } else { NO_VECTOR };
        let ring_reset = self.negotiated(TransportFeatures::RING_RESET);
        let queue = queues.get_mut(usize::from(self.queue_select));
        match (offset, queue) {
            (common::CONFIG_MSIX_VECTOR, _) => self.config_vector = vector,
            (common::QUEUE_SELECT, _) => self.queue_select = value,
            (common::QUEUE_MSIX_VECTOR, Some(queue)) => queue.vector = vector,
            (common::QUEUE_SIZE, Some(queue)) if !queue.ring.ready() => {
                // Not a power of two, or more than offered: the size stays, and the driver can read
                // that.
                let _ = queue.ring.try_set_size(value);
            }
            (common::QUEUE_ENABLE, Some(queue)) if value == 1 => queue.ring.set_ready(true),
            (common::QUEUE_RESET, Some(queue)) if value == 1 && ring_reset => queue.reset(),
            _ => {}
        }
    }

    fn write_u32(&mut self, offset: u64, value: u32, queues: &mut [VirtQueue]) {
        match offset {
            common::DEVICE_FEATURE_SELECT => self.device_feature_select = value,
            common::DRIVER_FEATURE_SELECT => self.driver_feature_select = value,
            common::DRIVER_FEATURE if !self.status.contains(Status::FEATURES_OK) => {
                let shift = match self.driver_feature_select {
                    0 => 0,
                    1 => 32,
                    _ => {
                        self.driver_features_beyond |= value != 0;
                        return;
                    }
                };
                self.driver_features &= !(u64::from(u32::MAX) << shift);
                self.driver_features |= u64::from(value) << shift;
            }
            _ => {
                let Some(queue) = queues.get_mut(usize::from(self.queue_select)) else { return };
                if !queue.ring.ready() {
                    write_address(queue, offset, value);
                }
            }
        }
    }
}

/// Writes the half of a ring's address that is at `offset`. An address that is not aligned as 2.7
/// wants it is not taken, and the driver can read that.
fn write_address(queue: &mut VirtQueue, offset: u64, value: u32) {
    let ring = &mut queue.ring;
    let upper = offset % 8 == 4;
    let with_half = |address: u64| {
        let value = u64::from(value);
        let new = if upper {
            address & u64::from(u32::MAX) | value << 32
        } else {
            address & !u64::from(u32::MAX) | value
        };
        GuestAddress(new)
    };
    let _ = match offset & !4 {
        common::QUEUE_DESC => ring.try_set_desc_table_address(with_half(ring.desc_table())),
        common::QUEUE_DRIVER => ring.try_set_avail_ring_address(with_half(ring.avail_ring())),
        common::QUEUE_DEVICE => ring.try_set_used_ring_address(with_half(ring.used_ring())),
        _ => return,
    };
}

/// The half of 64 feature bits that `select` chooses.
fn half(features: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}
