//! By which way the data goes.

use super::{can_follow, cannot_follow, expected, mask_of, ways};
use crate::cases::bench::must;
use crate::cases::lane::{Engine, Lane};
use crate::cases::traffic::Traffic;
use crate::cases::{Bench, Verdict};
use crate::device::{Pattern, Peer};
use crate::lab::{Address, Expected, Way};

/// Bytes of the copies: several maximum payloads and read requests, and an odd end.
const LENGTH: u64 = (64 << 10) + 1027;

/// Copies between every two devices, by either's engine: all bytes went by the expected way, and none by the other.
pub(super) fn all(bench: &mut Bench<'_>) -> Verdict {
    let mut moved = false;
    let Expected { paths, direct_requests, direct_completions, .. } = expected(bench)?;
    for (a, b, way, _, address) in paths {
        if way == Way::None || address == Address::None {
            // That nothing moves where nothing may be shared is the other test's.
            continue;
        }
        if !can_follow(bench, way, address)? {
            return cannot_follow();
        }
        moved = true;
        for (from, to) in [(a, b), (b, a)] {
            let (from, to) = (Peer::open(from)?, Peer::open(to)?);
            for engine in [Engine::Source, Engine::Target] {
                let (requester, owner) = match engine {
                    Engine::Source => (&from, &to),
                    Engine::Target => (&to, &from),
                };
                let direct =
                    (mask_of(&direct_requests, requester), mask_of(&direct_completions, requester));
                let (ahead, back) = ways(owner, (way, address), direct);
                route(bench, &from, &to, engine, ahead, back)?;
            }
        }
    }
    if moved { Ok(()) } else { nothing_moved(bench) }
}

/// Where no two devices may share memory, not one byte has gone from device to device since the guest started.
fn nothing_moved(bench: &mut Bench<'_>) -> Verdict {
    for (a, b, ..) in expected(bench)?.paths {
        for instance in [a, b] {
            let function = Peer::open(instance)?.function();
            Traffic::now(bench, &function)?.expect_none_between_devices()?;
        }
    }
    Ok(())
}

/// One copy: requests with data go by `way`, completions with data by `back`.
fn route(
    bench: &mut Bench<'_>,
    from: &Peer,
    to: &Peer,
    engine: Engine,
    way: Way,
    back: Way,
) -> Verdict {
    let lane = Lane::new(from, to, engine, LENGTH.next_multiple_of(4096), 1)?;
    let length = usize::try_from(LENGTH)?;
    let pattern = Pattern::new(77);
    lane.from.view(lane.source)?.store(0..length, pattern);
    let traffic = Traffic::during(bench, &lane.engine.function(), |_| {
        must(lane.engine, lane.work(0, 0, LENGTH)).map(drop)
    })?;
    lane.to.view(lane.target)?.expect(0..length, pattern, 0)?;
    let (read, written) = match engine {
        // Posted data is followed by reading its last byte back.
        Engine::Source => (0..=64, LENGTH..=LENGTH),
        Engine::Target => (LENGTH..=LENGTH, 0..=0),
    };
    let what =
        format!("peer{} to peer{} by peer{}", from.instance, to.instance, lane.engine.instance);
    traffic.expect_read(back, read).map_err(|stop| stop.of(&what))?;
    traffic.expect_written(way, written).map_err(|stop| stop.of(&what))?;
    lane.close()
}
