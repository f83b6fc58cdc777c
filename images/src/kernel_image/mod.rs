//! Kernels that were built elsewhere: what `--kernel PATH` names, recognised by content.
//!
//! A `vmlinux` is used as it is. A `bzImage` has no PVH note of its own, and its boot code unpacks the kernel anyway,
//! slowly under emulation: its payload is taken out here. A folder is a build tree, with its `vmlinux`, against which
//! modules can be built too.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

mod bzimage;
mod elf;
mod error;
mod payload;

pub use error::ImageError;

/// What a path turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// An ELF kernel.
    Vmlinux,
    /// A compressed kernel with its real-mode header.
    BzImage,
    /// A folder in which a kernel was built.
    BuildTree,
}

impl std::fmt::Display for ImageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Vmlinux => "vmlinux",
            Self::BzImage => "bzImage",
            Self::BuildTree => "build tree",
        })
    }
}

/// A kernel that can be loaded: 64-bit x86, its segments whole.
#[derive(Debug)]
pub struct KernelImage {
    /// The ELF file, at its beginning: the user's own, or the payload of a bzImage in a file of memory. Bytes that
    /// belong to no segment may follow.
    pub elf: File,
    /// It has a PVH entry; without one the 64-bit boot protocol is left.
    pub has_pvh: bool,
    /// What the path was.
    pub kind: ImageKind,
    /// The folder to build modules against, when the path is one and all is there that this takes.
    pub build_tree: Option<PathBuf>,
    /// What `uname -r` will print, where that can be read without running it.
    pub release: Option<String>,
}

impl KernelImage {
    /// Recognises and opens a kernel.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let metadata = path.metadata().map_err(ImageError::io("Opening", path))?;
        if metadata.is_dir() { open_tree(path) } else { open_file(path) }
    }

    /// Copies the ELF file to `path`, for a reader that should not have to unpack it again.
    pub fn write_to(&mut self, path: &Path) -> Result<(), ImageError> {
        let mut copy = || {
            self.elf.seek(SeekFrom::Start(0))?;
            let mut target = File::create(path)?;
            io::copy(&mut self.elf, &mut target)?;
            self.elf.seek(SeekFrom::Start(0))
        };
        copy().map(drop).map_err(ImageError::io("Writing", path))
    }
}

/// A folder in which a kernel was built, in place or with `O=`.
fn open_tree(path: &Path) -> Result<KernelImage, ImageError> {
    let path = path.canonicalize().map_err(ImageError::io("Finding", path))?;
    let vmlinux = path.join("vmlinux");
    if !vmlinux.is_file() {
        return Err(ImageError::NotBuilt { path });
    }
    let image = open_file(&vmlinux)?;
    if image.kind != ImageKind::Vmlinux {
        return Err(ImageError::NotAKernel {
            path: vmlinux,
            why: "it is named vmlinux and is something else",
        });
    }
    let complete = [".config", "Module.symvers", "Makefile", "scripts/mod/modpost"];
    let complete = complete.iter().all(|name| path.join(name).is_file());
    let release = std::fs::read_to_string(path.join("include/config/kernel.release")).ok();
    let release = release.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    Ok(KernelImage {
        kind: ImageKind::BuildTree,
        build_tree: complete.then_some(path),
        release,
        ..image
    })
}

fn open_file(path: &Path) -> Result<KernelImage, ImageError> {
    let failed = |error| ImageError::io("Reading", path)(error);
    let mut file = File::open(path).map_err(failed)?;
    let mut head = Vec::with_capacity(bzimage::HEAD);
    (&mut file).take(bzimage::HEAD as u64).read_to_end(&mut head).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    if head.starts_with(&elf::MAGIC) {
        let has_pvh = elf::inspect(&mut file, path)?;
        return Ok(KernelImage {
            elf: file,
            has_pvh,
            kind: ImageKind::Vmlinux,
            build_tree: None,
            release: None,
        });
    }
    if bzimage::is_bzimage(&head) {
        let (mut elf, release) = bzimage::unpack(&mut file, &head, path)?;
        let has_pvh = elf::inspect(&mut elf, path)?;
        return Ok(KernelImage {
            elf,
            has_pvh,
            kind: ImageKind::BzImage,
            build_tree: None,
            release,
        });
    }
    Err(foreign(&head, path))
}

/// Says of a file that is neither what it looks like.
fn foreign(head: &[u8], path: &Path) -> ImageError {
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..).is_some_and(|rest| rest.starts_with(magic))
    };
    let path = path.to_owned();
    if head.len() < bzimage::HEAD {
        return ImageError::NotAKernel { path, why: "it is too short to be one" };
    }
    // The image headers of these architectures, in their boot documentation.
    let machines: [(usize, &[u8], &str); 3] = [
        (0x38, b"ARM\x64", "AArch64"),
        (0x30, b"RISCV\0\0\0", "RISC-V"),
        (0x24, &[0x18, 0x28, 0x6f, 0x01], "ARM"),
    ];
    if let Some((_, _, machine)) = machines.iter().find(|(offset, magic, _)| at(*offset, magic)) {
        return ImageError::WrongArchitecture { path, found: (*machine).to_owned() };
    }
    let compressed: [&[u8]; 4] = [&[0x1f, 0x8b], b"\xfd7zXZ\0", &[0x28, 0xb5, 0x2f, 0xfd], b"BZh"];
    if compressed.iter().any(|magic| at(0, magic)) {
        return ImageError::NotAKernel { path, why: "it is a compressed file; unpack it first" };
    }
    ImageError::NotAKernel { path, why: "it is neither an ELF file nor a bzImage" }
}

#[cfg(test)]
mod tests;
