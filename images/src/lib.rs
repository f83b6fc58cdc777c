//! What a guest is made of, built from source on this machine and kept in a cache.
//!
//! Nothing prebuilt comes with the project. [`kernel`] gets the kernel's source and builds it; [`kernel_image`]
//! recognises a kernel that somebody else built; [`module`] builds a driver against either; [`kselftest`] builds the
//! kernel's own test programs; [`initramfs`] packs the guest's root file system. What is made is kept in the [`cache`],
//! under a name that is a hash of everything it was made from, and nothing needs root.

pub mod cache;
pub mod command;
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
