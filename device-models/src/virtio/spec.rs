//! Numbers of virtio 1.3: chapter 2 (basic facilities), section 4.1 (PCI transport), section 6
//! (feature bits).

use bitflags::bitflags;

/// The vendor ID of every virtio function (4.1.2).
pub(crate) const VENDOR: u16 = 0x1af4;
/// A function's device ID is this plus the virtio device ID (4.1.2).
pub(crate) const DEVICE_BASE: u16 = 0x1040;

/// "No vector", written or read in a vector register (4.1.5.1.2).
pub(crate) const NO_VECTOR: u16 = 0xffff;

bitflags! {
    /// `device_status` (2.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Status: u8 {
        /// The driver has seen the device.
        const ACKNOWLEDGE = 1;
        /// The driver knows how to drive it.
        const DRIVER = 2;
        /// The driver is ready.
        const DRIVER_OK = 4;
        /// The features are agreed.
        const FEATURES_OK = 8;
        /// The device has met an error from which only a reset recovers.
        const NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
    }

    /// Feature bits that concern the transport, not the device (6).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct TransportFeatures: u64 {
        /// Virtio 1.0 or later.
        const VERSION_1 = 1 << 32;
        /// Addresses are what the platform's IOMMU makes of them.
        const ACCESS_PLATFORM = 1 << 33;
        /// A queue can be reset alone.
        const RING_RESET = 1 << 40;
    }

    /// The ISR status register (4.1.4.5).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Isr: u8 {
        /// A queue has used buffers.
        const QUEUE = 1;
        /// The configuration, or the device status, has changed.
        const CONFIGURATION = 2;
    }
}

/// Where `idx` stands in the available ring (2.7.6).
pub(crate) const AVAIL_INDEX: u64 = 2;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (2.7.6).
pub(crate) const AVAIL_NO_INTERRUPT: u16 = 1;

/// Offsets in the common configuration structure (4.1.4.3).
pub(crate) mod common {
    pub(crate) const DEVICE_FEATURE_SELECT: u64 = 0;
    pub(crate) const DEVICE_FEATURE: u64 = 4;
    pub(crate) const DRIVER_FEATURE_SELECT: u64 = 8;
    pub(crate) const DRIVER_FEATURE: u64 = 12;
    pub(crate) const CONFIG_MSIX_VECTOR: u64 = 16;
    pub(crate) const NUM_QUEUES: u64 = 18;
    pub(crate) const DEVICE_STATUS: u64 = 20;
    pub(crate) const CONFIG_GENERATION: u64 = 21;
    pub(crate) const QUEUE_SELECT: u64 = 22;
    pub(crate) const QUEUE_SIZE: u64 = 24;
    pub(crate) const QUEUE_MSIX_VECTOR: u64 = 26;
    pub(crate) const QUEUE_ENABLE: u64 = 28;
    pub(crate) const QUEUE_NOTIFY_OFF: u64 = 30;
    pub(crate) const QUEUE_DESC: u64 = 32;
    pub(crate) const QUEUE_DRIVER: u64 = 40;
    pub(crate) const QUEUE_DEVICE: u64 = 48;
    pub(crate) const QUEUE_RESET: u64 = 58;
    /// Bytes of the structure, with the fields of an administration queue that we do not have.
    pub(crate) const LENGTH: u32 = 64;
}

/// `cfg_type` of the vendor-specific capabilities (4.1.4).
pub(crate) mod cfg_type {
    pub(crate) const COMMON: u8 = 1;
    pub(crate) const NOTIFY: u8 = 2;
    pub(crate) const ISR: u8 = 3;
    pub(crate) const DEVICE: u8 = 4;
    pub(crate) const PCI: u8 = 5;
}
