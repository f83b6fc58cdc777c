//! What is checked, and how a mistake is told.

mod class;
mod finding;

pub use class::{FindingClass, UnknownClass};
pub use finding::Finding;
