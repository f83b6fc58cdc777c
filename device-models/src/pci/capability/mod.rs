//! The capabilities, one file each: how it is laid out in a configuration space, what its
//! registers mean, and what the function does with them.

pub(super) mod acs;
pub(super) mod aer;
pub(super) mod errors;
pub(super) mod link;
pub(super) mod msi;
pub(super) mod msix;
pub(super) mod pcie;
pub(super) mod power;
pub(super) mod resizable_bar;
pub(super) mod root_errors;
mod services;
mod slot;
pub(super) mod small;

pub(super) use services::Services;
