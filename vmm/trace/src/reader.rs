//! Reading a trace, which is not trusted: nothing that it says about sizes is believed, and an entry is checked before it
//! is used.

use std::io::{self, BufRead, Read};
use std::time::Duration;

use pcap_file::pcapng::{Block, PcapNgParser};

use super::blocks::{
    FORMAT, HeaderText, LINK_TYPE, MAX_BLOCK, MAX_FIRST_BLOCK, MAX_INTERFACES, TAGS,
};
use super::entry::{self, EntryHeader, kind};
use super::event::{Event, Header};
use super::fields::{Fields, Invalid};
use super::source::{Beginning, Source};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;

/// As much of a parser's words as is of use.
const MAX_REASON: usize = 200;

/// Why a trace cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("the trace cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The file is something else.
    #[error("this is not a trace made with --record: {0}")]
    NotATrace(String),
    /// It has the format of an earlier version of the program.
    #[error(
        "this trace is in the JSON format of an earlier version; `peerdma trace convert` makes one of today's of it"
    )]
    Json,
    /// Its entries are those of another version of the program.
    #[error("the trace has format version {0}, this program reads version {version}; record it again", version = entry::VERSION)]
    Version(u8),
    /// Something in the middle is not what a recorder writes.
    #[error("{place}: {reason}")]
    Damaged {
        /// Where.
        place: Place,
        /// What is wrong.
        reason: String,
    },
}

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the entry.
    pub entry: u64,
    /// Where its block begins, in bytes of the unpacked trace.
    pub offset: u64,
    /// Where its zstd frame begins, in bytes of the file.
    pub frame: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { entry, offset, frame } = self;
        write!(f, "entry {entry}, at byte {offset} unpacked, in the frame at byte {frame}")
    }
}

/// How a trace ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With an end mark.
    Complete,
    /// With the mark that its size limit was reached.
    Cut,
    /// Without a mark: its recorder was killed, the disk was full, or the file was cut.
    Truncated {
        /// Behind what can be read.
        place: Place,
        /// What is there.
        reason: String,
    },
}

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
    place: Place,
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

/// What a file has next.
enum Next {
    /// A block, in the buffer.
    Block,
    /// Its end, or what cannot be a whole block.
    Nothing(String),
}

impl<R: BufRead> Reader<R> {
    /// Opens a trace.
    ///
    /// # Errors
    /// When it is not one, or one of another version.
    pub fn new(input: R) -> Result<Self, TraceError> {
        let (source, beginning) = Source::new(input).map_err(TraceError::Read)?;
        let not = |why: &str| Err(TraceError::NotATrace(why.to_owned()));
        match beginning {
            Beginning::Zstd | Beginning::Pcapng => {}
            Beginning::Json => return Err(TraceError::Json),
            Beginning::Empty => return not("it is empty"),
            Beginning::Other => return not("it is not a zstd file"),
        }
        Self::open(source)
    }

    fn open(mut source: Source<R>) -> Result<Self, TraceError> {
        let not = |why: String| TraceError::NotATrace(why);
        let mut block = Vec::new();
        let first = |next: Result<Next, TraceError>| match next {
            Ok(Next::Block) => Ok(()),
            Ok(Next::Nothing(why)) => Err(not(why)),
            Err(TraceError::Damaged { reason, .. }) => Err(not(reason)),
            Err(error) => Err(error),
        };
        let start = Place { entry: 0, offset: 0, frame: 0 };
        first(read_block(&mut source, &mut block, MAX_BLOCK, start))?;
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
            first(reader.read_block(MAX_FIRST_BLOCK))?;
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
        (reader.begun, reader.next) = (begun, 1);
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
    pub fn place(&self) -> Place {
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
        self.place =
            Place { entry: self.next, offset: self.source.unpacked(), frame: self.source.frame() };
        let next = read_block(&mut self.source, &mut self.block, limit, self.place);
        // A block that is the first of its frame: only now is it known where that begins.
        self.place.frame = self.source.frame();
        next
    }

    /// The packet in the buffer: its time, its interface and its entry; none if the block is another's.
    fn packet(&mut self) -> Result<Option<(Duration, u32, &[u8])>, String> {
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
                Next::Nothing(reason) => {
                    Ending::Truncated { place: Place { entry: place.entry + 1, ..place }, reason }
                }
            },
            // A seek table that is cut, or damaged, costs nothing of what was recorded.
            Ok(0) | Err(_) if cut => Ending::Cut,
            Ok(0) | Err(_) => Ending::Complete,
        });
        Ok(())
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Entry, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ending.is_some() || self.failed { None } else { self.entry().transpose() }
    }
}

/// Reads a block into `block`, of at most `limit` bytes.
fn read_block(
    source: &mut impl Read,
    block: &mut Vec<u8>,
    limit: u32,
    place: Place,
) -> Result<Next, TraceError> {
    let damaged = |reason: String| Err(TraceError::Damaged { place, reason });
    block.clear();
    block.resize(8, 0);
    let got = read_all(source, block);
    match got {
        Ok(8) => {}
        Ok(0) => return Ok(Next::Nothing("there is no end mark".to_owned())),
        Ok(_) => return Ok(Next::Nothing("a block is cut".to_owned())),
        Err(error) => return failed(error, place),
    }
    let length = block.last_chunk().map_or(0, |length| u32::from_be_bytes(*length));
    if !length.is_multiple_of(4) || length < 12 {
        return damaged(format!("a block of {length} bytes is not possible"));
    }
    if length > limit {
        return damaged(format!("a block of {length} bytes is longer than {limit}"));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    block.resize(length, 0);
    let rest = block.get_mut(8..).unwrap_or_default();
    match read_all(source, rest) {
        Ok(count) if count == rest.len() => Ok(Next::Block),
        Ok(_) => Ok(Next::Nothing("a block is cut".to_owned())),
        Err(error) => failed(error, place),
    }
}

/// Fills `buffer` as far as the source goes.
fn read_all(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// What an error of reading or unpacking means.
fn failed(error: io::Error, place: Place) -> Result<Next, TraceError> {
    match error.kind() {
        // That is what zstd says at the end of a file within a frame.
        io::ErrorKind::UnexpectedEof => Ok(Next::Nothing("a zstd frame is cut".to_owned())),
        _ if error.raw_os_error().is_some() => Err(TraceError::Read(error)),
        _ => {
            let reason = format!("the zstd frame is damaged: {}", reason(&error));
            Err(TraceError::Damaged { place, reason })
        }
    }
}

/// What a parser says, in a few words.
fn reason(error: &impl std::fmt::Display) -> String {
    error.to_string().chars().take(MAX_REASON).collect()
}
