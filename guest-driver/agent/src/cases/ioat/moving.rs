//! The engine's source moves: a client that maps anew for each copy finds it where it is, also while it is on its way.

use super::client::{Channel, Location};
use super::engines;
use super::third_party::{Shared as Target, first_channels};
use crate::cases::matrix::{Exporter, SIZE, Shared};
use crate::cases::traffic::{Traffic, name};
use crate::cases::{Bench, Stop, Verdict, ensure};
use crate::device::{DeviceError, Object, Pattern, Peer};
use crate::uapi;
use crate::vmm::PathKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of a copy, with an odd end, and where it begins and goes.
const LENGTH: usize = 12_345;
const FROM: usize = 1;
const TO: usize = 3;
/// Copies while the buffer moves.
const COPIES: u64 = 20;

/// Between moves: by the way that its place has, from there and from nowhere else.
pub(super) fn between(bench: &mut Bench<'_>) -> Verdict {
    let (owner, other) = bench.take_peers()?;
    let (source, target) =
        (Shared::new(&owner, Exporter::Migrating, SIZE as u64)?, Target::new(&other)?);
    let (from, to) = (name(bench, &owner.function())?, name(bench, &other.function())?);
    for (engine, channel) in engines()?.iter().zip(first_channels()?) {
        let channel = Channel::new(&channel)?;
        for (place, seed) in
            [uapi::PLACE_LOCAL, uapi::PLACE_SYSTEM, uapi::PLACE_LOCAL].into_iter().zip(90..)
        {
            let pattern = store(&source, seed)?;
            owner.move_buffer(source.object, place, 0)?;
            let traffic =
                Traffic::during(bench, engine, |_| carry(&channel, &source, &target, pattern))?;
            match place {
                uapi::PLACE_LOCAL => traffic.expect_carried(&from, &to, LENGTH as u64)?,
                _ => traffic.expect_read(PathKind::Host, 0..=0)?,
            }
            let state = owner.buffer_state(source.object)?;
            ensure!(
                state.place == place && state.mappings == 0,
                "the buffer should be at place {place} without a mapping, but it is at {} with {}",
                state.place,
                state.mappings
            );
        }
    }
    target.close()
}

/// While the exporter moves it to and fro: each copy has what was stored before it, and before at
/// least one move.
pub(super) fn meanwhile(bench: &mut Bench<'_>) -> Verdict {
    let (owner, other) = bench.take_peers()?;
    let (source, target) =
        (Shared::new(&owner, Exporter::Migrating, SIZE as u64)?, Target::new(&other)?);
    let channels = first_channels()?;
    let (done, moves) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| to_and_fro(&owner, source.object, &done, &moves));
        let one = |channel: &Channel, seed| {
            let pattern = store(&source, seed)?;
            let before = moves.load(Ordering::Relaxed);
            while moves.load(Ordering::Relaxed) == before && !mover.is_finished() {
                std::thread::yield_now();
            }
            carry(channel, &source, &target, pattern)
        };
        let copies = channels.iter().try_for_each(|channel| {
            let channel = Channel::new(channel)?;
            (100..100 + COPIES).try_for_each(|seed| one(&channel, seed))
        });
        done.store(true, Ordering::Relaxed);
        let moved = mover.join().map_err(|_| Stop::Fail("the mover has panicked".into()))?;
        copies.and(Ok(moved?))
    })?;
    let (moves, copies) = (moves.into_inner(), COPIES * channels.len() as u64);
    ensure!(moves >= copies, "only {moves} moves during {copies} copies");
    bench.note(format!("{moves} moves during {copies} copies"));
    target.close()
}

/// Moves the buffer until it has to stop, and counts.
fn to_and_fro(
    owner: &Peer,
    object: Object,
    done: &AtomicBool,
    moves: &AtomicU64,
) -> Result<(), DeviceError> {
    for place in [uapi::PLACE_SYSTEM, uapi::PLACE_LOCAL].into_iter().cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        owner.move_buffer(object, place, 0)?;
        moves.fetch_add(1, Ordering::Relaxed);
        // Where there is one processor, the thread that copies has to run between two moves.
        std::thread::yield_now();
    }
    Ok(())
}

/// New contents.
fn store(source: &Shared, seed: u64) -> Result<Pattern, Stop> {
    let pattern = Pattern::new(seed);
    source.store(FROM..FROM + LENGTH, pattern)?;
    Ok(pattern)
}

/// One copy out of the buffer.
fn carry(channel: &Channel, source: &Shared, target: &Target<'_>, pattern: Pattern) -> Verdict {
    channel.must(
        Location::Buffer(&source.fd, FROM as u64),
        target.at(TO as u64),
        u32::try_from(LENGTH)?,
    )?;
    let view = target.peer.view(target.object)?;
    Ok(view.expect(TO..TO + LENGTH, pattern, FROM as u64)?)
}
