//! The driver's user interface: `guest-driver/include/uapi/peerdma.h` as Rust sees it.
//!
//! The header is the truth and explains every field; here are the same names, in Rust's spelling. A test compiles the
//! header and compares sizes, offsets, call numbers and constants, so the two cannot drift apart unnoticed.

mod calls;
mod constants;
mod status;
mod structures;

pub use calls::*;
pub use constants::*;
pub use status::*;
pub use structures::*;

/// Where one field of a structure lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLayout {
    /// Its name in both languages.
    pub name: &'static str,
    /// Bytes from the start of the structure.
    pub offset: usize,
    /// Bytes it takes.
    pub size: usize,
}

/// What the drift test compares about one structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its name in the header, without `struct`.
    pub c_name: &'static str,
    /// Bytes it takes.
    pub size: usize,
    /// All fields, in order.
    pub fields: Vec<FieldLayout>,
}
