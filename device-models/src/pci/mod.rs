//! PCI Express functions as software sees them: configuration space, capabilities, base address
//! registers, MSI-X tables, and the firmware that assigns addresses at power-on.
//!
//! Register layouts are in `spec`, apart from behaviour; each capability has a file of its own.
//! Section numbers are those of the PCI Express Base Specification, revision 6.0.

mod address;
mod capability;
mod config;
mod description;
pub mod firmware;
mod msix_table;
mod spec;

pub use address::{Bdf, ParseBdfError};
pub(crate) use capability::acs::egress_names;
pub use capability::errors::{Abort, ErrorMessage, RequestKind, Side, UncorrectableError};
pub use capability::msi::{MsiMessage, MsiState};
pub use capability::power::PowerState;
pub use config::{
    BridgeBuses, ConfigEffects, ConfigSpace, DecodedBar, ResetKind, VendorRegister, Windows,
};
pub use description::{
    AcsCapabilities, AcsControl, BarDescription, BarKind, BridgeDescription, DescriptionError,
    FunctionDescription, HostBridgeDescription, Link, PcieKind, PortKind, ResizableBar,
    VendorCapability,
};
pub use msix_table::{MsixFunction, MsixTable, Raised};
pub(crate) use spec::CONFIG_SPACE_SIZE;

#[cfg(test)]
mod tests;
