//! The control socket. Each client has a thread of its own; one that sends nonsense, or never reads, loses its own
//! connection and disturbs no other.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::getuid;
use serde_json::Value;

use super::link::{Link, read_line};
use super::message::{Answer, Command, Findings, MAX_REQUEST, Request};
use crate::found::Found;
use crate::host::ctrl_c::Hook;

/// Clients at the same time, at most.
const MAX_CLIENTS: usize = 16;
/// How long a client may leave an answer unread.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long reports of findings may be under way.
const REPORTS: Duration = Duration::from_millis(50);
/// Findings that are kept.
const MAX_FINDINGS: usize = 1000;

/// What clients are answered from.
#[derive(Debug)]
pub struct Desk {
    link: Link,
    findings: Mutex<VecDeque<Found>>,
}

impl Desk {
    /// In front of the guest at the other end of `link`.
    pub fn new(link: Link) -> Self {
        Self { link, findings: Mutex::default() }
    }

    /// A finding has been made, or one that was there has grown.
    pub fn found(&self, found: Found) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = findings.iter_mut().rev().find(|old| old.number == found.number) {
            *old = found;
            return;
        }
        if findings.len() == MAX_FINDINGS {
            findings.pop_front();
        }
        findings.push_back(found);
    }

    /// Answers a request.
    ///
    /// # Errors
    /// Why there is no answer, in a sentence.
    pub fn answer(&self, command: &Command) -> Result<Value, String> {
        let Command::Findings { after } = command else { return self.link.ask(command) };
        // It reports then what has come to findings that are known; that takes another way than the answer. One that has
        // ended has reported everything.
        if self.link.ask(&Command::Status {}).is_ok() {
            thread::sleep(REPORTS);
        }
        let findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = findings.iter().filter(|found| found.number > *after).cloned();
        serde_json::to_value(Findings { findings: wanted.collect() })
            .map_err(|error| error.to_string())
    }
}

/// A socket that is listened at; it goes when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    _hook: Hook,
    over: Arc<AtomicBool>,
}

impl Server {
    /// Listens at `path`, which only this user may open.
    ///
    /// # Errors
    /// When there is something at `path` already, or the system refuses.
    pub fn start(path: &Path, desk: Arc<Desk>) -> io::Result<Self> {
        remove_dead(path)?;
        let listener = UnixListener::bind(path)?;
        let over = Arc::new(AtomicBool::new(false));
        let (path_kept, _hook) = (path.to_owned(), remove_at_the_end(path));
        let server = Self { path: path_kept, over: Arc::clone(&over), _hook };
        // Who has connected before this is asked for the user all the same.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let clients = Arc::new(AtomicUsize::new(0));
        thread::Builder::new().name("control".into()).spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                match stream {
                    Ok(stream) => admit(stream, &desk, &clients),
                    // Too many open files, for example: it may pass.
                    Err(error) => {
                        log::debug!("the control socket: {error}");
                        thread::sleep(Duration::from_millis(100));
                    }
                }
            }
        })?;
        Ok(server)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the listener, which then sees that it is over.
        drop(UnixStream::connect(&self.path));
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes a socket, too, when the user ends the program by a signal.
pub(crate) fn remove_at_the_end(path: &Path) -> Hook {
    let path = path.to_owned();
    Hook::new(move || drop(fs::remove_file(&path)))
}

/// Takes away what a program that was killed has left at `path`.
pub(crate) fn remove_dead(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another guest listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            use std::os::unix::fs::FileTypeExt;
            let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
            if is_socket { fs::remove_file(path) } else { Err(io::ErrorKind::AlreadyExists.into()) }
        }
        Err(_) => Ok(()),
    }
}

fn admit(stream: UnixStream, desk: &Arc<Desk>, clients: &Arc<AtomicUsize>) {
    let is_ours = socket_peercred(&stream).is_ok_and(|peer| peer.uid == getuid());
    if !is_ours {
        return;
    }
    if clients.fetch_add(1, Ordering::AcqRel) >= MAX_CLIENTS {
        clients.fetch_sub(1, Ordering::AcqRel);
        let full = Answer::new(Value::Null, Err(format!("{MAX_CLIENTS} clients are connected")));
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let _ = (&stream).write_all(&full.line());
        return;
    }
    let (desk, counted) = (Arc::clone(desk), Arc::clone(clients));
    let started = thread::Builder::new().name("control-client".into()).spawn(move || {
        if let Err(error) = serve(&stream, &desk) {
            log::debug!("a client of the control socket: {error}");
        }
        counted.fetch_sub(1, Ordering::AcqRel);
    });
    if started.is_err() {
        clients.fetch_sub(1, Ordering::AcqRel);
    }
}

fn serve(stream: &UnixStream, desk: &Desk) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut input = BufReader::new(stream);
    let mut output = stream;
    loop {
        let line = match read_line(&mut input, MAX_REQUEST) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error) => {
                // Where the next request would begin is not known any more.
                output.write_all(&Answer::new(Value::Null, Err(error.to_string())).line())?;
                return Err(error);
            }
        };
        let answer = match Request::parse(&line) {
            Ok(Request { id, command }) => Answer::new(id, desk.answer(&command)),
            Err((id, error)) => Answer::new(id, Err(error)),
        };
        output.write_all(&answer.line())?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::client::{Client, ClientError};
    use super::*;

    fn desk() -> (Arc<Desk>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(Desk::new(Link::new(ours).unwrap())), theirs)
    }

    fn found(number: u64, count: u64) -> Found {
        Found { number, count, ..Found::default() }
    }

    #[test]
    fn findings_are_kept_up_to_a_bound_and_grow() {
        let (desk, _guest) = desk();
        (1..=1002).for_each(|number| desk.found(found(number, 1)));
        desk.found(found(1000, 5));
        let numbers = |after| {
            let value = desk.answer(&Command::Findings { after }).unwrap();
            let Findings { findings } = serde_json::from_value(value).unwrap();
            findings.into_iter().map(|found| (found.number, found.count)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(999), [(1000, 5), (1001, 1), (1002, 1)]);
        assert_eq!((numbers(0).len(), numbers(0)[0].0), (1000, 3));
    }

    #[test]
    fn a_client_that_misbehaves_disturbs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let (desk, _guest) = desk();
        desk.found(found(1, 1));
        let server = Server::start(&path, Arc::clone(&desk)).unwrap();
        let mode = fs::metadata(server.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // One says nothing, one sends garbage, one a line without an end.
        let _silent = UnixStream::connect(&path).unwrap();
        let mut garbage = UnixStream::connect(&path).unwrap();
        garbage.write_all(b"\xff\xfe\n{}\n").unwrap();
        let mut answers = BufReader::new(&garbage);
        for part in ["not a line of JSON", "missing field `command`"] {
            let line = read_line(&mut answers, 1 << 16).unwrap().unwrap();
            assert!(String::from_utf8(line).unwrap().contains(part), "{part}");
        }
        let mut endless = UnixStream::connect(&path).unwrap();
        let sent = endless.write_all(&vec![b'x'; MAX_REQUEST + 1]);
        let mut answer = String::new();
        let _ = endless.read_to_string(&mut answer);
        assert!(sent.is_ok() && answer.contains("over 65536 bytes"), "{answer}");
        let mut client = Client::connect(&path).unwrap();
        let Findings { findings } = client.get(&Command::Findings { after: 0 }).unwrap();
        assert_eq!(findings.len(), 1);
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn clients_have_a_number_and_the_next_learns_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let (desk, _guest) = desk();
        let _server = Server::start(&path, desk).unwrap();
        let ask = |client: &mut Client| client.ask(&Command::Findings { after: 0 });
        let mut all: Vec<_> = (0..MAX_CLIENTS).map(|_| Client::connect(&path).unwrap()).collect();
        all.iter_mut().for_each(|client| drop(ask(client).unwrap()));
        let error = ask(&mut Client::connect(&path).unwrap()).unwrap_err();
        assert!(
            matches!(&error, ClientError::Refused(why) if why.contains("16 clients")),
            "{error}"
        );
    }

    #[test]
    fn a_place_is_taken_over_from_the_dead_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        drop(UnixListener::bind(&path).unwrap());
        let start = |path: &Path| Server::start(path, desk().0);
        let living = start(&path).unwrap();
        assert_eq!(start(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(living);
        fs::write(&path, "mine").unwrap();
        assert!(start(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
