//! The device configuration (5.13.4).

use std::mem::offset_of;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::VirtioIommu;
use super::spec::{ConfigLayout, Features, ReservedMemory};

/// `probe_size`: the bytes of properties in the answer to a PROBE. Room for the one property there is, and for more.
pub(super) const PROBE_SIZE: u16 = 64;
const _: () = assert!(size_of::<ReservedMemory>() <= PROBE_SIZE as usize);

impl VirtioIommu {
    /// Reads device configuration at `offset`. Bytes behind its end read as zeroes.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        let layout = ConfigLayout {
            page_size_mask: U64::new(self.config.page_size_mask),
            input_range_start: U64::new(*self.config.input_range.start()),
            input_range_end: U64::new(*self.config.input_range.end()),
            domain_range_start: U32::new(*self.config.domain_range.start()),
            domain_range_end: U32::new(*self.config.domain_range.end()),
            probe_size: U32::new(PROBE_SIZE.into()),
            bypass: u8::from(self.bypass),
            reserved: [0; 3],
        };
        let bytes = layout.as_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = start.checked_add(index).and_then(|at| bytes.get(at)).copied().unwrap_or(0);
        }
    }

    /// Writes device configuration at `offset`: only `bypass` can change, and only if the driver negotiated
    /// `VIRTIO_IOMMU_F_BYPASS_CONFIG`; the device never shows another value there than 0 or 1.
    pub fn write_config(&mut self, offset: u64, data: &[u8]) {
        let field = offset_of!(ConfigLayout, bypass) as u64;
        let written = field
            .checked_sub(offset)
            .and_then(|index| data.get(usize::try_from(index).ok()?))
            .filter(|_| self.features.contains(Features::BYPASS_CONFIG));
        let bypass = match written {
            Some(0) => false,
            Some(1) => true,
            _ => return,
        };
        if self.bypass != bypass {
            self.bypass = bypass;
            self.invalidate();
        }
    }
}
