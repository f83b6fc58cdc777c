//! Which scenarios a run of `peerdma test` has, and whether there is anything to run in them.

use peerdma_suite::cases;
use peerdma_suite::scenario::Scenario;
use peerdma_topology::assembly::SystemConfig;

use super::{Arguments, Failure, USER_SCENARIO};

/// The scenarios that were asked for, all parts of the run together.
pub(super) fn scenarios(arguments: &Arguments) -> Result<Vec<Scenario>, Failure> {
    let user = [USER_SCENARIO.to_owned()];
    let names = match (arguments.command.is_empty(), arguments.scenario.as_slice()) {
        (true, names) => names,
        (false, []) => &user,
        // A command runs in one kind of guest; whichever is named.
        (false, [name]) => std::slice::from_ref(name),
        (false, _) => {
            return Err(Failure::usage("a command runs in one guest: give one --scenario at most"));
        }
    };
    if !arguments.all {
        return Scenario::select(names).map_err(Failure::usage);
    }
    let all = Scenario::all().map_err(Failure::internal)?;
    let wanted =
        |scenario: &Scenario| !scenario.groups.is_empty() && (arguments.long || !scenario.long);
    Ok(all.into_iter().filter(wanted).collect())
}

/// The arguments with what a scenario file of the user's own brings: its command unless there is one on the command line,
/// its drivers and files before those of the command line.
pub(super) fn with_scenario_file(
    arguments: &Arguments,
    scenarios: &[Scenario],
) -> Result<Arguments, Failure> {
    let mut arguments = arguments.clone();
    if let Some(scenario) = scenarios.iter().find(|scenario| !scenario.command.is_empty()) {
        if scenarios.len() > 1 {
            return Err(Failure::usage(format_args!(
                "the scenario {:?} runs a command of its own: give no other scenario beside it",
                scenario.name
            )));
        }
        if arguments.command.is_empty() {
            arguments.command.clone_from(&scenario.command);
        }
        let wrong = |error| Failure::usage(format_args!("scenario {}: {error}", scenario.name));
        let guest = &mut arguments.guest;
        guest.module.splice(0..0, scenario.drivers.iter().cloned());
        guest.file.splice(0..0, scenario.own_files().map_err(wrong)?);
    }
    if arguments.command.is_empty() && !arguments.guest.expect.is_empty() {
        return Err(Failure::usage("--expect is for a command of your own")
            .hint("the lab's tests say themselves what they expect; --allow goes with both"));
    }
    Ok(arguments)
}

/// Refuses a scenario in which there is nothing to run.
pub(super) fn have_tests(arguments: &Arguments, scenarios: &[Scenario]) -> Result<(), Failure> {
    match scenarios.iter().find(|scenario| scenario.groups.is_empty()) {
        Some(scenario) if arguments.command.is_empty() => {
            let name = &scenario.name;
            Err(Failure::usage(format_args!("the scenario {name:?} has no tests of its own"))
                .hint(format_args!("give a command: peerdma test --scenario {name} -- CMD")))
        }
        _ => own_groups(scenarios),
    }
}

/// Refuses tests that there are not in a scenario file of the user's own, before anything is built or booted.
fn own_groups(scenarios: &[Scenario]) -> Result<(), Failure> {
    let known = Scenario::all().map_err(Failure::internal)?;
    let own = scenarios.iter().filter(|scenario| !known.contains(scenario));
    for scenario in own.filter(|scenario| !scenario.groups.is_empty()) {
        cases::of(scenario).map_err(Failure::usage)?;
    }
    Ok(())
}

/// Refuses a topology of the user's in which the scenario's tests would all fail for want of devices.
pub(super) fn have_peers(scenario: &Scenario, system: &SystemConfig) -> Result<(), Failure> {
    let (need, count) = (scenario.peers, system.topology.peers.len());
    if count >= need {
        return Ok(());
    }
    Err(Failure::usage(format_args!(
        "the tests of the scenario {:?} use {need} peer devices, the topology {:?} has {count}",
        scenario.name, scenario.topology
    ))
    .hint(format_args!(
        "add{}, or give a command of your own: peerdma test --topology FILE -- CMD",
        " --device peer".repeat(need - count)
    )))
}
