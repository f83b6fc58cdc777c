//! What an engine may access, as seen from outside: from its registers and from the descriptors
//! that pass its port.
//!
//! Nothing here asks the engine what it makes of a descriptor. It is asked at which descriptor a
//! channel is, and only to forget the others. With one channel that leaves one descriptor at a
//! time; with several, one for each, and those that came by in the present step.

use std::collections::BTreeSet;

use crate::endpoint::ioat::IoatDevice;
use crate::endpoint::ioat::regs::{channel, control, descriptor as bit, fault};
use crate::fabric::{Kind, Purpose, Transaction};

/// A descriptor that was fetched.
#[derive(Debug)]
struct Descriptor {
    address: u64,
    words: [u64; 8],
    /// Its second half, when that has been fetched too.
    more: Option<[u64; 8]>,
    /// First bytes of what is read.
    reads: Vec<u64>,
    /// First byte of what is written.
    writes: Option<u64>,
    /// Bytes of each; 0 if there is nothing to do.
    length: u64,
    /// The engine may take source and destination for each other.
    swapped: bool,
}

impl Descriptor {
    /// As fetched from `address`; `longest` is the length of the longest transfer.
    fn new(address: u64, words: [u64; 8], longest: u64, swapped: bool) -> Self {
        let length = Some(words[0] & 0xffff_ffff).filter(|length| *length <= longest);
        let length = length.unwrap_or(0);
        let nothing =
            Self { address, words, more: None, reads: vec![], writes: None, length, swapped };
        nothing.read()
    }

    /// The same with a second half.
    fn with(&self, more: [u64; 8]) -> Self {
        let nothing = Self { more: Some(more), reads: vec![], writes: None, ..*self };
        nothing.read()
    }

    fn control(&self) -> u32 {
        (self.words[0] >> 32) as u32
    }

    /// Sources of an XOR that stand in a second half.
    fn missing(&self) -> usize {
        match (self.operation(), self.count()) {
            (bit::XOR | bit::XOR_CHECK, count @ ..=bit::SOURCES_MAX) if self.length > 0 => {
                count.saturating_sub(bit::SOURCES_IN_FIRST)
            }
            _ => 0,
        }
    }

    fn operation(&self) -> u8 {
        (self.words[0] >> 56) as u8
    }

    /// Sources of an XOR.
    fn count(&self) -> usize {
        (self.control() >> bit::SOURCES_SHIFT & 7) as usize + 2
    }

    fn next(&self) -> u64 {
        self.more.map_or(self.words[3], |more| more[3])
    }

    /// Makes out what is asked for, if anything is.
    fn read(mut self) -> Self {
        let [_, one, destination, _, two, three, four, five] = self.words;
        let (reads, writes) = match self.operation() {
            _ if self.length == 0 => return self,
            bit::COPY if self.control() & bit::NULL == 0 => (vec![one], Some(destination)),
            bit::FILL => (vec![], Some(destination)),
            operation @ (bit::XOR | bit::XOR_CHECK) if self.count() <= bit::SOURCES_MAX => {
                let mut sources = vec![one, two, three, four, five];
                sources.truncate(self.count());
                match self.more {
                    Some(more) => sources.extend(&more[..self.missing()]),
                    None if self.missing() > 0 => return self,
                    None => {}
                }
                if operation == bit::XOR {
                    (sources, Some(destination))
                } else {
                    sources.push(destination);
                    (sources, None)
                }
            }
            _ => return self,
        };
        let ends = |start: &u64| start.checked_add(self.length - 1).is_some();
        if reads.iter().chain(&writes).all(ends) {
            (self.reads, self.writes) = (reads, writes);
        }
        self
    }

    /// Whether the other says the same.
    fn is(&self, other: &Self) -> bool {
        let parts = |it: &Self| (it.address, it.words, it.more, it.swapped);
        parts(self) == parts(other)
    }

    fn permits(&self, access: &Transaction) -> bool {
        let any = |starts: &[u64]| starts.iter().any(|start| within(access, *start, self.length));
        // Which of the two stands for the other is not known.
        let swapped = self.swapped && self.writes.is_some();
        let reads = any(&self.reads);
        let writes = any(self.writes.as_slice());
        match access.kind {
            Kind::MemoryRead => reads || swapped && writes,
            Kind::MemoryWrite => writes || swapped && any(&self.reads[..self.reads.len().min(1)]),
        }
    }
}

/// Whether an access stays within `length` bytes from `start` on.
fn within(access: &Transaction, start: u64, length: u64) -> bool {
    let Some(skipped) = access.address.checked_sub(start) else { return false };
    skipped.checked_add(access.length).is_some_and(|end| end <= length)
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Bytes of the longest transfer.
    longest: u64,
    channels: usize,
    /// CHAINADDR of each channel.
    chains: Vec<u64>,
    /// CHANCMP of each channel.
    records: Vec<u64>,
    /// Some channel writes a record when it fails.
    reports_errors: bool,
    /// The engine has been asked to take source and destination for each other.
    swaps: bool,
    /// Addresses of the descriptors that channels are at.
    begun: Vec<u64>,
    /// Where chains may go on.
    links: BTreeSet<u64>,
    /// The descriptors that channels may be at.
    current: Vec<Descriptor>,
    /// What reads of registers were for that have been given up, and may be answered still: first
    /// byte and length.
    late: Vec<(u64, u64)>,
    /// Steps in which the engine had something to do.
    pub(super) steps: u64,
    /// Accesses, counted as the fabric counts them, since this was last set to 0.
    pub(super) accesses: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

impl Ledger {
    /// Looks at the registers, after whatever may have changed them.
    pub(super) fn look(&mut self, device: &IoatDevice) {
        let (registers, channels) = (&device.registers, &device.channels);
        if channels.iter().any(|channel| channel.path.has_abandoned()) {
            self.give_up();
        }
        (self.longest, self.channels) = (registers.longest_transfer(), channels.len());
        self.swaps = registers.fault & !fault::STICKY == fault::SWAP;
        self.chains.clear();
        self.records.clear();
        // A channel that has begun to report goes on, whatever is written meanwhile.
        self.reports_errors &=
            channels.iter().flat_map(|channel| &channel.path.job).any(|job| job.task.failed);
        for channel in channels {
            let image = channel.image();
            self.chains.push(word(&image, channel::CHAIN));
            self.records.push(word(&image, channel::COMPLETION));
            let errors = u64::from(control::ERROR_COMPLETION);
            self.reports_errors |= word(&image, channel::CONTROL) & errors != 0;
        }
        self.begun.clear();
        self.begun.extend(
            channels.iter().flat_map(|channel| &channel.path.job).map(|job| job.task.address),
        );
        self.current.retain(|descriptor| self.begun.contains(&descriptor.address));
    }

    /// Reads that are under way may be answered until the fabric knows that they were given up.
    fn give_up(&mut self) {
        let fetches = self.chains.iter().chain(&self.links).chain(&self.begun);
        self.late.extend(fetches.map(|address| (*address, bit::SIZE as u64)));
        for Descriptor { reads, writes, length, .. } in &self.current {
            self.late.extend(reads.iter().chain(writes).map(|start| (*start, *length)));
        }
    }

    /// A step begins.
    pub(super) fn begin(&mut self, device: &IoatDevice) {
        self.look(device);
        self.current.iter_mut().for_each(|descriptor| descriptor.swapped |= self.swaps);
    }

    /// A step is over.
    pub(super) fn end(&mut self, device: &IoatDevice, worked: bool) {
        for job in device.channels.iter().flat_map(|channel| &channel.path.job) {
            assert!(
                self.leads_to(job.task.address),
                "no chain leads to {:#x}: {self:x?}",
                job.task.address
            );
        }
        self.look(device);
        // Now it knows.
        self.late.clear();
        self.steps += u64::from(worked);
    }

    fn leads_to(&self, address: u64) -> bool {
        self.chains.contains(&address)
            || self.begun.contains(&address)
            || self.links.contains(&address)
    }

    /// The engine has accessed something, with success if there is `data`.
    pub(super) fn access(&mut self, access: &Transaction, data: Option<&[u8]>) {
        self.accesses += 1;
        self.bytes += access.length;
        let read = access.kind == Kind::MemoryRead;
        let permitted = match access.purpose {
            Purpose::DescriptorFetch => read && self.fetch(access, data),
            // The latest is the likeliest.
            Purpose::Data => self.current.iter().rev().any(|known| known.permits(access)),
            Purpose::CompletionRecord => !read && self.record(access),
            // Where it goes to is the MSI-X table's business.
            Purpose::Interrupt => !read && access.length <= 4,
            Purpose::VirtQueue => false,
        };
        let late = || self.late.iter().any(|&(start, length)| within(access, start, length));
        assert!(permitted || read && late(), "no chain asks for {access:x?}: {self:x?}");
    }

    fn record(&self, access: &Transaction) -> bool {
        let asked_for = |known: &Descriptor| known.control() & bit::COMPLETION != 0;
        (self.reports_errors || self.current.iter().any(asked_for))
            && self.records.iter().any(|record| within(access, *record, 8))
    }

    fn fetch(&mut self, access: &Transaction, data: Option<&[u8]>) -> bool {
        let address = access.address;
        let alone = self.channels == 1;
        // Of several, another may be at the same place, and find something else there.
        let goes_on = |known: &&Descriptor| {
            known.missing() > 0 && known.words[3] == address && !(alone && known.more.is_some())
        };
        let first = self.leads_to(address);
        let second = self.current.iter().any(|known| goes_on(&known));
        if access.length != bit::SIZE as u64 || !address.is_multiple_of(64) || !(first || second) {
            return false;
        }
        let Some(words) = data.and_then(words) else { return true };
        let mut new: Vec<_> =
            self.current.iter().filter(goes_on).map(|known| known.with(words)).collect();
        if first {
            new.push(Descriptor::new(address, words, self.longest, self.swaps));
        }
        if alone {
            // What it was at before is over, or has become more.
            self.current.clear();
            self.links.clear();
        }
        for new in new {
            self.links.extend([new.address, new.next()]);
            // In a loop it comes again and again.
            self.current.retain(|old| !old.is(&new));
            self.current.push(new);
        }
        true
    }
}

/// The 64 bits of a register, and of its neighbours if it is shorter.
fn word(image: &[u8; 0x80], register: u64) -> u64 {
    let at = register as usize;
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
}

fn words(data: &[u8]) -> Option<[u64; 8]> {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(data.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    (data.len() == bit::SIZE).then_some(words)
}
