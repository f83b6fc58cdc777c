//! Reading a trace, which is not trusted: nothing that it says about sizes is believed, and an entry is checked before it
//! is used.

mod block;
mod error;

use std::io::{BufRead, Read};
use std::time::Duration;

use pcap_file::pcapng::{Block, PcapNgParser};

use self::block::{Next, failed, read_block, reason};
pub use self::error::{Ending, TraceError, TracePlace};
use super::blocks::{
    FORMAT, HeaderText, LINK_TYPE, MAX_BLOCK, MAX_FIRST_BLOCK, MAX_INTERFACES, TAGS,
};
use super::entry::{self, EntryHeader, kind};
use super::event::{Event, Header};
use super::fields::{Fields, Invalid};
use super::source::{Beginning, Source};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;

/// Time, interface and entry of a packet.
type Packet<'a> = (Duration, u32, &'a [u8]);

/// An entry with its number and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number; the header is 0.
    pub number: u64,
    /// Since 1970.
    pub time: Duration,
    /// Number of its interface.
    pub interface: u32,
    /// What it says.
    pub event: Event,
}

/// Reads a trace.
pub struct Reader<R: BufRead> {
    source: Source<R>,
    parser: PcapNgParser,
    block: Vec<u8>,
    header: Header,
    begun: Duration,
    next: u64,
    place: TracePlace,
    ending: Option<Ending>,
    failed: bool,
    entries_lost: u64,
}

impl<R: BufRead> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, ending, .. } = self;
        f.debug_struct("Reader")
            .field("place", place)
            .field("ending", ending)
            .finish_non_exhaustive()
    }
}

impl<R: BufRead> Reader<R> {
    /// Opens a trace.
    ///
    /// # Errors
    /// When it is not one, or one of another version.
    pub fn new(input: R) -> Result<Self, TraceError> {
        Self::open(begin(input)?)
    }

    fn open(mut source: Source<R>) -> Result<Self, TraceError> {
        let not = |why: String| TraceError::NotATrace(why);
        let mut block = Vec::new();
        let start = TracePlace { entry: 0, offset: 0, frame: 0 };
        match in_header(read_block(&mut source, &mut block, MAX_BLOCK, start))? {
            Next::Block => {}
            Next::Nothing(why) => {
                return Err(match usize::try_from(source.unpacked()).unwrap_or(usize::MAX) {
                    0 if source.is_between() => not("it is empty".to_owned()),
                    // What there is of the first block is a section's.
                    got if SECTION_HEADER
                        .to_be_bytes()
                        .iter()
                        .zip(&block)
                        .take(got)
                        .all(|(a, b)| a == b) =>
                    {
                        TraceError::CutInHeader
                    }
                    _ => not(why),
                });
            }
        }
        // Blocks of a trace are big-endian.
        if block.get(8..12) != Some(&[0x1a, 0x2b, 0x3c, 0x4d]) {
            return Err(not("it does not begin with a big-endian pcapng section".to_owned()));
        }
        let (_, parser) = PcapNgParser::new(&block).map_err(|error| not(reason(&error)))?;
        let mut reader = Self {
            source,
            parser,
            block,
            header: Header::nothing(),
            begun: Duration::ZERO,
            next: 0,
            place: start,
            ending: None,
            failed: false,
            entries_lost: 0,
        };
        let (begun, json) = loop {
            if let Next::Nothing(_) = in_header(reader.read_block(MAX_FIRST_BLOCK))? {
                return Err(TraceError::CutInHeader);
            }
            match reader.packet() {
                Ok(Some((time, _, bytes))) => {
                    let mut fields = Fields::new(bytes);
                    match EntryHeader::take(&mut fields) {
                        Ok(EntryHeader { kind: kind::HEADER, number: 0, .. }) => {}
                        Ok(_) => return Err(not("its first entry is not a header".to_owned())),
                        Err(Invalid::Version(version)) => return Err(TraceError::Version(version)),
                        Err(error) => return Err(not(error.to_string())),
                    }
                    break (time, fields.rest());
                }
                Ok(None) => {}
                Err(why) => return Err(not(why)),
            }
        };
        let text: HeaderText<'_> =
            serde_json::from_slice(json).map_err(|error| not(reason(&error)))?;
        if text.format != FORMAT {
            return Err(not("its header does not say so".to_owned()));
        }
        // An entry's number is never 0: that is the header's.
        let first = text.first.unwrap_or(1).max(1);
        (reader.begun, reader.next) = (begun, first);
        reader.header = text.header.into_owned();
        Ok(reader)
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// When the recording began, since 1970.
    pub fn begun(&self) -> Duration {
        self.begun
    }

    /// The place of the entry that was read last.
    pub fn place(&self) -> TracePlace {
        self.place
    }

    /// Whether it is packed, as a recorder leaves it.
    pub fn is_packed(&self) -> bool {
        self.source.is_packed()
    }

    /// Bytes so far, unpacked.
    pub fn bytes(&self) -> u64 {
        self.source.unpacked()
    }

    /// How the trace ends; none before its end has been read.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Entries that were dropped when it was recorded, as far as it has been read.
    pub fn lost(&self) -> u64 {
        self.entries_lost
    }

    /// Names of the interfaces, by their numbers.
    pub fn interfaces(&self) -> Vec<String> {
        use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption as Option_;
        let name = |option: &Option_<'_>| match option {
            Option_::IfName(name) => Some(name.to_string()),
            _ => None,
        };
        let interfaces = self.parser.interfaces().iter();
        interfaces.map(|it| it.options.iter().find_map(name).unwrap_or_default()).collect()
    }

    fn read_block(&mut self, limit: u32) -> Result<Next, TraceError> {
        self.place = TracePlace {
            entry: self.next,
            offset: self.source.unpacked(),
            frame: self.source.frame(),
        };
        let next = read_block(&mut self.source, &mut self.block, limit, self.place);
        // A block that is the first of its frame: only now is it known where that begins.
        self.place.frame = self.source.frame();
        match next {
            Err(TraceError::Damaged { reason, .. }) => {
                Err(TraceError::Damaged { place: self.place, reason })
            }
            next => next,
        }
    }

    /// The packet in the buffer: its time, its interface and its entry; none if the block is another's.
    fn packet(&mut self) -> Result<Option<Packet<'_>>, String> {
        if self.block.starts_with(&SECTION_HEADER.to_be_bytes()) {
            return Err("a second section begins".to_owned());
        }
        let parsed = self.parser.next_block(&self.block);
        let (_, block) = parsed.map_err(|error| reason(&error))?;
        let packet = match block {
            Block::EnhancedPacket(packet) => packet,
            Block::InterfaceDescription(_) => {
                return match self.parser.interfaces() {
                    interfaces if interfaces.len() > MAX_INTERFACES => {
                        Err(format!("it has more than {MAX_INTERFACES} interfaces"))
                    }
                    _ => Ok(None),
                };
            }
            _ => return Ok(None),
        };
        let (time, number) = (packet.timestamp, packet.interface_id);
        match self.parser.packet_interface(&packet) {
            Some(interface) if interface.linktype == LINK_TYPE => {}
            Some(_) => return Err("an interface has another link type".to_owned()),
            None => return Err(format!("there is no interface {number}")),
        }
        let std::borrow::Cow::Borrowed(data) = packet.data else { return Ok(None) };
        match data.strip_prefix(&TAGS) {
            Some(entry) => Ok(Some((time, number, entry))),
            None => Err("a packet is not for the dissector `peerdma`".to_owned()),
        }
    }

    fn damaged(&mut self, reason: impl Into<String>) -> TraceError {
        self.failed = true;
        TraceError::Damaged { place: self.place, reason: reason.into() }
    }

    fn entry(&mut self) -> Result<Option<Entry>, TraceError> {
        loop {
            match self.read_block(MAX_BLOCK) {
                Ok(Next::Block) => {}
                Ok(Next::Nothing(reason)) => {
                    self.ending = Some(Ending::Truncated { place: self.place, reason });
                    return Ok(None);
                }
                Err(TraceError::Damaged { place, reason }) => {
                    (self.place, self.failed) = (place, true);
                    return Err(TraceError::Damaged { place, reason });
                }
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
            let taken = match self.packet() {
                Ok(None) => continue,
                Ok(Some((time, interface, bytes))) => entry::take(bytes)
                    .map(|(header, event)| (time, interface, header, event))
                    .map_err(|invalid| format!("not an entry: {invalid}")),
                Err(reason) => Err(reason),
            };
            let (time, interface, header, event) = taken.map_err(|why| self.damaged(why))?;
            let missing = header.number.checked_sub(self.next);
            match (&event, missing) {
                (Event::Lost { entries }, Some(missing)) if *entries == missing => {
                    self.entries_lost += missing;
                }
                (_, Some(0)) => {}
                _ => {
                    let (next, found) = (self.next, header.number);
                    return Err(self.damaged(format!("entry {found} comes where {next} must")));
                }
            }
            if let Event::End { events } | Event::Cut { events } = event {
                if events != header.number - 1 {
                    let before = header.number - 1;
                    let reason = format!("the end mark counts {events} entries, not {before}");
                    return Err(self.damaged(reason));
                }
                self.end(matches!(event, Event::Cut { .. }))?;
            }
            self.place.entry = header.number;
            self.next = header.number.saturating_add(1);
            return Ok(Some(Entry { number: header.number, time, interface, event }));
        }
    }

    /// Behind an end mark comes the seek table, which is not read here, and nothing else.
    fn end(&mut self, cut: bool) -> Result<(), TraceError> {
        let place = self.place;
        let mut more = [0];
        let read = self.source.read(&mut more);
        let same_frame = self.source.frame() == place.frame;
        self.ending = Some(match read {
            Ok(1..) => return Err(self.damaged("something comes behind the end mark")),
            // Its checksum stands behind the end mark.
            Err(error) if same_frame => match failed(error, place)? {
                Next::Block => Ending::Complete,
                Next::Nothing(reason) => Ending::Truncated {
                    place: TracePlace { entry: place.entry + 1, ..place },
                    reason,
                },
            },
            // A seek table that is cut, or damaged, costs nothing of what was recorded.
            Ok(0) | Err(_) if cut => Ending::Cut,
            Ok(0) | Err(_) => Ending::Complete,
        });
        Ok(())
    }
}

impl<R: BufRead + Send + 'static> Reader<R> {
    /// Opens a trace; a thread of its own unpacks it ahead of what is read.
    ///
    /// # Errors
    /// When it is not one, or one of another version.
    pub fn ahead(input: R) -> Result<Self, TraceError> {
        Self::open(begin(input)?.ahead())
    }
}

/// What a file begins with decides whether it can be a trace.
fn begin<R: BufRead>(input: R) -> Result<Source<R>, TraceError> {
    let (source, beginning) = Source::new(input).map_err(TraceError::Read)?;
    let not = |why: &str| Err(TraceError::NotATrace(why.to_owned()));
    match beginning {
        Beginning::Zstd | Beginning::Pcapng => Ok(source),
        Beginning::Json => Err(TraceError::Json),
        Beginning::Empty => not("it is empty"),
        Beginning::Other => not("it is not a zstd file"),
    }
}

/// Damage in front of the first entry: the file may as well be something else.
fn in_header(next: Result<Next, TraceError>) -> Result<Next, TraceError> {
    match next {
        Err(TraceError::Damaged { reason, .. }) => Err(TraceError::NotATrace(reason)),
        next => next,
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Entry, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ending.is_some() || self.failed { None } else { self.entry().transpose() }
    }
}
