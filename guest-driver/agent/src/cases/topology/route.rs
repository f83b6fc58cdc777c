//! The route that data takes.

use super::{PairResult, can_follow, cannot_follow, expected, peers};
use crate::cases::bench::must;
use crate::cases::faults::{IOMMU_FAULT, PORT_ERROR};
use crate::cases::lane::{Engine, Lane};
use crate::cases::traffic::Traffic;
use crate::cases::{Bench, Verdict, ensure};
use crate::device::{Pattern, Peer};
use crate::vmm::{Path, PathKind};
use std::collections::BTreeMap;

/// Bytes of the copies: several maximum payloads and read requests, and an odd end.
const LENGTH: u64 = (64 << 10) + 1027;
/// Of reads that are lost: more than one payload, within a page.
const SHORT: u64 = 600;

/// Copies between every two devices, by either's engine: all bytes went by the expected way, and none by the other. Where
/// the kernel gives an address by which nothing arrives, nothing does, and the checker says why.
pub(super) fn all(bench: &mut Bench<'_>) -> Verdict {
    let all = expected(bench)?.paths;
    for (.., path) in &all {
        if PairResult::of(path) != PairResult::NoAddress && !can_follow(bench, path)? {
            return cannot_follow();
        }
    }
    expect_losses(bench, &all)?;
    let mut moved = false;
    for (client, owner, path) in &all {
        let (client, owner) = (Peer::open(*client)?, Peer::open(*owner)?);
        match PairResult::of(path) {
            // That nothing moves where nothing may be shared is the other test's.
            PairResult::NoAddress => {}
            PairResult::Moves { ahead, back } => {
                // As a writer of its own data, and as a reader of the other's.
                route(bench, &client, &owner, Engine::Source, ahead, back)?;
                route(bench, &owner, &client, Engine::Target, ahead, back)?;
                moved = true;
            }
            PairResult::Lost(class) => {
                lost(bench, &client, &owner)?;
                moved = true;
                let (client, owner) = (client.name(), owner.name());
                bench.note(format!("{client} -> {owner}: nothing arrives, {class}"));
            }
            PairResult::Untried(why) => {
                moved = true;
                let (client, owner) = (client.name(), owner.name());
                bench.note(format!("{client} -> {owner}: not tried: {why}"));
            }
        }
    }
    if moved { Ok(()) } else { nothing_moved(bench) }
}

/// One finding for each path on which the kernel sends requests into nowhere.
fn expect_losses(bench: &mut Bench<'_>, all: &[(u32, u32, Path)]) -> Verdict {
    let mut losses = BTreeMap::<String, u32>::new();
    for (.., path) in all {
        if let PairResult::Lost(class) = PairResult::of(path) {
            *losses.entry(class).or_default() += 1;
        }
    }
    expect_refusals(bench, &losses)
}

/// The number of findings of each class, from reads.
pub(super) fn expect_refusals(bench: &mut Bench<'_>, classes: &BTreeMap<String, u32>) -> Verdict {
    if classes.is_empty() {
        return Ok(());
    }
    bench.expect_messages(IOMMU_FAULT);
    bench.expect_messages(PORT_ERROR);
    classes.iter().try_for_each(|(class, count)| bench.expect(class, *count, Some(*count)))
}

/// Where no two devices may share memory, not one byte has gone from device to device since the guest started.
fn nothing_moved(bench: &mut Bench<'_>) -> Verdict {
    for peer in peers(bench)? {
        Traffic::now(bench, &peer.function())?.expect_none_between_devices()?;
    }
    Ok(())
}

/// One copy: requests with data go by `way`, completions with data by `back`.
fn route(
    bench: &mut Bench<'_>,
    from: &Peer,
    to: &Peer,
    engine: Engine,
    way: PathKind,
    back: PathKind,
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
    let what = format!("{} to {} by {}", from.name(), to.name(), lane.engine.name());
    traffic.expect_read(back, read).map_err(|stop| stop.of(&what))?;
    traffic.expect_written(way, written).map_err(|stop| stop.of(&what))?;
    lane.close()
}

/// One read by `client` out of `owner`'s memory that gets nothing.
fn lost(bench: &mut Bench<'_>, client: &Peer, owner: &Peer) -> Verdict {
    let lane = Lane::new(owner, client, Engine::Target, 4096, 1)?;
    let (new, old) = (Pattern::new(78), Pattern::new(79));
    lane.from.view(lane.source)?.store(0..4096, new);
    lane.to.view(lane.target)?.store(0..4096, old);
    let what = format!("{} out of {}", client.name(), owner.name());
    let traffic = Traffic::during(bench, &client.function(), |_| {
        let result = client.run(lane.work(0, 0, SHORT))?;
        ensure!(result.error != 0 && result.bytes == 0, "{what}: {} bytes arrived", result.bytes);
        Ok(())
    })?;
    traffic.expect_none_between_devices().map_err(|stop| stop.of(&what))?;
    lane.to.view(lane.target)?.expect(0..4096, old, 0)?;
    lane.close()
}
