//! A request: a line in memory of ours, and its answer there, by one OUT.
//!
//! Everything the agent says to the VMM goes this way. Each exit of the virtual CPU is dear where it is emulated
//! itself, and through a port as wide as they get a line is twenty of them. So the VMM gets the address of the line: RDI
//! has the buffer's address, RCX its size without the first four bytes, EAX the line's length. Those four bytes are the
//! answer's length afterwards; an answer that does not fit is asked for once more, by an empty line.

use super::{VmmError, Wire};
use guest_protocol::FAIL;
use guest_protocol::wire::{
    CALL_PORT, CALL_WIDTH, HEADER, MAX_ANSWER, MAX_REQUEST, NOT_YOURS, UNANSWERED,
};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: usize = 4096;
/// Bytes of text in the first page: room for any line, and all answers but the longest. The VMM looks each page up.
const SHORT: usize = PAGE - HEADER;
/// What begins requests whose answers are long: they get their room at once.
const LONG: &str = "share ";
/// How often the call is repeated. It leaves everything alone when it does not find the buffer, whose page the
/// kernel may just be moving.
const ATTEMPTS: usize = 100;
/// The same while nothing has ever answered: in most machines nothing will.
const FIRST_ATTEMPTS: usize = 3;

/// This is a guest of peerdma.
static ANSWERED: AtomicBool = AtomicBool::new(false);

#[repr(align(4096))]
struct Aligned([u8; HEADER + MAX_ANSWER]);

/// Proof that this process may use the port, and the buffer.
pub struct PortWire {
    buffer: Box<Aligned>,
    /// The kernel's permission is the thread's.
    only_here: PhantomData<*const ()>,
}

impl std::fmt::Debug for PortWire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortWire").finish_non_exhaustive()
    }
}

impl PortWire {
    /// Asks the kernel for access to the port. This does not show whether the VMM listens there.
    ///
    /// # Errors
    /// [`VmmError::Permission`] when the kernel refuses: the caller is not root, or the kernel has no `ioperm`.
    pub fn open() -> Result<Self, VmmError> {
        // SAFETY: `ioperm` takes three integers and touches no memory of ours. It lets this thread use I/O ports that no
        // other device of a peerdma guest decodes.
        let status = unsafe {
            libc::syscall(
                libc::SYS_ioperm,
                libc::c_ulong::from(CALL_PORT),
                libc::c_ulong::from(CALL_WIDTH),
                1 as libc::c_ulong,
            )
        };
        if status == 0 {
            Ok(Self::new())
        } else {
            Err(VmmError::Permission(std::io::Error::last_os_error()))
        }
    }
}

impl PortWire {
    fn new() -> Self {
        Self { buffer: Box::new(Aligned([0; HEADER + MAX_ANSWER])), only_here: PhantomData }
    }

    /// Puts a request into a buffer with `room` for text. Writes to each page: the VMM goes by the page tables, and a
    /// page that a child process of ours still shares, or that we never had, is not ours there.
    fn prepare(&mut self, line: &str, room: usize) -> usize {
        let buffer = &mut self.buffer.0[..HEADER + room];
        for page in buffer.chunks_mut(PAGE) {
            page[0] = 0;
        }
        let line = truncate(line, MAX_REQUEST).as_bytes();
        buffer[..HEADER].copy_from_slice(&UNANSWERED.to_le_bytes());
        let text = &mut buffer[HEADER..][..line.len()];
        text.copy_from_slice(line);
        // One line, whatever was in it.
        text.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        line.len()
    }

    /// The length of the answer, `None` if there is none.
    fn length(&self) -> Option<usize> {
        let (header, _) = self.buffer.0.split_at(HEADER);
        let length = header.try_into().map_or(UNANSWERED, u32::from_le_bytes);
        if length == UNANSWERED { None } else { usize::try_from(length).ok() }
    }

    /// The answer to a line; `call` has the VMM look at the buffer, which holds a line of n bytes.
    fn exchange_by(
        &mut self,
        line: &str,
        call: impl Fn(usize, &mut [u8]),
    ) -> Result<String, VmmError> {
        let room = if line.starts_with(LONG) { MAX_ANSWER } else { SHORT };
        for _ in 0..ATTEMPTS {
            let mut length = self.ask(line, room, &call)?;
            let is_long = length > room;
            if is_long {
                length = self.ask("", MAX_ANSWER, &call)?;
            }
            let text = self.buffer.0[HEADER..].get(..length).ok_or(VmmError::TooLong)?;
            let text = String::from_utf8(text.to_vec()).map_err(|_| VmmError::NotText)?;
            // Another process was quicker than the second call. What has long answers may be asked for again.
            if !is_long || text.strip_prefix(FAIL).is_none_or(|rest| rest.trim_start() != NOT_YOURS)
            {
                return Ok(text);
            }
            std::thread::yield_now();
        }
        Err(VmmError::Absent)
    }

    /// Asks until there is an answer, which may be longer than `room`; gives its length.
    fn ask(
        &mut self,
        line: &str,
        room: usize,
        call: impl Fn(usize, &mut [u8]),
    ) -> Result<usize, VmmError> {
        let attempts = if ANSWERED.load(Ordering::Relaxed) { ATTEMPTS } else { FIRST_ATTEMPTS };
        for _ in 0..attempts {
            let length = self.prepare(line, room);
            call(length, &mut self.buffer.0[..HEADER + room]);
            if let Some(length) = self.length() {
                ANSWERED.store(true, Ordering::Relaxed);
                return Ok(length);
            }
            std::thread::yield_now();
        }
        Err(VmmError::Absent)
    }
}

impl Wire for PortWire {
    fn exchange(&mut self, line: &str) -> Result<String, VmmError> {
        self.exchange_by(line, call)
    }
}

/// The longest prefix of `line` of at most `limit` bytes that is still valid UTF-8.
fn truncate(line: &str, limit: usize) -> &str {
    let mut end = line.len().min(limit);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

#[cfg(target_arch = "x86_64")]
fn call(line: usize, buffer: &mut [u8]) {
    // SAFETY: RDI and RCX say where `buffer` begins and, less the header, how long it is. We hold it exclusively, and the
    // VMM writes nowhere else; any byte is a valid `u8`. Access to the port was granted, or `PortWire` could not exist.
    unsafe {
        std::arch::asm!(
            "out dx, eax",
            in("dx") CALL_PORT,
            in("rax") line,
            in("rdi") buffer.as_mut_ptr(),
            in("rcx") buffer.len() - HEADER,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    #[test]
    fn the_buffer_has_the_line_and_then_the_answers_length() {
        let mut wire = PortWire::new();
        assert_eq!(wire.buffer.0.as_ptr() as usize % PAGE, 0);
        assert_eq!(wire.prepare("two\nlines", SHORT), 9);
        assert_eq!(&wire.buffer.0[..HEADER + 9], b"\xff\xff\xff\xfftwo lines");
        assert_eq!(wire.length(), None);
        wire.buffer.0[..HEADER].copy_from_slice(b"\x04\x01\0\0");
        assert_eq!(wire.length(), Some(0x104));
        assert_eq!(wire.prepare(&"x".repeat(5000), SHORT), MAX_REQUEST);
    }

    /// A VMM that answers a number by as many letters, and is not there at its first call.
    #[derive(Default)]
    struct Vmm {
        calls: Cell<usize>,
        kept: RefCell<String>,
    }

    impl Vmm {
        fn serve(&self, line: usize, buffer: &mut [u8]) {
            self.calls.set(self.calls.get() + 1);
            if self.calls.get() == 1 {
                return;
            }
            let (header, text) = buffer.split_at_mut(HEADER);
            if line > 0 {
                let number = std::str::from_utf8(&text[..line]).unwrap().parse().unwrap();
                *self.kept.borrow_mut() = "y".repeat(number);
            }
            let kept = self.kept.borrow();
            if let Some(room) = text.get_mut(..kept.len()) {
                room.copy_from_slice(kept.as_bytes());
            }
            header.copy_from_slice(&u32::try_from(kept.len()).unwrap().to_le_bytes());
        }
    }

    #[test]
    fn long_answers_come_at_the_second_call_and_lost_calls_are_made_again() {
        let (vmm, mut wire) = (Vmm::default(), PortWire::new());
        for (length, calls) in [(3, 2), (SHORT, 3), (SHORT + 1, 5), (MAX_ANSWER, 7), (0, 8)] {
            let answer =
                wire.exchange_by(&length.to_string(), |line, buffer| vmm.serve(line, buffer));
            assert_eq!((answer.unwrap().len(), vmm.calls.get()), (length, calls));
        }
        let too_long = (MAX_ANSWER + 1).to_string();
        let answer = wire.exchange_by(&too_long, |line, buffer| vmm.serve(line, buffer));
        assert!(matches!(answer, Err(VmmError::TooLong)));
        assert!(matches!(wire.exchange_by("1", |_, _| ()), Err(VmmError::Absent)));
    }

    #[test]
    fn an_answer_that_another_process_has_taken_is_asked_for_again() {
        let (long, others) = ("x".repeat(SHORT + 1), Cell::new(0));
        let lines = RefCell::new(Vec::new());
        let serve = |line: usize, buffer: &mut [u8]| {
            let (header, text) = buffer.split_at_mut(HEADER);
            lines.borrow_mut().push((line, text.len()));
            others.set(others.get() + 1);
            // The first time another process asks between the two calls.
            let answer = match (line, others.get()) {
                (0, 2) => format!("fail {NOT_YOURS}"),
                _ => long.clone(),
            };
            if let Some(room) = text.get_mut(..answer.len()) {
                room.copy_from_slice(answer.as_bytes());
            }
            header.copy_from_slice(&u32::try_from(answer.len()).unwrap().to_le_bytes());
        };
        let mut wire = PortWire::new();
        assert_eq!(wire.exchange_by("hello", serve).unwrap(), long);
        assert_eq!(lines.take(), [(5, SHORT), (0, MAX_ANSWER), (5, SHORT), (0, MAX_ANSWER)]);
        // What is known to have a long answer takes one call.
        assert_eq!(wire.exchange_by("share read", serve).unwrap(), long);
        assert_eq!(lines.take(), [(10, MAX_ANSWER)]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        assert_eq!(truncate("abc", 8), "abc");
        assert_eq!(truncate("abc", 2), "ab");
        // U+00E9 takes two bytes: cutting inside it would not be text.
        assert_eq!(truncate("aé", 2), "a");
        assert_eq!(truncate("é", 0), "");
    }
}
