//! From an entry of a topology to the device.

use device_models::endpoint::{Endpoint as Model, Kind, Setup, SetupError};
use device_models::pci::PcieKind;

use super::description::Endpoint;
use super::problem::{Item, Problem};

impl Endpoint {
    /// What the device is made from.
    pub(super) fn setup(&self, on_link: bool) -> Setup<'_> {
        Setup {
            attachment: if on_link {
                PcieKind::Endpoint
            } else {
                PcieKind::RootComplexIntegratedEndpoint
            },
            acs: self.acs.capabilities(),
            options: &self.options,
        }
    }

    /// Makes the device in the state after power-on; `on_link` says whether it hangs below a port.
    ///
    /// # Errors
    /// When there is no such kind, or the kind has no such options: a problem of `item`.
    pub fn make(&self, on_link: bool, item: Item) -> Result<Box<dyn Model>, Problem> {
        let setup = self.setup(on_link);
        Kind::find(&self.kind).and_then(|kind| (kind.make)(&setup)).map_err(|error| {
            let (key, option) = match &error {
                SetupError::Kind { .. } => ("kind", None),
                SetupError::Option { option, .. } => ("options", Some(option.as_str().into())),
                SetupError::Value { option, .. } => ("options", Some((*option).into())),
                SetupError::Other(_) => ("options", None),
            };
            Problem::new(item, key, error.to_string()).part(option)
        })
    }
}
