//! Devices and drivers that come and go, and resets, with work under way.

use super::Kind::Positive;
use super::bench::{must, succeeded};
use super::lane::{Engine, Lane, traffic_goes_on};
use super::need::Need;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Pattern, Peer, WAIT_MS, Work};
use crate::sys::patience::await_that;
use crate::sys::{self, pci::Function};
use crate::uapi;
use rustix::io::Errno;
use std::time::Duration;

const PEERS: &[Need] = &[Need::Peers, Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA")];

pub(super) const CASES: &[Case] = &[
    Case::new(
        "lifecycle",
        "exporter-invalidates-under-load",
        Positive,
        PEERS,
        invalidate_under_load,
    ),
    Case::new("lifecycle", "function-level-reset", Positive, PEERS, reset_when_idle),
    Case::new("lifecycle", "function-level-reset-under-load", Positive, PEERS, reset_under_load),
    Case::new("lifecycle", "unbind-and-rebind", Positive, PEERS, unbind_and_rebind),
    Case::new("lifecycle", "unbind-with-open-files", Positive, PEERS, unbind_with_open_files),
];

/// The exporter invalidates mappings while importers copy: what is under way ends, what follows
/// maps anew.
fn invalidate_under_load(bench: &mut Bench<'_>) -> Verdict {
    const LENGTH: u64 = 1 << 20;
    let (peer0, peer1) = bench.take_peers()?;
    let lane = Lane::new(&peer0, &peer1, Engine::Target, LENGTH, 1)?;
    let before = peer1.counters()?;
    let mut pending = Vec::new();
    for round in 0..24 {
        pending.push(peer1.submit(lane.work(0, 0, LENGTH).on(round % 2))?);
        if round % 8 == 4 {
            let mapped = peer0.counters()?.exporter_maps;
            lane.invalidate()?;
            let unmapped = peer0.counters()?.exporter_unmaps;
            ensure!(
                unmapped >= mapped,
                "an invalidation returned with {unmapped} of {mapped} mappings unmapped"
            );
        }
    }
    for cookie in pending {
        succeeded(&peer1, peer1.wait(cookie, WAIT_MS)?)?;
    }
    let after = peer1.counters()?;
    let (notified, mapped) = (after.invalidations - before.invalidations, after.maps - before.maps);
    ensure!(notified == 3, "3 invalidations reached the importer {notified} times");
    ensure!(mapped >= 3, "the importer mapped {mapped} times around 3 invalidations");
    lane.close()
}

/// Resets a function by sysfs. The kernel waits 100 ms for it, as the specification demands.
pub(super) fn reset(function: &Function) -> Verdict {
    let methods = function.attribute("reset_method")?;
    ensure!(
        methods.split_whitespace().next() == Some("flr"),
        "the kernel resets {} by {methods:?}",
        function.name
    );
    function.set_attribute("reset", "1")?;
    Ok(())
}

fn reset_when_idle(bench: &mut Bench<'_>) -> Verdict {
    let peer = bench.peer(0)?;
    let object = peer.alloc(4096, 1)?;
    let pattern = Pattern::new(51);
    peer.view(object)?.store(0..4096, pattern);
    reset(&peer.function())?;
    ensure!(
        peer.view(object)?.expect(0..64, pattern, 0).is_err(),
        "local memory is what it was before the reset"
    );
    ensure!(peer.counters()?.resets >= 1, "the driver did not notice the reset");
    traffic_goes_on(bench)
}

/// A reset in the midst of copies, in both directions: what was under way is cancelled, nothing else happens.
fn reset_under_load(bench: &mut Bench<'_>) -> Verdict {
    // The device is not part of the guest: on a slow kernel it may be done before the reset comes.
    const PIECES: [u32; 3] = [16, 64, 256];
    let mut copied = 0;
    for pieces in PIECES {
        let (cancelled, done) = reset_during(bench, pieces)?;
        if cancelled > 0 {
            return traffic_goes_on(bench);
        }
        copied = done;
    }
    Err(Stop::Fail(format!(
        "{} MiB were copied before the reset came: it was not under load",
        copied >> 20
    )))
}

/// A reset while n pieces are to be copied in each direction. Gives how many were cancelled, and how many bytes copied.
fn reset_during(bench: &mut Bench<'_>, pieces: u32) -> Result<(u32, u64), Stop> {
    const LENGTH: u64 = 8 << 20;
    let (peer0, peer1) = bench.take_peers()?;
    let push = Lane::new(&peer0, &peer1, Engine::Source, LENGTH, 1)?;
    let pull = Lane::new(&peer1, &peer0, Engine::Target, LENGTH, 1)?;
    let mut pending = Vec::new();
    for _ in 0..pieces {
        pending.push(peer0.submit(push.work(0, 0, LENGTH).on(0))?);
        pending.push(peer0.submit(pull.work(0, 0, LENGTH).on(1))?);
    }
    reset(&peer0.function())?;
    let (mut cancelled, mut copied) = (0, 0);
    for cookie in pending {
        match peer0.wait(cookie, WAIT_MS)? {
            result if result.error == 0 => copied += LENGTH,
            result if result.error == -Errno::CANCELED.raw_os_error() => cancelled += 1,
            result => return succeeded(&peer0, result).map(|_| (cancelled, copied)),
        }
    }
    push.close()?;
    pull.close()?;
    Ok((cancelled, copied))
}

/// Takes the driver off a function.
pub(super) fn unbind(function: &Function) -> Result<String, Stop> {
    let driver = function
        .driver()
        .ok_or_else(|| Stop::Fail(format!("no driver is bound to {}", function.name)))?;
    sys::write(format!("/sys/bus/pci/drivers/{driver}/unbind"), &function.name)?;
    ensure!(function.driver().is_none(), "{driver} is still bound to {}", function.name);
    Ok(driver)
}

/// Gives the function back to the driver, and waits for the device file.
pub(super) fn bind(function: &Function, driver: &str, instance: u32) -> Verdict {
    sys::write(format!("/sys/bus/pci/drivers/{driver}/bind"), &function.name)?;
    let path = Peer::path(instance);
    let back = await_that(Duration::from_secs(10), || -> Result<_, Stop> { Ok(path.exists()) })?;
    ensure!(back, "{} did not come back", path.display());
    Ok(())
}

fn unbind_and_rebind(bench: &mut Bench<'_>) -> Verdict {
    const INSTANCE: u32 = 1;
    bench.close_peers();
    let peer = Peer::open(INSTANCE)?;
    let (function, requester) = (peer.function(), peer.info.bdf);
    drop(peer);
    let driver = unbind(&function)?;
    let path = Peer::path(INSTANCE);
    ensure!(!path.exists(), "{} outlives its driver", path.display());
    bind(&function, &driver, INSTANCE)?;
    ensure!(
        Peer::open(INSTANCE)?.info.bdf == requester,
        "{} is another device now",
        path.display()
    );
    traffic_goes_on(bench)
}

/// The exporter goes while its memory is imported, mapped and in use, and while its own file is open.
fn unbind_with_open_files(bench: &mut Bench<'_>) -> Verdict {
    const LENGTH: u64 = 1 << 20;
    let (peer0, peer1) = bench.take_peers()?;
    let lane = Lane::new(&peer0, &peer1, Engine::Target, LENGTH, 1)?;
    must(&peer1, lane.work(0, 0, LENGTH))?;
    let pending: Vec<_> =
        (0..8).map(|_| peer1.submit(lane.work(0, 0, LENGTH))).collect::<Result<_, _>>()?;
    let function = peer0.function();
    let driver = unbind(&function)?;
    // What was under way had a mapping, so the exporter had to wait for it.
    for cookie in pending {
        succeeded(&peer1, peer1.wait(cookie, WAIT_MS)?)?;
    }
    let gone = peer0.alloc(4096, 1).err().map(|error| error.errno);
    let refused = match peer1.submit(lane.work(0, 0, 64)) {
        Err(_) => true,
        Ok(cookie) => peer1.wait(cookie, WAIT_MS)?.error != 0,
    };
    bind(&function, &driver, 0)?;
    ensure!(
        gone == Some(Errno::NODEV),
        "a call to a device without a driver gave {gone:?} instead of ENODEV"
    );
    ensure!(refused, "a copy out of a device that is gone succeeded");
    // The importer can still give its part back, and the old file stays dead beside the new device.
    lane.close_import()?;
    ensure!(
        peer0.run(Work::fill(lane.source.at(0), 64, 0)).is_err(),
        "the old file came back to life"
    );
    drop((peer0, peer1));
    traffic_goes_on(bench)
}
