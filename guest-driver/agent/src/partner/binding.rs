//! A PCI function that another driver has for a while.

use super::PartnerError;
use crate::sys::patience::await_that;
use crate::sys::{self, pci::Function};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long files that come with a driver may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);

/// A function bound to another driver than its own. Its own gets it back when this is given back or dropped.
#[derive(Debug)]
pub struct Lent {
    /// The function.
    pub function: Function,
    /// The driver it has now.
    driver: &'static str,
    /// The driver it belongs to.
    own: Option<String>,
}

impl Lent {
    /// Takes `function` from its driver and gives it to `driver`, which need not know its IDs.
    ///
    /// # Errors
    /// When a driver does not let go or does not take it.
    pub fn new(function: Function, driver: &'static str) -> Result<Self, PartnerError> {
        let own = function.driver();
        let lent = Self { function, driver, own };
        lent.function.set_attribute("driver_override", driver)?;
        if let Some(own) = &lent.own {
            sys::write(of(own, "unbind"), &lent.function.name)?;
        }
        sys::write(of(driver, "bind"), &lent.function.name)?;
        match lent.function.driver().as_deref() {
            Some(found) if found == driver => Ok(lent),
            found => Err(PartnerError::Wrong(format!(
                "{} was given to {driver} and is bound to {found:?}",
                lent.function.name
            ))),
        }
    }

    /// Gives it back to its own driver and waits for `file`, which comes with it.
    ///
    /// # Errors
    /// When a driver does not let go or does not take it.
    pub fn give_back(mut self, file: &Path) -> Result<(), PartnerError> {
        self.restore()?;
        if await_that(PATIENCE, || -> Result<_, PartnerError> { Ok(file.exists()) })? {
            return Ok(());
        }
        Err(PartnerError::Wrong(format!("{} did not come back", file.display())))
    }

    fn restore(&mut self) -> Result<(), sys::FileError> {
        let Some(own) = self.own.take() else { return Ok(()) };
        // A line end alone takes the override away.
        self.function.set_attribute("driver_override", "\n")?;
        if self.function.driver().as_deref() == Some(self.driver) {
            sys::write(of(self.driver, "unbind"), &self.function.name)?;
        }
        sys::write(of(&own, "bind"), &self.function.name)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // On the way out of a test that has failed: the next test says so if the device is not there.
        let _ = self.restore();
    }
}

fn of(driver: &str, file: &str) -> PathBuf {
    Path::new("/sys/bus/pci/drivers").join(driver).join(file)
}
