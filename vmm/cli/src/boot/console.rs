//! The guest's console: keys and screen of the user's terminal, and the keys that are for the program itself.

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use guest_protocol::END_OF_INPUT;
use peerdma_suite::control::message::Command;
use peerdma_suite::control::server::Desk;
use peerdma_suite::host::ctrl_c;
use peerdma_suite::host::terminal::{Key, Keys};

use super::screen::Screen;
use crate::top;

/// How often the view is renewed.
const VIEW_INTERVAL: Duration = Duration::from_secs(1);
/// What Ctrl-A h prints.
const KEYS: &str = "
Ctrl-A x       leave                      Ctrl-A p  pause the guest and its devices
Ctrl-A Ctrl-A  a Ctrl-A for the guest     Ctrl-A r  let them go on
Ctrl-A h       this                       Ctrl-A d  what the devices do; q leaves that";

/// Carries keys from stdin to the guest, and the guest's output to stdout. The thread that is given back ends when the
/// guest's output does. A file or a pipe waits until something in the guest reads it: what comes earlier gets lost there.
pub(super) fn pump(
    stream: &UnixStream,
    is_running: Receiver<()>,
    desk: Arc<Desk>,
    screen: Arc<Screen>,
) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(&screen);
    let (mut keys, mut output) = (stream.try_clone()?, stream.try_clone()?);
    thread::Builder::new().name("keys".into()).spawn(move || {
        let interactive = io::stdin().is_terminal();
        if !interactive && is_running.recv().is_err() {
            return;
        }
        if carry_keys(&mut io::stdin(), &mut keys, interactive, |key| act(key, &desk, &shared))
            .is_ok()
            && !interactive
        {
            let _ = keys.write_all(&END_OF_INPUT);
        }
    })?;
    thread::Builder::new().name("screen".into()).spawn(move || {
        // For a file or a pipe, lines end as files have it.
        let bare = !io::stdout().is_terminal();
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            let bytes = buffer.get(..count).unwrap_or_default();
            let written = if bare {
                let bytes: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != b'\r').collect();
                screen.write(&bytes)
            } else {
                screen.write(bytes)
            };
            if written.is_err() {
                // The reader is gone: the guest goes on without a screen.
                let _ = io::copy(&mut output, &mut io::sink());
                return;
            }
        }
    })
}

/// Until the input ends, the guest does, or the user leaves.
fn carry_keys(
    input: &mut impl Read,
    guest: &mut impl Write,
    interactive: bool,
    mut act: impl FnMut(Key),
) -> io::Result<()> {
    let mut decoder = Keys::default();
    let mut buffer = [0; 1024];
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        if !interactive {
            guest.write_all(bytes)?;
            continue;
        }
        for key in bytes.iter().filter_map(|byte| decoder.key(*byte)) {
            match key {
                Key::Byte(byte) => guest.write_all(&[byte])?,
                Key::Quit => {
                    ctrl_c::quit();
                    return Ok(());
                }
                key => act(key),
            }
        }
    }
}

/// Does what a key asks of the program.
fn act(key: Key, desk: &Desk, screen: &Screen) {
    let command = match key {
        Key::Pause => Command::Pause {},
        Key::Resume => Command::Resume {},
        Key::Help => return screen.say(KEYS.into()),
        Key::View => return view(desk, screen),
        Key::Byte(_) | Key::Quit => return,
    };
    if let Err(error) = desk.answer(&command) {
        screen.say(format!("\n[peerdma] {error}"));
    }
}

/// Shows what the devices do, until the user has seen enough.
fn view(mut desk: &Desk, screen: &Screen) {
    if !io::stdout().is_terminal() {
        return screen.say("\n[peerdma] the view needs a terminal".into());
    }
    let shown = screen.cover(|| top::show(&mut desk, VIEW_INTERVAL, &|| screen.is_over()));
    if let Err(error) = shown {
        screen.say(format!("\n[peerdma] {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_reach_the_guest_and_a_pipe_needs_no_escapes() {
        let mut guest = Vec::new();
        carry_keys(&mut &b"a\x01\x01b"[..], &mut guest, true, |_| ()).unwrap();
        assert_eq!(guest, b"a\x01b");
        let mut guest = Vec::new();
        carry_keys(&mut &b"a\x01xb"[..], &mut guest, false, |_| ()).unwrap();
        assert_eq!(guest, b"a\x01xb");
    }
}
