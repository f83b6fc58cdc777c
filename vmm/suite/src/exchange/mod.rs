//! Files that go between this machine and a guest while it runs: what is shared with it, and its results.
//!
//! The guest asks by the guest protocol ([`guest_protocol::exchange`]); a [`Server`] answers on the machine that has the
//! files, and a [`Link`] carries the lines there from a vCPU's thread. From the nested test host they go through a port
//! of its own, one line each way: the server is the same, and trusts a guest no less than a test host.

mod link;
mod results;
mod server;
mod share;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use guest_protocol::exchange::check_name;
use serde::{Deserialize, Serialize};

pub use self::link::Link;
pub use self::server::Server;
pub(crate) use self::server::read_line;

/// The most that may be shared.
const MAX_SHARES: usize = 256;

/// What a guest may fetch, and where its results go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// What is shared, each under a name of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// The folder for results; none if there are to be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<PathBuf>,
}

/// A file or folder that a guest may fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// What the guest calls it: the last part of its path.
    pub name: String,
    /// Where it is, absolute: opened anew for each request, so that a file that was built again is the new one.
    pub path: PathBuf,
}

impl Exchange {
    /// Shares `paths`, and keeps results in the folder `results`, which is there.
    ///
    /// # Errors
    /// When a path is not there, has no name that a guest could use, or shares its name with another.
    pub fn new(paths: &[PathBuf], results: Option<&Path>) -> Result<Self, String> {
        if paths.len() > MAX_SHARES {
            return Err(format!("at most {MAX_SHARES} files and folders can be shared"));
        }
        let mut shares: Vec<Share> = Vec::new();
        for path in paths {
            let share = Share::new(path)?;
            if let Some(other) = shares.iter().find(|other| other.name == share.name) {
                return Err(format!(
                    "{} and {} have the same name, {}, by which the guest would ask for either: share the folder above \
                     one of them",
                    other.path.display(),
                    share.path.display(),
                    share.name
                ));
            }
            shares.push(share);
        }
        Ok(Self { shares, results: results.map(Path::to_owned) })
    }

    /// Whether there is nothing to exchange.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty() && self.results.is_none()
    }

    /// The same for the nested test host, which has none of the paths and needs none.
    #[must_use]
    pub fn without_paths(&self) -> Self {
        let share = |share: &Share| Share { name: share.name.clone(), path: PathBuf::new() };
        Self {
            shares: self.shares.iter().map(share).collect(),
            results: self.results.as_ref().map(|_| PathBuf::new()),
        }
    }
}

impl Share {
    fn new(path: &Path) -> Result<Self, String> {
        let failed = |error| format!("{} cannot be shared: {error}", path.display());
        let absolute = std::path::absolute(path).map_err(failed)?;
        let metadata = std::fs::metadata(&absolute).map_err(failed)?;
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(format!("{} is neither a file nor a folder", path.display()));
        }
        // Of `.` and `..` the name is that of the folder itself; a link keeps the name that the user has given.
        let named = match absolute.file_name().filter(|_| !ends_with_dots(path)) {
            Some(name) => Some(name.to_owned()),
            None => absolute.canonicalize().map_err(failed)?.file_name().map(ToOwned::to_owned),
        };
        let name = named.as_ref().and_then(|name| name.to_str());
        match name {
            Some(name) if check_name(name).is_ok() => {
                Ok(Self { name: name.to_owned(), path: absolute })
            }
            _ => Err(format!(
                "{} has no name that a guest could ask for: share a file or folder with a plain name",
                path.display()
            )),
        }
    }
}

/// Whether the last part of a path is `.` or `..`.
fn ends_with_dots(path: &Path) -> bool {
    let text = path.as_os_str().to_string_lossy();
    let last = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    last == "." || last == ".."
}
