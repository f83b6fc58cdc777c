//! `peerdma explain --machine FILE`.

use std::path::Path;

use peerdma_capture::{Kind, Machine};
use peerdma_support::say;
use peerdma_topology::linux::Version;
use peerdma_topology::machine::RealMachine;

use super::{Arguments, json};
use crate::values::{Only, TableFormat};
use crate::{Exit, Failure, machine, output};

pub(super) fn run(arguments: &Arguments, file: &Path) -> Result<u8, Failure> {
    let machine = machine::load(file)?;
    let release = arguments.linux.as_deref().or(machine.kernel.release.as_deref());
    let version = match (&arguments.linux, super::version(release)) {
        (_, Ok(version)) => version,
        (Some(_), Err(error)) => return Err(error),
        (None, Err(_)) => {
            let (release, version) = (release.unwrap_or_default(), Version::default());
            say!(
                "warning: the rules of the record's kernel {release} are not known; those of {version} are taken"
            );
            version
        }
    };
    let real = RealMachine::by_rules_of(version, &machine);
    if arguments.all {
        return table(arguments, &real);
    }
    let (a, b) = arguments.pair();
    let find = |name: &str| {
        real.find(name).map_err(|error| {
            Failure::usage(error)
                .hint(format_args!("`peerdma machine show {}` lists what there is", file.display()))
        })
    };
    let (a, b) = (find(a)?, find(b)?);
    if a == b {
        return Err(Failure::usage(format_args!("both are {}: name two functions", real.name(a))));
    }
    for end in [a, b] {
        if !real.endpoints().contains(&end) {
            let what = format_args!("{} is a bridge: name two devices", real.name(end));
            return Err(Failure::usage(what));
        }
    }
    let text = if arguments.json { json(&real.pair_report(a, b))? } else { real.pair_text(a, b) };
    output::print(&text)?;
    Ok(Exit::Success as u8)
}

fn table(arguments: &Arguments, real: &RealMachine<'_>) -> Result<u8, Failure> {
    let devices = chosen(&arguments.only, real);
    if devices.len() < 2 {
        return Err(Failure::usage("the machine has fewer than two such devices").hint(
            "--only all takes everything that is not a bridge; `peerdma machine show FILE` lists it",
        ));
    }
    let matrix = real.matrix(devices);
    let text = match arguments.format {
        _ if arguments.json => json(&matrix.report())?,
        TableFormat::Text => matrix.to_text(),
        TableFormat::Html => matrix.to_html(),
        TableFormat::Svg => matrix.to_svg(),
    };
    output::print(&text)?;
    for note in &real.machine().notes {
        say!("note: {}", note.text);
    }
    Ok(Exit::Success as u8)
}

fn chosen(only: &[Only], real: &RealMachine<'_>) -> Vec<usize> {
    if only.contains(&Only::All) {
        return real.endpoints();
    }
    let machine: &Machine = real.machine();
    let wanted = |index: &usize| {
        let function = &machine.functions[*index];
        only.iter().any(|only| match only {
            Only::Gpu => function.kind() == Some(Kind::Gpu),
            Only::Nic => function.kind() == Some(Kind::Nic),
            Only::Nvme => function.kind() == Some(Kind::Nvme),
            Only::P2pmem => function.p2p_memory.is_some(),
            Only::All => true,
        })
    };
    let devices = real.devices();
    if only.is_empty() { devices } else { devices.into_iter().filter(wanted).collect() }
}
