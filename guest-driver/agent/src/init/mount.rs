//! The file systems every Linux program expects.

use crate::exit::{self, Failure};
use rustix::fs::{Mode, mkdir};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// One file system to mount.
struct Entry {
    kind: &'static str,
    target: &'static str,
    options: Option<&'static std::ffi::CStr>,
    /// Whether the agent can do its work without it.
    needed: bool,
}

const fn entry(kind: &'static str, target: &'static str, needed: bool) -> Entry {
    Entry { kind, target, options: None, needed }
}

/// In this order, because some lie inside others.
const TABLE: &[Entry] = &[
    entry("proc", "/proc", true),
    entry("sysfs", "/sys", true),
    entry("devtmpfs", "/dev", true),
    entry("tmpfs", "/tmp", true),
    entry("tmpfs", "/run", false),
    Entry { kind: "devpts", target: "/dev/pts", options: Some(c"ptmxmode=0666"), needed: false },
    entry("tmpfs", "/dev/shm", false),
    entry("debugfs", "/sys/kernel/debug", false),
    entry("tracefs", "/sys/kernel/tracing", false),
];

/// Mounts them all, and makes the directories that are missing. A kernel may lack those that only some tests need; they say so themselves.
///
/// # Errors
/// When one of those that everything needs cannot be mounted.
pub(crate) fn mount_all() -> Result<(), Failure> {
    // The home directory of root, where commands start.
    let _ = mkdir("/root", Mode::from_raw_mode(0o700));
    for entry in TABLE {
        // Inside sysfs and devtmpfs the kernel makes the directory when it has the file system; elsewhere it may exist.
        let _ = mkdir(entry.target, Mode::from_raw_mode(0o755));
        match mount(entry.kind, entry.target, entry.kind, MountFlags::empty(), entry.options) {
            // Busy: the kernel, or a start script before us, mounted the same already.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) if entry.needed => {
                return Err(Failure::new(
                    exit::MOUNT,
                    format!(
                        "mounting {} on {} failed: {error}; is it in the kernel's configuration?",
                        entry.kind, entry.target
                    ),
                ));
            }
            Err(_) => {}
        }
    }
    Ok(())
}
