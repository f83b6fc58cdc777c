//! Getting a kernel into a guest: where its pieces go, what the guest is passed, and how the first vCPU starts.

pub mod acpi;
mod elf;
mod entry;
mod image;
mod linux64;
mod memory_map;
mod pvh;
#[cfg(test)]
mod tests;

pub use elf::LoadedKernel;
pub use entry::Entry;
pub use image::Image;
pub use memory_map::{MemoryKind, MemoryMap};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::layout;
use crate::memory::GuestRam;

/// A kernel to boot.
#[derive(Debug)]
pub struct KernelBoot {
    /// The kernel as an ELF file for x86-64 (`vmlinux`).
    pub kernel: Image,
    /// The initial RAM file system, a cpio archive, compressed or not.
    pub initramfs: Option<Image>,
    /// The command line; at most 2047 bytes, no zero byte.
    pub command_line: String,
    /// How to enter the kernel.
    pub protocol: Protocol,
}

/// How a kernel is entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// PVH when the kernel has the note for it, the 64-bit boot protocol otherwise.
    #[default]
    Auto,
    /// PVH, or an error.
    Pvh,
    /// The 64-bit boot protocol of `Documentation/arch/x86/boot.rst`.
    Linux64,
}

/// Why a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The kernel image is not an ELF file that this machine can run.
    #[error("the kernel image {reason}: give a vmlinux or bzImage built for x86-64")]
    Kernel {
        /// What is wrong, as the end of a sentence.
        reason: String,
    },
    /// No PVH entry.
    #[error(
        "the kernel has no PVH entry: build it with CONFIG_PVH=y, or choose the 64-bit boot protocol"
    )]
    NoPvhEntry,
    /// Kernel and initramfs do not fit.
    #[error("{what} needs {need} bytes where only {have} are left: give the guest more RAM")]
    NoRoom {
        /// Which piece.
        what: &'static str,
        /// Bytes needed.
        need: u64,
        /// Bytes there.
        have: u64,
    },
    /// The command line is too long or holds a zero byte.
    #[error("the kernel command line {0}")]
    CommandLine(String),
    /// A file could not be read.
    #[error("cannot read the {what}: {source}")]
    Read {
        /// Which file.
        what: &'static str,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Guest memory was not where the layout says.
    #[error("cannot write the {what} into guest memory: {source}")]
    Memory {
        /// What was written.
        what: &'static str,
        /// The reason.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
}

/// Puts kernel, initramfs, command line and start structures into RAM; the ACPI tables are expected at
/// [`layout::ACPI_TABLES`] already or later.
///
/// # Errors
/// [`BootError`]: what is wrong with the images, or that the RAM is too small.
pub fn load(boot: KernelBoot, ram: &GuestRam) -> Result<Entry, BootError> {
    let KernelBoot { mut kernel, initramfs, command_line, protocol } = boot;
    let loaded = elf::load(&mut kernel, ram)?;
    write_command_line(ram.memory(), &command_line)?;
    let initramfs = initramfs.map(|image| place_initramfs(image, ram, loaded.end)).transpose()?;
    match (protocol, loaded.pvh_entry) {
        (Protocol::Auto | Protocol::Pvh, Some(entry)) => pvh::prepare(ram, entry, initramfs),
        (Protocol::Pvh, None) => Err(BootError::NoPvhEntry),
        (Protocol::Auto | Protocol::Linux64, _) => linux64::prepare(ram, loaded.entry, initramfs),
    }
}

/// Where the initramfs lies.
#[derive(Clone, Copy, Debug)]
struct Placed {
    address: u64,
    size: u64,
}

/// As high as RAM below 4 GiB goes: the kernel decompresses and grows from below.
fn place_initramfs(mut image: Image, ram: &GuestRam, kernel_end: u64) -> Result<Placed, BootError> {
    let read = |source| BootError::Read { what: "initramfs", source };
    let size = image.len().map_err(read)?;
    let floor = kernel_end.next_multiple_of(layout::PAGE_SIZE);
    let room = ram.low_end().saturating_sub(floor);
    let no_room = BootError::NoRoom { what: "the initramfs", need: size, have: room };
    if size > room {
        return Err(no_room);
    }
    let address = (ram.low_end() - size) & !(layout::PAGE_SIZE - 1);
    if address < floor {
        return Err(no_room);
    }
    image.copy_to(ram.memory(), GuestAddress(address), size).map_err(read)?;
    Ok(Placed { address, size })
}

fn write_command_line(memory: &GuestMemoryMmap, text: &str) -> Result<(), BootError> {
    if text.len() >= layout::COMMAND_LINE_CAPACITY {
        let limit = layout::COMMAND_LINE_CAPACITY - 1;
        return Err(BootError::CommandLine(format!(
            "has {} bytes: shorten it to {limit} at most",
            text.len()
        )));
    }
    if text.bytes().any(|byte| byte == 0) {
        return Err(BootError::CommandLine("holds a zero byte: remove it".into()));
    }
    let bytes: Vec<u8> = text.bytes().chain([0]).collect();
    write(memory, "command line", &bytes, layout::COMMAND_LINE)
}

fn write(
    memory: &GuestMemoryMmap,
    what: &'static str,
    bytes: &[u8],
    address: u64,
) -> Result<(), BootError> {
    memory
        .write_slice(bytes, GuestAddress(address))
        .map_err(|source| BootError::Memory { what, source })
}

/// Puts bare machine code at `address` and prepares long mode for it.
///
/// # Errors
/// [`BootError::Memory`] when it does not fit.
pub fn load_flat(
    ram: &GuestRam,
    code: &[u8],
    address: u64,
    stack: u64,
) -> Result<Entry, BootError> {
    write(ram.memory(), "program", code, address)?;
    entry::write_long_mode_tables(ram.memory())?;
    Ok(Entry::long_mode(address, stack))
}
