//! Requests: what a guest asks, as lines of text.

use std::fmt;

use super::Address;
use super::exchange::FileRequest;

/// One request. Written by [`fmt::Display`], read by [`Request::parse`]; what one writes the other reads.
///
/// Classes of findings, functions and delays are words here: what they may be is the VMM's to say. A function is
/// `BUS:DEVICE.FUNCTION` in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// What is this guest for? Answered by a [`super::Hello`] as JSON.
    Hello,
    /// A line of a test report in KTAP.
    Ktap(&'a str),
    /// A test begins: what the checker finds from here on belongs to it.
    CaseBegin(&'a str),
    /// The running test expects findings.
    CaseExpect(Expectation<'a>),
    /// The running test is over. Answered `fail REASON` where the VMM sees a failure.
    CaseEnd(CaseEnd, &'a str),
    /// The user's command expects or allows findings, from its beginning to its end.
    Expect(Expectation<'a>),
    /// What the kernel decided about DMA by `client` into the memory of peer device `owner`.
    Path {
        /// Whose memory: the number N of `/dev/peerdmaN`.
        owner: u32,
        /// The device that does DMA: the number of a peer device, or a function.
        client: &'a str,
        /// What `pci_p2pdma_distance()` returned; negative: no way.
        distance: i32,
        /// The DMA address that the client got, and its kind; none where it got none.
        address: Option<(Address, u64)>,
    },
    /// The machine's counters. Answered by [`super::Counters`] as JSON.
    Stat,
    /// What a function has moved. Answered by [`super::FunctionTraffic`] as JSON.
    Traffic(&'a str),
    /// Keep posted writes of a requester to a target under way.
    Delay {
        /// The function that issues them.
        requester: &'a str,
        /// A function, or [`super::RAM`].
        target: &'a str,
        /// `off`, `pushed`, or a number of turns.
        delay: &'a str,
    },
    /// Software has seen a fence that stands for work of this function.
    Fence(&'a str),
    /// Answered once the devices have nothing left to do.
    Settle,
    /// Pull everything below this port out of its slot, without notice.
    Unplug(&'a str),
    /// Plug it in again.
    Plug(&'a str),
    /// A shared file, or a result.
    Files(FileRequest<'a>),
    /// The user's command begins: from here on an exit code is its status.
    Started,
    /// End the guest. Not answered.
    Exit {
        /// The exit code.
        code: i32,
        /// Why the agent gives up; empty where the code comes from a program.
        reason: &'a str,
    },
}

/// How the agent thinks that a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseEnd {
    /// It passed.
    Ok,
    /// It failed.
    Fail,
    /// It was not run, or not to its end.
    Skip,
}

impl CaseEnd {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// How many findings of which kind: `CLASS[:FUNCTION] [MIN [MAX]]`. Without MIN one is enough, without MAX any number is
/// fine; a MIN of 0 allows findings without demanding one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation<'a> {
    /// A class of findings, `iommu.stale`.
    pub class: &'a str,
    /// Only those about this function, by its name in the topology or `BUS:DEVICE.FUNCTION`.
    pub function: Option<&'a str>,
    /// The minimum.
    pub min: u64,
    /// The maximum.
    pub max: u64,
}

impl<'a> Expectation<'a> {
    /// At least one finding of a class, by whatever function.
    pub fn some(class: &'a str) -> Self {
        Self { class, function: None, min: 1, max: u64::MAX }
    }

    /// Reads `CLASS[:FUNCTION] [MIN [MAX]]`.
    ///
    /// # Errors
    /// When words are missing, too many, or not numbers, or when MAX is below MIN.
    pub fn parse(text: &'a str) -> Result<Self, RequestError> {
        let mut words = text.split_whitespace();
        let what = words.next().unwrap_or_default();
        let number = |word: &str| {
            word.parse::<u64>().map_err(|_| RequestError::NotANumberOfFindings(shorten(word)))
        };
        let min = words.next().map_or(Ok(1), number)?;
        let max = words.next().map_or(Ok(u64::MAX), number)?;
        let (class, function) = match what.split_once(':') {
            Some((class, function)) => (class, Some(function)),
            None => (what, None),
        };
        if max < min {
            return Err(RequestError::Range(shorten(text)));
        }
        if class.is_empty() || function == Some("") || words.next().is_some() {
            return Err(RequestError::Expectation(shorten(text)));
        }
        Ok(Self { class, function, min, max })
    }
}

impl fmt::Display for Expectation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class)?;
        if let Some(function) = self.function {
            write!(f, ":{function}")?;
        }
        match (self.min, self.max) {
            (1, u64::MAX) => Ok(()),
            (min, u64::MAX) => write!(f, " {min}"),
            (min, max) => write!(f, " {min} {max}"),
        }
    }
}

/// Why a line is not a request. Quotes at most [`MAX_QUOTE`] bytes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The first word is unknown.
    Unknown(String),
    /// What follows the word does not fit it: the word, what is wanted behind it, what was there.
    Arguments(&'static str, &'static str, String),
    /// A word of an expectation should be a number.
    NotANumberOfFindings(String),
    /// An expectation lacks words or has too many.
    Expectation(String),
    /// Its least number is above its greatest.
    Range(String),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(
                f,
                "{word:?} is not a request; these are: hello, ktap, case, expect, path, stat, traffic, delay, fence, \
                 settle, unplug, plug, share, result, started, exit"
            ),
            Self::Arguments(word, wanted, found) => {
                write!(f, "{word} wants {wanted}, not {found:?}")
            }
            Self::NotANumberOfFindings(word) => write!(f, "{word:?} is not a number of findings"),
            Self::Range(text) => write!(f, "{text:?}: MIN is above MAX"),
            Self::Expectation(text) => {
                write!(f, "an expectation is CLASS[:FUNCTION] [MIN [MAX]], not {text:?}")
            }
        }
    }
}

impl std::error::Error for RequestError {}

/// Longest part of a line that an error quotes, in bytes.
pub const MAX_QUOTE: usize = 200;

/// At most [`MAX_QUOTE`] bytes of `text`.
pub(super) fn shorten(text: &str) -> String {
    let mut end = text.len().min(MAX_QUOTE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The one word of `text` behind the request `request`.
fn function<'a>(request: &'static str, text: &'a str) -> Result<&'a str, RequestError> {
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (Some(function), None) => Ok(function),
        _ => Err(RequestError::Arguments(
            request,
            "BUS:DEVICE.FUNCTION in hexadecimal",
            shorten(text),
        )),
    }
}

impl<'a> Request<'a> {
    /// Reads a line without its line feed.
    ///
    /// # Errors
    /// When it is not a request; what the words in it mean is not looked at.
    pub fn parse(line: &'a str) -> Result<Self, RequestError> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "hello" => Ok(Self::Hello),
            "ktap" => Ok(Self::Ktap(rest)),
            "case" => Self::case(rest.trim()),
            "expect" => Expectation::parse(rest).map(Self::Expect),
            "path" => Self::path(rest),
            "stat" => Ok(Self::Stat),
            "traffic" => function("traffic", rest).map(Self::Traffic),
            "delay" => Self::delay(rest),
            "fence" => function("fence", rest).map(Self::Fence),
            "settle" => Ok(Self::Settle),
            "unplug" => function("unplug", rest).map(Self::Unplug),
            "plug" => function("plug", rest).map(Self::Plug),
            "share" => FileRequest::share(rest).map(Self::Files),
            "result" => FileRequest::result(rest).map(Self::Files),
            "started" => Ok(Self::Started),
            "exit" => Self::exit(rest.trim()),
            _ => Err(RequestError::Unknown(shorten(word))),
        }
    }

    fn case(text: &'a str) -> Result<Self, RequestError> {
        let wrong = |wanted| Err(RequestError::Arguments("case", wanted, shorten(text)));
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match (word, rest.trim()) {
            ("begin", "") => wrong("a name behind begin"),
            ("begin", name) => Ok(Self::CaseBegin(name)),
            ("expect", rest) => Expectation::parse(rest).map(Self::CaseExpect),
            ("end", rest) => {
                let (word, detail) = rest.split_once(' ').unwrap_or((rest, ""));
                let ends = [CaseEnd::Ok, CaseEnd::Fail, CaseEnd::Skip];
                match ends.into_iter().find(|end| end.word() == word) {
                    Some(end) => Ok(Self::CaseEnd(end, detail)),
                    None => wrong("ok, fail or skip behind end"),
                }
            }
            _ => wrong("begin, expect or end"),
        }
    }

    fn path(text: &'a str) -> Result<Self, RequestError> {
        let parse = || {
            let mut words = text.split_whitespace();
            let owner = words.next()?.parse().ok()?;
            let client = words.next()?;
            let distance = words.next()?.parse().ok()?;
            let address = match words.next() {
                None => None,
                Some(kind) => {
                    let digits = words.next()?;
                    let digits = digits.strip_prefix("0x").unwrap_or(digits);
                    Some((Address::from_word(kind)?, u64::from_str_radix(digits, 16).ok()?))
                }
            };
            words.next().is_none().then_some(Self::Path { owner, client, distance, address })
        };
        parse().ok_or_else(|| {
            let wanted = "OWNER CLIENT DISTANCE [bus|phys|iova ADDRESS]";
            RequestError::Arguments("path", wanted, shorten(text))
        })
    }

    fn delay(text: &'a str) -> Result<Self, RequestError> {
        let mut words = text.split_whitespace();
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(requester), Some(target), Some(delay), None) => {
                Ok(Self::Delay { requester, target, delay })
            }
            _ => Err(RequestError::Arguments(
                "delay",
                "REQUESTER TARGET|ram off|pushed|TURNS",
                shorten(text),
            )),
        }
    }

    fn exit(text: &'a str) -> Result<Self, RequestError> {
        let (code, reason) = text.split_once(' ').unwrap_or((text, ""));
        match code.parse() {
            Ok(code) => Ok(Self::Exit { code, reason }),
            Err(_) => Err(RequestError::Arguments("exit", "CODE [REASON]", shorten(text))),
        }
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = |text: &str| match text {
            "" => String::new(),
            text => format!(" {text}"),
        };
        match self {
            Self::Hello => f.write_str("hello"),
            Self::Ktap(line) => write!(f, "ktap {line}"),
            Self::CaseBegin(name) => write!(f, "case begin {name}"),
            Self::CaseExpect(expectation) => write!(f, "case expect {expectation}"),
            Self::CaseEnd(end, detail) => write!(f, "case end {}{}", end.word(), more(detail)),
            Self::Expect(expectation) => write!(f, "expect {expectation}"),
            Self::Path { owner, client, distance, address } => {
                write!(f, "path {owner} {client} {distance}")?;
                match address.and_then(|(kind, value)| Some((kind.word()?, value))) {
                    Some((kind, value)) => write!(f, " {kind} {value:#x}"),
                    None => Ok(()),
                }
            }
            Self::Stat => f.write_str("stat"),
            Self::Traffic(function) => write!(f, "traffic {function}"),
            Self::Delay { requester, target, delay } => {
                write!(f, "delay {requester} {target} {delay}")
            }
            Self::Fence(function) => write!(f, "fence {function}"),
            Self::Settle => f.write_str("settle"),
            Self::Unplug(port) => write!(f, "unplug {port}"),
            Self::Plug(port) => write!(f, "plug {port}"),
            Self::Files(request) => write!(f, "{request}"),
            Self::Started => f.write_str("started"),
            Self::Exit { code, reason } => write!(f, "exit {code}{}", more(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let stale = Expectation::some("iommu.stale");
        let delay = Request::Delay { requester: "02:00.0", target: "ram", delay: "40" };
        let path = |address| Request::Path { owner: 1, client: "05:00.0", distance: -1, address };
        for (request, line) in [
            (Request::Hello, "hello"),
            (Request::Ktap("  ok 1 a"), "ktap   ok 1 a"),
            (Request::CaseBegin("a b"), "case begin a b"),
            (Request::CaseExpect(stale), "case expect iommu.stale"),
            (
                Request::CaseExpect(Expectation { min: 0, max: 3, ..stale }),
                "case expect iommu.stale 0 3",
            ),
            (
                Request::Expect(Expectation { min: 0, function: Some("02:00.0"), ..stale }),
                "expect iommu.stale:02:00.0 0",
            ),
            (Request::CaseEnd(CaseEnd::Ok, ""), "case end ok"),
            (Request::CaseEnd(CaseEnd::Skip, "too busy"), "case end skip too busy"),
            (path(None), "path 1 05:00.0 -1"),
            (path(Some((Address::Iova, 0xfffe_0000))), "path 1 05:00.0 -1 iova 0xfffe0000"),
            (Request::Stat, "stat"),
            (Request::Traffic("01:00.0"), "traffic 01:00.0"),
            (delay, "delay 02:00.0 ram 40"),
            (Request::Fence("01:00.0"), "fence 01:00.0"),
            (Request::Settle, "settle"),
            (Request::Unplug("00:04.0"), "unplug 00:04.0"),
            (Request::Plug("00:04.0"), "plug 00:04.0"),
            (Request::Started, "started"),
            (Request::Exit { code: 3, reason: "" }, "exit 3"),
            (Request::Exit { code: 123, reason: "no module" }, "exit 123 no module"),
        ] {
            assert_eq!(request.to_string(), line);
            assert_eq!(Request::parse(line), Ok(request));
        }
    }

    #[test]
    fn what_is_not_a_request_is_refused_in_bounded_words() {
        let huge = "x".repeat(100_000);
        for line in [
            "",
            "dance",
            "case",
            "case begin",
            "case begin ",
            "case end",
            "case end maybe",
            "case expect",
            "case expect a x",
            "case expect a 3 2",
            "case expect a 1 2 3",
            "case expect a -1",
            "expect a: 1",
            "expect :f",
            "path 0 1",
            "path 0 1 2 iova",
            "path 0 1 2 nowhere 0x1",
            "path 0 1 2 iova 0x1 1",
            "path 0 1 2 iova 0xg",
            "path -1 0 2",
            "traffic",
            "traffic a b",
            "delay a b",
            "delay a b c d",
            "exit",
            "exit x",
            "unplug",
            "fence ",
            huge.as_str(),
        ] {
            let error = Request::parse(line).unwrap_err().to_string();
            assert!(error.len() < 3 * MAX_QUOTE, "{error}");
        }
        let cut = shorten(&format!("{}é", "x".repeat(MAX_QUOTE - 1)));
        assert_eq!(cut.len(), MAX_QUOTE - 1);
    }
}
