//! Binding a built-in driver anew: the witness knows all mappings of what is bound after it.

use crate::exit::{self, Failure};
use crate::sys::{self, pci::Function};
use std::path::Path;

/// Takes the function at `address`, `bb:dd.f`, from its driver and gives it back.
///
/// # Errors
/// When it has no driver, or the driver does not let go of it or does not take it.
pub(crate) fn rebind(address: &str) -> Result<(), Failure> {
    let failure = |reason: String| {
        Failure::new(exit::MODULE, format!("binding the driver of {address} anew failed: {reason}"))
    };
    let function = Function { name: format!("0000:{address}") };
    let Some(driver) = function.driver() else {
        let why = "it has no driver before modules are loaded, and what is loaded later the witness sees anyway";
        return Err(failure(why.into()));
    };
    let of = |file: &str| Path::new("/sys/bus/pci/drivers").join(&driver).join(file);
    for file in ["unbind", "bind"] {
        sys::write(of(file), &function.name).map_err(|error| failure(error.to_string()))?;
    }
    match function.driver() {
        Some(found) if found == driver => Ok(()),
        _ => Err(failure(format!("{driver} did not take it back"))),
    }
}
