//! The lab call: a line in memory of ours, and its answer there, by one OUT.
//!
//! Everything the agent says to the monitor goes this way. Each exit of the virtual CPU is dear where it is emulated
//! itself, and through a port as wide as they get a line is twenty of them. So the monitor is told where the line is: RDI
//! has the buffer's address, RCX its size, EAX the line's length.

use super::{LabError, Wire};

/// The I/O port number.
pub const PORT: u16 = 0x0d14;
/// How many ports it takes up.
const WIDTH: usize = 4;
/// Longest request.
pub const MAX_LINE: usize = 4095;
/// Longest answer.
pub const MAX_ANSWER: usize = (1 << 16) - 1;
/// Bytes before the text: the answer's length.
const HEADER: usize = size_of::<u32>();
/// What stands there before the call, and stays if nobody serves it.
const UNANSWERED: u32 = u32::MAX;
const PAGE: usize = 4096;

/// Proof that this process may use the port, and the buffer.
#[derive(Debug)]
pub struct PortWire {
    buffer: Box<[u8]>,
}

impl PortWire {
    /// Asks the kernel for access to the port. This says nothing about anybody listening there.
    ///
    /// # Errors
    /// [`LabError::Permission`] when the kernel refuses: the caller is not root, or the kernel has no `ioperm`.
    pub fn open() -> Result<Self, LabError> {
        // SAFETY: `ioperm` takes three integers and touches no memory of ours. It lets this thread use I/O ports that no
        // other device of a peerdma guest decodes.
        let status = unsafe {
            libc::syscall(
                libc::SYS_ioperm,
                libc::c_ulong::from(PORT),
                WIDTH as libc::c_ulong,
                1 as libc::c_ulong,
            )
        };
        if status == 0 {
            Ok(Self { buffer: vec![0; HEADER + MAX_ANSWER].into() })
        } else {
            Err(LabError::Permission(std::io::Error::last_os_error()))
        }
    }
}

impl PortWire {
    /// Puts a request into the buffer. Writes to each page: the monitor works on what the page tables say at the moment
    /// of the call, and a page that a child process of ours still shares, or that we never had, is not ours there.
    fn prepare(&mut self, line: &str) -> usize {
        for page in self.buffer.chunks_mut(PAGE) {
            page[0] = 0;
        }
        // Pages do not begin where chunks do.
        if let Some(last) = self.buffer.last_mut() {
            *last = 0;
        }
        let line = truncate(line, MAX_LINE).as_bytes();
        self.buffer[..HEADER].copy_from_slice(&UNANSWERED.to_le_bytes());
        let text = &mut self.buffer[HEADER..][..line.len()];
        text.copy_from_slice(line);
        // One line, whatever was in it.
        text.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        line.len()
    }

    /// What the buffer has for an answer.
    fn answer(&self) -> Result<String, LabError> {
        let (header, text) = self.buffer.split_at(HEADER);
        let length = header.try_into().map_or(UNANSWERED, u32::from_le_bytes);
        if length == UNANSWERED {
            return Err(LabError::Absent);
        }
        let text = text.get(..length as usize).ok_or(LabError::TooLong)?;
        String::from_utf8(text.to_vec()).map_err(|_| LabError::NotText)
    }
}

impl Wire for PortWire {
    fn exchange(&mut self, line: &str) -> Result<String, LabError> {
        let length = self.prepare(line);
        call(length, &mut self.buffer);
        self.answer()
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
    // SAFETY: RDI and RCX describe `buffer` exactly, which we hold exclusively, and the monitor writes nowhere else; any
    // byte is a valid `u8`. Access to the port was granted, or `PortWire` could not exist.
    unsafe {
        std::arch::asm!(
            "out dx, eax",
            in("dx") PORT,
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

    #[test]
    fn the_buffer_has_the_line_and_then_the_answer() {
        let mut wire = PortWire { buffer: vec![7; HEADER + MAX_ANSWER].into() };
        assert_eq!(wire.prepare("two\nlines"), 9);
        assert_eq!(&wire.buffer[..HEADER + 9], b"\xff\xff\xff\xfftwo lines");
        assert!(matches!(wire.answer(), Err(LabError::Absent)));
        wire.buffer[..HEADER + 4].copy_from_slice(b"\x04\0\0\0ok a");
        assert_eq!(wire.answer().unwrap(), "ok a");
        wire.buffer[HEADER] = 0xff;
        assert!(matches!(wire.answer(), Err(LabError::NotText)));
        wire.buffer[2] = 1;
        assert!(matches!(wire.answer(), Err(LabError::TooLong)));
        assert_eq!(wire.prepare(&"x".repeat(5000)), 4095);
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
