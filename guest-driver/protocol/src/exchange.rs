//! Requests about files that go between host and guest while the guest runs: what is shared with it, and its results.
//!
//! A shared file is read in pieces, each by a request of its own that names the file: nothing on the host has to be
//! closed. The first piece comes with a [`Piece::stamp`]; the requests for the others quote it, and are refused when the
//! file is another one by then. A result is begun, written from its beginning to its end, and ended; only then is it
//! there under its name. The host may answer [`LATER`]: its disk is slow, and the same request will have its answer.
//!
//! Bytes travel as Base64 (RFC 4648, with padding): requests and answers are lines of text.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::RequestError;
use super::request::shorten;

/// What follows `ok` when the answer is not there yet: the same line will have it.
pub const LATER: &str = "later";
/// The stamp of a request for the first piece of a file.
pub const ANY_STAMP: &str = "-";
/// Behind a file's name, why a piece of it is refused: it is a folder.
pub const IS_A_FOLDER: &str = "is a folder";
/// Behind a file's name, why a piece of it is refused: it is not the one with that stamp any more.
pub const HAS_CHANGED: &str = "has changed";
/// The most bytes of a file that one answer holds: as Base64 in JSON they fit into [`super::wire::MAX_ANSWER`].
pub const MAX_PIECE: usize = 45 << 10;
/// The most bytes of a result that one request holds: as Base64 they fit into [`super::wire::MAX_REQUEST`].
pub const MAX_RESULT_PIECE: usize = 2880;
/// The longest name of a shared file, in bytes, with the folders in front.
pub const MAX_NAME: usize = 1024;
/// The longest part of a name between slashes, in bytes (NAME_MAX).
pub const MAX_PART: usize = 255;

/// One request about files. A name is the last of its words, and may hold spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRequest<'a> {
    /// What is shared: without a name all shares, otherwise what is in that folder. Answered by a [`Listing`] as JSON.
    List {
        /// Entries to leave out, those that were listed before.
        skip: u64,
        /// The folder; empty: the shares themselves.
        name: &'a str,
    },
    /// A piece of a shared file. Answered by a [`Piece`] as JSON.
    Read {
        /// Bytes in front of the piece.
        offset: u64,
        /// The stamp that came with the first piece; [`ANY_STAMP`] asks for that.
        stamp: &'a str,
        /// The file.
        name: &'a str,
    },
    /// A result begins. Answered by its number.
    Begin {
        /// Whether it is a program.
        executable: bool,
        /// Its name, without any folder.
        name: &'a str,
    },
    /// A piece of a result.
    Write {
        /// Its number.
        result: u32,
        /// Bytes in front of the piece.
        offset: u64,
        /// The piece in Base64.
        data: &'a str,
    },
    /// A result is whole. Answered by the path that it has on the host, as JSON.
    End {
        /// Its number.
        result: u32,
        /// Bytes in all.
        size: u64,
    },
}

/// What an entry of a share is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// Nothing that can be fetched: a link that leads out of the share or nowhere, a device, a pipe.
    Other,
}

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in the folder.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of a file; 0 otherwise.
    pub size: u64,
}

/// Some entries of a folder, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<Entry>,
    /// There are more than these.
    pub more: bool,
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Which content of the file this is: it changes when the file does.
    pub stamp: String,
    /// Bytes of the whole file.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// The piece in Base64: empty at the end of the file, at most [`MAX_PIECE`] bytes.
    pub data: String,
}

impl<'a> FileRequest<'a> {
    /// Reads what follows the word `share`.
    pub(super) fn share(text: &'a str) -> Result<Self, RequestError> {
        let wrong = || {
            let wanted = "list SKIP [NAME], or read OFFSET STAMP NAME";
            RequestError::Arguments("share", wanted, shorten(text))
        };
        let (word, rest) = split(text);
        match word {
            "list" => {
                let (skip, name) = split(rest);
                Ok(Self::List { skip: skip.parse().map_err(|_| wrong())?, name })
            }
            "read" => {
                let (offset, rest) = split(rest);
                let (stamp, name) = split(rest);
                let offset = offset.parse().map_err(|_| wrong())?;
                if stamp.is_empty() || name.is_empty() {
                    return Err(wrong());
                }
                Ok(Self::Read { offset, stamp, name })
            }
            _ => Err(wrong()),
        }
    }

    /// Reads what follows the word `result`.
    pub(super) fn result(text: &'a str) -> Result<Self, RequestError> {
        let wrong = || {
            let wanted = "begin file|program NAME, write NUMBER OFFSET BASE64, or end NUMBER SIZE";
            RequestError::Arguments("result", wanted, shorten(text))
        };
        let (word, rest) = split(text);
        let (first, rest) = split(rest);
        match word {
            "begin" if !rest.is_empty() && ["file", "program"].contains(&first) => {
                Ok(Self::Begin { executable: first == "program", name: rest })
            }
            "write" => {
                let (offset, data) = split(rest);
                match (first.parse(), offset.parse()) {
                    (Ok(result), Ok(offset)) if !data.is_empty() => {
                        Ok(Self::Write { result, offset, data })
                    }
                    _ => Err(wrong()),
                }
            }
            "end" => match (first.parse(), rest.parse()) {
                (Ok(result), Ok(size)) => Ok(Self::End { result, size }),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

/// A word and what follows it.
fn split(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

impl fmt::Display for FileRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List { skip, name: "" } => write!(f, "share list {skip}"),
            Self::List { skip, name } => write!(f, "share list {skip} {name}"),
            Self::Read { offset, stamp, name } => write!(f, "share read {offset} {stamp} {name}"),
            Self::Begin { executable, name } => {
                write!(f, "result begin {} {name}", if *executable { "program" } else { "file" })
            }
            Self::Write { result, offset, data } => {
                write!(f, "result write {result} {offset} {data}")
            }
            Self::End { result, size } => write!(f, "result end {result} {size}"),
        }
    }
}

/// Whether `name` can name something in a share: parts between single slashes, none of them empty, `.` or `..`, and no
/// control characters, which a line cannot carry.
///
/// # Errors
/// What is wrong with it, in words that follow the name.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.len() > MAX_NAME || name.split('/').any(|part| part.len() > MAX_PART) {
        return Err("is too long for a name");
    }
    if name.starts_with('/') {
        return Err("begins with a slash; names begin with that of a share");
    }
    if name.split('/').any(|part| part == ".." || part == ".") {
        return Err("holds `.` or `..`, which lead out of a share");
    }
    if name.is_empty() || name.split('/').any(str::is_empty) {
        return Err("is empty between two slashes, or ends with one");
    }
    if name.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, wire};

    #[test]
    fn what_is_written_is_read() {
        for (request, line) in [
            (FileRequest::List { skip: 0, name: "" }, "share list 0"),
            (FileRequest::List { skip: 7, name: "a b/c" }, "share list 7 a b/c"),
            (FileRequest::Read { offset: 9, stamp: "-", name: "a b" }, "share read 9 - a b"),
            (FileRequest::Begin { executable: true, name: "a b" }, "result begin program a b"),
            (FileRequest::Begin { executable: false, name: "a" }, "result begin file a"),
            (FileRequest::Write { result: 3, offset: 0, data: "QUI=" }, "result write 3 0 QUI="),
            (FileRequest::End { result: 3, size: 2 }, "result end 3 2"),
        ] {
            assert_eq!(Request::Files(request).to_string(), line);
            assert_eq!(Request::parse(line), Ok(Request::Files(request)));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "share",
            "share list",
            "share list x",
            "share list -1",
            "share read 0 -",
            "share read 0 - ",
            "share read x - a",
            "share write 0 - a",
            "result",
            "result begin a",
            "result begin file ",
            "result write 1 0",
            "result write 1 0 ",
            "result write 1 x QQ==",
            "result write 4294967296 0 QQ==",
            "result end 1",
            "result end 1 2 3",
        ] {
            assert!(matches!(Request::parse(line), Err(RequestError::Arguments(..))), "{line}");
        }
    }

    #[test]
    fn pieces_fit_into_lines() {
        let base64 = |bytes: usize| "A".repeat(bytes.div_ceil(3) * 4);
        let piece = Piece {
            stamp: "f".repeat(100),
            size: u64::MAX,
            executable: false,
            data: base64(MAX_PIECE),
        };
        let answer = format!("ok {}", serde_json::to_string(&piece).unwrap());
        assert!(answer.len() <= wire::MAX_ANSWER, "{}", answer.len());
        let data = &base64(MAX_RESULT_PIECE);
        let request = FileRequest::Write { result: u32::MAX, offset: u64::MAX, data }.to_string();
        assert!(request.len() <= wire::MAX_REQUEST, "{}", request.len());
        let name = &format!("{0}/{0}/{0}/{0}", "n".repeat(MAX_PART));
        check_name(name).unwrap();
        let stamp = &"f".repeat(100);
        let request = FileRequest::Read { offset: u64::MAX, stamp, name }.to_string();
        assert!(request.len() <= wire::MAX_REQUEST);
    }

    #[test]
    fn hostile_names_are_refused_and_plain_ones_are_not() {
        for name in ["a", "a.ko", "...", "a b/c", "..a/b..", "a/.b", "\u{e9}"] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
        for name in [
            "",
            "/",
            "/etc/shadow",
            "..",
            ".",
            "../a",
            "a/..",
            "a/../b",
            "a/./b",
            "a//b",
            "a/",
            "a\nb",
            "a\0b",
            "a\u{1b}[2J",
            &"a".repeat(256),
            &"a/".repeat(600),
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
