//! `copy`, `fill`, `checksum`, `compare`: work for a device's DMA engine, and the route that its bytes took.

use crate::arguments::WorkOptions;
use crate::error::CtlError;
use crate::operand::Operand;
use crate::output::{Answer, bytes};
use crate::session::Session;
use guest_agent::device::{self, Work, at_address};
use guest_agent::sys::pci::Function;
use guest_agent::uapi::{self, Location, Wait};
use guest_agent::vmm::{Counters, RAM, Traffic};
use serde_json::{Value, json};

/// Descriptors and completion records of one piece of work, in bytes: they go to RAM, too.
const OVERHEAD: u64 = 2048;

pub(super) fn copy(
    session: &mut Session,
    source: &Operand,
    destination: &Operand,
    options: &WorkOptions,
) -> Result<Answer, CtlError> {
    let job = Job::new(session, &[source, destination], options)?;
    let work = Work::copy(job.at(0), job.at(1), job.length);
    let done = job.run(session, work, options)?;
    let text = format!("{}: copied {}{}", job.name, bytes(job.length), done.routes_text());
    Ok(Answer::new(text, done.json(&job)))
}

pub(super) fn fill(
    session: &mut Session,
    destination: &Operand,
    pattern: u64,
    options: &WorkOptions,
) -> Result<Answer, CtlError> {
    let job = Job::new(session, &[destination], options)?;
    let done = job.run(session, Work::fill(job.at(0), job.length, pattern), options)?;
    let text = format!(
        "{}: filled {} with {pattern:#x}{}",
        job.name,
        bytes(job.length),
        done.routes_text()
    );
    Ok(Answer::new(text, done.json(&job)))
}

pub(super) fn checksum(
    session: &mut Session,
    source: &Operand,
    options: &WorkOptions,
) -> Result<Answer, CtlError> {
    let job = Job::new(session, &[source], options)?;
    let done = job.run(session, Work::checksum(job.at(0), job.length), options)?;
    let crc = done.result.result;
    let text =
        format!("{}: CRC-32C {crc:#010x} of {}{}", job.name, bytes(job.length), done.routes_text());
    let mut json = done.json(&job);
    json["crc32c"] = json!(format!("{crc:#010x}"));
    Ok(Answer::new(text, json))
}

pub(super) fn compare(
    session: &mut Session,
    one: &Operand,
    other: &Operand,
    options: &WorkOptions,
) -> Result<Answer, CtlError> {
    let job = Job::new(session, &[one, other], options)?;
    let done = job.run(session, Work::compare(job.at(0), job.at(1), job.length), options)?;
    let text = format!("{}: {} are the same{}", job.name, bytes(job.length), done.routes_text());
    Ok(Answer::new(text, done.json(&job)))
}

/// Work whose operands are known.
#[derive(Debug)]
struct Job {
    device: u32,
    name: String,
    function: Function,
    at: Vec<Location>,
    length: u64,
}

impl Job {
    fn new(
        session: &mut Session,
        operands: &[&Operand],
        options: &WorkOptions,
    ) -> Result<Self, CtlError> {
        let mut device = match &options.device {
            Some(name) => Some(session.device(name)?),
            None => None,
        };
        let (mut at, mut rooms) = (Vec::new(), Vec::new());
        for operand in operands {
            match operand {
                Operand::Address(address) => at.push(at_address(*address)),
                Operand::Object { name, offset } => {
                    let held = session.held(name)?;
                    let known = *device.get_or_insert(held.device);
                    if known != held.device {
                        return Err(other_device(name, held.device, known));
                    }
                    let room = held.object.size.checked_sub(*offset).filter(|room| *room > 0);
                    rooms.push(room.ok_or_else(|| {
                        CtlError::usage(format!(
                            "{name} has {} bytes, {offset} is past that",
                            held.object.size
                        ))
                    })?);
                    at.push(held.object.at(*offset));
                }
            }
        }
        let device = device.ok_or_else(|| {
            CtlError::usage("which device's engine? An address belongs to none: give --device")
        })?;
        let length = match (options.length, rooms.iter().min()) {
            (Some(length), _) => length.0,
            (None, Some(room)) => *room,
            (None, None) => return Err(CtlError::usage("how many bytes? Give --length")),
        };
        if let Some(room) = rooms.iter().min().filter(|room| length > **room) {
            return Err(CtlError::usage(format!(
                "{length} bytes leave an operand, which has {room} from there on"
            )));
        }
        let peer = session.peer(device)?;
        if options.channel >= peer.info.channels {
            return Err(CtlError::usage(format!("channel {} does not exist", options.channel))
                .hint(format!(
                    "{} has channels 0 to {}",
                    peer.name(),
                    peer.info.channels.saturating_sub(1)
                )));
        }
        Ok(Self { device, name: peer.name(), function: peer.function(), at, length })
    }

    /// An operand; there are as many as there were at the beginning.
    fn at(&self, index: usize) -> Location {
        self.at.get(index).copied().unwrap_or_default()
    }

    /// Runs it, and asks the VMM what it moved.
    fn run(
        &self,
        session: &mut Session,
        work: Work,
        options: &WorkOptions,
    ) -> Result<Done, CtlError> {
        let mut work = work.on(options.channel);
        if options.no_flush {
            work = work.with(uapi::SUBMIT_NO_FLUSH);
        }
        let before = moved(session, &self.function);
        let result = session.peer(self.device)?.run(work)?;
        let routes = routes(before, moved(session, &self.function));
        if result.error == 0 {
            return Ok(Done { result, routes });
        }
        Err(failed(&self.name, &result))
    }
}

fn other_device(name: &str, holder: u32, engine: u32) -> CtlError {
    let (holder, engine) = (device::name(holder), device::name(engine));
    CtlError::usage(format!("{name} is {holder}'s, and {engine}'s engine cannot name it")).hint(format!(
        "an engine works on memory of its own device, on that device's imports, and on DMA addresses: `export {name}`, then \
         `import {engine} BUFFER`"
    ))
}

/// What became of work that the device could not do.
fn failed(name: &str, result: &Wait) -> CtlError {
    let why = match Errno::of(result.error) {
        Some(Errno::Mismatch) => {
            return CtlError::refused(format!(
                "{name}: the first difference is at offset {:#x}",
                result.result
            ));
        }
        Some(Errno::TimedOut) => "the device never answered",
        Some(Errno::Canceled) => {
            "the work was cancelled: the device was reset, or its driver unbound"
        }
        Some(Errno::Protocol) => "the device's completion record belongs to nothing that was asked",
        None => match result.status {
            uapi::STATUS_UNSUPPORTED_REQUEST => "a read ended as an unsupported request",
            uapi::STATUS_COMPLETER_ABORT => "a read ended as a completer abort",
            uapi::STATUS_TIMEOUT => "a read was never answered",
            uapi::STATUS_BAD_DESCRIPTOR => "the device does not understand the descriptor",
            _ if result.halt == uapi::HALT_BUS_MASTER => "Bus Master Enable is clear",
            _ => "the device reports an error",
        },
    };
    let place = match result.error_address {
        0 => String::new(),
        address => format!(", at DMA address {address:#x}"),
    };
    CtlError::refused(format!("{name}: {why}{place}; {} bytes were done", result.bytes)).hint(
        "what the VMM found is on the host's terminal; `peerdma findings CLASS` there explains it",
    )
}

/// Errors of work that have a meaning of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errno {
    Mismatch,
    TimedOut,
    Canceled,
    Protocol,
}

impl Errno {
    /// Of the driver's `error`, a negative number.
    fn of(error: i32) -> Option<Self> {
        use rustix::io::Errno as Code;
        match Code::from_raw_os_error(error.saturating_neg()) {
            Code::ILSEQ => Some(Self::Mismatch),
            Code::TIMEDOUT => Some(Self::TimedOut),
            Code::CANCELED => Some(Self::Canceled),
            Code::PROTO => Some(Self::Protocol),
            _ => None,
        }
    }
}

/// Work that has ended well.
#[derive(Debug)]
struct Done {
    result: Wait,
    routes: Vec<Route>,
}

impl Done {
    fn routes_text(&self) -> String {
        let are_others = self.routes.iter().any(|route| route.target != RAM);
        let shown = self.routes.iter().filter(|route| {
            route.target != RAM || route.bytes > OVERHEAD || !are_others && route.bytes > 512
        });
        shown.map(|route| format!("\n  {}", route.text())).collect()
    }

    fn json(&self, job: &Job) -> Value {
        json!({
            "device": job.name,
            "bytes": self.result.bytes,
            "descriptors": self.result.descriptors,
            "interrupted": self.result.interrupted != 0,
            "routes": self.routes.iter().map(Route::json).collect::<Vec<_>>(),
        })
    }
}

/// Bytes that a function has moved, as the VMM has counted them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// RAM, or a device.
    pub(super) target: String,
    /// Written to it, otherwise read from it.
    pub(super) is_write: bool,
    pub(super) bytes: u64,
    /// The route between devices; none to RAM, and where there were several.
    pub(super) by: Option<&'static str>,
}

impl Route {
    pub(super) fn text(&self) -> String {
        let word = if self.is_write { "written to" } else { "read from" };
        let by = match self.by {
            Some("bus-address") => ", by bus address: straight through the switch",
            Some("through-host-bridge") => ", through the host bridge",
            Some(other) => return format!("{} bytes {word} {}, {other}", self.bytes, self.target),
            None if self.target == RAM => ", descriptors and completion records included",
            None => "",
        };
        format!("{} bytes {word} {}{by}", self.bytes, self.target)
    }

    fn json(&self) -> Value {
        json!({
            "target": self.target,
            "direction": if self.is_write { "write" } else { "read" },
            "bytes": self.bytes,
            "route": self.by,
        })
    }
}

/// What the VMM has counted for a function so far.
pub(super) type Moved = Option<(String, Traffic, Counters)>;

/// What `function` has moved so far; none without a VMM.
pub(super) fn moved(session: &mut Session, function: &Function) -> Moved {
    let address = function.address().to_owned();
    let vmm = session.vmm()?;
    // Posted writes are counted when they arrive.
    vmm.settle().ok()?;
    let moved = vmm.traffic(&address).ok()?;
    Some((address, moved.traffic, vmm.stat().ok()?))
}

/// What has come between two looks.
pub(super) fn routes(before: Moved, after: Moved) -> Vec<Route> {
    let (Some((function, old, old_stat)), Some((_, new, new_stat))) = (before, after) else {
        return Vec::new();
    };
    let mut routes = Vec::new();
    for (is_write, word, old, new) in
        [(true, "written", &old.written, &new.written), (false, "read", &old.read, &new.read)]
    {
        let by = |stat: &Counters, route: &str| {
            stat.counter(&format!("{word}/{function}/{route}")).unwrap_or(0)
        };
        let taken: Vec<_> = ["bus-address", "through-host-bridge"]
            .into_iter()
            .filter(|route| by(&new_stat, route) > by(&old_stat, route))
            .collect();
        for (target, bytes) in new {
            let bytes = bytes.saturating_sub(old.get(target).copied().unwrap_or(0));
            if bytes == 0 {
                continue;
            }
            let by = match taken.as_slice() {
                [one] if target != RAM => Some(*one),
                _ => None,
            };
            routes.push(Route { target: target.clone(), is_write, bytes, by });
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_has_moved_is_the_difference() {
        let map = |pairs: &[(&str, u64)]| {
            pairs
                .iter()
                .map(|(name, bytes)| ((*name).to_owned(), *bytes))
                .collect::<BTreeMap<_, _>>()
        };
        let moved = |peer: u64, ram: u64, host: u64| {
            let traffic = Traffic { written: map(&[("peer1", peer)]), read: map(&[("ram", ram)]) };
            let written =
                BTreeMap::from([("01:00.0".into(), map(&[("through-host-bridge", host)]))]);
            let stat = Counters { written, ..Counters::default() };
            Some(("01:00.0".to_owned(), traffic, stat))
        };
        let found = routes(moved(10, 5, 10), moved(110, 69, 110));
        let texts: Vec<_> = found.iter().map(Route::text).collect();
        assert_eq!(
            texts,
            [
                "100 bytes written to peer1, through the host bridge",
                "64 bytes read from ram, descriptors and completion records included"
            ]
        );
        assert_eq!(routes(moved(1, 1, 1), moved(1, 1, 1)), []);
        assert_eq!(routes(None, moved(1, 1, 1)), []);
    }

    #[test]
    fn a_failure_says_what_the_device_saw() {
        let wait = |error: rustix::io::Errno, status, address| Wait {
            error: -error.raw_os_error(),
            status,
            error_address: address,
            bytes: 7,
            result: 0x40,
            ..Wait::default()
        };
        use rustix::io::Errno as Code;
        for (result, part) in [
            (wait(Code::ILSEQ, 0, 0), "first difference is at offset 0x40"),
            (
                wait(Code::IO, uapi::STATUS_UNSUPPORTED_REQUEST, 0x1000),
                "unsupported request, at DMA address 0x1000; 7",
            ),
            (wait(Code::TIMEDOUT, 0, 0), "never answered; 7"),
        ] {
            let text = failed("peer0", &result).message;
            assert!(text.contains(part), "{text}");
        }
    }
}
