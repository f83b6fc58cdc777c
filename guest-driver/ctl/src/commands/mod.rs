//! What each command does.

mod bench;
mod list;
mod memory;
mod misuse;
mod pass;
mod registers;
mod share;
mod show;
mod transfer;
mod view;
mod work;

use crate::arguments::Command;
use crate::error::CtlError;
use crate::output::{Answer, Output};
use crate::session::Session;

/// Carries out one command, and prints what comes of it.
pub(crate) fn run(
    session: &mut Session,
    command: &Command,
    output: Output,
) -> Result<(), CtlError> {
    // It prints its steps as they happen.
    if let Command::Transfer { device, target, size } = command {
        return transfer::run(session, device, target, size.0, output);
    }
    let answer = answer(session, command)?;
    output.answer(&answer);
    Ok(())
}

fn answer(session: &mut Session, command: &Command) -> Result<Answer, CtlError> {
    match command {
        Command::List { all } => list::list(session, *all),
        Command::Alloc(alloc) => memory::alloc(session, alloc),
        Command::Close { object } => memory::close(session, object),
        Command::Move { object, side } => memory::relocate(session, object, *side),
        Command::Export { object, name } => share::export(session, object, name),
        Command::Import { device, buffer, importer, name } => {
            share::import(session, device, buffer, *importer, name)
        }
        Command::Map { object, direction } => share::map(session, object, *direction),
        Command::Unmap { object } => share::unmap(session, object),
        Command::Invalidate { object } => share::invalidate(session, object),
        Command::Show { object: Some(object) } => show::one(session, object),
        Command::Show { object: None } => show::all(session),
        Command::Copy { source, destination, work } => {
            work::copy(session, source, destination, work)
        }
        Command::Fill { destination, pattern, work } => {
            work::fill(session, destination, *pattern, work)
        }
        Command::Checksum { source, work } => work::checksum(session, source, work),
        Command::Compare { one, other, work } => work::compare(session, one, other, work),
        Command::Verify { object, pattern, length } => {
            view::verify(session, object, *pattern, length.map(|length| length.0))
        }
        Command::Dump { object, length } => view::dump(session, object, length.0),
        Command::Send { buffer, socket, timeout } => pass::send(session, buffer, socket, *timeout),
        Command::Receive { socket, name, timeout } => {
            pass::receive(session, socket, name, *timeout)
        }
        Command::Register { device, name, value } => {
            registers::register(session, device, name.as_deref(), *value)
        }
        Command::Doorbell { device, channel, tail } => {
            registers::doorbell(session, device, *channel, *tail)
        }
        Command::Bench { device, target, size, times } => {
            bench::bench(session, device, target, size.0, *times)
        }
        Command::Misuse { list: true, .. } | Command::Misuse { name: None, .. } => {
            Ok(misuse::list())
        }
        Command::Misuse { name: Some(name), .. } => misuse::make(session, name),
        Command::Transfer { .. } => Ok(Answer::new("", serde_json::Value::Null)),
    }
}
