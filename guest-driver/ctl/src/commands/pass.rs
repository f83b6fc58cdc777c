//! `send`, `receive`: a dma-buf goes to another process, over a Unix socket.

use crate::arguments::Name;
use crate::error::CtlError;
use crate::output::{Answer, bytes};
use crate::session::{Buffer, Session};
use guest_agent::device;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde_json::{Value, json};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest description that comes with a dma-buf, in bytes.
const MAX_TEXT: usize = 1024;
/// How often a socket is looked for that is not there yet.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn send(
    session: &mut Session,
    name: &str,
    socket: &Path,
    timeout: u64,
) -> Result<Answer, CtlError> {
    let buffer = session.buffer(name)?;
    let text = json!({
        "name": name,
        "of": buffer.of,
        "owner": buffer.owner.map(device::name),
    })
    .to_string();
    let stream = connect(socket, Duration::from_secs(timeout))?;
    hand_over(&stream, buffer.fd.as_fd(), &text).map_err(|error| failed(socket, &error.into()))?;
    let json = json!({ "sent": name, "socket": socket });
    Ok(Answer::new(format!("{name}: sent; it stays here, too"), json))
}

fn connect(socket: &Path, patience: Duration) -> Result<UnixStream, CtlError> {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if begun.elapsed() > patience => {
                return Err(failed(socket, &error)
                    .hint(format!("the other process says `receive {}` first", socket.display())));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn hand_over(
    stream: &UnixStream,
    buffer: std::os::fd::BorrowedFd<'_>,
    text: &str,
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [buffer];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    sendmsg(stream, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL).map(drop)
}

pub(super) fn receive(
    session: &mut Session,
    socket: &Path,
    name: &Name,
    timeout: u64,
) -> Result<Answer, CtlError> {
    session.open_all()?;
    let (fd, text) = take(socket, Duration::from_secs(timeout))?;
    let size = seek(&fd, SeekFrom::End(0)).map_err(|_| not_a_buffer())?;
    if !is_dma_buf(&fd) {
        return Err(not_a_buffer());
    }
    let said: Value = serde_json::from_str(&text).unwrap_or_default();
    let word = |key: &str| said.get(key).and_then(Value::as_str).map(plain);
    let owner = word("owner");
    let owner = owner
        .and_then(|owner| Session::all_devices().into_iter().find(|n| device::name(*n) == owner));
    let of = word("of").unwrap_or_else(|| "memory".into());
    let name = session.name(name, 'b')?;
    let text = format!("{name}: a dma-buf of {}, {of}, from another process", bytes(size));
    let json = json!({ "buffer": name, "size": size, "of": of });
    session.buffers.insert(name, Buffer { fd, size, owner, of });
    Ok(Answer::new(text, json))
}

fn not_a_buffer() -> CtlError {
    CtlError::refused("what came over the socket is not a dma-buf")
}

/// Whether a descriptor is a dma-buf, by the name that the kernel gives its file.
fn is_dma_buf(fd: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .is_ok_and(|target| target.to_string_lossy().starts_with("/dmabuf:"))
}

/// Words of another process, without what would move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Waits at a socket of its own for one descriptor and the text that comes with it.
fn take(socket: &Path, patience: Duration) -> Result<(OwnedFd, String), CtlError> {
    // One that an earlier process left behind; nothing else is removed.
    if socket.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket()) {
        let _ = std::fs::remove_file(socket);
    }
    let listener = UnixListener::bind(socket).map_err(|error| failed(socket, &error))?;
    let deadline = Instant::now() + patience;
    let taken =
        wait(&listener, deadline).and_then(|()| Ok(listener.accept()?.0)).and_then(|stream| {
            wait(&stream, deadline)?;
            Ok(descriptor(&stream)?)
        });
    let _ = std::fs::remove_file(socket);
    match taken {
        Ok((Some(fd), text)) => Ok((fd, text)),
        Ok((None, _)) => Err(not_a_buffer()),
        Err(error) => Err(failed(socket, &error)
            .hint(format!("the other process says `send BUFFER {}`", socket.display()))),
    }
}

/// Waits until there is something to be had.
fn wait(fd: &impl AsFd, deadline: Instant) -> std::io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = Timespec::try_from(left).map_err(std::io::Error::other)?;
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&time)) {
            Ok(0) => return Err(std::io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The first descriptor in a message, and its text. Others are closed.
fn descriptor(stream: &UnixStream) -> rustix::io::Result<(Option<OwnedFd>, String)> {
    let mut text = [0; MAX_TEXT];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => rights.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let first = fds.next();
    let text = text.get(..received.bytes).unwrap_or_default();
    Ok((first, String::from_utf8_lossy(text).into_owned()))
}

fn failed(socket: &Path, error: &std::io::Error) -> CtlError {
    CtlError::refused(format!("{}: {error}", socket.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_goes_over_with_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let file = tempfile::tempfile().unwrap();
        file.set_len(77).unwrap();
        let patience = Duration::from_secs(20);
        let path = socket.clone();
        let sender = std::thread::spawn(move || {
            let stream = connect(&path, patience).unwrap();
            hand_over(&stream, file.as_fd(), "words").unwrap();
        });
        let (fd, text) = take(&socket, patience).unwrap();
        sender.join().unwrap();
        assert_eq!((seek(&fd, SeekFrom::End(0)).unwrap(), text.as_str()), (77, "words"));
        assert!(!is_dma_buf(&fd) && !socket.exists());
    }

    #[test]
    fn strangers_are_refused_and_silence_ends() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let begun = Instant::now();
        let error = take(&socket, Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().contains("send BUFFER"), "{error}");
        assert!(connect(&socket, Duration::ZERO).unwrap_err().hint.is_some());
        // A connection that says nothing, and one that sends no descriptor.
        for words in [None, Some("hello")] {
            let path = socket.clone();
            let silent = std::thread::spawn(move || {
                let stream = connect(&path, Duration::from_secs(20)).unwrap();
                if let Some(words) = words {
                    use std::io::Write;
                    (&stream).write_all(words.as_bytes()).unwrap();
                }
                std::thread::sleep(Duration::from_millis(200));
            });
            assert!(take(&socket, Duration::from_millis(100)).is_err());
            silent.join().unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
        // What is not a socket stays.
        std::fs::write(&socket, "mine").unwrap();
        assert!(take(&socket, Duration::ZERO).is_err());
        assert_eq!(std::fs::read(&socket).unwrap(), b"mine");
    }
}
