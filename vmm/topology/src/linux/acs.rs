//! Which ACS controls Linux switches on (`pci_enable_acs()`).

use device_models::pci::AcsControl;

use super::parameters::AcsParameters;
use crate::plan::Plan;

/// What `pci_std_enable_acs()` switches on where it exists.
pub(super) const STANDARD: AcsControl = AcsControl::SOURCE_VALIDATION
    .union(AcsControl::P2P_REQUEST_REDIRECT)
    .union(AcsControl::P2P_COMPLETION_REDIRECT)
    .union(AcsControl::UPSTREAM_FORWARDING);

/// The controls of a function after boot. `request`: an IOMMU was announced, which makes Linux want ACS
/// (`pci_request_acs()`).
pub(super) fn controls(
    plan: &Plan,
    function: usize,
    request: bool,
    parameters: &AcsParameters,
) -> AcsControl {
    // Our firmware leaves all controls off.
    let firmware = AcsControl::empty();
    let Some(capabilities) = plan.functions[function].acs else { return firmware };
    let mut standard = STANDARD;
    standard.set(AcsControl::TRANSLATION_BLOCKING, parameters.no_translation_services);
    let mut controls = match plan.functions[function].acs_found {
        Some(found) => found,
        None if request => firmware | standard & capabilities,
        None => firmware,
    };
    // What a parameter names is made of the firmware's setting, not of the kernel's: a function whose redirection is
    // switched off loses the other controls too.
    if let Some(change) = parameters.of(plan, function) {
        let before = if plan.linux.disabling_keeps_the_rest() { controls } else { firmware };
        controls = before & !change.mask | change.flags & change.mask;
    }
    controls & capabilities
}
