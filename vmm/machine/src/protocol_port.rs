//! The protocol port: lines of text between the guest's tests and the VMM, one way at a time, over one I/O port.
//!
//! The guest writes a line in pieces of one, two or four bytes, or with a string instruction, then reads the answer
//! from the same port until the line feed. A read with no answer waiting gives `0xFF` in each byte, which no UTF-8 text
//! holds. Any program can do that; the agent, which has much to say, uses the call in memory instead.

use std::collections::VecDeque;
use std::fmt;

use guest_protocol::wire::{MAX_REQUEST, NOT_YOURS};
use guest_protocol::{FAIL, OK};
use vm_memory::GuestAddress;

use super::fault::RunEnd;

/// What the VMM answers to a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// One line back, without its line feed. A line feed within would desynchronise the guest and is replaced.
    Line(String),
    /// The run ends with this exit code.
    Exit(i32),
}

impl Reply {
    /// The answer `ok`.
    pub fn ok() -> Self {
        Self::Line(OK.into())
    }

    /// The answer `fail REASON`.
    pub fn fail(reason: impl fmt::Display) -> Self {
        Self::Line(format!("{FAIL} {reason}"))
    }
}

/// Answers the guest. Called from a vCPU's thread, one line at a time.
pub trait ProtocolHandler: Send {
    /// Answers one line, given without its line feed.
    fn line(&mut self, line: &str) -> Reply;
}

/// Answers every line but `exit CODE [REASON]` with a failure: for machines without a test suite.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExitOnly;

impl ProtocolHandler for ExitOnly {
    fn line(&mut self, line: &str) -> Reply {
        let code = line.strip_prefix("exit ").and_then(|rest| rest.split_whitespace().next());
        match code.map(str::parse) {
            Some(Ok(code)) => Reply::Exit(code),
            _ => Reply::fail("this machine has no guest protocol"),
        }
    }
}

/// The device behind the port.
pub(crate) struct ProtocolPort {
    port: Box<dyn ProtocolHandler>,
    line: Vec<u8>,
    /// The line has grown past [`MAX_REQUEST`]: the rest of it is dropped.
    overlong: bool,
    answer: VecDeque<u8>,
    /// The answer to the last call, and where the call came from.
    called: (Option<GuestAddress>, String),
}

impl fmt::Debug for ProtocolPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtocolPort")
            .field("line", &self.line.len())
            .field("answer", &self.answer.len())
            .finish()
    }
}

impl ProtocolPort {
    pub(crate) fn new(port: Box<dyn ProtocolHandler>) -> Self {
        Self {
            port,
            line: Vec::new(),
            overlong: false,
            answer: VecDeque::new(),
            called: (None, String::new()),
        }
    }

    pub(crate) fn read(&mut self, data: &mut [u8]) {
        for byte in data {
            *byte = self.answer.pop_front().unwrap_or(0xFF);
        }
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> Option<RunEnd> {
        data.iter().find_map(|&byte| self.byte(byte))
    }

    fn byte(&mut self, byte: u8) -> Option<RunEnd> {
        if byte != b'\n' {
            if self.line.len() < MAX_REQUEST {
                self.line.push(byte);
            } else {
                self.overlong = true;
            }
            return None;
        }
        let line = std::mem::take(&mut self.line);
        let reply = match std::mem::take(&mut self.overlong) {
            true => overlong(),
            false => self.ask(&line),
        };
        // An answer that the guest did not fetch is void: it has asked something else.
        self.answer.clear();
        match reply {
            Reply::Exit(code) => Some(RunEnd::Exit(code)),
            Reply::Line(text) => {
                self.answer.extend(text.bytes());
                self.answer.push_back(b'\n');
                None
            }
        }
    }

    /// Answers a line that came by a call, and keeps the answer for `caller`.
    pub(crate) fn call(&mut self, caller: GuestAddress, line: &[u8]) -> Reply {
        let reply = match line {
            long if long.len() > MAX_REQUEST => overlong(),
            two if two.contains(&b'\n') => Reply::fail("a line has no line feed within"),
            line => self.ask(line),
        };
        if let Reply::Line(answer) = &reply {
            self.called = (Some(caller), answer.clone());
        }
        reply
    }

    /// The answer to the last call once more, if it was the `caller`'s.
    pub(crate) fn last_call(&self, caller: GuestAddress) -> Reply {
        match &self.called {
            (Some(called), answer) if *called == caller => Reply::Line(answer.clone()),
            _ => Reply::fail(NOT_YOURS),
        }
    }

    /// Answers one line, given without its line feed, with one line.
    fn ask(&mut self, line: &[u8]) -> Reply {
        match str::from_utf8(line).map(|line| self.port.line(line)) {
            Err(_) => Reply::fail("the line is not UTF-8"),
            Ok(Reply::Line(answer)) => Reply::Line(answer.replace('\n', " ")),
            Ok(exit @ Reply::Exit(_)) => exit,
        }
    }
}

/// The answer to a line that is longer than [`MAX_REQUEST`].
fn overlong() -> Reply {
    Reply::fail(format_args!("the line is longer than {MAX_REQUEST} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl ProtocolHandler for Echo {
        fn line(&mut self, line: &str) -> Reply {
            match line {
                "exit" => Reply::Exit(3),
                other => Reply::Line(format!("<{other}>")),
            }
        }
    }

    fn answer(device: &mut ProtocolPort) -> String {
        let mut text = Vec::new();
        loop {
            let mut byte = [0];
            device.read(&mut byte);
            match byte[0] {
                b'\n' | 0xFF => return String::from_utf8(text).unwrap(),
                other => text.push(other),
            }
        }
    }

    #[test]
    fn a_line_may_come_in_pieces_and_two_in_one() {
        let mut device = ProtocolPort::new(Box::new(Echo));
        assert!(device.write(b"hel").is_none());
        assert_eq!(answer(&mut device), "");
        assert!(device.write(b"lo\nworld\n").is_none());
        assert_eq!(answer(&mut device), "<world>");
        assert_eq!(answer(&mut device), "");
        assert!(matches!(device.write(b"exit\n"), Some(RunEnd::Exit(3))));
    }

    #[test]
    fn hostile_lines_get_an_answer_and_cost_no_memory() {
        let mut device = ProtocolPort::new(Box::new(Echo));
        for _ in 0..1000 {
            device.write(&[b'x'; 1000]);
        }
        assert!(device.line.len() <= MAX_REQUEST);
        device.write(b"\n");
        assert!(answer(&mut device).starts_with("fail the line is longer"));
        device.write(b"\xFF\xFE\n");
        assert_eq!(answer(&mut device), "fail the line is not UTF-8");
        device.write(b"fine\n");
        assert_eq!(answer(&mut device), "<fine>");
    }

    #[test]
    fn a_machine_without_a_protocol_answers_only_exit() {
        assert_eq!(ExitOnly.line("exit 7"), Reply::Exit(7));
        assert_eq!(ExitOnly.line("exit 121 no /proc"), Reply::Exit(121));
        assert_eq!(ExitOnly.line("hello"), Reply::fail("this machine has no guest protocol"));
    }
}
