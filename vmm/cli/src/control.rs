//! The control socket of a guest: where it is, and what may pause the guest.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use clap::Args;
use peerdma_images::cache::Cache;
use peerdma_suite::control::client::Client;
use peerdma_suite::control::server::{Desk, Server};
use peerdma_suite::gdb::{Address, Listener};
use peerdma_suite::stop::StopOn;
use rustix::process::getuid;

use super::Failure;

/// How a guest is looked at and held while it runs.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ControlOptions {
    /// Listen for `peerdma ctl` and `peerdma top` at this socket [default: a place of its own, which they find]
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// Pause the guest and its devices at each finding, each request that the IOMMU refuses, or each finding of a class;
    /// may be repeated. `peerdma ctl` shows the scene; Ctrl-A r goes on
    #[arg(long, value_name = "finding|fault|CLASS")]
    pub(super) pause_on: Vec<StopOn>,
    /// Let gdb attach to the guest's kernel, at this port or socket; `--kernel gdb` has the debug information
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = "1234")]
    pub(super) gdb: Option<Address>,
}

impl ControlOptions {
    /// Whether the guest may stand still for as long as a person thinks.
    pub(super) fn may_pause(&self) -> bool {
        !self.pause_on.is_empty() || self.gdb.is_some()
    }

    /// Begins to listen.
    pub(super) fn listen(&self, desk: Arc<Desk>) -> Result<Server, Failure> {
        let path = self.control.clone().map_or_else(own, Ok)?;
        Server::start(&path, desk).map_err(|error| {
            Failure::environment(format_args!("the control socket {}: {error}", path.display()))
        })
    }
}

impl ControlOptions {
    /// Begins to listen for gdb, if that is wanted; where the guest's end of the stream is to go.
    pub(super) fn listen_for_gdb(&self) -> Result<Option<(UnixStream, String)>, Failure> {
        let Some(address) = &self.gdb else { return Ok(None) };
        let listener = Listener::new(address).map_err(|error| {
            Failure::environment(format_args!("--gdb={address}: {error}"))
                .hint("choose another port or socket")
        })?;
        let target = listener.target.clone();
        let (ours, guest) = UnixStream::pair().map_err(Failure::internal)?;
        listener.start(ours).map_err(Failure::internal)?;
        Ok(Some((guest, target)))
    }
}

/// Ends the names of sockets in the folder of all.
const SUFFIX: &str = ".control";

/// The folder in which guests have their sockets when they are not told otherwise; only this user gets in.
fn folder() -> Result<PathBuf, Failure> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let folder = match runtime.filter(|path| path.is_dir()) {
        Some(runtime) => runtime.join("peerdma"),
        None => Cache::open().map_err(Failure::environment)?.root().join("run"),
    };
    let failed = |error| Failure::environment(format_args!("{}: {error}", folder.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
    let metadata = fs::metadata(&folder).map_err(failed)?;
    if metadata.uid() != getuid().as_raw() || metadata.permissions().mode() & 0o077 != 0 {
        return Err(Failure::environment(format_args!(
            "{} must be yours, and closed to others: chmod 700 it, or name a socket with --control",
            folder.display()
        )));
    }
    Ok(folder)
}

/// A place for the socket of this process's guest.
fn own() -> Result<PathBuf, Failure> {
    Ok(folder()?.join(format!("{}{SUFFIX}", process::id())))
}

/// Connects to `path`, or without one to the only guest that runs.
pub(super) fn connect(path: Option<&Path>) -> Result<Client, Failure> {
    if let Some(path) = path {
        return Client::connect(path).map_err(|error| {
            let hint = match fs::symlink_metadata(path) {
                Ok(_) => "the guest that had this socket is gone",
                Err(_) => "`peerdma boot --control PATH` opens such a socket",
            };
            Failure::usage(error).hint(hint)
        });
    }
    let folder = folder()?;
    let entries = fs::read_dir(&folder)
        .map_err(|error| Failure::environment(format_args!("{}: {error}", folder.display())))?;
    let mut sockets: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    sockets.retain(|path| path.to_string_lossy().ends_with(SUFFIX));
    sockets.sort();
    // One that was left behind by a program that was killed does not answer.
    let mut alive: Vec<_> = sockets
        .into_iter()
        .filter_map(|path| Client::connect(&path).ok().map(|client| (path, client)))
        .collect();
    match alive.len() {
        0 => Err(Failure::usage("no guest is running")
            .hint("start one with `peerdma boot` in another terminal")),
        1 => Ok(alive.remove(0).1),
        count => {
            let paths: Vec<_> = alive.iter().map(|(path, _)| path.display().to_string()).collect();
            Err(Failure::usage(format_args!("{count} guests are running"))
                .hint(format!("choose one with --control: {}", paths.join(", "))))
        }
    }
}
