//! Findings: their classes, causes and sentences.

mod cause;
mod class;
mod finding;
mod runs;
mod said;

pub use cause::{Cause, DMA_MAPPING_ERROR, failed_mapping};
pub use class::{FindingClass, UnknownClass};
pub use finding::{Finding, Severity};
pub(crate) use runs::{Kind as RunKind, Owner, Runs};
pub(crate) use said::{Said, State as SaidState};
