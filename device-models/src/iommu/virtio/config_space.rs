//! The device configuration (5.13.4).

use std::mem::offset_of;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::spec::{ConfigLayout, Features, ReservedMemory};
use super::{VirtioIommu, VirtioIommuConfig};

/// `probe_size`: the bytes of properties in the answer to a PROBE. Room for the one property there
/// is, and for more.
pub(super) const PROBE_SIZE: u16 = 64;
const _: () = assert!(size_of::<ReservedMemory>() <= PROBE_SIZE as usize);

impl VirtioIommuConfig {
    /// Reads device configuration at `offset`, with `bypass` as it stands. Bytes behind its end
    /// read as zeroes.
    pub fn read(&self, bypass: bool, offset: u64, data: &mut [u8]) {
        let layout = ConfigLayout {
            page_size_mask: U64::new(self.page_size_mask),
            input_range_start: U64::new(*self.input_range.start()),
            input_range_end: U64::new(*self.input_range.end()),
            domain_range_start: U32::new(*self.domain_range.start()),
            domain_range_end: U32::new(*self.domain_range.end()),
            probe_size: U32::new(PROBE_SIZE.into()),
            bypass: u8::from(bypass),
            reserved: [0; 3],
        };
        let bytes = layout.as_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = start.checked_add(index).and_then(|at| bytes.get(at)).copied().unwrap_or(0);
        }
    }

    /// What a write of device configuration at `offset` makes of `bypass`, if it changes it: that
    /// is the only field a driver may write, if it negotiated `VIRTIO_IOMMU_F_BYPASS_CONFIG`, and 0
    /// and 1 are the only values the device may show there.
    #[must_use]
    pub fn written_bypass(&self, features: Features, offset: u64, data: &[u8]) -> Option<bool> {
        let field = offset_of!(ConfigLayout, bypass) as u64;
        let index = usize::try_from(field.checked_sub(offset)?).ok()?;
        match data.get(index).filter(|_| features.contains(Features::BYPASS_CONFIG))? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl VirtioIommu {
    /// Whether endpoints that are not attached may use guest physical addresses from now on.
    pub fn set_bypass(&mut self, bypass: bool) {
        if self.bypass != bypass {
            self.bypass = bypass;
            self.invalidate();
        }
    }
}
