//! Loads a module anew that was built again on the host.

use super::get::file;
use super::holders::{devices, holders};
use super::{FilesError, modinfo, size};
use crate::init::module;
use crate::sys::kernel_log::KernelLog;
use crate::vmm::{Module, Vmm};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs;
use std::path::Path;

/// Where modules lie in a guest.
const FOLDER: &str = "/lib/modules";
/// How much of the kernel's log about a module is shown, in lines.
const MAX_LINES: usize = 20;

/// Fetches the module `name` of the host's, unloads the one that is loaded under its name, and loads the new one with
/// `parameters`, or with those that the guest was started with; gives a line for each step.
///
/// # Errors
/// When it is not there or not a module, when something holds the old one, or when the kernel refuses the new one.
pub fn reload(vmm: &mut Vmm, name: &str, parameters: &str) -> Result<Vec<String>, FilesError> {
    let last = name.rsplit('/').next().unwrap_or(name);
    // First of all: what cannot be fetched leaves the old one loaded.
    let path = Path::new(FOLDER).join(last);
    let bytes = file(vmm, name, &path)?;
    let mut lines = vec![format!("{} ({})", path.display(), size(bytes))];
    let content = fs::read(&path).map_err(|error| FilesError::here(&path, &error))?;
    if !modinfo::is_elf(&content) {
        return Err(FilesError::new(format!("{last} is not a kernel module")));
    }
    let stem = last.strip_suffix(".ko").unwrap_or(last);
    let module = modinfo::value(&content, "name").unwrap_or(stem).replace('-', "_");
    check_kernel(last, modinfo::value(&content, "vermagic"))?;
    drop(content);
    if unload(&module)? {
        lines.push(format!("{module} is unloaded"));
    }
    let parameters = match parameters {
        "" => parameters_at_boot(vmm, &path),
        given => given.to_owned(),
    };
    let mut log = KernelLog::open().ok();
    if let Some(log) = &mut log {
        log.drain();
    }
    let path = path.display().to_string();
    let loaded = module::load(&Module { path, parameters: parameters.clone() });
    let said = log.map(|mut log| log.drain()).unwrap_or_default();
    let skipped = said.len().saturating_sub(MAX_LINES);
    lines.extend(said.iter().skip(skipped).map(|record| format!("kernel: {}", record.text)));
    if let Err(failure) = loaded {
        lines.push(format!("{failure}; {module} is not loaded now"));
        return Err(FilesError::new(lines.join("\n")));
    }
    let with = if parameters.is_empty() { String::new() } else { format!(" with {parameters}") };
    lines.push(format!("{module} is loaded{with}"));
    match devices(&module) {
        bound if bound.is_empty() => lines.push("it is bound to no device".into()),
        bound => lines.push(format!("it is bound to {}", bound.join(", "))),
    }
    Ok(lines)
}

/// A module for another kernel is refused before the old one is unloaded.
fn check_kernel(name: &str, vermagic: Option<&str>) -> Result<(), FilesError> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (release, built) = (release.trim(), vermagic.and_then(|text| text.split(' ').next()));
    match built {
        Some(built) if !release.is_empty() && built != release => Err(FilesError::new(format!(
            "{name} is built for Linux {built}, and this guest runs {release}: build it against this kernel's tree \
             (`peerdma kernel build --json` on the host says where that is)"
        ))),
        _ => Ok(()),
    }
}

/// Unloads a module; false if it was not loaded.
fn unload(module: &str) -> Result<bool, FilesError> {
    let folder = Path::new("/sys/module").join(module);
    if !folder.exists() {
        return Ok(false);
    }
    if !folder.join("initstate").exists() {
        return Err(FilesError::new(format!(
            "{module} is built into this kernel: it cannot be replaced by a module"
        )));
    }
    let name = CString::new(module).map_err(|_| FilesError::new("a name holds a zero byte"))?;
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    match rustix::system::delete_module(&name, flags.cast_signed()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => {
            let count = fs::read_to_string(folder.join("refcnt")).unwrap_or_default();
            let why = match error {
                Errno::AGAIN => format!("it is in use, reference count {}", count.trim()),
                Errno::BUSY => {
                    "the kernel is loading or unloading it, or it has no exit function".into()
                }
                Errno::PERM => "only root may, and not where kernel.modules_disabled is 1".into(),
                error => error.to_string(),
            };
            let lines = [format!("{module} cannot be unloaded: {why}")];
            let lines = lines
                .into_iter()
                .chain(holders(module).into_iter().map(|line| format!("  {line}")));
            Err(FilesError::new(lines.collect::<Vec<_>>().join("\n")))
        }
    }
}

/// The parameters that the guest was to load this module with.
fn parameters_at_boot(vmm: &mut Vmm, path: &Path) -> String {
    let modules = vmm.hello().map(|hello| hello.modules).unwrap_or_default();
    let found = modules.into_iter().find(|module| Path::new(&module.path) == path);
    found.map(|module| module.parameters).unwrap_or_default()
}
