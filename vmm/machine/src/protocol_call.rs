//! The protocol call: a line and its answer in the guest's own memory, by one exit.
//!
//! Each exit is dear where KVM itself is emulated, and the [protocol port](super::protocol_port) takes one for every four bytes.
//! Here the guest leaves the line in a buffer and names it by one OUT of four bytes to [`layout::LAB_CALL`]:
//!
//! | register | content |
//! |---|---|
//! | EAX | bytes of the line, without a line feed, as far as the buffer goes; 0 asks for the last answer once more |
//! | RDI | linear address of the buffer |
//! | RCX | bytes of the buffer behind its first four |
//!
//! The buffer holds a little-endian number of 32 bits, then the text: first the line, afterwards the answer, whose
//! length the number then is. If that is more than there is room for, the text is as it was, and the answer is kept: the
//! guest asks for it with a larger buffer at the same place.
//!
//! A buffer that is not in RAM from end to end stays as it is, and the listener is not called; the
//! same where there is no listener. So the guest puts a number there that no answer has, and may
//! try again. It must have written to each page: the page tables are followed, but what they allow
//! is not looked at, and what a process shares with another would be changed for both.
//!
//! The addresses hold until the guest runs on: a kernel that moves a page waits for this vCPU to have forgotten where it
//! was. That is why paravirtual TLB flushes, which do not wait for one that has left the guest, are not offered.
//!
//! [`layout::LAB_CALL`]: super::layout::LAB_CALL

use guest_protocol::wire::{HEADER, MAX_ANSWER, MAX_REQUEST};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::fault::RunEnd;
use super::layout::PAGE_SIZE;
use super::memory::GuestRam;
use super::paging::PageTables;
use super::protocol_port::{ProtocolPort, Reply};

/// The guest's memory, by the addresses that the program uses which runs on a vCPU.
pub(crate) trait LinearMemory {
    /// Where the byte at `linear` lies in RAM, if it is mapped.
    fn translate(&self, linear: u64) -> Option<GuestAddress>;
    /// The guest's RAM.
    fn ram(&self) -> &GuestRam;
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
    fd: &'a VcpuFd,
    ram: &'a GuestRam,
    /// None outside of long mode.
    tables: Option<PageTables>,
}

impl<'a> VcpuMemory<'a> {
    /// As the vCPU's registers are now.
    pub(crate) fn new(fd: &'a VcpuFd, ram: &'a GuestRam) -> Self {
        let tables = fd.get_sregs().ok().as_ref().and_then(PageTables::in_use);
        Self { fd, ram, tables }
    }
}

impl LinearMemory for VcpuMemory<'_> {
    fn translate(&self, linear: u64) -> Option<GuestAddress> {
        if let Some(tables) = self.tables {
            return tables.translate(self.ram, linear);
        }
        let translation = self.fd.translate_gva(linear).ok()?;
        (translation.valid != 0).then_some(GuestAddress(translation.physical_address))
    }

    fn ram(&self) -> &GuestRam {
        self.ram
    }
}

/// Bytes that follow each other for a program, found in RAM.
pub(crate) struct Buffer<'a> {
    ram: &'a GuestRam,
    pieces: Vec<(GuestAddress, usize)>,
}

impl<'a> Buffer<'a> {
    /// As many of the `length` bytes from `start` as are mapped, and RAM, without a gap.
    pub(crate) fn reach(memory: &'a impl LinearMemory, start: u64, length: usize) -> Self {
        let ram = memory.ram();
        let place = |(at, length)| {
            let address = memory.translate(at)?;
            ram.memory().check_range(address, length).then_some((address, length))
        };
        Self { ram, pieces: pieces(start, length).map_while(place).collect() }
    }

    /// All of them, or none.
    pub(crate) fn find(memory: &'a impl LinearMemory, start: u64, length: usize) -> Option<Self> {
        let found = Self::reach(memory, start, length);
        let bytes: usize = found.pieces.iter().map(|(_, length)| length).sum();
        (bytes == length).then_some(found)
    }

    /// The parts of RAM that `length` bytes from `offset` of the buffer are, as far as it goes.
    fn parts(&self, offset: usize, length: usize) -> impl Iterator<Item = (GuestAddress, usize)> {
        let (mut skip, mut left) = (offset, length);
        self.pieces.iter().filter_map(move |&(address, size)| {
            let before = skip.min(size);
            let part = (size - before).min(left);
            skip -= before;
            left -= part;
            (part > 0).then(|| (GuestAddress(address.0 + before as u64), part))
        })
    }

    /// `length` bytes from `offset`, or as many as there are.
    pub(crate) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (address, part) in self.parts(offset, length) {
            let mut piece = vec![0; part];
            // All of it has been found in RAM, which is there as long as the machine is.
            let _ = self.ram.memory().read_slice(&mut piece, address);
            bytes.append(&mut piece);
        }
        bytes
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let mut rest = bytes;
        for (address, part) in self.parts(offset, bytes.len()) {
            let Some((piece, behind)) = rest.split_at_checked(part) else { break };
            let _ = self.ram.memory().write_slice(piece, address);
            rest = behind;
        }
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
        device: &mut ProtocolPort,
    ) -> Option<RunEnd> {
        let room = usize::try_from(self.room).map_or(MAX_ANSWER, |room| room.min(MAX_ANSWER));
        let Some(buffer) = Buffer::find(memory, self.buffer, HEADER + room) else {
            log::debug!("protocol call: {room} bytes at {:#x} are not in RAM", self.buffer);
            return None;
        };
        let caller = buffer.pieces.first().map_or(GuestAddress(0), |(address, _)| *address);
        // As much as there can be of it, one byte more than a line may have.
        let length =
            usize::try_from(self.line).unwrap_or(usize::MAX).min(room).min(MAX_REQUEST + 1);
        let reply = match self.line {
            0 => device.last_call(caller),
            _ => device.call(caller, &buffer.read(HEADER, length)),
        };
        let answer = match reply {
            Reply::Exit(code) => return Some(RunEnd::Exit(code)),
            Reply::Line(answer) => answer,
        };
        if answer.len() <= room {
            buffer.write(HEADER, answer.as_bytes());
        }
        // The number last: a guest that sees it sees the text.
        let length = u32::try_from(answer.len()).unwrap_or(u32::MAX);
        buffer.write(0, &length.to_le_bytes());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol_port::ProtocolHandler;
    use super::*;

    /// Four pages from 0x7000, mapped in reverse order of their frames, and nothing else.
    struct Mapped(GuestRam);

    const FIRST: u64 = 0x7000;
    const PAGES: u64 = 4;
    /// Mapped to a device's memory.
    const NO_RAM: u64 = 0x9_0000;

    impl LinearMemory for Mapped {
        fn translate(&self, linear: u64) -> Option<GuestAddress> {
            if linear == NO_RAM {
                return Some(GuestAddress(0xC000_0000));
            }
            let page = (linear / PAGE_SIZE).checked_sub(FIRST / PAGE_SIZE)?;
            let frame = (PAGES - 1).checked_sub(page)? + 0x20;
            Some(GuestAddress(frame * PAGE_SIZE + linear % PAGE_SIZE))
        }

        fn ram(&self) -> &GuestRam {
            &self.0
        }
    }

    struct Echo;

    impl ProtocolHandler for Echo {
        fn line(&mut self, line: &str) -> Reply {
            match line.split_once(' ') {
                Some(("long", length)) => Reply::Line("y".repeat(length.parse().unwrap())),
                Some(("exit", code)) => Reply::Exit(code.parse().unwrap()),
                _ => Reply::Line(format!("<{line}>")),
            }
        }
    }

    fn device() -> ProtocolPort {
        ProtocolPort::new(Box::new(Echo))
    }

    fn mapped() -> Mapped {
        Mapped(GuestRam::new(4).unwrap())
    }

    /// Calls with registers as they are; nothing may come of it but what is in memory afterwards.
    fn registers(memory: &Mapped, device: &mut ProtocolPort, line: u32, buffer: u64, room: u64) {
        assert!(Call { line, buffer, room }.serve(memory, device).is_none());
    }

    /// Puts `line` into a buffer and calls; gives the number and the text that are there afterwards.
    fn call_on(
        memory: &Mapped,
        device: &mut ProtocolPort,
        buffer: u64,
        line: &[u8],
        room: usize,
    ) -> (u32, Vec<u8>) {
        let whole = Buffer::find(memory, buffer, HEADER + room).unwrap();
        whole.write(0, &u32::MAX.to_le_bytes());
        whole.write(HEADER, line);
        registers(memory, device, line.len().try_into().unwrap(), buffer, room as u64);
        let number = u32::from_le_bytes(whole.read(0, HEADER).try_into().unwrap());
        (number, whole.read(HEADER, room.min(number as usize)))
    }

    fn call(memory: &Mapped, buffer: u64, line: &[u8], room: usize) -> (u32, Vec<u8>) {
        call_on(memory, &mut device(), buffer, line, room)
    }

    #[test]
    fn the_answer_replaces_the_line() {
        let memory = mapped();
        assert_eq!(call(&memory, FIRST, b"hello", 100), (7, b"<hello>".to_vec()));
        assert_eq!(call(&memory, FIRST, b"\xff", 100).1, b"fail the line is not UTF-8");
        assert!(call(&memory, FIRST, b"a\nb", 100).1.starts_with(b"fail a line has no line feed"));
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
    fn an_answer_never_leaves_its_buffer_and_waits_for_a_larger_one() {
        let (memory, mut device) = (mapped(), device());
        let behind = Buffer::find(&memory, FIRST + 4 + 100, 4).unwrap();
        behind.write(0, b"mine");
        let short = call_on(&memory, &mut device, FIRST, b"long 101", 100);
        assert_eq!(
            (short.0, &short.1[..8]),
            (101, b"long 101".as_slice()),
            "the text is as it was"
        );
        assert_eq!(call_on(&memory, &mut device, FIRST, b"", 100).0, 101);
        assert_eq!(behind.read(0, 4), b"mine");
        assert_eq!(call_on(&memory, &mut device, FIRST, b"", 101), (101, vec![b'y'; 101]));
        assert_eq!(call_on(&memory, &mut device, FIRST, b"", 0).0, 101);
        // Longer than any buffer may be.
        assert_eq!(call(&memory, FIRST, b"long 70000", 12).0, 70000);
    }

    #[test]
    fn what_is_not_in_ram_from_end_to_end_is_left_alone_and_not_answered() {
        let memory = mapped();
        let mut device = ProtocolPort::new(Box::new(NeverCalled));
        let end = FIRST + PAGES * PAGE_SIZE;
        for buffer in
            [0, FIRST - 0x1000, FIRST - 1, end - 3, end, u64::MAX, u64::MAX - 3, u64::MAX - 100]
        {
            registers(&memory, &mut device, 0, buffer, 100);
            registers(&memory, &mut device, 3, buffer, 100);
            registers(&memory, &mut device, u32::MAX, buffer, u64::MAX);
        }
        let last = Buffer::find(&memory, end - 0x100, 0x100).unwrap();
        last.write(0, b"\xff\xff\xff\xfflong 300");
        registers(&memory, &mut device, 8, end - 0x100, 0x100);
        assert_eq!(last.read(0, 12), b"\xff\xff\xff\xfflong 300");
        // Mapped, but not to RAM.
        registers(&memory, &mut device, 3, NO_RAM, 100);
    }

    /// Must not be asked.
    struct NeverCalled;

    impl ProtocolHandler for NeverCalled {
        fn line(&mut self, line: &str) -> Reply {
            panic!("{line:?} was asked")
        }
    }

    #[test]
    fn a_line_longer_than_lines_is_not_asked_and_ends_with_its_buffer() {
        let memory = mapped();
        let mut device = ProtocolPort::new(Box::new(NeverCalled));
        let whole = Buffer::find(&memory, FIRST, 0x3000).unwrap();
        for line in [4096, 5000, u32::MAX] {
            whole.write(0, &[b'x'; 0x3000]);
            registers(&memory, &mut device, line, FIRST, 5000);
            assert_eq!(whole.read(HEADER, 23), b"fail the line is longer", "{line}");
        }
        whole.write(HEADER, b"hello");
        registers(&memory, &mut super::tests::device(), 4000, FIRST, 5);
        assert_eq!(whole.read(0, HEADER + 5), b"\x07\0\0\0hello", "an answer of 7 bytes");
    }

    #[test]
    fn an_answer_goes_to_its_own_caller_only() {
        let (memory, mut device) = (mapped(), device());
        let refused = b"fail the last answer belongs to another caller";
        assert_eq!(call_on(&memory, &mut device, FIRST, b"", 100).1, refused);
        assert_eq!(call_on(&memory, &mut device, FIRST, b"mine", 100).1, b"<mine>");
        assert_eq!(call_on(&memory, &mut device, FIRST + 0x1000, b"", 100).1, refused);
        assert_eq!(call_on(&memory, &mut device, FIRST, b"", 100).1, b"<mine>");
    }

    #[test]
    fn the_run_may_end() {
        let memory = mapped();
        Buffer::find(&memory, FIRST, 10).unwrap().write(HEADER, b"exit 5");
        let outcome = Call { line: 6, buffer: FIRST, room: 6 }.serve(&memory, &mut device());
        assert!(matches!(outcome, Some(RunEnd::Exit(5))));
    }
}
