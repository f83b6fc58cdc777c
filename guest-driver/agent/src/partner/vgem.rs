//! The kernel's virtual GEM device: an importer of dma-bufs without hardware.

use super::call::{call, number};
use super::{CallError, open};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;

/// How many DRM devices are looked at.
const CARDS: u32 = 16;
const NAME: &[u8] = b"vgem";

/// `struct drm_version`: the driver's name is the first of its texts.
#[repr(C)]
#[derive(Default)]
struct Version {
    major: i32,
    minor: i32,
    patch: i32,
    padding: i32,
    name_length: u64,
    name: u64,
    date_length: u64,
    date: u64,
    description_length: u64,
    description: u64,
}

/// `struct drm_prime_handle`.
#[repr(C)]
struct PrimeHandle {
    handle: u32,
    flags: u32,
    fd: i32,
}

/// `struct drm_gem_close`.
#[repr(C)]
struct Close {
    handle: u32,
    padding: u32,
}

const VERSION: u32 = number::<Version>(true, b'd', 0x00);
const GEM_CLOSE: u32 = number::<Close>(false, b'd', 0x09);
const PRIME_FD_TO_HANDLE: u32 = number::<PrimeHandle>(true, b'd', 0x2e);

/// The open device.
#[derive(Debug)]
pub struct Vgem(OwnedFd);

impl Vgem {
    /// Opens it; `None` when this kernel has none.
    pub fn open() -> Option<Self> {
        (0..CARDS)
            .filter_map(|card| open(&format!("/dev/dri/card{card}"), "opening a DRM device").ok())
            .find(is_vgem)
            .map(Self)
    }

    /// Imports a dma-buf; gives the importer's name for it.
    ///
    /// # Errors
    /// The kernel's, the exporter's among them.
    pub fn import(&self, buffer: impl AsFd) -> Result<u32, Errno> {
        let fd = buffer.as_fd().as_raw_fd();
        let mut argument = PrimeHandle { handle: 0, flags: 0, fd };
        // SAFETY: this is the structure of the call, without pointers.
        unsafe { call(&self.0, PRIME_FD_TO_HANDLE, &mut argument) }?;
        Ok(argument.handle)
    }

    /// Gives an import back.
    ///
    /// # Errors
    /// The kernel's.
    pub fn close(&self, handle: u32) -> Result<(), CallError> {
        let mut argument = Close { handle, padding: 0 };
        // SAFETY: this is the structure of the call, without pointers.
        unsafe { call(&self.0, GEM_CLOSE, &mut argument) }
            .map(drop)
            .map_err(CallError::of("DRM_IOCTL_GEM_CLOSE"))
    }
}

fn is_vgem(device: &OwnedFd) -> bool {
    let mut name = [0_u8; NAME.len()];
    let mut version = Version {
        name_length: name.len() as u64,
        name: name.as_mut_ptr() as u64,
        ..Version::default()
    };
    // SAFETY: the kernel writes at most `name_length` bytes to `name`, which outlives the call, and nothing to the other
    // texts, whose lengths are zero.
    unsafe { call(device, VERSION, &mut version) }.is_ok()
        && version.name_length == NAME.len() as u64
        && name == NAME
}
