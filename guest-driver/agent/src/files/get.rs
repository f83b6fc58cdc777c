//! Fetches what the host shares.

use super::{FilesError, size};
use crate::vmm::Vmm;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest_protocol::exchange::{ANY_STAMP, Entry, EntryKind, HAS_CHANGED, IS_A_FOLDER};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a file is fetched anew that changes meanwhile.
const ATTEMPTS: usize = 5;
/// How long to wait before that: what writes it may soon have ended.
const PAUSE: Duration = Duration::from_millis(300);
/// The deepest folder that is looked into.
const MAX_DEPTH: usize = 32;
/// The most entries that a listing shows.
const MAX_LISTED: usize = 500;
/// Memory that stays free when a file is kept in it.
const RESERVE: u64 = 16 << 20;
/// File systems that keep files in memory: ramfs and tmpfs, by their magic numbers (statfs(2)).
const IN_MEMORY: [i64; 2] = [0x8584_58f6, 0x0102_1994];

/// What is shared, a line for each file, folder by folder.
///
/// # Errors
/// When the host does not answer or shares nothing.
pub fn list(vmm: &mut Vmm) -> Result<String, FilesError> {
    let mut lines = Vec::new();
    list_below(vmm, "", 0, &mut lines)?;
    if lines.is_empty() {
        return Err(FilesError::new("nothing is shared: start the guest with boot --share PATH"));
    }
    if lines.len() > MAX_LISTED {
        lines.truncate(MAX_LISTED);
        lines.push("and more".into());
    }
    Ok(lines.join("\n") + "\n")
}

fn list_below(
    vmm: &mut Vmm,
    folder: &str,
    depth: usize,
    lines: &mut Vec<String>,
) -> Result<(), FilesError> {
    for entry in entries(vmm, folder)? {
        let name = join(folder, &entry.name);
        match entry.kind {
            EntryKind::File => lines.push(format!("{:>12}  {name}", size(entry.size))),
            EntryKind::Folder => {
                lines.push(format!("{:>12}  {name}/", "folder"));
                if depth < MAX_DEPTH && lines.len() <= MAX_LISTED {
                    list_below(vmm, &name, depth + 1, lines)?;
                }
            }
            EntryKind::Other => {
                lines.push(format!(
                    "{:>12}  {name}  (gone, a link out of the share, or not a file)",
                    "-"
                ));
            }
        }
        if lines.len() > MAX_LISTED {
            break;
        }
    }
    Ok(())
}

/// All entries of a folder.
fn entries(vmm: &mut Vmm, folder: &str) -> Result<Vec<Entry>, FilesError> {
    let mut all = Vec::new();
    loop {
        let listing = vmm.list_shared(all.len(), folder)?;
        let is_over = !listing.more || listing.entries.is_empty();
        all.extend(listing.entries);
        if is_over {
            return Ok(all);
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Fetches the file or folder `name` to `target`, into it if that is a folder; gives a line for each file.
///
/// # Errors
/// When it is not there, does not fit, or changes again and again. What was at the target then still is.
pub fn fetch(vmm: &mut Vmm, name: &str, target: Option<&Path>) -> Result<Vec<String>, FilesError> {
    let name = name.trim_end_matches('/');
    let target = place(name, target);
    let mut lines = Vec::new();
    match file(vmm, name, &target) {
        Ok(bytes) => lines.push(format!("{} ({})", target.display(), size(bytes))),
        Err(error) if error.0 == format!("{name} {IS_A_FOLDER}") => {
            folder(vmm, name, &target, 0, &mut lines)?;
        }
        Err(error) => return Err(error),
    }
    Ok(lines)
}

/// Where `name` gets to: its last part, in the target if that is a folder.
fn place(name: &str, target: Option<&Path>) -> PathBuf {
    let last = name.rsplit('/').next().unwrap_or(name);
    match target {
        None => last.into(),
        Some(target) if target.is_dir() || target.as_os_str().to_string_lossy().ends_with('/') => {
            target.join(last)
        }
        Some(target) => target.into(),
    }
}

fn folder(
    vmm: &mut Vmm,
    name: &str,
    target: &Path,
    depth: usize,
    lines: &mut Vec<String>,
) -> Result<(), FilesError> {
    if depth > MAX_DEPTH {
        return Err(FilesError::new(format!("{name}: folders are nested too deeply")));
    }
    fs::create_dir_all(target).map_err(|error| FilesError::here(target, &error))?;
    for entry in entries(vmm, name)? {
        // Never out of the target, whatever the other side says.
        if entry.name.contains('/') || guest_protocol::exchange::check_name(&entry.name).is_err() {
            continue;
        }
        let (name, target) = (join(name, &entry.name), target.join(&entry.name));
        match entry.kind {
            EntryKind::File => {
                let bytes = file(vmm, &name, &target)?;
                lines.push(format!("{} ({})", target.display(), size(bytes)));
            }
            EntryKind::Folder => folder(vmm, &name, &target, depth + 1, lines)?,
            EntryKind::Other => {
                lines.push(format!(
                    "{name} is left out: it leads out of the share, or is not a file"
                ));
            }
        }
    }
    Ok(())
}

/// Fetches one file; gives its length.
///
/// # Errors
/// As for [`fetch`], and for a folder.
pub(super) fn file(vmm: &mut Vmm, name: &str, target: &Path) -> Result<u64, FilesError> {
    let changed = format!("{name} {HAS_CHANGED}");
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        match attempt_file(vmm, name, target) {
            Err(error) if error.0 == changed => {}
            outcome => return outcome,
        }
    }
    Err(FilesError::new(format!(
        "{name} changed each of the {ATTEMPTS} times while it was fetched: let what writes it end, or share a copy"
    )))
}

/// Removes a file that is not whole.
struct Partial<'a>(&'a Path);

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

fn attempt_file(vmm: &mut Vmm, name: &str, target: &Path) -> Result<u64, FilesError> {
    let first = vmm.read_shared(0, ANY_STAMP, name)?;
    if target.is_dir() {
        return Err(FilesError::new(format!("{} is a folder here", target.display())));
    }
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| FilesError::here(parent, &error))?;
    check_room(name, first.size, parent)?;
    let partial = parent.join(format!(".guest-agent-{}.partial", std::process::id()));
    let _ = fs::remove_file(&partial);
    let here = |error: std::io::Error| FilesError::here(target, &error);
    let mut out = File::create_new(&partial).map_err(here)?;
    let _guard = Partial(&partial);
    let (mut offset, mut piece) = (0_u64, first);
    let (stamp, executable) = (piece.stamp.clone(), piece.executable);
    while !piece.data.is_empty() {
        let data = STANDARD
            .decode(&piece.data)
            .map_err(|error| FilesError::new(format!("the VMM's answer is not Base64: {error}")))?;
        out.write_all(&data).map_err(here)?;
        offset += data.len() as u64;
        piece = vmm.read_shared(offset, &stamp, name)?;
    }
    if executable {
        out.set_permissions(Permissions::from_mode(0o755)).map_err(here)?;
    }
    drop(out);
    fs::rename(&partial, target).map_err(|error| FilesError::here(target, &error))?;
    Ok(offset)
}

/// Whether a file of that many bytes has room in `folder`. The kernel kills processes when its memory is full, and the
/// root file system is in memory.
fn check_room(name: &str, bytes: u64, folder: &Path) -> Result<(), FilesError> {
    let is_in_memory =
        rustix::fs::statfs(folder).is_ok_and(|statfs| IN_MEMORY.contains(&statfs.f_type));
    if !is_in_memory {
        return Ok(());
    }
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match available(&meminfo) {
        Some(available) if bytes > available.saturating_sub(RESERVE) => {
            Err(FilesError::new(format!(
                "{name} has {}, and the guest has {} of memory left, in which its files are: free some, or share less",
                size(bytes),
                size(available)
            )))
        }
        _ => Ok(()),
    }
}

/// Bytes that processes can still have, in the text of `/proc/meminfo`.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::script::Script;

    fn piece(stamp: &str, size: u64, bytes: &[u8]) -> String {
        let data = STANDARD.encode(bytes);
        format!(r#"ok {{"stamp":"{stamp}","size":{size},"executable":true,"data":"{data}"}}"#)
    }

    fn fetched(script: Script, target: &Path) -> Result<Vec<String>, String> {
        let mut vmm = Vmm::new(Box::new(script));
        fetch(&mut vmm, "a.ko", Some(target)).map_err(|error| error.0)
    }

    #[test]
    fn a_file_gets_to_its_place_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("sub/b.ko");
        let whole = Script::default()
            .answer("share read 0 - a.ko", &piece("s", 5, b"abc"))
            .answer("share read 3 s a.ko", &piece("s", 5, b"de"))
            .answer("share read 5 s a.ko", &piece("s", 5, b""));
        fetched(whole, &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"abcde");
        assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        // What fails in the middle leaves the old one, and nothing else.
        let changing = Script::default()
            .answer("share read 0 - a.ko", &piece("t", 4, b"xy"))
            .answer("share read 2 t a.ko", "fail a.ko has changed");
        let error = fetched(changing, &target).unwrap_err();
        assert!(error.contains("changed each of the 5 times"), "{error}");
        let gone = Script::default()
            .answer("share read 0 - a.ko", &piece("t", 4, b"xy"))
            .answer("share read 2 t a.ko", "fail the share a.ko is not there any more");
        assert!(fetched(gone, &target).unwrap_err().contains("not there any more"));
        assert_eq!(fs::read(&target).unwrap(), b"abcde");
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
        let into =
            fetched(Script::default().answer("share read 0", &piece("s", 0, b"")), folder.path());
        assert!(into.unwrap()[0].contains("/a.ko (0 bytes)"));
    }

    #[test]
    fn a_folder_cannot_lead_out_of_its_target() {
        let folder = tempfile::tempdir().unwrap();
        let listing = r#"ok {"entries":[{"name":"../x","kind":"file","size":1},{"name":"..","kind":"folder","size":0},{"name":"l","kind":"other","size":0}],"more":false}"#;
        let script = Script::default()
            .answer("share read 0 - a.ko", "fail a.ko is a folder")
            .answer("share list 0 a.ko", listing);
        let target = folder.path().join("t");
        let lines = fetched(script, &target).unwrap();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("a.ko/l is left out"));
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    }

    #[test]
    fn memory_is_read_from_what_the_kernel_says() {
        assert_eq!(available("MemTotal: 1 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemFree: 1 kB"), None);
        assert_eq!(available("MemAvailable: x kB"), None);
    }

    #[test]
    fn a_share_is_listed_with_its_folders() {
        let top = r#"ok {"entries":[{"name":"d","kind":"folder","size":0},{"name":"m.ko","kind":"file","size":2048}],"more":false}"#;
        let inner = r#"ok {"entries":[{"name":"x","kind":"file","size":1}],"more":false}"#;
        let script = Script::default().answer("share list 0 d", inner).answer("share list 0", top);
        let text = list(&mut Vmm::new(Box::new(script))).unwrap();
        let names: Vec<_> = text.lines().map(|line| line.trim_start()).collect();
        assert_eq!(names, ["folder  d/", "1 bytes  d/x", "2.0 KiB  m.ko"]);
        let empty = Script::default().answer("share list 0", r#"ok {"entries":[],"more":false}"#);
        assert!(list(&mut Vmm::new(Box::new(empty))).unwrap_err().0.contains("--share PATH"));
    }
}
