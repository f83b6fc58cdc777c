//! What keeps a module from being unloaded, as far as the kernel shows it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The most holders of one kind that are named.
const MAX_NAMED: usize = 10;

/// A sentence for each thing that holds the module `name`.
pub(super) fn holders(name: &str) -> Vec<String> {
    let module = Path::new("/sys/module").join(name);
    let mut found = Vec::new();
    let modules = names(&module.join("holders"));
    if !modules.is_empty() {
        found.push(format!("modules that use it: {}; unload these first", modules.join(", ")));
    }
    let (files, buffers) = open_files(name);
    push(&mut found, "open files", &files, "end these processes");
    push(&mut found, "dma-bufs of its", &buffers, "close them, or end these processes");
    if found.is_empty() {
        found.push(
            "no process has a file or dma-buf of its open: something in the kernel holds it, as a mapping, a fence or \
             an attachment that another driver has not given back"
                .into(),
        );
    }
    let devices = devices(name);
    if !devices.is_empty() {
        found.push(format!("devices bound to it (these do not hold it): {}", devices.join(", ")));
    }
    found
}

/// The devices that drivers of a module are bound to.
pub(super) fn devices(module: &str) -> Vec<String> {
    let drivers = Path::new("/sys/module").join(module).join("drivers");
    let is_device = |name: &String| name.contains(':') || name.contains('.');
    let mut all: Vec<_> = names(&drivers)
        .iter()
        .flat_map(|driver| names(&drivers.join(driver)))
        .filter(is_device)
        .collect();
    all.sort();
    all
}

fn push(found: &mut Vec<String>, what: &str, all: &[String], advice: &str) {
    if all.is_empty() {
        return;
    }
    let named = all.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = all.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    found.push(format!("{what}: {named}{more}; {advice}"));
}

/// Names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The device files of the module's that processes have open, and the dma-bufs that it exports to them.
fn open_files(module: &str) -> (Vec<String>, Vec<String>) {
    let (mut files, mut buffers) = (Vec::new(), Vec::new());
    for process in names(Path::new("/proc")).iter().filter(|name| name.parse::<u32>().is_ok()) {
        let folder = Path::new("/proc").join(process);
        let owner = || {
            let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
            format!("process {process} ({})", name.trim())
        };
        for number in names(&folder.join("fd")) {
            let link = folder.join("fd").join(&number);
            let Ok(target) = fs::read_link(&link) else { continue };
            if target.to_string_lossy().starts_with("/dmabuf:") {
                let info = fs::read_to_string(folder.join("fdinfo").join(&number));
                if info.is_ok_and(|info| exporter(&info).is_some_and(|own| is_same(own, module))) {
                    buffers.push(owner());
                }
            } else if is_device_of(&link, module) {
                files.push(format!("{} has {}", owner(), target.display()));
            }
        }
    }
    buffers.dedup();
    (files, buffers)
}

/// The module that exports a dma-buf, in the text of its `/proc/PID/fdinfo/FD`.
fn exporter(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("exp_name:")).map(str::trim)
}

/// Whether an open file is a character device of a module's: its driver's, or one that is called after it.
fn is_device_of(file: &Path, module: &str) -> bool {
    let Ok(metadata) = fs::metadata(file) else { return false };
    if !metadata.file_type().is_char_device() {
        return false;
    }
    let number = metadata.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let device = PathBuf::from(format!("/sys/dev/char/{major}:{minor}"));
    let driver = fs::read_link(device.join("device/driver/module"));
    let last = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match driver.ok().and_then(last) {
        Some(driver) => is_same(&driver, module),
        None => fs::read_link(&device)
            .ok()
            .and_then(last)
            .is_some_and(|name| name.replace('-', "_").starts_with(module)),
    }
}

/// Names of modules: the kernel takes `-` and `_` for the same.
fn is_same(one: &str, other: &str) -> bool {
    one.replace('-', "_") == other.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exporter_of_a_dma_buf_is_read() {
        let info = "pos:\t0\nflags:\t02000002\nsize:\t4096\ncount:\t2\nexp_name:\tpeer-dma\n";
        assert_eq!(exporter(info), Some("peer-dma"));
        assert!(is_same("peer-dma", "peer_dma") && !is_same("peer", "peerdma"));
        assert_eq!(exporter("pos:\t0\n"), None);
    }

    #[test]
    fn many_holders_are_counted() {
        let all: Vec<_> = (0..12).map(|number| number.to_string()).collect();
        let mut found = Vec::new();
        push(&mut found, "open files", &all, "end them");
        assert_eq!(found, ["open files: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more; end them"]);
        push(&mut found, "none", &[], "");
        assert_eq!(found.len(), 1);
    }
}
