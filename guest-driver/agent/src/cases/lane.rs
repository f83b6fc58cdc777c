//! Two buffers of two devices, shared, and the copies between them: the base of most tests.

use super::bench::must;
use super::need::Need;
use super::{Bench, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, Peer, Work};
use crate::uapi;

/// Which of the two devices does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// The device that has the data writes it into the other's memory.
    Source,
    /// The device that wants the data reads it out of the other's memory.
    Target,
}

/// Two buffers in the memories of two devices, one of them shared with the other device as a dma-buf.
pub(super) struct Lane<'p> {
    /// Where the data comes from.
    pub(super) from: &'p Peer,
    /// Where it goes.
    pub(super) to: &'p Peer,
    /// Whose engine moves it: one of the two.
    pub(super) engine: &'p Peer,
    /// The buffers, as their own devices name them.
    pub(super) source: Object,
    pub(super) target: Object,
    /// The buffers, as the engine names them: one is an import.
    source_there: Object,
    target_there: Object,
}

impl<'p> Lane<'p> {
    /// Buffers of `size` bytes, exported, imported with `allow_peer2peer`.
    pub(super) fn new(
        from: &'p Peer,
        to: &'p Peer,
        engine: Engine,
        size: u64,
        ranges: u32,
    ) -> Result<Self, Stop> {
        let (source, target) = (from.alloc(size, ranges)?, to.alloc(size, ranges)?);
        let (owner, shared, engine_peer) = match engine {
            Engine::Source => (to, target, from),
            Engine::Target => (from, source, to),
        };
        let buffer = owner.export(shared)?;
        let imported = engine_peer.import(&buffer, uapi::IMPORT_PEER2PEER)?;
        ensure!(
            imported.size >= size,
            "a dma-buf of {size} bytes was imported with {} bytes",
            imported.size
        );
        let (source_there, target_there) = match engine {
            Engine::Source => (source, imported),
            Engine::Target => (imported, target),
        };
        Ok(Self { from, to, engine: engine_peer, source, target, source_there, target_there })
    }

    /// The work that copies `length` bytes.
    pub(super) fn work(&self, source_offset: u64, target_offset: u64, length: u64) -> Work {
        Work::copy(self.source_there.at(source_offset), self.target_there.at(target_offset), length)
    }

    /// The exporter invalidates the importer's mapping.
    pub(super) fn invalidate(&self) -> Verdict {
        match self.imported_source() {
            true => Ok(self.from.invalidate(self.source)?),
            false => Ok(self.to.invalidate(self.target)?),
        }
    }

    /// Whether it is the source that was shared.
    fn imported_source(&self) -> bool {
        std::ptr::eq(self.engine, self.to)
    }

    /// Gives the import back, and nothing else.
    pub(super) fn close_import(&self) -> Verdict {
        let imported = if self.imported_source() { self.source_there } else { self.target_there };
        Ok(self.engine.close(imported)?)
    }

    /// Gives everything back.
    pub(super) fn close(self) -> Verdict {
        self.close_import()?;
        self.from.close(self.source)?;
        self.to.close(self.target)?;
        Ok(())
    }
}

/// After a rule was broken everything must still work: small copies, both ways where devices can share memory, else
/// between each device and system memory.
pub(super) fn traffic_goes_on(bench: &mut Bench<'_>) -> Verdict {
    let only_one = bench.hello()?.is_some_and(|hello| hello.peers.len() == 1);
    let verdict = if only_one {
        with_system_memory(bench.peer(0)?)
    } else {
        let (peer0, peer1) = bench.take_peers()?;
        let shared = peer0.info.features & peer1.info.features & uapi::FEATURE_P2PDMA != 0;
        if shared && Need::Path.check(bench).is_ok() {
            between_devices(&peer0, &peer1)
        } else {
            with_system_memory(&peer0).and_then(|()| with_system_memory(&peer1))
        }
    };
    verdict.map_err(|stop| match stop {
        Stop::Fail(reason) => Stop::Fail(format!("traffic does not go on: {reason}")),
        skip @ Stop::Skip(_) => skip,
    })
}

const LENGTH: usize = 300;

fn between_devices(peer0: &Peer, peer1: &Peer) -> Verdict {
    for (seed, engine) in [(31, Engine::Source), (32, Engine::Target)] {
        for (from, to) in [(peer0, peer1), (peer1, peer0)] {
            let lane = Lane::new(from, to, engine, 4096, 1)?;
            let pattern = Pattern::new(seed);
            lane.from.view(lane.source)?.store(1..1 + LENGTH, pattern);
            must(lane.engine, lane.work(1, 3, LENGTH as u64))?;
            lane.to.view(lane.target)?.expect(3..3 + LENGTH, pattern, 1)?;
            lane.close()?;
        }
    }
    Ok(())
}

fn with_system_memory(peer: &Peer) -> Verdict {
    let local = peer.alloc(4096, 1)?;
    let system = peer.system(4096, uapi::SYSTEM_COHERENT, uapi::BIDIRECTIONAL)?;
    let pattern = Pattern::new(33);
    peer.view(local)?.store(1..1 + LENGTH, pattern);
    must(peer, Work::copy(local.at(1), system.at(3), LENGTH as u64))?;
    must(peer, Work::copy(system.at(3), local.at(2001), LENGTH as u64))?;
    peer.view(local)?.expect(2001..2001 + LENGTH, pattern, 1)?;
    peer.close(system)?;
    Ok(peer.close(local)?)
}
