//! VFIO's own I/O address space: a container of IOMMU groups ("type 1"), older than iommufd and everywhere.
//!
//! Unlike iommufd it takes a device's memory as it takes RAM: by where this process has mapped it.

use super::call::{call, call_with, descriptor};
use super::vfio::Device;
use super::{CallError, open};
use crate::device::View;
use crate::sys::pci::Function;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};

/// There when the module is.
pub const MODULE: &str = "/sys/module/vfio_iommu_type1";

const PATH: &str = "/dev/vfio/vfio";
const SET_IOMMU: u32 = 0x3b66;
const GROUP_SET_CONTAINER: u32 = 0x3b68;
const GROUP_GET_DEVICE_FD: u32 = 0x3b6a;
const MAP_DMA: u32 = 0x3b71;
const UNMAP_DMA: u32 = 0x3b72;
/// `VFIO_TYPE1v2_IOMMU`.
const TYPE_1: usize = 3;
/// `VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE`.
const READ_WRITE: u32 = 3;

/// `struct vfio_iommu_type1_dma_map`.
#[repr(C)]
struct Map {
    argsz: u32,
    flags: u32,
    vaddr: u64,
    iova: u64,
    size: u64,
}

/// `struct vfio_iommu_type1_dma_unmap` without its bitmap.
#[repr(C)]
struct Unmap {
    argsz: u32,
    flags: u32,
    iova: u64,
    size: u64,
}

#[expect(clippy::cast_possible_truncation, reason = "the structures above have a few dozen bytes")]
const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

/// One address space, and the groups whose devices use it.
#[derive(Debug)]
pub struct Container {
    file: OwnedFd,
    /// By number.
    groups: Mutex<BTreeMap<String, Arc<OwnedFd>>>,
}

impl Container {
    /// A new one, empty. It is shared with what is mapped into it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> Result<Arc<Self>, CallError> {
        let file = open(PATH, "opening /dev/vfio/vfio")?;
        Ok(Arc::new(Self { file, groups: Mutex::default() }))
    }

    /// Opens a function that is bound to vfio-pci; its DMA, and that of all in its IOMMU group, goes through this.
    ///
    /// # Errors
    /// The kernel's; `EPERM` when another driver has a device of the group, or interrupts are not isolated and
    /// `allow_unsafe_interrupts` is not set.
    pub fn open(&self, function: &Function) -> Result<Device, CallError> {
        const GET: &str = "VFIO_GROUP_GET_DEVICE_FD";
        let missing = || CallError { call: "finding the IOMMU group", errno: Errno::NOENT };
        let group = self.group(&function.iommu_group().ok_or_else(missing)?)?;
        let error = |errno| CallError { call: GET, errno };
        let name = CString::new(function.name.as_str()).map_err(|_| error(Errno::INVAL))?;
        // SAFETY: the call reads a text with a zero at its end, which outlives it.
        let fd = unsafe { call_with(group, GROUP_GET_DEVICE_FD, name.as_ptr() as usize) }
            .map_err(error)?;
        // SAFETY: the call returns a descriptor that it has just installed for us.
        Ok(Device::new(unsafe { descriptor(fd) }.map_err(error)?))
    }

    /// The group's file, which can be opened once only; its devices use this container then.
    fn group(&self, number: &str) -> Result<Arc<OwnedFd>, CallError> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = groups.get(number) {
            return Ok(Arc::clone(group));
        }
        let group = Arc::new(self.add(number, groups.is_empty())?);
        groups.insert(number.to_owned(), Arc::clone(&group));
        Ok(group)
    }

    fn add(&self, number: &str, is_first: bool) -> Result<OwnedFd, CallError> {
        let group = open(&format!("/dev/vfio/{number}"), "opening the group's file of VFIO")?;
        let mut container = self.file.as_raw_fd();
        // SAFETY: the call reads the number of a descriptor.
        unsafe { call(&group, GROUP_SET_CONTAINER, &mut container) }
            .map_err(CallError::of("VFIO_GROUP_SET_CONTAINER"))?;
        if is_first {
            // SAFETY: the call takes a number.
            unsafe { call_with(&self.file, SET_IOMMU, TYPE_1) }
                .map_err(CallError::of("VFIO_SET_IOMMU"))?;
        }
        Ok(group)
    }

    /// Maps what the view shows, RAM or a device's memory, at `iova` for all devices.
    ///
    /// # Errors
    /// The kernel's.
    pub fn map(self: &Arc<Self>, view: View, iova: u64) -> Result<Mapping, CallError> {
        let mut mapping = Mapping { container: Arc::clone(self), view, iova };
        mapping.map()?;
        Ok(mapping)
    }
}

/// Memory in a container's address space, until this is dropped.
#[derive(Debug)]
pub struct Mapping {
    container: Arc<Container>,
    view: View,
    /// Where the devices find its first byte.
    pub iova: u64,
}

impl Mapping {
    /// The memory for the CPU.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Gives it to the devices, when it has been taken from them.
    ///
    /// # Errors
    /// The kernel's; `EEXIST` when they have it.
    pub fn map(&mut self) -> Result<(), CallError> {
        let mut argument = Map {
            argsz: size::<Map>(),
            flags: READ_WRITE,
            vaddr: self.view.as_mut_ptr() as u64,
            iova: self.iova,
            size: self.view.len() as u64,
        };
        // SAFETY: this is the structure of the call. A view is only ever reached by volatile accesses, and this one is
        // taken from the devices before it is dropped.
        unsafe { call(&self.container.file, MAP_DMA, &mut argument) }
            .map(drop)
            .map_err(CallError::of("VFIO_IOMMU_MAP_DMA"))
    }

    /// Takes it from the devices.
    ///
    /// # Errors
    /// The kernel's; `ENOENT` when they do not have it.
    pub fn unmap(&self) -> Result<(), CallError> {
        let error = |errno| CallError { call: "VFIO_IOMMU_UNMAP_DMA", errno };
        let size = self.view.len() as u64;
        let mut argument = Unmap { argsz: self::size::<Unmap>(), flags: 0, iova: self.iova, size };
        // SAFETY: this is the structure of the call, without pointers.
        unsafe { call(&self.container.file, UNMAP_DMA, &mut argument) }.map_err(error)?;
        // The kernel says how much it has unmapped: unmapping nothing is not an error.
        if argument.size == size { Ok(()) } else { Err(error(Errno::NOENT)) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _ = self.unmap();
    }
}
