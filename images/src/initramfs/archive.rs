//! Writing the archive (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeMap;
use std::io::Write as _;

use cpio::newc::{Builder, ModeFileType, trailer};

use super::{Entry, InitramfsError};

/// Writes all entries in the order of their paths: numbers, owners and times are the same wherever this runs.
pub(super) fn write(entries: &BTreeMap<String, Entry>) -> Result<Vec<u8>, InitramfsError> {
    let mut archive = Vec::new();
    for (number, (path, entry)) in (1_u32..).zip(entries) {
        let builder = Builder::new(path).ino(number).uid(0).gid(0).mtime(0);
        let (builder, content): (_, &[u8]) = match entry {
            Entry::Directory { mode } => {
                (builder.nlink(2).mode(*mode).set_mode_file_type(ModeFileType::Directory), &[])
            }
            Entry::Device { mode, major, minor } => {
                let builder = builder.mode(*mode).set_mode_file_type(ModeFileType::Char);
                (builder.rdev_major(*major).rdev_minor(*minor), &[])
            }
            Entry::File { mode, content } => {
                (builder.mode(*mode).set_mode_file_type(ModeFileType::Regular), content.as_slice())
            }
            Entry::Symlink { target } => {
                (builder.mode(0o777).set_mode_file_type(ModeFileType::Symlink), target.as_bytes())
            }
        };
        let too_large = |_| InitramfsError::TooLarge { path: format!("/{path}") };
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let mut writer = builder.write(&mut archive, size);
        // Into memory, and as much as was announced: neither can fail but for a reason worth showing.
        let written = writer.write_all(content).and_then(|()| writer.finish().map(drop));
        written.map_err(|source| InitramfsError::Read { path: path.into(), source })?;
    }
    trailer(archive)
        .map_err(|source| InitramfsError::Read { path: "the archive's end".into(), source })
}
