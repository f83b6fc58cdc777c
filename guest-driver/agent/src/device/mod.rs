//! A bound peer device, through the driver's character device.

mod buffers;
pub mod bus_error;
mod pattern;
mod registers;
mod view;
mod work;

pub use pattern::Pattern;
pub use view::{Mismatch, View};
pub use work::Work;

use crate::sys::pci::Function;
use crate::uapi;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

/// The PCI vendor ID of the peer device.
pub const VENDOR: u32 = 0x1af4;
/// The PCI device ID of the peer device.
pub const DEVICE: u32 = 0x10f0;

/// The names that the topology has for the peer devices, by their number; said by the VMM.
static NAMES: OnceLock<Vec<String>> = OnceLock::new();

/// Takes the names that the VMM has said.
pub fn learn_names(names: &[String]) {
    // It says the same each time.
    let _ = NAMES.set(names.to_vec());
}

/// What the peer device number `instance` is called: as in the topology, in findings and in reports.
pub fn name(instance: u32) -> String {
    let known = NAMES.get().and_then(|names| names.get(instance as usize));
    known.cloned().unwrap_or_else(|| format!("peer{instance}"))
}

/// A call to the driver that failed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {call} failed: {errno}", name(*instance))]
pub struct DeviceError {
    /// Which device.
    pub instance: u32,
    /// Which call.
    pub call: &'static str,
    /// The kernel's reason.
    #[source]
    pub errno: Errno,
}

/// An object of an open device: local memory, an import or system memory. It lives until it is closed or the device's
/// file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// The driver's name for it.
    pub handle: u32,
    /// Bytes.
    pub size: u64,
    /// Where it can be mapped for the CPU, if it can.
    pub mmap_offset: Option<u64>,
}

impl Object {
    /// A place in it, as source or destination of work.
    pub fn at(self, offset: u64) -> uapi::Location {
        uapi::Location { kind: uapi::AT_OBJECT, handle: self.handle, offset }
    }
}

/// A raw DMA address as source or destination of work; the driver passes it on unchecked.
pub fn at_address(address: u64) -> uapi::Location {
    uapi::Location { kind: uapi::AT_ADDRESS, handle: 0, offset: address }
}

/// A raw offset in the device's local memory, likewise.
pub fn at_local(offset: u64) -> uapi::Location {
    uapi::Location { kind: uapi::AT_LOCAL, handle: 0, offset }
}

/// An open peer device. Closing it (dropping this) gives everything back that it holds.
#[derive(Debug)]
pub struct Peer {
    file: File,
    /// Which one: N of `/dev/peerdmaN`.
    pub instance: u32,
    /// What it is, as read when it was opened.
    pub info: uapi::Info,
}

impl Peer {
    /// Where the device number `instance` is found.
    pub fn path(instance: u32) -> PathBuf {
        format!("/dev/peerdma{instance}").into()
    }

    /// Opens one.
    ///
    /// # Errors
    /// When there is no such device or the driver has another version of the interface.
    pub fn open(instance: u32) -> Result<Self, DeviceError> {
        let error = |call| move |errno| DeviceError { instance, call, errno };
        let file = OpenOptions::new().read(true).write(true).open(Self::path(instance)).map_err(
            |error| DeviceError {
                instance,
                call: "opening its file",
                errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
            },
        )?;
        let mut info = uapi::Info::default();
        uapi::get_info(&file, &mut info).map_err(error("GET_INFO"))?;
        if info.abi != uapi::ABI_VERSION {
            return Err(error("GET_INFO (another version of the interface)")(Errno::PROTO));
        }
        Ok(Self { file, instance, info })
    }

    /// What the topology calls it.
    pub fn name(&self) -> String {
        name(self.instance)
    }

    /// Its file, to be given to another process as one of its standard streams.
    pub fn into_stdio(self) -> std::process::Stdio {
        self.file.into()
    }

    /// Its PCI function.
    pub fn function(&self) -> Function {
        Function::new(self.info.segment, self.info.bdf)
    }

    /// Whether addresses of this device are translated.
    pub fn is_translated(&self) -> bool {
        matches!(self.info.iommu, uapi::IOMMU_STRICT | uapi::IOMMU_LAZY)
    }

    /// Wraps a kernel's error with what failed.
    fn failed(&self, call: &'static str) -> impl FnOnce(Errno) -> DeviceError + use<> {
        let instance = self.instance;
        move |errno| DeviceError { instance, call, errno }
    }

    /// What it is, now.
    ///
    /// # Errors
    /// The driver's.
    pub fn refreshed_info(&self) -> Result<uapi::Info, DeviceError> {
        let mut info = uapi::Info::default();
        uapi::get_info(&self.file, &mut info).map_err(self.failed("GET_INFO"))?;
        Ok(info)
    }

    /// What happened since the driver bound.
    ///
    /// # Errors
    /// The driver's.
    pub fn counters(&self) -> Result<uapi::Counters, DeviceError> {
        let mut counters = uapi::Counters::default();
        uapi::get_counters(&self.file, &mut counters).map_err(self.failed("GET_COUNTERS"))?;
        Ok(counters)
    }

    /// The kernel's distance for DMA by `client` into our memory: negative when there is no path.
    ///
    /// # Errors
    /// The driver's.
    pub fn distance(&self, client: &Self) -> Result<i32, DeviceError> {
        self.distance_of(client.info.segment, client.info.bdf)
    }

    /// The same for any function.
    ///
    /// # Errors
    /// The driver's.
    pub fn distance_of(&self, segment: u32, bdf: u32) -> Result<i32, DeviceError> {
        let mut argument = uapi::Distance { segment, bdf, ..uapi::Distance::default() };
        uapi::get_distance(&self.file, &mut argument).map_err(self.failed("GET_DISTANCE"))?;
        Ok(argument.distance)
    }

    /// A piece of local memory, in one range or scattered over several.
    ///
    /// # Errors
    /// The driver's.
    pub fn alloc(&self, size: u64, ranges: u32) -> Result<Object, DeviceError> {
        let mut argument = uapi::Alloc { size, ranges, ..uapi::Alloc::default() };
        uapi::alloc(&self.file, &mut argument).map_err(self.failed("ALLOC"))?;
        Ok(Object {
            handle: argument.handle,
            size: argument.size,
            mmap_offset: Some(argument.mmap_offset),
        })
    }

    /// Gives an object back.
    ///
    /// # Errors
    /// The driver's.
    pub fn close(&self, object: Object) -> Result<(), DeviceError> {
        let mut argument = uapi::Handle { handle: object.handle, ..uapi::Handle::default() };
        uapi::close(&self.file, &mut argument).map_err(self.failed("CLOSE"))
    }

    /// A dma-buf over the whole of a piece of local memory.
    ///
    /// # Errors
    /// The driver's.
    pub fn export(&self, object: Object) -> Result<OwnedFd, DeviceError> {
        let flags = uapi::EXPORT_CLOEXEC | uapi::EXPORT_RDWR;
        let mut argument = uapi::Export { handle: object.handle, flags, ..uapi::Export::default() };
        uapi::export(&self.file, &mut argument).map_err(self.failed("EXPORT"))?;
        if argument.fd < 0 {
            return Err(self.failed("EXPORT")(Errno::BADF));
        }
        // SAFETY: the driver has just installed this descriptor for us, and nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(argument.fd) })
    }

    /// Invalidates the importers' mappings of a piece of local memory.
    ///
    /// # Errors
    /// The driver's.
    pub fn invalidate(&self, object: Object) -> Result<(), DeviceError> {
        let mut argument =
            uapi::Invalidate { handle: object.handle, ..uapi::Invalidate::default() };
        uapi::invalidate(&self.file, &mut argument).map_err(self.failed("INVALIDATE"))
    }

    /// Attaches a dma-buf of any exporter.
    ///
    /// # Errors
    /// The driver's, which passes the exporter's on.
    pub fn import(&self, buffer: impl AsFd, flags: u32) -> Result<Object, DeviceError> {
        use std::os::fd::AsRawFd;
        let fd = buffer.as_fd().as_raw_fd();
        let mut argument = uapi::Import { fd, flags, ..uapi::Import::default() };
        uapi::import(&self.file, &mut argument).map_err(self.failed("IMPORT"))?;
        Ok(Object { handle: argument.handle, size: argument.size, mmap_offset: None })
    }

    /// Maps an import or system memory for the device.
    ///
    /// # Errors
    /// The driver's.
    pub fn map(&self, object: Object, direction: u32) -> Result<(), DeviceError> {
        let mut argument = uapi::Map { handle: object.handle, direction, ..uapi::Map::default() };
        uapi::map(&self.file, &mut argument).map_err(self.failed("MAP"))
    }

    /// Gives the mapping back; the object stays.
    ///
    /// # Errors
    /// The driver's.
    pub fn unmap(&self, object: Object) -> Result<(), DeviceError> {
        let mut argument = uapi::Handle { handle: object.handle, ..uapi::Handle::default() };
        uapi::unmap(&self.file, &mut argument).map_err(self.failed("UNMAP"))
    }

    /// Where an object lies: its first segments (at most 64), and how many there are.
    ///
    /// # Errors
    /// The driver's.
    pub fn segments(&self, object: Object) -> Result<(Vec<uapi::Segment>, u32), DeviceError> {
        let mut room = vec![uapi::Segment::default(); 64];
        let got = uapi::get_segments(&self.file, object.handle, 0, &mut room)
            .map_err(self.failed("GET_SEGMENTS"))?;
        room.truncate(got.capacity as usize);
        Ok((room, got.total))
    }

    /// System memory: coherent, or pages mapped in `direction`.
    ///
    /// # Errors
    /// The driver's.
    pub fn system(&self, size: u64, flags: u32, direction: u32) -> Result<Object, DeviceError> {
        let mut argument =
            uapi::SystemAlloc { size, flags, direction, ..uapi::SystemAlloc::default() };
        uapi::system_alloc(&self.file, &mut argument).map_err(self.failed("SYSTEM_ALLOC"))?;
        Ok(Object {
            handle: argument.handle,
            size: argument.size,
            mmap_offset: Some(argument.mmap_offset),
        })
    }

    /// Hands system memory over to the CPU or to the device.
    ///
    /// # Errors
    /// The driver's.
    pub fn sync(&self, object: Object, target: u32) -> Result<(), DeviceError> {
        let mut argument = uapi::SystemSync { handle: object.handle, target };
        uapi::system_sync(&self.file, &mut argument).map_err(self.failed("SYSTEM_SYNC"))
    }

    /// Maps an object for the CPU.
    ///
    /// # Errors
    /// The driver's, or `EINVAL` for an object that cannot be mapped.
    pub fn view(&self, object: Object) -> Result<View, DeviceError> {
        let length = usize::try_from(object.size).map_err(|_| self.failed("mmap")(Errno::INVAL))?;
        let offset = object.mmap_offset.ok_or_else(|| self.failed("mmap")(Errno::INVAL))?;
        View::new(&self.file, length, offset).map_err(self.failed("mmap"))
    }

    /// Hands work to a channel; gives the cookie to wait with.
    ///
    /// # Errors
    /// The driver's.
    pub fn submit(&self, work: Work) -> Result<u64, DeviceError> {
        let mut argument = work.argument();
        uapi::submit(&self.file, &mut argument).map_err(self.failed("SUBMIT"))?;
        Ok(argument.cookie)
    }

    /// Waits for the result of work, whatever it is.
    ///
    /// # Errors
    /// The driver's; `ETIME` when it is not there in time.
    pub fn wait(&self, cookie: u64, timeout_ms: u32) -> Result<uapi::Wait, DeviceError> {
        let mut argument = uapi::Wait { cookie, timeout_ms, ..uapi::Wait::default() };
        uapi::wait(&self.file, &mut argument).map_err(self.failed("WAIT"))?;
        Ok(argument)
    }

    /// Whether work has ended; its result can still be waited for.
    ///
    /// # Errors
    /// The driver's.
    pub fn is_done(&self, cookie: u64) -> Result<bool, DeviceError> {
        let mut argument = uapi::Wait { cookie, flags: uapi::WAIT_KEEP, ..uapi::Wait::default() };
        match uapi::wait(&self.file, &mut argument) {
            Ok(()) => Ok(true),
            Err(Errno::TIME) => Ok(false),
            Err(error) => Err(self.failed("WAIT")(error)),
        }
    }

    /// Does one piece of work from beginning to end.
    ///
    /// # Errors
    /// The driver's; how the work itself ended is in the result.
    pub fn run(&self, work: Work) -> Result<uapi::Wait, DeviceError> {
        let cookie = self.submit(work)?;
        self.wait(cookie, WAIT_MS)
    }

    /// Sets or clears Bus Master Enable behind the driver's back; gives what it was.
    ///
    /// # Errors
    /// The driver's.
    pub fn set_bus_master(&self, enable: bool) -> Result<bool, DeviceError> {
        let mut argument =
            uapi::LabBusMaster { enable: enable.into(), ..uapi::LabBusMaster::default() };
        uapi::lab_bus_master(&self.file, &mut argument).map_err(self.failed("LAB_BUS_MASTER"))?;
        Ok(argument.was != 0)
    }

    /// Asks a channel to misbehave with its next descriptor: one of the `FAULT_*` codes and its argument.
    ///
    /// # Errors
    /// The driver's.
    pub fn arm_fault(&self, channel: u32, fault: u32, argument: u32) -> Result<(), DeviceError> {
        let block = uapi::CHANNEL_BASE + channel * uapi::CHANNEL_STRIDE;
        for (register, value) in [(uapi::CH_FAULT_ARG, argument), (uapi::CH_FAULT, fault)] {
            self.write_register(block + register, value)?;
        }
        Ok(())
    }

    /// Maps a physical range that is not RAM, wherever it ends; gives the object and its DMA address.
    ///
    /// # Errors
    /// The driver's.
    pub fn map_physical(
        &self,
        phys: u64,
        length: u64,
        direction: u32,
    ) -> Result<(Object, u64), DeviceError> {
        self.map_range(phys, length, direction, uapi::LAB_MAP_MMIO)
    }

    /// Maps any physical range, with `LAB_MAP_*` flags; gives the object and its DMA address.
    ///
    /// # Errors
    /// The driver's.
    pub fn map_range(
        &self,
        phys: u64,
        length: u64,
        direction: u32,
        flags: u32,
    ) -> Result<(Object, u64), DeviceError> {
        let mut argument =
            uapi::LabMapPhys { phys, length, direction, flags, ..uapi::LabMapPhys::default() };
        uapi::lab_map_phys(&self.file, &mut argument).map_err(self.failed("LAB_MAP_PHYS"))?;
        Ok((Object { handle: argument.handle, size: length, mmap_offset: None }, argument.address))
    }
}

/// How long a test waits for work that should end at once, ms. Long, because emulated machines share a busy host.
pub const WAIT_MS: u32 = 30_000;
