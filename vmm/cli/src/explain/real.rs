//! `peerdma explain --machine FILE`.

use std::path::Path;

use peerdma_capture::{Kind, Machine};
use peerdma_support::say;
use peerdma_topology::linux::Version;
use peerdma_topology::machine::RealMachine;

use super::{Arguments, json};
use crate::values::{Only, TableFormat};
use crate::{Exit, Failure, machine, output};

pub(super) fn run(arguments: &Arguments, file: &Path, format: TableFormat) -> Result<u8, Failure> {
    let machine = machine::load(file)?;
    let release = arguments.linux.as_deref().or(machine.kernel.release.as_deref());
    let (version, warning) = match (&arguments.linux, super::version(release)) {
        (_, Ok(found)) => found,
        (Some(_), Err(error)) => return Err(error),
        (None, Err(_)) => {
            let (release, version) = (release.unwrap_or_default(), Version::default());
            let warning = format!(
                "the rules of the record's kernel {release} are not known; those of {version} are \
                 taken"
            );
            (version, Some(warning))
        }
    };
    let mut real = RealMachine::by_rules_of(version, &machine);
    if let Some(warning) = warning {
        real = real.warned(warning);
    }
    let real = real.booted_with(arguments.kernel.words());
    for warning in real.warnings() {
        say!("warning: {warning}");
    }
    if arguments.all {
        return table(arguments, &real, format);
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
    let text = match format {
        TableFormat::Json => json(&real.pair_report(a, b))?,
        _ => real.pair_text(a, b),
    };
    output::print(&text)?;
    Ok(Exit::Success as u8)
}

fn table(
    arguments: &Arguments,
    real: &RealMachine<'_>,
    format: TableFormat,
) -> Result<u8, Failure> {
    let devices = chosen(&arguments.only, real);
    if devices.len() < 2 {
        return Err(too_few(&arguments.only, real, &devices));
    }
    let matrix = real.matrix(devices);
    let text = match format {
        TableFormat::Json => json(&matrix.report())?,
        TableFormat::Text => matrix.to_text(),
        TableFormat::Html => matrix.to_html(),
        TableFormat::Svg => matrix.to_svg(),
    };
    output::print(&text)?;
    for note in &real.machine().notes {
        say!("note: {}", machine::sentence(note));
    }
    Ok(Exit::Success as u8)
}

/// A table has two devices at least: which were asked for, and what there is.
fn too_few(only: &[Only], real: &RealMachine<'_>, found: &[usize]) -> Failure {
    let machine: &Machine = real.machine();
    let asked = match only {
        [] => "GPUs, network and NVMe controllers, and whatever offers p2p memory".to_owned(),
        only => only.iter().map(|only| only.name()).collect::<Vec<_>>().join(", "),
    };
    let one = match found {
        [] => "none".to_owned(),
        all => all.iter().map(|at| real.name(*at)).collect::<Vec<_>>().join(", "),
    };
    let count = |kind: Kind| {
        machine.functions.iter().filter(|function| function.kind() == Some(kind)).count()
    };
    let kinds = Kind::ALL.map(|kind| format!("{} {}", count(kind), kind.name())).join(", ");
    let unknown = machine.functions.iter().filter(|function| function.class.is_none()).count();
    let unknown = match unknown {
        0 => String::new(),
        some => format!(", {some} of a kind that the file does not say"),
    };
    let others = real.endpoints().len();
    Failure::usage(format_args!(
        "a table needs two devices; asked for {asked}, found {one}. The file has {} functions: \
         {kinds}{unknown}",
        machine.functions.len()
    ))
    .hint(match others {
        0 | 1 => "there are no two devices in it".to_owned(),
        some => format!("--only all takes everything that is not a bridge, {some} here"),
    })
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
