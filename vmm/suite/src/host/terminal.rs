//! The user's terminal as a guest's console.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::ctrl_c::Hook;

/// The key that begins a command to the program itself: Ctrl-A.
pub const ESCAPE: u8 = 0x01;

/// The terminal in raw mode, as long as this lives; restored on every way out, Ctrl-C from elsewhere included.
#[derive(Debug)]
pub struct RawTerminal {
    before: Termios,
    _hook: Hook,
}

impl RawTerminal {
    /// Puts the terminal at stdin into raw mode; `None` if stdin is none.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let hook = {
            let before = before.clone();
            Hook::new(move || restore(&before))
        };
        let mut raw = before.clone();
        raw.make_raw();
        // Output goes on as usual: messages of ours keep their line ends.
        raw.output_modes = before.output_modes;
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before, _hook: hook }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn restore(before: &Termios) {
    // Nothing can be done about a terminal that has gone away.
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
}

/// Rows and columns of the terminal at `fd`, if it is one and knows.
pub fn size(fd: impl AsFd) -> Option<(u16, u16)> {
    let size = tcgetwinsize(fd).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// What keys mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// For the guest.
    Byte(u8),
    /// Ctrl-A x: the user wants to leave.
    Quit,
    /// Ctrl-A h or ?: the user wants to know the keys.
    Help,
    /// Ctrl-A p: the guest is to stand still.
    Pause,
    /// Ctrl-A r: it is to go on.
    Resume,
    /// Ctrl-A d: the view of what the devices do.
    View,
}

/// Separates keys for the guest from those for the program: Ctrl-A begins one of the latter, Ctrl-A
/// Ctrl-A is a Ctrl-A for the guest.
#[derive(Debug, Default)]
pub struct Keys {
    escaped: bool,
}

impl Keys {
    /// Takes in one byte; `None`: it was the beginning of something, or means nothing.
    pub fn key(&mut self, byte: u8) -> Option<Key> {
        match (std::mem::take(&mut self.escaped), byte) {
            (false, ESCAPE) => {
                self.escaped = true;
                None
            }
            (false, byte) | (true, byte @ ESCAPE) => Some(Key::Byte(byte)),
            (true, b'x' | b'X') => Some(Key::Quit),
            (true, b'h' | b'H' | b'?') => Some(Key::Help),
            (true, b'p' | b'P') => Some(Key::Pause),
            (true, b'r' | b'R') => Some(Key::Resume),
            (true, b'd' | b'D') => Some(Key::View),
            (true, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_begins_a_command() {
        let mut keys = Keys::default();
        let all: Vec<_> = b"a\x01x\x01\x01\x01zb\x01?\x01p\x01R\x01d"
            .iter()
            .filter_map(|byte| keys.key(*byte))
            .collect();
        let expected = [
            Key::Byte(b'a'),
            Key::Quit,
            Key::Byte(1),
            Key::Byte(b'b'),
            Key::Help,
            Key::Pause,
            Key::Resume,
            Key::View,
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn what_is_not_a_terminal_is_left_alone() {
        assert_eq!(size(std::fs::File::open("/dev/null").unwrap()), None);
    }
}
