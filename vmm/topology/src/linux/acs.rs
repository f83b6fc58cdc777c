//! Which ACS controls Linux switches on (`pci_enable_acs()`).

use device_models::pci::AcsControl;

use super::parameters::{AcsParameters, Change};
use crate::plan::{Found, Plan};

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
    if let Some(found) = plan.functions[function].found {
        return found_controls(plan, function, found, parameters) & capabilities;
    }
    let mut controls = match request {
        true => firmware | standard & capabilities,
        false => firmware,
    };
    if let Some(change) = parameters.of(plan, function) {
        controls = changed(plan, change, controls, firmware);
    }
    controls & capabilities
}

/// What a parameter names is made of the firmware's setting, not of the kernel's: a function whose
/// redirection is switched off loses the other controls too.
fn changed(plan: &Plan, change: Change, default: AcsControl, firmware: AcsControl) -> AcsControl {
    let before = if plan.linux.disabling_keeps_the_rest() { default } else { firmware };
    before & !change.mask | change.flags & change.mask
}

/// The controls of a real machine's function: as they were found, but where the parameters say
/// something else of it than those with which they were found.
fn found_controls(
    plan: &Plan,
    function: usize,
    found: Found,
    parameters: &AcsParameters,
) -> AcsControl {
    let then = parameters.of(plan, function);
    if then == AcsParameters::read(&plan.found_with).of(plan, function) {
        return found.controls;
    }
    then.map_or(found.default, |change| changed(plan, change, found.default, found.firmware))
}

/// What a function showed with these controls on, under the parameters of the plan.
///
/// `request`: whether Linux wanted ACS, if that is known. `most`: of what cannot be known as many
/// controls as can be on, instead of none.
pub(crate) fn found(
    plan: &Plan,
    function: usize,
    controls: AcsControl,
    (request, most): (Option<bool>, bool),
) -> (AcsControl, AcsControl) {
    let Some(capabilities) = plan.functions[function].acs else { return (controls, controls) };
    let own = AcsParameters::read(&plan.found_with).of(plan, function);
    // Linux switched it on, or the firmware had done so before.
    let by_linux = match own {
        None => request != Some(false),
        Some(_) => request != Some(false) && plan.linux.disabling_keeps_the_rest(),
    };
    let doubtful = if by_linux { STANDARD } else { AcsControl::empty() };
    let mask = own.map_or(AcsControl::empty(), |change| change.mask);
    let mut firmware = controls - mask - doubtful;
    if most {
        firmware |= controls & doubtful | capabilities & mask;
    }
    let default = match own {
        None => controls,
        Some(_) if request.unwrap_or(most) => firmware | STANDARD & capabilities,
        Some(_) => firmware,
    };
    (default, firmware)
}
