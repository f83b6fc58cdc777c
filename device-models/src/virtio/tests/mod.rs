//! The functions in a system, driven through configuration space, registers and guest memory as a
//! guest's driver does.
#![allow(clippy::cast_possible_truncation, reason = "values of registers, whose widths are known")]

mod driver;
mod hostile;
mod iommu;
mod rng;
mod transport;
