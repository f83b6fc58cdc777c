//! The kernel's virtual GEM device: an importer and an exporter of dma-bufs without hardware.

use super::call::{call, descriptor, number};
use super::{CallError, open};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::OFlags;
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

/// `struct drm_mode_create_dumb`.
#[repr(C)]
struct CreateDumb {
    height: u32,
    width: u32,
    bits_per_pixel: u32,
    flags: u32,
    handle: u32,
    pitch: u32,
    size: u64,
}

/// `struct drm_gem_close`.
#[repr(C)]
struct Close {
    handle: u32,
    padding: u32,
}

const VERSION: u32 = number::<Version>(true, b'd', 0x00);
const GEM_CLOSE: u32 = number::<Close>(false, b'd', 0x09);
const PRIME_HANDLE_TO_FD: u32 = number::<PrimeHandle>(true, b'd', 0x2d);
const PRIME_FD_TO_HANDLE: u32 = number::<PrimeHandle>(true, b'd', 0x2e);

const MODE_CREATE_DUMB: u32 = number::<CreateDumb>(true, b'd', 0xb2);
/// Bytes in a line of a buffer, which to vgem is a picture.
const LINE: u32 = 4096;

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

    /// Makes a buffer of `lines` times 4 KiB and exports it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn export(&self, lines: u32) -> Result<OwnedFd, CallError> {
        let mut dumb = CreateDumb {
            height: lines,
            width: LINE,
            bits_per_pixel: 8,
            flags: 0,
            handle: 0,
            pitch: 0,
            size: 0,
        };
        // SAFETY: this is the structure of the call, without pointers.
        unsafe { call(&self.0, MODE_CREATE_DUMB, &mut dumb) }
            .map_err(CallError::of("DRM_IOCTL_MODE_CREATE_DUMB"))?;
        let flags = (OFlags::RDWR | OFlags::CLOEXEC).bits();
        let mut argument = PrimeHandle { handle: dumb.handle, flags, fd: -1 };
        // SAFETY: this is the structure of the call, without pointers.
        unsafe { call(&self.0, PRIME_HANDLE_TO_FD, &mut argument) }
            .map_err(CallError::of("DRM_IOCTL_PRIME_HANDLE_TO_FD"))?;
        // The dma-buf keeps the memory.
        self.close(dumb.handle)?;
        // SAFETY: the call has just installed this descriptor for us.
        unsafe { descriptor(argument.fd) }.map_err(CallError::of("DRM_IOCTL_PRIME_HANDLE_TO_FD"))
    }

    /// Gives a buffer or an import back.
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
