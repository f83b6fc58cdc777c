//! Programs of the host that go into the guest.

use std::path::Path;

use super::{Entry, Initramfs, InitramfsError, libraries, normal};
use crate::command::{Job, find_program};
use crate::progress::Progress;

impl Initramfs {
    /// A program of the host, with the shared libraries that it needs.
    pub fn program(&mut self, path: &str, host: &Path) -> Result<(), InitramfsError> {
        let content = std::fs::read(host)
            .map_err(|source| InitramfsError::Read { path: host.to_owned(), source })?;
        for library in libraries::all(host, &content)? {
            self.host_file(&library.to_string_lossy(), &library)?;
        }
        self.file(path, 0o755, content)
    }

    /// The distribution's static busybox, and a link in `/bin` for each of its commands that is not there yet.
    pub fn busybox(&mut self, progress: &dyn Progress) -> Result<(), InitramfsError> {
        const MISSING: InitramfsError =
            InitramfsError::Missing { program: "busybox", package: "busybox-static" };
        let host = find_program("busybox").ok_or(MISSING)?;
        let content = std::fs::read(&host)
            .map_err(|source| InitramfsError::Read { path: host.clone(), source })?;
        // The package `busybox` has one that is linked dynamically, under the same name.
        if libraries::needs(&host, &content)?.interpreter.is_some() {
            return Err(MISSING);
        }
        let job =
            Job::new("Asking busybox for its commands", &host.to_string_lossy()).arg("--list");
        let list = job.output(progress)?;
        self.file("/bin/busybox", 0o755, content)?;
        for name in list.lines().map(str::trim).filter(|name| is_command(name)) {
            let path = format!("/bin/{name}");
            if !self.entries.contains_key(&normal(&path)?) {
                self.insert(&path, Entry::Symlink { target: "busybox".to_owned() })?;
            }
        }
        Ok(())
    }

    /// `lspci` and `setpci`, in place of busybox's commands of these names.
    pub fn pciutils(&mut self) -> Result<(), InitramfsError> {
        for program in ["lspci", "setpci"] {
            let missing = InitramfsError::Missing { program, package: "pciutils" };
            let host = find_program(program).ok_or(missing)?;
            self.program(&format!("/bin/{program}"), &host)?;
        }
        Ok(())
    }
}

fn is_command(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '[' | '-' | '_' | '.');
    !name.is_empty() && name != "busybox" && name.chars().all(plain) && !name.starts_with('.')
}
