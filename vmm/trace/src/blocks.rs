//! The pcapng blocks of a trace: a section, an interface for each source, and a packet for each entry.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{Block, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError};
use serde::{Deserialize, Serialize};

use super::entry;
use super::event::{Event, Header, TlpRun};
use device_models::checker::FindingClass;
use device_models::fabric::Purpose;

/// What the header entry says about itself.
pub(crate) const FORMAT: &str = "peerdma-trace";

/// The link type: Wireshark Upper PDU, also called Exported PDU.
pub(crate) const LINK_TYPE: DataLink = DataLink::WIRESHARK_UPPER_PDU;

/// What stands before each entry: the tag with the name of the dissector, and the end of the tags.
pub(crate) const TAGS: [u8; 16] = *b"\0\x0c\0\x08peerdma\0\0\0\0\0";

/// No block of a trace is longer, in bytes: the most is an entry with 64 KiB of payload or as much text.
pub(crate) const MAX_BLOCK: u32 = 256 << 10;
/// The first packet is not longer, in bytes: it holds a topology, which has at most 16 peer devices and 16 others.
pub(crate) const MAX_FIRST_BLOCK: u32 = 8 << 20;
/// No trace has more interfaces.
pub(crate) const MAX_INTERFACES: usize = 1024;
/// As much is kept of the bytes of one transaction, or of a text.
pub(crate) const MAX_KEPT: usize = 64 << 10;

/// Interfaces of every trace; those of functions follow, in the order of their numbers.
pub(crate) const SOURCES: [(&str, &str); 8] = [
    ("trace", "the trace itself: header, gaps, end"),
    ("configuration", "configuration requests of the CPUs"),
    ("cpu", "the CPUs' requests to BARs, their pushes, and fences that they have seen"),
    ("faults", "faults that were injected: delays, slots emptied and filled"),
    ("iommu", "requests, events and faults of the IOMMU"),
    ("interrupts", "message-signalled interrupts"),
    ("tests", "where tests begin and end"),
    ("witness", "what the guest's kernel says about its mappings"),
];

mod source {
    pub(super) const TRACE: usize = 0;
    pub(super) const CONFIGURATION: usize = 1;
    pub(super) const CPU: usize = 2;
    pub(super) const FAULTS: usize = 3;
    pub(super) const IOMMU: usize = 4;
    pub(super) const INTERRUPTS: usize = 5;
    pub(super) const TESTS: usize = 6;
    pub(super) const WITNESS: usize = 7;
}

/// The text of the header entry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HeaderText<'a> {
    pub(crate) format: Cow<'a, str>,
    /// The program that wrote it.
    #[serde(default)]
    pub(crate) program: Cow<'a, str>,
    #[serde(flatten)]
    pub(crate) header: Cow<'a, Header>,
    /// Number of the first entry behind it, where that is not 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first: Option<u64>,
    /// Names of the classes of findings, by their codes: for readers of other programs.
    #[serde(default, skip_deserializing)]
    pub(crate) classes: std::collections::BTreeMap<u32, &'static str>,
}

/// Makes blocks.
pub(crate) struct Blocks {
    writer: PcapNgWriter<Vec<u8>>,
    /// Names of the functions, which have interfaces behind [`SOURCES`].
    functions: Vec<String>,
    /// The function that is the IOMMU.
    iommu: Option<usize>,
    /// Number of the next entry.
    next: u64,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Blocks {
    /// Opens a trace at `time` since 1970.
    pub(crate) fn new(header: &Header, time: Duration) -> io::Result<Self> {
        Self::begin(header, None, time)
    }

    /// Opens a later file of a trace that was opened at `time` since 1970: `first` is the number of its first entry.
    pub(crate) fn part(header: &Header, first: u64, time: Duration) -> io::Result<Self> {
        let mut blocks = Self::begin(header, Some(first), time)?;
        blocks.next = first;
        Ok(blocks)
    }

    fn begin(header: &Header, first: Option<u64>, time: Duration) -> io::Result<Self> {
        let mut kept = Cow::Borrowed(header);
        if kept.functions.len() > MAX_INTERFACES - SOURCES.len() {
            kept.to_mut().functions.truncate(MAX_INTERFACES - SOURCES.len());
        }
        let functions: Vec<_> = kept.functions.iter().map(|it| it.name.clone()).collect();
        let iommu = functions.iter().position(|name| name == "virtio-iommu");
        let text = HeaderText {
            format: FORMAT.into(),
            program: concat!("peerdma ", env!("CARGO_PKG_VERSION")).into(),
            header: kept,
            first,
            classes: FindingClass::ALL.iter().map(|class| (class.code(), class.name())).collect(),
        };
        let json = serde_json::to_vec(&text)?;
        let section = SectionHeaderBlock {
            endianness: Endianness::Big,
            options: vec![SectionHeaderOption::UserApplication(text.program.to_string().into())],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(Vec::new(), section).map_err(of_system)?;
        let mut blocks = Self { writer, functions, iommu, next: 0, scratch: Vec::new() };
        let names = blocks.functions.iter().map(|name| (name.clone(), "a function"));
        let sources = SOURCES.iter().map(|&(name, what)| (name.to_owned(), what));
        for (name, what) in sources.chain(names).collect::<Vec<_>>() {
            blocks.write(Block::InterfaceDescription(InterfaceDescriptionBlock {
                linktype: LINK_TYPE,
                snaplen: 0,
                options: vec![
                    InterfaceDescriptionOption::IfName(name.into()),
                    InterfaceDescriptionOption::IfDescription(what.into()),
                    InterfaceDescriptionOption::IfTsResol(9),
                ],
            }))?;
        }
        blocks.scratch.extend(TAGS);
        entry::put_header(&json, &mut blocks.scratch);
        let length = blocks.scratch.len() as u64;
        blocks.packet(source::TRACE, time, length, None)?;
        Ok(blocks)
    }

    /// Entries so far, without the header.
    pub(crate) fn events(&self) -> u64 {
        self.next - 1
    }

    /// Entries are missing: those that come next are numbered as if they were there.
    pub(crate) fn skip(&mut self, entries: u64) {
        self.next = self.next.saturating_add(entries);
    }

    /// The blocks that have been made.
    pub(crate) fn made(&mut self) -> &mut Vec<u8> {
        self.writer.get_mut()
    }

    /// Makes the block of an entry.
    pub(crate) fn push(&mut self, event: &Event, time: Duration) -> io::Result<()> {
        self.scratch.clear();
        self.scratch.extend(TAGS);
        let length = entry::put(self.next, event, &mut self.scratch) + TAGS.len() as u64;
        let comment = match event {
            Event::Finding(finding) => Some(short(&finding.text).to_owned()),
            Event::Test(_) | Event::Lost { .. } | Event::Cut { .. } => Some(event.to_string()),
            _ => None,
        };
        self.packet(self.source(event), time, length, comment)
    }

    fn packet(
        &mut self,
        interface: usize,
        time: Duration,
        length: u64,
        comment: Option<String>,
    ) -> io::Result<()> {
        let data = std::mem::take(&mut self.scratch);
        let packet = Block::EnhancedPacket(EnhancedPacketBlock {
            interface_id: u32::try_from(interface).unwrap_or(0),
            timestamp: time,
            original_len: u32::try_from(length).unwrap_or(u32::MAX),
            data: Cow::Borrowed(&data),
            options: comment
                .map(|it| EnhancedPacketOption::Comment(it.into()))
                .into_iter()
                .collect(),
        });
        let written = self.write(packet);
        self.scratch = data;
        self.next += 1;
        written
    }

    fn write(&mut self, block: Block<'_>) -> io::Result<()> {
        self.writer.write_block(&block).map(drop).map_err(of_system)
    }

    fn function(&self, number: Option<usize>) -> usize {
        match number {
            Some(number) if Some(number) == self.iommu => source::IOMMU,
            Some(number) if number < self.functions.len() => SOURCES.len() + number,
            _ => source::TRACE,
        }
    }

    fn source(&self, event: &Event) -> usize {
        match event {
            Event::ConfigWrite(_) | Event::ConfigRead(_) => source::CONFIGURATION,
            Event::RegisterWrite { .. }
            | Event::RegisterRead { .. }
            | Event::CpuPush { .. }
            | Event::FenceSeen { .. } => source::CPU,
            Event::Unplug { .. } | Event::Plug { .. } | Event::DelayPosted { .. } => source::FAULTS,
            Event::Step { function } | Event::Outside { function, .. } => {
                self.function(Some(*function))
            }
            Event::Transaction(TlpRun { purpose: Purpose::Interrupt, .. }) => source::INTERRUPTS,
            Event::Transaction(run) => self.function(run.function.map(usize::from)),
            Event::Finding(finding) => {
                self.function(self.functions.iter().position(|name| *name == finding.function))
            }
            Event::Test(_) => source::TESTS,
            Event::Witness { .. } => source::WITNESS,
            Event::Other { .. } | Event::Lost { .. } | Event::End { .. } | Event::Cut { .. } => {
                source::TRACE
            }
        }
    }
}

/// As much of a text as a trace keeps.
pub(crate) fn short(text: &str) -> &str {
    let mut end = text.len().min(MAX_KEPT / 2);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn of_system(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error),
    }
}
