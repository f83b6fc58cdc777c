//! Interfaces of the kernel's own: exporters and importers, VFIO, and the kernel's test programs.
//!
//! Numbers and structures are those of the kernel's headers for user space (`linux/dma-heap.h`, `linux/udmabuf.h`,
//! `linux/vfio.h`, `linux/iommufd.h`, `drm/drm.h`), which never change once they are there.

pub mod binding;
pub mod buffer;
mod call;
pub mod container;
pub mod iommufd;
pub mod user_driver;
pub mod user_engine;
pub mod vfio;
pub mod vgem;

use rustix::io::Errno;

/// A call of the kernel's that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call} failed: {errno}")]
pub struct CallError {
    /// Which call.
    pub call: &'static str,
    /// The kernel's reason.
    #[source]
    pub errno: Errno,
}

/// A driver or device that did not do what it was asked for, in a sentence.
#[derive(Debug, thiserror::Error)]
pub enum PartnerError {
    /// It did something else, or nothing.
    #[error("{0}")]
    Wrong(String),
    /// One of the kernel's files could not be used.
    #[error(transparent)]
    File(#[from] crate::sys::FileError),
}

impl CallError {
    /// For `map_err`: an error of this call.
    pub(crate) fn of(call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { call, errno }
    }
}

/// Opens a device file for reading and writing.
///
/// # Errors
/// The kernel's; `ENOENT` when this kernel has no such device.
pub(crate) fn open(path: &str, call: &'static str) -> Result<rustix::fd::OwnedFd, CallError> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(CallError::of(call))
}
