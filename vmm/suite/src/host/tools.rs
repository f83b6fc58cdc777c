//! Programs of this machine.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The program `name` in `PATH`, and in the folders of system programs, which an ordinary user's `PATH` may lack.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    find_in(name, &path)
}

fn find_in(name: &str, path: &OsStr) -> Option<PathBuf> {
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    env::split_paths(path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_and_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plain"), "").unwrap();
        assert_eq!(find_in("plain", folder.path().as_os_str()), None);
        assert!(find_in("sh", OsStr::new("/nowhere:/bin")).is_some());
        assert_eq!(find_in("no-such-program", OsStr::new("")), None);
    }
}
