//! Everything at once for ten minutes, all of it legal: nothing may be found.
//!
//! On each device one thread maps, transfers and unmaps without a pause; meanwhile buffers that one
//! device shares with the other are moved, invalidated and mapped anew under work, and both devices
//! are reset now and then.

use super::Kind::Positive;
use super::lifecycle::reset;
use super::matrix::{Exporter, Importer, PATH, SIZE, Shared};
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{DeviceError, Peer, WAIT_MS, Work};
use crate::uapi;
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[Case::new("stress", "mixed", Positive, PATH, mixed)];

/// How long it goes on.
const DURATION: Duration = Duration::from_secs(600);
/// Between two resets.
const RESETS: Duration = Duration::from_secs(4);
/// Transfers of each kind that have to succeed, or it was not a stress.
const ENOUGH: u64 = 100;

/// xorshift64*, from a seed of its own in each thread.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        let index = self.below(values.len() as u64);
        values[usize::try_from(index).unwrap_or_default()]
    }
}

/// What a reset does to what is under way: it was cancelled, or has to be tried again.
fn is_reset(errno: Errno) -> bool {
    [Errno::CANCELED, Errno::AGAIN, Errno::BUSY, Errno::TIME].contains(&errno)
}

/// Whether work succeeded; a reset may have come between.
fn done(peer: &Peer, work: Work) -> Result<bool, Stop> {
    forgive(peer.run(work).map(|result| result.error))
}

fn forgive(outcome: Result<i32, DeviceError>) -> Result<bool, Stop> {
    match outcome {
        Ok(0) => Ok(true),
        Ok(error) if is_reset(Errno::from_raw_os_error(-error)) => Ok(false),
        Ok(error) => Err(Stop::Fail(format!("work ended with error {error}"))),
        Err(error) if is_reset(error.errno) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Maps, transfers and unmaps system memory of all sizes and directions; how many transfers succeeded.
fn churn(instance: u32, stop: &AtomicBool) -> Result<u64, Stop> {
    let peer = Peer::open(instance)?;
    let local = peer.alloc(1 << 20, 1)?;
    let mut random = Random(u64::from(instance) + 1);
    let mut transfers = 0;
    while !stop.load(Ordering::Relaxed) {
        let size = (1 + random.below(64)) << 12;
        let direction = random.one_of(&[uapi::BIDIRECTIONAL, uapi::TO_DEVICE, uapi::FROM_DEVICE]);
        let pages = match random.below(4) {
            0 => peer.system(size, uapi::SYSTEM_COHERENT, uapi::BIDIRECTIONAL),
            _ => peer.system(size, 0, direction),
        }?;
        let offset = random.below(size);
        let length = 1 + random.below(size - offset);
        let channel = random.one_of(&[0, 1]);
        let work = match direction {
            uapi::TO_DEVICE => Work::copy(pages.at(offset), local.at(offset), length),
            _ => Work::copy(local.at(offset), pages.at(offset), length),
        };
        transfers += u64::from(done(&peer, work.on(channel))?);
        peer.close(pages)?;
    }
    Ok(transfers)
}

/// One buffer of `owner`'s that `client` works on while it is moved or invalidated; whether the work succeeded.
fn share(owner: &Peer, client: &Peer, random: &mut Random) -> Result<u64, Stop> {
    let kinds = [Exporter::Local, Exporter::ZoneDevice, Exporter::Pages, Exporter::Migrating];
    let exporter = random.one_of(&kinds);
    let shared = Shared::new(owner, exporter, SIZE as u64)?;
    let imported = client.import(&shared.fd, Importer::Dynamic.flags())?;
    let mut transfers = 0;
    for round in 0..1 + random.below(6) {
        let mut pending = Vec::new();
        for _ in 0..1 + random.below(8) {
            let work = match random.below(2) {
                0 => Work::fill(imported.at(0), SIZE as u64, round),
                _ => Work::checksum(imported.at(1), SIZE as u64 - 1),
            };
            match client.submit(work.on(random.one_of(&[0, 1]))) {
                Ok(cookie) => pending.push(cookie),
                Err(error) => drop(forgive(Err(error))?),
            }
        }
        let place = random.one_of(&[uapi::PLACE_SYSTEM, uapi::PLACE_LOCAL]);
        let outcome = match exporter {
            Exporter::Migrating => owner.move_buffer(shared.object, place, 0),
            _ => owner.invalidate(shared.object),
        };
        forgive(outcome.map(|()| 0))?;
        for cookie in pending {
            let result = client.wait(cookie, WAIT_MS).map(|result| result.error);
            transfers += u64::from(forgive(result)?);
        }
    }
    client.close(imported)?;
    Ok(transfers)
}

fn mixed(bench: &mut Bench<'_>) -> Verdict {
    let (stop, begun) = (AtomicBool::new(false), Instant::now());
    let (one, two) = bench.take_peers()?;
    let mut random = Random(0x5eed);
    let (mut shared, mut resets) = (0, 0u64);
    let churned = std::thread::scope(|scope| -> Result<Vec<u64>, Stop> {
        let stop = &stop;
        let threads: Vec<_> =
            (0..2).map(|instance| scope.spawn(move || churn(instance, stop))).collect();
        let mut work = || -> Verdict {
            let mut last = Instant::now();
            while begun.elapsed() < DURATION && threads.iter().all(|thread| !thread.is_finished()) {
                let (owner, client) =
                    if random.below(2) == 0 { (&one, &two) } else { (&two, &one) };
                shared += share(owner, client, &mut random)?;
                if last.elapsed() > RESETS {
                    reset(&owner.function())?;
                    resets += 1;
                    last = Instant::now();
                }
            }
            Ok(())
        };
        let outcome = work();
        stop.store(true, Ordering::Relaxed);
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| Stop::Fail("a thread has panicked".into()))?);
        let ended = ended.collect::<Result<Vec<_>, _>>();
        outcome?;
        ended
    })?;
    bench.note(format!(
        "{} and {} transfers beside {shared} of shared buffers, {resets} resets",
        churned[0], churned[1]
    ));
    ensure!(
        shared > ENOUGH && churned.iter().all(|count| *count > ENOUGH) && resets > 0,
        "this was no stress"
    );
    Ok(())
}
