//! sysfs and procfs of the machine that this runs on, or of a copy of them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::assemble::assemble;
use crate::config::{ConfigSpace, SIZE};
use crate::gather::{Draft, Gathered, name};
use crate::{Address, Error, Machine, PortType, attributes, system};

/// The longest file that is read: kernel configurations have about 300 KiB.
const MAX_FILE: u64 = 4 << 20;

/// Reads the machine whose root directory is `root`.
///
/// With `identity` the record has the whole command line, and names of network interfaces that contain a hardware
/// address. Serial numbers are never in a record.
///
/// # Errors
///
/// The folder of PCI devices cannot be read, or is empty. What is missing apart from that becomes a note.
pub fn capture(root: &Path, identity: bool) -> Result<Machine, Error> {
    let mut gathered = Gathered::default();
    gathered.sources.insert("sysfs");
    gathered.is_live = true;
    kernel(&mut gathered, root, identity);
    let folder = root.join("sys/bus/pci/devices");
    let error = |error| Error::Io { path: folder.clone(), error };
    for entry in fs::read_dir(&folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        let file_name = entry.file_name();
        let Some(address) = file_name.to_str().and_then(|name| name.parse::<Address>().ok()) else {
            continue;
        };
        device(&mut gathered, address, &entry.path(), identity)?;
    }
    if gathered.functions.is_empty() {
        return Err(error(io::Error::new(io::ErrorKind::NotFound, "no PCI device in it")));
    }
    assemble(gathered)
}

fn device(
    gathered: &mut Gathered,
    address: Address,
    folder: &Path,
    identity: bool,
) -> Result<(), Error> {
    // The link itself says where the device is in the tree.
    let target = fs::read_link(folder).unwrap_or_default();
    attributes::path(gathered, address, &target.to_string_lossy(), 0)?;
    let mut notes = std::mem::take(&mut gathered.notes);
    let draft = gathered.function(address, 0)?;
    match fs::File::open(folder.join("config")).and_then(|file| bytes(file, SIZE as u64)) {
        Ok(bytes) => {
            let config = ConfigSpace::new(&bytes);
            config.decode(address, 0, draft, &mut notes);
            // A conventional function has no more.
            let express = draft.port.get().is_some_and(|port| *port != PortType::Conventional);
            if bytes.len() == 256 && express {
                let text = "this kernel reads only 256 bytes of its configuration space, and so finds no ACS there";
                notes.add(text, Some(address), None);
            }
        }
        Err(error) => {
            let text =
                format!("its configuration space was not readable ({error}): run it as root");
            notes.add(text, Some(address), None);
        }
    }
    gathered.notes = notes;
    let draft = gathered.function(address, 0)?;
    details(draft, folder, identity);
    Ok(())
}

fn details(draft: &mut Draft, folder: &Path, identity: bool) {
    for file in attributes::FILES {
        // A virtual function's registers hold no IDs: what the kernel says is right.
        if let Ok(content) = text(&folder.join(file)) {
            attributes::file(draft, file, &content, 0);
        }
    }
    if let Ok(content) = text(&folder.join("resource")) {
        for (index, line) in content.lines().take(6).enumerate() {
            attributes::resource(draft, index, line);
        }
    }
    for link in ["iommu_group", "driver", "physfn"] {
        if let Ok(target) = fs::read_link(folder.join(link)) {
            attributes::link(draft, link, &target.to_string_lossy(), 0);
        }
    }
    for kind in attributes::FOLDERS {
        let Ok(entries) = fs::read_dir(folder.join(kind)) else { continue };
        let mut names: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.to_owned()))
            .collect();
        names.sort();
        for name in names {
            attributes::entry(draft, kind, &name, identity);
        }
    }
}

/// Kernel, command line, processor.
fn kernel(gathered: &mut Gathered, root: &Path, identity: bool) {
    let release = text(&root.join("proc/sys/kernel/osrelease")).ok().map(|text| name(&text));
    if let Some(release) = release.filter(|release| !release.is_empty()) {
        gathered.release.put(release.clone(), 0);
        configuration(gathered, root, &release);
    }
    match text(&root.join("proc/cmdline")) {
        Ok(line) => system::command_line(gathered, &line, 0, identity),
        Err(error) => {
            gathered.notes.add(
                format!("the kernel's command line was not readable: {error}"),
                None,
                None,
            );
        }
    }
    if let Ok(content) = text(&root.join("proc/cpuinfo")) {
        // All processors are alike in what is asked for; the first ends at a blank line.
        for line in content.lines().take_while(|line| !line.trim().is_empty()) {
            system::line(gathered, line, 0);
        }
    }
}

fn configuration(gathered: &mut Gathered, root: &Path, release: &str) {
    // A release comes from a file: it must not lead elsewhere.
    let plain = !release.contains('/') && !release.starts_with('.');
    let compressed = File::open(root.join("proc/config.gz"))
        .and_then(|file| bytes(flate2::read::GzDecoder::new(file), MAX_FILE));
    let places = [
        format!("boot/config-{release}"),
        format!("lib/modules/{release}/config"),
        format!("lib/modules/{release}/build/.config"),
    ];
    let files = places
        .iter()
        .filter(|_| plain)
        .map(|place| File::open(root.join(place)).and_then(|file| bytes(file, MAX_FILE)));
    let Some(found) = std::iter::once(compressed).chain(files).find_map(Result::ok) else { return };
    for line in String::from_utf8_lossy(&found).lines() {
        system::configuration(gathered, line, 0);
    }
}

fn text(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bytes(File::open(path)?, MAX_FILE)?).into_owned())
}

fn bytes(file: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
