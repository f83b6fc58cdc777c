//! The lab port: one x86 I/O port, a line each way.
//!
//! Everything the agent says to the monitor goes through here, and so does the answer. Each exit of the virtual CPU is
//! dear where it is emulated itself, and those for a string instruction are several times dearer, since KVM interprets
//! it; for OUTS that is an exit for each element all the same. So a line is written by OUT, four bytes at once. INS
//! fetches as much as KVM reads ahead by one exit, which pays for all answers but the shortest.

use super::{LabError, Wire};

/// The I/O port number.
pub const PORT: u16 = 0x0d10;
/// What the port reads as when there is no (more) answer. No byte of a UTF-8 text has this value.
const NOTHING: u8 = 0xff;
/// How many ports it takes up: as many as it is bytes wide.
const WIDTH: usize = 4;
/// How much of an answer is fetched at once: what KVM's emulator reads ahead for one instruction. Reading past the end
/// of an answer is harmless, it gives [`NOTHING`].
const PIECE: usize = 1024;
/// Longest request, without the line end.
pub const MAX_LINE: usize = 4095;
/// Longest answer, likewise.
pub const MAX_ANSWER: usize = (1 << 16) - 1;

/// Proof that this process may use the port.
#[derive(Debug)]
pub struct PortWire(());

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
            Ok(Self(()))
        } else {
            Err(LabError::Permission(std::io::Error::last_os_error()))
        }
    }
}

impl Wire for PortWire {
    fn exchange(&mut self, line: &str) -> Result<String, LabError> {
        let mut request = Vec::with_capacity(line.len().min(MAX_LINE) + 1);
        request.extend_from_slice(truncate(line, MAX_LINE).as_bytes());
        // A line end inside would be taken as the end of the request.
        request.iter_mut().for_each(|byte| {
            if *byte == b'\n' {
                *byte = b' ';
            }
        });
        request.push(b'\n');
        write_bytes(&request);

        let mut answer = Vec::new();
        let mut room = [NOTHING; PIECE];
        loop {
            // Most answers are `ok`.
            let piece = if answer.is_empty() {
                room[..WIDTH].copy_from_slice(&read_word());
                &room[..WIDTH]
            } else {
                read_bytes(&mut room);
                &room[..]
            };
            let end = piece.iter().position(|&byte| byte == b'\n' || byte == NOTHING);
            answer.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            match end {
                Some(at) if piece[at] == b'\n' => break,
                Some(_) if answer.is_empty() => return Err(LabError::Absent),
                Some(_) => return Err(LabError::Truncated),
                None if answer.len() > MAX_ANSWER => return Err(LabError::TooLong),
                None => {}
            }
        }
        String::from_utf8(answer).map_err(|_| LabError::NotText)
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
fn write_bytes(bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<WIDTH>();
    for word in words {
        // SAFETY: touches no memory. Access to the port was granted, or `PortWire` could not exist.
        unsafe {
            std::arch::asm!(
                "out dx, eax",
                in("dx") PORT,
                in("eax") u32::from_le_bytes(*word),
                options(nostack, preserves_flags, nomem),
            );
        }
    }
    for byte in rest {
        // SAFETY: as above.
        unsafe {
            std::arch::asm!(
                "out dx, al",
                in("dx") PORT,
                in("al") *byte,
                options(nostack, preserves_flags, nomem),
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn read_word() -> [u8; WIDTH] {
    let word: u32;
    // SAFETY: touches no memory. Access to the port was granted, or `PortWire` could not exist.
    unsafe {
        std::arch::asm!(
            "in eax, dx",
            in("dx") PORT,
            out("eax") word,
            options(nostack, preserves_flags, nomem),
        );
    }
    word.to_le_bytes()
}

#[cfg(target_arch = "x86_64")]
fn read_bytes(bytes: &mut [u8]) {
    // SAFETY: RDI and RCX describe `bytes` exactly, which we hold exclusively; any byte is a valid `u8`. The direction
    // flag is clear as the ABI demands. Access to the port was granted, or `PortWire` could not exist.
    unsafe {
        std::arch::asm!(
            "rep insb",
            in("dx") PORT,
            inout("rdi") bytes.as_mut_ptr() => _,
            inout("rcx") bytes.len() => _,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::truncate;

    #[test]
    fn a_long_line_is_cut_between_characters() {
        assert_eq!(truncate("abc", 8), "abc");
        assert_eq!(truncate("abc", 2), "ab");
        // U+00E9 takes two bytes: cutting inside it would not be text.
        assert_eq!(truncate("aé", 2), "a");
        assert_eq!(truncate("é", 0), "");
    }
}
