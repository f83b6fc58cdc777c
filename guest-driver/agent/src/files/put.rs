//! Brings results out.

use super::{FilesError, size};
use crate::vmm::Vmm;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest_protocol::exchange::MAX_RESULT_PIECE;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The name of a file that stands for standard input.
const STDIN: &str = "-";

/// Brings the file `path`, or standard input for `-`, into the host's folder for results, as `name` if that is given;
/// gives a line about it.
///
/// # Errors
/// When it cannot be read, has no name, or the host does not take it.
pub fn put(vmm: &mut Vmm, path: &Path, name: Option<&str>) -> Result<String, FilesError> {
    let here = |error: io::Error| FilesError::here(path, &error);
    let own = path.file_name().and_then(|name| name.to_str()).filter(|name| *name != STDIN);
    let name = name.or(own).ok_or_else(|| {
        FilesError::new(format!("{} has no name for the host: give one behind it", path.display()))
    })?;
    if path == Path::new(STDIN) {
        return send(vmm, io::stdin().lock(), false, name, here);
    }
    let file = File::open(path).map_err(here)?;
    let metadata = file.metadata().map_err(here)?;
    if metadata.is_dir() {
        return Err(FilesError::new(format!(
            "{} is a folder: `tar c {0} | guest-agent put - NAME.tar` puts all of it",
            path.display()
        )));
    }
    send(vmm, file, metadata.permissions().mode() & 0o100 != 0, name, here)
}

fn send(
    vmm: &mut Vmm,
    mut from: impl Read,
    executable: bool,
    name: &str,
    here: impl Fn(io::Error) -> FilesError,
) -> Result<String, FilesError> {
    let result = vmm.begin_result(executable, name)?;
    let mut buffer = [0; MAX_RESULT_PIECE];
    let mut offset = 0_u64;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(here(error)),
        };
        let data = STANDARD.encode(buffer.get(..count).unwrap_or_default());
        vmm.write_result(result, offset, &data)?;
        offset += count as u64;
    }
    let path = vmm.end_result(result, offset)?;
    Ok(format!("{path} on the host ({})", size(offset)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::script::Script;

    #[test]
    fn a_result_is_sent_in_pieces() {
        let script =
            Script::default().answer("result begin", "ok 7").answer("result end", r#"ok "/out/a""#);
        let mut vmm = Vmm::new(Box::new(script.clone()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, vec![1; MAX_RESULT_PIECE + 1]).unwrap();
        assert_eq!(put(&mut vmm, &path, None).unwrap(), "/out/a on the host (2.8 KiB)");
        put(&mut vmm, &path, Some("b")).unwrap();
        let lines = script.lines();
        assert_eq!(lines[0], "result begin file a");
        assert!(lines[1].starts_with("result write 7 0 AQEB"));
        assert_eq!(lines[2], "result write 7 2880 AQ==");
        assert_eq!(lines[3], "result end 7 2881");
        assert_eq!(lines[4], "result begin file b");
        let error = put(&mut vmm, folder.path(), None).unwrap_err().0;
        assert!(error.contains("tar c"), "{error}");
        assert!(put(&mut vmm, Path::new("/none/x"), None).is_err());
        assert!(put(&mut vmm, Path::new("-"), None).unwrap_err().0.contains("give one"));
        let refusing = Script::default().answer("result begin", "fail no folder");
        let error = put(&mut Vmm::new(Box::new(refusing)), &path, None).unwrap_err().0;
        assert_eq!(error, "no folder");
    }
}
