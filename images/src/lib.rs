//! What a guest is made of, built from source on this machine and kept in a cache.
//!
//! Nothing prebuilt comes with the project. [`kernel`] gets the kernel's source and builds it; [`kernel_image`]
//! recognises a kernel that was built elsewhere; [`module`] builds a driver against either;
//! [`kselftest`] builds the kernel's own test programs; [`initramfs`] packs the guest's root file
//! system. What is made is kept in the [`cache`], under a name that is a hash of everything it was
//! made from, and nothing needs root.
//!
//! An initramfs is made without root and is the same bytes for the same content:
//!
//! ```
//! use peerdma_images::cache::Cache;
//! use peerdma_images::initramfs::Initramfs;
//!
//! let folder = tempfile::tempdir()?;
//! let cache = Cache::at(folder.path())?;
//!
//! let mut image = Initramfs::new();
//! image.file("/init", 0o755, "#!/bin/sh\necho hello\n")?;
//! image.symlink("/bin/hello", "/init")?;
//! let path = image.store(&cache)?;
//! assert_eq!(std::fs::read(&path)?, image.to_bytes()?);
//!
//! // A file in the way of a folder is refused, and so is a path that leaves the image.
//! assert!(image.file("/init/more", 0o644, "").is_err());
//! assert!(image.file("/../etc/passwd", 0o644, "").is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod cache;
pub mod command;
pub mod embedded;
pub mod initramfs;
pub mod kernel;
pub mod kernel_image;
pub mod kselftest;
pub mod module;
pub mod progress;

/// Reports on the real standard error, which libtest does not capture, that a test cannot run: `make test` counts these
/// lines as skipped.
#[cfg(test)]
fn skip(why: &str) {
    use std::io::Write as _;
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let line = format!("SKIP {name}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
