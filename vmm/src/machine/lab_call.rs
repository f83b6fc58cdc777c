//! The lab call: a line and its answer in the guest's own memory, by one exit.
//!
//! Each exit is dear where KVM itself is emulated, and the [lab port](super::lab_port) takes one for every four bytes.
//! Here the guest leaves the line in a buffer and names it by one OUT of four bytes to [`layout::LAB_CALL`]:
//!
//! | register | content |
//! |---|---|
//! | EAX | bytes of the line, without a line feed |
//! | RDI | linear address of the buffer |
//! | RCX | bytes of the buffer behind its first four |
//!
//! The buffer holds a little-endian number of 32 bits, then the text: first the line, afterwards the answer, whose
//! length the number then is. A buffer that is not mapped stays as it is, as it does where nobody listens; so the guest
//! puts a number there that no answer has. It must have written to each page: nothing here breaks up what a process
//! shares with another.
//!
//! [`layout::LAB_CALL`]: super::layout::LAB_CALL

use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

use super::fault::Outcome;
use super::lab_port::{LabPortDevice, MAX_ANSWER, MAX_LINE, Reply, overlong};
use super::layout::PAGE_SIZE;
use super::memory::GuestRam;

/// Bytes before the text.
const HEADER: u64 = size_of::<u32>() as u64;

/// The guest's memory, by the addresses that the program uses which runs on a vCPU.
pub(crate) trait LinearMemory {
    /// Where the byte at `linear` lies in RAM, if it is mapped.
    fn translate(&self, linear: u64) -> Option<GuestAddress>;
    /// The guest's RAM.
    fn ram(&self) -> &GuestRam;

    /// Reads as many bytes as are mapped and RAM; says how many.
    fn read(&self, linear: u64, bytes: &mut [u8]) -> usize {
        let pieces = pieces(linear, bytes.len());
        let mut done = 0;
        for (at, length) in pieces {
            let piece = bytes.get_mut(done..).and_then(|rest| rest.get_mut(..length));
            let (Some(piece), Some(address)) = (piece, self.translate(at)) else { break };
            if self.ram().memory().read_slice(piece, address).is_err() {
                break;
            }
            done += length;
        }
        done
    }

    /// Writes all of `bytes`, or as many as come before the first page that is not mapped or not RAM: then false.
    fn write(&self, linear: u64, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for (at, length) in pieces(linear, bytes.len()) {
            let (Some((piece, behind)), Some(address)) =
                (rest.split_at_checked(length), self.translate(at))
            else {
                return false;
            };
            if self.ram().memory().write_slice(piece, address).is_err() {
                return false;
            }
            rest = behind;
        }
        true
    }
}

/// `length` bytes from `start`, cut where pages end: address and bytes of each piece. Ends where addresses do.
fn pieces(start: u64, length: usize) -> impl Iterator<Item = (u64, usize)> {
    let mut next = Some(start);
    let mut left = length;
    std::iter::from_fn(move || {
        let at = next.filter(|_| left > 0)?;
        let to_boundary = PAGE_SIZE - at % PAGE_SIZE;
        let piece = usize::try_from(to_boundary).unwrap_or(left).min(left);
        left -= piece;
        next = at.checked_add(to_boundary);
        Some((at, piece))
    })
}

/// What is mapped for the program that a vCPU has left; the vCPU is not running.
#[derive(Debug)]
pub(crate) struct VcpuMemory<'a> {
    pub(crate) fd: &'a VcpuFd,
    pub(crate) ram: &'a GuestRam,
}

impl LinearMemory for VcpuMemory<'_> {
    fn translate(&self, linear: u64) -> Option<GuestAddress> {
        let translation = self.fd.translate_gva(linear).ok()?;
        (translation.valid != 0).then_some(GuestAddress(translation.physical_address))
    }

    fn ram(&self) -> &GuestRam {
        self.ram
    }
}

/// What the registers said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// EAX.
    pub(crate) line: u32,
    /// RDI.
    pub(crate) buffer: u64,
    /// RCX.
    pub(crate) room: u64,
}

impl Call {
    /// Asks `device` and leaves its answer in the guest's memory; `Some` if that ends the run.
    pub(crate) fn serve(
        self,
        memory: &impl LinearMemory,
        device: &mut LabPortDevice,
    ) -> Option<Outcome> {
        let text = self.buffer.checked_add(HEADER)?;
        let reply = match usize::try_from(self.line).ok().filter(|length| *length < MAX_LINE) {
            None => overlong(),
            Some(length) => {
                let mut line = vec![0; length];
                if memory.read(text, &mut line) < length {
                    log::debug!("lab call: the line at {text:#x} is not in memory");
                    return None;
                }
                device.ask(&line)
            }
        };
        let mut answer = match reply {
            Reply::Exit(code) => return Some(Outcome::Exit(code)),
            Reply::Line(answer) => answer,
        };
        let room = usize::try_from(self.room).unwrap_or(MAX_ANSWER).min(MAX_ANSWER);
        if answer.len() > room {
            answer = format!("fail the answer has {} bytes, the buffer {room}", answer.len());
            answer.truncate(room);
        }
        // The number last: who sees it sees the text.
        let length = u32::try_from(answer.len()).unwrap_or(u32::MAX);
        let written = memory.write(text, answer.as_bytes())
            && memory.write(self.buffer, &length.to_le_bytes());
        if !written {
            log::debug!("lab call: the buffer at {:#x} is not in memory", self.buffer);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::lab_port::LabPort;
    use super::*;

    /// Four pages from 0x7000, mapped in reverse order of their frames, and nothing else.
    struct Mapped(GuestRam);

    const FIRST: u64 = 0x7000;
    const PAGES: u64 = 4;

    impl LinearMemory for Mapped {
        fn translate(&self, linear: u64) -> Option<GuestAddress> {
            let page = (linear / PAGE_SIZE).checked_sub(FIRST / PAGE_SIZE)?;
            let frame = (PAGES - 1).checked_sub(page)? + 0x20;
            Some(GuestAddress(frame * PAGE_SIZE + linear % PAGE_SIZE))
        }

        fn ram(&self) -> &GuestRam {
            &self.0
        }
    }

    struct Echo;

    impl LabPort for Echo {
        fn line(&mut self, line: &str) -> Reply {
            match line.split_once(' ') {
                Some(("long", length)) => Reply::Line("y".repeat(length.parse().unwrap())),
                Some(("exit", code)) => Reply::Exit(code.parse().unwrap()),
                _ => Reply::Line(format!("<{line}>")),
            }
        }
    }

    fn mapped() -> Mapped {
        Mapped(GuestRam::new(4).unwrap())
    }

    /// Puts `line` into a buffer and calls; gives the number and the text that are there afterwards.
    fn call(memory: &Mapped, buffer: u64, line: &[u8], room: u64) -> (u32, Vec<u8>) {
        memory.write(buffer, &u32::MAX.to_le_bytes());
        memory.write(buffer + HEADER, line);
        let call = Call { line: line.len().try_into().unwrap(), buffer, room };
        assert!(call.serve(memory, &mut LabPortDevice::new(Box::new(Echo))).is_none());
        let mut number = [0; 4];
        assert_eq!(memory.read(buffer, &mut number), 4);
        let number = u32::from_le_bytes(number);
        let mut text = vec![0; number.min(0x4000).try_into().unwrap()];
        memory.read(buffer + HEADER, &mut text);
        (number, text)
    }

    #[test]
    fn the_answer_replaces_the_line() {
        let memory = mapped();
        assert_eq!(call(&memory, FIRST, b"hello", 100), (7, b"<hello>".to_vec()));
        assert_eq!(call(&memory, FIRST, b"", 100), (2, b"<>".to_vec()));
        assert_eq!(call(&memory, FIRST, b"\xff", 100).1, b"fail the line is not UTF-8");
    }

    #[test]
    fn lines_and_answers_may_cross_pages() {
        let memory = mapped();
        // Number, line and answer each have a boundary within.
        let (length, text) = call(&memory, FIRST + PAGE_SIZE - 2, b"over the edge", 100);
        assert_eq!((length, text.as_slice()), (15, b"<over the edge>".as_slice()));
        let (length, text) = call(&memory, FIRST + 0x800, b"long 9000", 9000);
        assert_eq!(length, 9000);
        assert!(text.iter().all(|byte| *byte == b'y'));
    }

    #[test]
    fn an_answer_never_leaves_its_buffer() {
        let memory = mapped();
        assert_eq!(
            call(&memory, FIRST, b"long 101", 100).1,
            b"fail the answer has 101 bytes, the buffer 100"
        );
        assert_eq!(call(&memory, FIRST, b"long 101", 4), (4, b"fail".to_vec()));
        assert_eq!(call(&memory, FIRST, b"long 101", 0), (0, Vec::new()));
        memory.write(FIRST + HEADER + 100, b"mine");
        call(&memory, FIRST, b"long 100", 100);
        let mut behind = [0; 4];
        memory.read(FIRST + HEADER + 100, &mut behind);
        assert_eq!(&behind, b"mine");
    }

    #[test]
    fn what_is_not_mapped_is_left_alone() {
        let memory = mapped();
        let end = FIRST + PAGES * PAGE_SIZE;
        let unanswered = |buffer, line, room| {
            let device = &mut LabPortDevice::new(Box::new(Echo));
            assert!(Call { line, buffer, room }.serve(&memory, device).is_none());
        };
        for buffer in [0, FIRST - 0x1000, end, end - 2, u64::MAX, u64::MAX - 3, u64::MAX - 100] {
            unanswered(buffer, 3, 100);
            unanswered(buffer, 0, u64::MAX);
        }
        // The line is there, the end of the answer is not: the number stays.
        assert_eq!(call(&memory, end - 0x100, b"long 300", 300).0, u32::MAX);
        assert_eq!(call(&memory, FIRST, b"fine", u64::MAX).1, b"<fine>");
    }

    #[test]
    fn a_line_without_end_is_not_even_read() {
        let memory = mapped();
        let device = &mut LabPortDevice::new(Box::new(Echo));
        let call = Call { line: u32::MAX, buffer: FIRST, room: 100 };
        assert!(call.serve(&memory, device).is_none());
        let mut text = [0; 27];
        memory.read(FIRST + HEADER, &mut text);
        assert_eq!(&text, b"fail the line is longer tha");
    }

    #[test]
    fn the_run_may_end() {
        let memory = mapped();
        memory.write(FIRST + HEADER, b"exit 5");
        let call = Call { line: 6, buffer: FIRST, room: 0 };
        let outcome = call.serve(&memory, &mut LabPortDevice::new(Box::new(Echo)));
        assert!(matches!(outcome, Some(Outcome::Exit(5))));
    }
}
