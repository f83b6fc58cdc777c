//! A device assigned to user space: vfio-pci through its character device and iommufd, or as part
//! of a container.

use super::call::{call, descriptor};
use super::iommufd::AddressSpace;
use super::{CallError, open};
use crate::device::View;
use crate::sys::pci::Function;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// The driver.
pub const DRIVER: &str = "vfio-pci";
/// There when the driver is.
pub const DRIVER_FOLDER: &str = "/sys/bus/pci/drivers/vfio-pci";

const GET_REGION_INFO: u32 = 0x3b6c;
const RESET: u32 = 0x3b6f;
const FEATURE: u32 = 0x3b75;
const BIND_IOMMUFD: u32 = 0x3b76;
const ATTACH_IOMMUFD_PT: u32 = 0x3b77;
/// `VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF`.
const GET_DMA_BUF: u32 = 1 << 16 | 11;
/// The region of the configuration space.
const CONFIG_REGION: u32 = 7;
/// Offset of the command register, and its bit for memory decoding.
const COMMAND: u64 = 4;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;
/// Most ranges of an export here.
const RANGES: usize = 4;

/// `struct vfio_device_bind_iommufd`.
#[repr(C)]
struct Bind {
    argsz: u32,
    flags: u32,
    iommufd: i32,
    out_devid: u32,
    token_uuid_ptr: u64,
}

/// `struct vfio_device_attach_iommufd_pt` as far as it goes without PASID.
#[repr(C)]
struct Attach {
    argsz: u32,
    flags: u32,
    pt_id: u32,
}

/// `struct vfio_region_info`.
#[repr(C)]
#[derive(Default)]
struct RegionInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    cap_offset: u32,
    size: u64,
    offset: u64,
}

/// `struct vfio_region_dma_range`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Range {
    offset: u64,
    length: u64,
}

/// `struct vfio_device_feature` around `struct vfio_device_feature_dma_buf`.
#[repr(C)]
struct DmaBufFeature {
    argsz: u32,
    flags: u32,
    region_index: u32,
    open_flags: u32,
    dma_buf_flags: u32,
    nr_ranges: u32,
    ranges: [Range; RANGES],
}

#[expect(clippy::cast_possible_truncation, reason = "the structures above have a few dozen bytes")]
const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

/// An open device.
#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    /// One that is open already.
    pub(super) fn new(file: OwnedFd) -> Self {
        Self(file)
    }

    /// Opens a function that is bound to vfio-pci, and lets its DMA go through `space`.
    ///
    /// # Errors
    /// The kernel's; `EPERM` when interrupts are not isolated and `allow_unsafe_interrupts` is not set.
    pub fn open(function: &Function, space: &AddressSpace) -> Result<Self, CallError> {
        let missing =
            || CallError { call: "finding the device file of vfio-pci", errno: Errno::NOENT };
        let mut names = std::fs::read_dir(function.path().join("vfio-dev"))
            .map_err(|_| missing())?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let name = names.next().ok_or_else(missing)?;
        let file = open(&format!("/dev/vfio/devices/{name}"), "opening the device of vfio-pci")?;
        let mut bind = Bind {
            argsz: size::<Bind>(),
            flags: 0,
            iommufd: space.as_fd().as_raw_fd(),
            out_devid: 0,
            token_uuid_ptr: 0,
        };
        // SAFETY: this is the structure of the call; without its flag the pointer is not looked at.
        unsafe { call(&file, BIND_IOMMUFD, &mut bind) }
            .map_err(CallError::of("VFIO_DEVICE_BIND_IOMMUFD"))?;
        let mut attach = Attach { argsz: size::<Attach>(), flags: 0, pt_id: space.id };
        // SAFETY: this is the structure of the call, without pointers.
        unsafe { call(&file, ATTACH_IOMMUFD_PT, &mut attach) }
            .map_err(CallError::of("VFIO_DEVICE_ATTACH_IOMMUFD_PT"))?;
        Ok(Self(file))
    }

    fn region(&self, index: u32) -> Result<RegionInfo, CallError> {
        let mut info = RegionInfo { argsz: size::<RegionInfo>(), index, ..RegionInfo::default() };
        // SAFETY: this is the structure of the call, without pointers.
        unsafe { call(&self.0, GET_REGION_INFO, &mut info) }
            .map_err(CallError::of("VFIO_DEVICE_GET_REGION_INFO"))?;
        Ok(info)
    }

    /// Part of a BAR for the CPU.
    ///
    /// # Errors
    /// The kernel's.
    pub fn view(&self, bar: u32, offset: u64, length: usize) -> Result<View, CallError> {
        let region = self.region(bar)?;
        View::new(&self.0, length, region.offset + offset)
            .map_err(CallError::of("mmap of a BAR through vfio-pci"))
    }

    /// A dma-buf over (offset, length) ranges of a BAR, at most four.
    ///
    /// # Errors
    /// The kernel's; `ENOTTY` when it cannot do this at all.
    pub fn export(&self, bar: u32, ranges: &[(u64, u64)]) -> Result<OwnedFd, CallError> {
        let mut argument = DmaBufFeature {
            argsz: size::<DmaBufFeature>(),
            flags: GET_DMA_BUF,
            region_index: bar,
            open_flags: (OFlags::RDWR | OFlags::CLOEXEC).bits(),
            dma_buf_flags: 0,
            nr_ranges: 0,
            ranges: [Range::default(); RANGES],
        };
        for (range, &(offset, length)) in argument.ranges.iter_mut().zip(ranges) {
            *range = Range { offset, length };
            argument.nr_ranges += 1;
        }
        let error = |errno| CallError { call: "VFIO_DEVICE_FEATURE_DMA_BUF", errno };
        // SAFETY: this is the structure of the call, with `nr_ranges` ranges at its end.
        let fd = unsafe { call(&self.0, FEATURE, &mut argument) }.map_err(error)?;
        // SAFETY: the call returns a descriptor that it has just installed for us.
        unsafe { descriptor(fd) }.map_err(error)
    }

    /// A function level reset.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reset(&self) -> Result<(), CallError> {
        // SAFETY: the call takes nothing; what the pointer leads to is not looked at.
        unsafe { call(&self.0, RESET, &mut 0_u64) }
            .map(drop)
            .map_err(CallError::of("VFIO_DEVICE_RESET"))
    }

    /// Switches memory decoding, as a driver would, in the command register.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_memory(&self, on: bool) -> Result<(), CallError> {
        self.set_command(COMMAND_MEMORY, on)
    }

    /// Switches bus mastering.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_bus_master(&self, on: bool) -> Result<(), CallError> {
        self.set_command(COMMAND_MASTER, on)
    }

    fn set_command(&self, bit: u16, on: bool) -> Result<(), CallError> {
        let error = || CallError::of("access to the command register through vfio-pci");
        let at = self.region(CONFIG_REGION)?.offset + COMMAND;
        let mut bytes = [0; 2];
        rustix::io::pread(&self.0, &mut bytes, at).map_err(error())?;
        let command = u16::from_le_bytes(bytes);
        let command = if on { command | bit } else { command & !bit };
        rustix::io::pwrite(&self.0, &command.to_le_bytes(), at).map(drop).map_err(error())
    }
}
