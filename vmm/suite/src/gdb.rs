//! Where gdb connects to: one client at a time, whose bytes go on as messages to where the guest runs.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use peerdma_machine::debug::gdb::message;

use crate::control::server::{remove_at_the_end, remove_dead};
use crate::host::ctrl_c::Hook;

/// Longest message, in bytes.
const MAX_MESSAGE: usize = 64 << 10;

/// A TCP port, or the path of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP, at this machine's own address unless told otherwise.
    Tcp(SocketAddr),
    /// A Unix socket, which only this user may open.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    /// `1234`, `:1234`, `127.0.0.1:1234`, or a path with a slash in it.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let port = text.strip_prefix(':').unwrap_or(text);
        if let Ok(port) = port.parse() {
            return Ok(Self::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        let named = text.strip_prefix("localhost").map(|rest| format!("127.0.0.1{rest}"));
        named.as_deref().unwrap_or(text).parse().map(Self::Tcp).map_err(|_| {
            "it is a port, as 1234, an address with a port, as 127.0.0.1:1234, or the path of a socket"
                .into()
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A listener that gdb may connect to.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// What to give gdb as its `target remote`.
    pub target: String,
    _hook: Option<Hook>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// One client. Both kinds of socket read and write through a shared reference.
trait Client: Send + Sync {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    fn write(&self, bytes: &[u8]) -> io::Result<()>;
    fn hang_up(&self);
}

impl Client for TcpStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self;
        Read::read(&mut stream, buffer)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self;
        stream.write_all(bytes)
    }

    fn hang_up(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

impl Client for UnixStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self;
        Read::read(&mut stream, buffer)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self;
        stream.write_all(bytes)
    }

    fn hang_up(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

impl Listener {
    /// Listens at `address`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Tcp(tcp) => {
                let listener = TcpListener::bind(tcp)?;
                let target = listener.local_addr()?.to_string();
                Self { socket: Socket::Tcp(listener), target, _hook: None }
            }
            Address::Unix(path) => {
                remove_dead(path)?;
                let listener = UnixListener::bind(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
                let target = path.display().to_string();
                let _hook = Some(remove_at_the_end(path));
                Self { socket: Socket::Unix(listener, path.clone()), target, _hook }
            }
        })
    }

    fn accept(&self) -> io::Result<Box<dyn Client>> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                // Packets are small, and each is waited for.
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Socket::Unix(listener, _) => Box::new(listener.accept()?.0),
        })
    }

    /// Carries what clients say to the guest at the other end of `guest`, and its answers back, on threads of its own.
    ///
    /// # Errors
    /// When the host gives no thread.
    pub fn start(self, guest: UnixStream) -> io::Result<()> {
        let client: Arc<Mutex<Option<Arc<dyn Client>>>> = Arc::default();
        let (to_guest, from_guest) = (guest.try_clone()?, guest);
        let current = Arc::clone(&client);
        thread::Builder::new().name("gdb-answers".into()).spawn(move || {
            answers(from_guest, &current);
        })?;
        thread::Builder::new().name("gdb-clients".into()).spawn(move || {
            let mut to_guest = to_guest;
            while let Ok(stream) = self.accept() {
                let stream: Arc<dyn Client> = stream.into();
                *client.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&stream));
                let carried = carry(&*stream, &mut to_guest);
                *client.lock().unwrap_or_else(PoisonError::into_inner) = None;
                stream.hang_up();
                if carried.is_err() {
                    // The guest has ended.
                    return;
                }
            }
        })?;
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket {
            let _ = fs::remove_file(path);
        }
    }
}

/// Until the client is gone; an error: until the guest is.
fn carry(client: &dyn Client, guest: &mut UnixStream) -> io::Result<()> {
    message(guest, &[])?;
    let mut buffer = vec![0; MAX_MESSAGE];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        message(guest, buffer.get(..count).unwrap_or_default())?;
    }
    message(guest, &[])
}

fn answers(mut guest: UnixStream, client: &Mutex<Option<Arc<dyn Client>>>) {
    let mut length = [0; 4];
    while guest.read_exact(&mut length).is_ok() {
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(MAX_MESSAGE)];
        if length > MAX_MESSAGE || guest.read_exact(&mut bytes).is_err() {
            return;
        }
        let client = client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(client) = client else { continue };
        if bytes.is_empty() || client.write(&bytes).is_err() {
            client.hang_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_port_an_address_or_a_path() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        for text in ["1234", ":1234", "127.0.0.1:1234", "localhost:1234"] {
            assert_eq!(text.parse(), Ok(tcp("127.0.0.1:1234")), "{text}");
        }
        assert_eq!("[::1]:5".parse(), Ok(tcp("[::1]:5")));
        assert_eq!("./gdb".parse(), Ok(Address::Unix("./gdb".into())));
        for text in ["", "x", "70000", "host:1"] {
            assert!(text.parse::<Address>().unwrap_err().contains("as 1234"), "{text}");
        }
    }

    #[test]
    fn clients_are_carried_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gdb");
        let listener = Listener::new(&Address::Unix(path.clone())).unwrap();
        let (ours, mut guest) = UnixStream::pair().unwrap();
        listener.start(ours).unwrap();
        let mut next = || {
            let mut length = [0; 4];
            guest.read_exact(&mut length).unwrap();
            let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
            guest.read_exact(&mut bytes).unwrap();
            bytes
        };
        let mut first = UnixStream::connect(&path).unwrap();
        first.write_all(b"$?#3f").unwrap();
        assert_eq!((next(), next()), (Vec::new(), b"$?#3f".to_vec()));
        drop(first);
        assert_eq!(next(), b"");
        let mut second = UnixStream::connect(&path).unwrap();
        assert_eq!(next(), b"");
        message(&mut guest, b"+").unwrap();
        message(&mut guest, b"").unwrap();
        let mut answer = Vec::new();
        second.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"+");
    }
}
