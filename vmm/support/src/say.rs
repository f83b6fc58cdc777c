//! Lines on stderr. The standard library's macro ends the program when the reader is gone, as
//! behind `2>&1 | head -1`; these go on.

use std::fmt;
use std::io::{self, Write};

/// Writes a line to stderr if there is a reader.
pub fn line(text: fmt::Arguments<'_>) {
    // One write, so that lines of several threads stay whole.
    let text = format!("{text}\n");
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A line on stderr, as `eprintln!` without its panic.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        $crate::say::line(format_args!($($text)*))
    };
}
