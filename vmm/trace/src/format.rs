//! How a trace lies in a file: a line of JSON for the header, then one for each event.
//!
//! Nothing outside this file knows that.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::{Event, Header};

const FORMAT: &str = "peerdma-trace";
/// 2: the header holds a topology, not a number of devices. 3: posted writes can be delayed on a path. 4: CPUs push them,
/// and what their requester's rest found before is found later. 5: the guest's witness reports.
const VERSION: u32 = 5;

/// No first line is longer, in bytes: it holds a topology, which has at most 16 peer devices and 16 others.
const MAX_FIRST_LINE: u64 = 4 << 20;

/// No event is longer: its data are those of 64 KiB at most, in hexadecimal digits.
const MAX_LINE: u64 = 256 << 10;

/// As much of a parser's words as is of use: they may hold the whole line.
const MAX_REASON: usize = 200;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct FirstLine {
    format: String,
    version: u32,
    #[serde(flatten)]
    header: Header,
}

/// Why a trace cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("the trace cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The first line is not that of a trace.
    #[error("this is not a trace made with --record: {0}")]
    NotARecord(String),
    /// Made by another version of the program.
    #[error(
        "the trace has format version {0}, this program reads version {VERSION}; record it again"
    )]
    Version(u32),
    /// A line in the middle makes no sense.
    #[error("line {line} is not an event: {reason}")]
    Malformed {
        /// Which line, the header being 1.
        line: u64,
        /// What the parser says.
        reason: String,
    },
}

/// Writes a trace.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    events: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a trace.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(out: W, header: Header) -> io::Result<Self> {
        let mut writer = Self { out, events: 0, bytes: 0 };
        writer.line(&FirstLine { format: FORMAT.to_owned(), version: VERSION, header })?;
        Ok(writer)
    }

    /// Adds an event.
    ///
    /// # Errors
    /// What the file says.
    pub fn append(&mut self, event: &Event) -> io::Result<()> {
        self.line(event)?;
        self.events += 1;
        Ok(())
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes sure that what was added is in the file.
    ///
    /// # Errors
    /// What the file says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.bytes += line.len() as u64;
        self.out.write_all(&line)
    }
}

/// Reads a trace.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    header: Header,
    line: u64,
    bytes: u64,
    ended: bool,
    truncated: bool,
}

impl<R: BufRead> Reader<R> {
    /// Opens a trace.
    ///
    /// # Errors
    /// When it is none, or one of another version.
    pub fn new(mut input: R) -> Result<Self, TraceError> {
        let (line, end) = read_line(&mut input, MAX_FIRST_LINE)?;
        if matches!(end, LineEnd::TooFar) {
            return Err(TraceError::NotARecord("its first line is too long".to_owned()));
        }
        let first: serde_json::Value = serde_json::from_slice(&line)
            .map_err(|error| TraceError::NotARecord(reason(&error)))?;
        if first.get("format").and_then(|format| format.as_str()) != Some(FORMAT) {
            return Err(TraceError::NotARecord("its first line does not say so".to_owned()));
        }
        match first.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            version => {
                return Err(TraceError::Version(
                    u32::try_from(version.unwrap_or(0)).unwrap_or(u32::MAX),
                ));
            }
        }
        let FirstLine { header, .. } = serde_json::from_value(first)
            .map_err(|error| TraceError::NotARecord(reason(&error)))?;
        let bytes = line.len() as u64;
        Ok(Self { input, header, line: 1, bytes, ended: false, truncated: false })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The line of the event that was read last.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Bytes of all lines so far, without their ends.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the file stopped without an end mark: its writer was killed, or the file was cut.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Event, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.truncated {
            return None;
        }
        let (line, end) = match read_line(&mut self.input, MAX_LINE) {
            Ok(read) => read,
            Err(error) => return Some(Err(error.into())),
        };
        if matches!(end, LineEnd::OfFile) {
            // The end of the file without an end mark, perhaps in the middle of a line.
            self.truncated = true;
            return None;
        }
        self.line += 1;
        self.bytes += line.len() as u64;
        if matches!(end, LineEnd::TooFar) {
            let reason = format!("it is longer than {MAX_LINE} bytes");
            return Some(Err(TraceError::Malformed { line: self.line, reason }));
        }
        match serde_json::from_slice(&line) {
            Ok(event) => {
                self.ended = matches!(event, Event::End { .. } | Event::Cut { .. });
                Some(Ok(event))
            }
            Err(error) => {
                Some(Err(TraceError::Malformed { line: self.line, reason: reason(&error) }))
            }
        }
    }
}

/// Where a line ended.
enum LineEnd {
    /// Where the next begins.
    Newline,
    /// With the file.
    OfFile,
    /// Nowhere as far as it was read.
    TooFar,
}

/// A line without its newline, at most `limit` bytes of it.
fn read_line(input: &mut impl BufRead, limit: u64) -> io::Result<(Vec<u8>, LineEnd)> {
    let mut line = Vec::new();
    let read = io::Read::take(&mut *input, limit).read_until(b'\n', &mut line)?;
    let end = match line.last() {
        Some(b'\n') => {
            line.pop();
            LineEnd::Newline
        }
        _ if read as u64 == limit => LineEnd::TooFar,
        _ => LineEnd::OfFile,
    };
    Ok((line, end))
}

/// What is wrong with a line, in a few words.
fn reason(error: &serde_json::Error) -> String {
    error.to_string().chars().take(MAX_REASON).collect()
}

/// Bytes as hexadecimal text.
pub(super) mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn text(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn bytes<E: Error>(text: &str) -> Result<Vec<u8>, E> {
        let digits = text.as_bytes();
        if !digits.len().is_multiple_of(2) {
            return Err(E::custom("an odd number of hexadecimal digits"));
        }
        let byte = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).map_err(E::custom)?;
            u8::from_str_radix(text, 16).map_err(E::custom)
        };
        digits.chunks_exact(2).map(byte).collect()
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        bytes(&String::deserialize(deserializer)?)
    }

    pub(crate) mod option {
        use super::{Deserialize, Deserializer, Serializer, bytes, text};

        #[allow(clippy::ref_option, reason = "the shape that serde asks for")]
        pub(crate) fn serialize<S: Serializer>(
            bytes: &Option<Vec<u8>>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match bytes {
                Some(bytes) => serializer.serialize_some(&text(bytes)),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Vec<u8>>, D::Error> {
            Option::<String>::deserialize(deserializer)?.as_deref().map(bytes).transpose()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            system: peerdma_topology::assembly::SystemConfig::default(),
            ram: vec![(0, 1 << 20)],
        }
    }

    fn record(events: &[Event]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), header()).unwrap();
        for event in events {
            writer.append(event).unwrap();
        }
        writer.out
    }

    fn events() -> Vec<Event> {
        vec![
            Event::RegisterWrite { address: 0xc000_0000, data: vec![1, 0xab] },
            Event::Step { function: 3 },
            Event::End { events: 2 },
        ]
    }

    #[test]
    fn what_was_written_is_read() {
        let file = record(&events());
        let mut reader = Reader::new(&file[..]).unwrap();
        assert_eq!(reader.header(), &header());
        let read: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
        assert_eq!(read, events());
        assert!(!reader.is_truncated());
    }

    #[test]
    fn a_cut_file_reads_to_its_end_and_says_so() {
        let file = record(&events());
        let end = file.iter().rposition(|&byte| byte == b'{').unwrap();
        for cut in [end, end + 5, file.len() - 1] {
            let mut reader = Reader::new(&file[..cut]).unwrap();
            let read: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
            assert_eq!(read, events()[..2]);
            assert!(reader.is_truncated());
        }
    }

    #[test]
    fn other_files_are_refused() {
        for other in ["", "hello\n", "{\"format\":\"pcap\"}\n"] {
            assert!(
                matches!(Reader::new(other.as_bytes()), Err(TraceError::NotARecord(_))),
                "{other:?}"
            );
        }
        for other in [VERSION - 1, VERSION + 1] {
            let line = format!("{{\"format\":\"peerdma-trace\",\"version\":{other}}}\n");
            let error = Reader::new(line.as_bytes()).unwrap_err();
            assert!(matches!(error, TraceError::Version(version) if version == other));
        }
        let mut file = record(&events());
        file.splice(file.len() - 1.., *b"}\n");
        assert!(Reader::new(&file[..]).unwrap().last().unwrap().is_err());
    }

    #[test]
    fn a_line_without_end_is_not_an_event_and_not_read_to_its_end() {
        use io::Read;
        let endless = || io::BufReader::new(io::repeat(b'x'));
        assert!(matches!(Reader::new(endless()), Err(TraceError::NotARecord(_))));
        let file = record(&events()[..1]);
        let mut reader = Reader::new(file.chain(endless())).unwrap();
        assert_eq!(reader.next().unwrap().unwrap(), events()[0]);
        let error = reader.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "line 3 is not an event: it is longer than 262144 bytes");
        assert!(!reader.is_truncated());
    }

    #[test]
    fn a_parser_s_words_are_few() {
        let mut file = record(&[]);
        file.extend(format!("{{\"event\":\"{}\"}}\n", "e".repeat(10_000)).bytes());
        let error = Reader::new(&file[..]).unwrap().next().unwrap().unwrap_err();
        assert!(error.to_string().len() < 300, "{error}");
    }
}
