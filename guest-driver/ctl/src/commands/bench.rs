//! `bench`: copies, measured.

use super::work::{Route, moved, routes};
use crate::error::CtlError;
use crate::output::{Answer, bytes};
use crate::session::Session;
use guest_agent::device::{Object, Peer, WAIT_MS, Work};
use guest_agent::uapi;
use serde_json::json;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Pieces of work that are under way at a time.
const DEPTH: usize = 8;
/// The name of RAM as a target.
pub(super) const RAM: &str = "ram";

/// Objects that are given back with the measurement.
struct Held<'a>(&'a Peer, Object);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = self.0.close(self.1);
    }
}

pub(super) fn bench(
    session: &mut Session,
    device: &str,
    target: &str,
    size: u64,
    times: u32,
) -> Result<Answer, CtlError> {
    let client = session.device(device)?;
    let owner = if target == RAM { None } else { Some(session.device(target)?) };
    let function = session.peer(client)?.function();
    let (mut lines, mut results) = (Vec::new(), Vec::new());
    for to_target in [true, false] {
        let before = moved(session, &function);
        let took = measure(session, client, owner, size, times, to_target)?;
        let routes = routes(before, moved(session, &function));
        let total = size.saturating_mul(times.into());
        let per_second = rate(total, took);
        let each = took.as_micros() / u128::from(times.max(1));
        let word = if to_target { "to" } else { "from" };
        lines.push(format!(
            "{device} {word} {target}: {}, {each} us for each {} of {times}",
            per_second.1,
            bytes(size)
        ));
        let taken = routes.iter().filter(|route| route.bytes >= total / 2 && route.target != RAM);
        lines.extend(taken.map(|route| format!("  {}", Route::text(route))));
        results.push(json!({
            "direction": word,
            "bytes": total,
            "microseconds": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "bytes_per_second": per_second.0,
        }));
    }
    let json = json!({ "device": device, "target": target, "size": size, "times": times, "results": results });
    Ok(Answer::new(lines.join("\n"), json))
}

/// Bytes each second, and the same for people.
fn rate(total: u64, took: Duration) -> (u64, String) {
    let nanoseconds = took.as_nanos().max(1);
    let rate = u128::from(total) * 1_000_000_000 / nanoseconds;
    let rate = u64::try_from(rate).unwrap_or(u64::MAX);
    (rate, format!("{}.{} MB/s", rate / 1_000_000, rate % 1_000_000 / 100_000))
}

fn measure(
    session: &Session,
    client: u32,
    owner: Option<u32>,
    size: u64,
    times: u32,
    to_target: bool,
) -> Result<Duration, CtlError> {
    let client = session.peer(client)?;
    let own = Held(client, client.alloc(size, 1)?);
    // Kept as long as the import.
    let memory;
    let far = match owner {
        None => Held(client, client.system(size, 0, uapi::BIDIRECTIONAL)?),
        Some(owner) => {
            let owner = session.peer(owner)?;
            memory = Held(owner, owner.alloc(size, 1)?);
            let buffer = owner.export(memory.1)?;
            Held(client, client.import(&buffer, uapi::IMPORT_PEER2PEER)?)
        }
    };
    let work = || match to_target {
        true => Work::copy(own.1.at(0), far.1.at(0), size),
        false => Work::copy(far.1.at(0), own.1.at(0), size),
    };
    // What has never been written has no content, and the first use maps.
    done(client, client.run(Work::fill(own.1.at(0), size, 0))?)?;
    done(client, client.run(Work::fill(far.1.at(0), size, 0))?)?;
    let begun = Instant::now();
    let mut pending = VecDeque::new();
    for _ in 0..times {
        if pending.len() == DEPTH
            && let Some(cookie) = pending.pop_front()
        {
            done(client, client.wait(cookie, WAIT_MS)?)?;
        }
        pending.push_back(client.submit(work())?);
    }
    for cookie in pending {
        done(client, client.wait(cookie, WAIT_MS)?)?;
    }
    Ok(begun.elapsed())
}

fn done(client: &Peer, result: uapi::Wait) -> Result<(), CtlError> {
    match result.error {
        0 => Ok(()),
        error => Err(CtlError::refused(format!(
            "{}: a copy failed with error {error}, status {}, at DMA address {:#x}",
            client.name(),
            result.status,
            result.error_address
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_in_megabytes() {
        assert_eq!(rate(32 << 20, Duration::from_secs(1)), (32 << 20, "33.5 MB/s".into()));
        assert_eq!(rate(1, Duration::ZERO).0, 1_000_000_000);
        assert_eq!(rate(u64::MAX, Duration::from_nanos(1)).0, u64::MAX);
        assert_eq!(rate(0, Duration::from_secs(1)).1, "0.0 MB/s");
    }
}
