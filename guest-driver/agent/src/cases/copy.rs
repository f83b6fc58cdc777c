//! Data from device to device, and whether it arrives.
//!
//! How data is compared: up to 64 KiB every byte by the CPU, through its own mapping of the device's memory, so that no
//! mistake of the device can hide itself. Above that the CPU puts a mark into every page and looks at every mark, and
//! the device compares the whole: comparing 64 MiB by a CPU that is emulated twice would take longer than all the tests.

use super::Kind::Positive;
use super::bench::{must, succeeded};
use super::lane::{Engine, Lane};
use super::need::Need;
use super::{Bench, Case, Stop, Verdict, ensure};
use crate::device::{Object, Pattern, View, WAIT_MS, Work};
use crate::uapi;

const NEEDS: &[Need] = &[Need::Peers, Need::Feature(uapi::FEATURE_P2PDMA, "CONFIG_PCI_P2PDMA")];

pub(super) const CASES: &[Case] = &[
    Case::new("copy", "peer0-to-peer1-by-reads", Positive, NEEDS, |bench| {
        all_sizes(bench, (0, 1), Engine::Target)
    }),
    Case::new("copy", "peer0-to-peer1-by-writes", Positive, NEEDS, |bench| {
        all_sizes(bench, (0, 1), Engine::Source)
    }),
    Case::new("copy", "peer1-to-peer0-by-reads", Positive, NEEDS, |bench| {
        all_sizes(bench, (1, 0), Engine::Target)
    }),
    Case::new("copy", "peer1-to-peer0-by-writes", Positive, NEEDS, |bench| {
        all_sizes(bench, (1, 0), Engine::Source)
    }),
    Case::new("copy", "64-mib-there-and-back", Positive, NEEDS, largest),
    Case::new("copy", "scattered-buffer", Positive, NEEDS, scattered),
    Case::new("copy", "two-channels-and-both-devices-at-once", Positive, NEEDS, at_once),
    Case::new("copy", "through-system-memory", Positive, &[Need::Peers], through_system_memory),
    Case::new("copy", "fill-checksum-compare", Positive, &[Need::Peers], fill_checksum_compare),
];

/// What stands in memory before a copy, so that a byte that was not written shows.
const POISON: u8 = 0xee;
/// Bytes around a copy that must stay as they were.
const GUARD: usize = 64;

/// Length, offset in the source, offset in the target. Lengths at and around the units that matter: a byte, a dword, a
/// maximum payload, a page; offsets that are odd, equal, different, and such that a copy straddles pages.
const SIZES: &[(usize, usize, usize)] = &[
    (1, 0, 0),
    (1, 3, 4095),
    (2, 4095, 1),
    (3, 1, 2),
    (7, 4093, 4090),
    (8, 8, 3),
    (13, 5, 11),
    (64, 64, 64),
    (127, 1, 0),
    (128, 4032, 4096),
    (129, 127, 255),
    (255, 9, 4001),
    (256, 256, 3840),
    (257, 4095, 4095),
    (4095, 1, 0),
    (4096, 0, 4096),
    (4097, 4095, 1),
    (12_345, 6789, 321),
    (65_536, 1, 3),
    (65_537, 4097, 8191),
];

/// Every size of [`SIZES`], every byte looked at.
fn all_sizes(bench: &mut Bench<'_>, (from, to): (usize, usize), engine: Engine) -> Verdict {
    let (peer0, peer1) = bench.take_peers()?;
    let peers = [&peer0, &peer1];
    let lane = Lane::new(peers[from], peers[to], engine, 128 << 10, 1)?;
    let (source, target) = (lane.from.view(lane.source)?, lane.to.view(lane.target)?);
    for (round, &(length, source_offset, target_offset)) in (1..).zip(SIZES) {
        let pattern = Pattern::new(round);
        source.store(source_offset..source_offset + length, pattern);
        let before = target_offset.saturating_sub(GUARD);
        let after = target_offset + length + GUARD;
        must(
            lane.to,
            Work::fill(
                lane.target.at(before as u64),
                (after - before) as u64,
                u64::from_ne_bytes([POISON; 8]),
            ),
        )?;
        let result = must(
            lane.engine,
            lane.work(source_offset as u64, target_offset as u64, length as u64),
        )?;
        ensure!(
            result.bytes == length as u64,
            "{} bytes reported of a copy of {length}",
            result.bytes
        );
        let what = |place: &str| {
            format!(
                "copy of {length} bytes from {source_offset:#x} to {target_offset:#x}: {place}: "
            )
        };
        let fail = |place: &str, mismatch| Stop::Fail(format!("{}{mismatch}", what(place)));
        target
            .expect(target_offset..target_offset + length, pattern, source_offset as u64)
            .map_err(|mismatch| fail("the data", mismatch))?;
        target
            .expect_all(before..target_offset, POISON)
            .map_err(|mismatch| fail("before it", mismatch))?;
        target
            .expect_all(target_offset + length..after, POISON)
            .map_err(|mismatch| fail("after it", mismatch))?;
    }
    lane.close()
}

const PAGE: usize = 4096;

/// Distance of the marks in large buffers: what the device moves at once. Every page that the CPU touches costs a fault
/// on the way, so marks in each page would take longer than the copies.
const BLOCK: usize = 64 << 10;

/// Marks every block of a view with a word of the pattern, at a place that differs from block to block.
fn mark(view: &View, length: usize, pattern: Pattern) {
    for block in 0..length / BLOCK {
        view.set_word(mark_offset(block), pattern.word(block as u64));
    }
}

fn mark_offset(block: usize) -> usize {
    block * BLOCK + block % (BLOCK / 8) * 8
}

/// Whether every mark stands `shift` bytes (a multiple of eight) further on.
fn expect_marks(view: &View, length: usize, pattern: Pattern, shift: usize) -> Verdict {
    for block in 0..length / BLOCK {
        let (at, expected) = (mark_offset(block) + shift, pattern.word(block as u64));
        let found = view.word(at);
        ensure!(
            found == expected,
            "block {block}: offset {at:#x} holds {found:#018x} instead of {expected:#018x}"
        );
    }
    Ok(())
}

/// The largest size: to the other device by its reads, a little shifted, and back by its posted writes.
fn largest(bench: &mut Bench<'_>) -> Verdict {
    const LENGTH: usize = 64 << 20;
    const SHIFT: usize = 24;
    let (peer0, peer1) = bench.take_peers()?;
    let (length, room) = (LENGTH as u64, (LENGTH + PAGE) as u64);
    let (origin, other, returned) =
        (peer0.alloc(room, 1)?, peer1.alloc(room, 1)?, peer0.alloc(room, 1)?);
    let share = |object| -> Result<Object, Stop> {
        Ok(peer1.import(&peer0.export(object)?, uapi::IMPORT_PEER2PEER)?)
    };
    let (origin_there, returned_there) = (share(origin)?, share(returned)?);

    must(&peer0, Work::fill(origin.at(0), length, 0x0102_0304_0506_0708))?;
    let pattern = Pattern::new(64);
    mark(&peer0.view(origin)?, LENGTH, pattern);
    must(&peer1, Work::copy(origin_there.at(0), other.at(SHIFT as u64), length))?;
    expect_marks(&peer1.view(other)?, LENGTH, pattern, SHIFT)?;
    must(&peer1, Work::copy(other.at(SHIFT as u64), returned_there.at(0), length))?;
    expect_marks(&peer0.view(returned)?, LENGTH, pattern, 0)?;
    // All of it, by the device that made neither of the copies: for peer0 both buffers are its own.
    must(&peer0, Work::compare(origin.at(0), returned.at(0), length))?;
    Ok(())
}

/// A buffer in many pieces: the importer must use all of them, in order. Linux 7.3 puts all ranges of such a buffer at
/// the same DMA address if it is left to map them at once (`dma_buf_phys_vec_to_sgt()`); the driver knows.
fn scattered(bench: &mut Bench<'_>) -> Verdict {
    const LENGTH: usize = 96 << 10;
    const RANGES: u32 = 7;
    let (peer0, peer1) = bench.take_peers()?;
    for engine in [Engine::Target, Engine::Source] {
        let lane = Lane::new(&peer0, &peer1, engine, LENGTH as u64, RANGES)?;
        let (pieces, _) = lane.from.segments(lane.source)?;
        ensure!(
            pieces.len() == RANGES as usize,
            "{RANGES} ranges were asked for, the buffer lies in {} pieces",
            pieces.len()
        );
        let (source, target) = (lane.from.view(lane.source)?, lane.to.view(lane.target)?);
        let pattern = Pattern::new(7);
        source.store(0..LENGTH, pattern);
        must(lane.engine, lane.work(5, 9, LENGTH as u64 - 9))?;
        target.expect(9..LENGTH, pattern, 5)?;
        drop((source, target));
        lane.close()?;
    }
    Ok(())
}

/// Four copies that run beside each other: both channels of both devices, in both directions.
fn at_once(bench: &mut Bench<'_>) -> Verdict {
    const PIECE: usize = 192 << 10;
    const ROUNDS: u64 = 6;
    let (peer0, peer1) = bench.take_peers()?;
    ensure!(
        peer0.info.channels >= 2 && peer1.info.channels >= 2,
        "a peer device has at least two channels"
    );
    let lanes = [
        (Lane::new(&peer0, &peer1, Engine::Source, PIECE as u64, 1)?, 0),
        (Lane::new(&peer1, &peer0, Engine::Target, PIECE as u64, 1)?, 1),
        (Lane::new(&peer1, &peer0, Engine::Source, PIECE as u64, 1)?, 0),
        (Lane::new(&peer0, &peer1, Engine::Target, PIECE as u64, 1)?, 1),
    ];
    for (seed, (lane, _)) in (100..).zip(&lanes) {
        mark(&lane.from.view(lane.source)?, PIECE, Pattern::new(seed));
    }
    let mut pending = Vec::new();
    for _ in 0..ROUNDS {
        for (lane, channel) in &lanes {
            pending.push((
                lane.engine,
                lane.engine.submit(lane.work(0, 0, PIECE as u64).on(*channel))?,
            ));
        }
    }
    for (engine, cookie) in pending {
        succeeded(engine, engine.wait(cookie, WAIT_MS)?)?;
    }
    for (seed, (lane, _)) in (100..).zip(&lanes) {
        expect_marks(&lane.to.view(lane.target)?, PIECE, Pattern::new(seed), 0)?;
    }
    lanes.into_iter().try_for_each(|(lane, _)| lane.close())
}

/// From one device into pages of the system and from there into the other device, for both kinds of such memory.
fn through_system_memory(bench: &mut Bench<'_>) -> Verdict {
    const LENGTH: usize = 20_000;
    let (peer0, peer1) = bench.take_peers()?;
    for (seed, flags) in [(1, uapi::SYSTEM_COHERENT), (2, 0)] {
        let pattern = Pattern::new(seed);
        let local = peer0.alloc(LENGTH as u64, 1)?;
        peer0.view(local)?.store(0..LENGTH, pattern);
        let out = peer0.system(LENGTH as u64, flags, uapi::BIDIRECTIONAL)?;
        must(&peer0, Work::copy(local.at(1), out.at(3), LENGTH as u64 - 3))?;
        peer0.sync(out, uapi::SYNC_FOR_CPU)?;
        peer0.view(out)?.expect(3..LENGTH, pattern, 1)?;

        let back = peer1.system(LENGTH as u64, flags, uapi::BIDIRECTIONAL)?;
        peer1.view(back)?.store(0..LENGTH, pattern);
        peer1.sync(back, uapi::SYNC_FOR_DEVICE)?;
        let other = peer1.alloc(LENGTH as u64, 1)?;
        must(&peer1, Work::copy(back.at(0), other.at(0), LENGTH as u64))?;
        peer1.view(other)?.expect(0..LENGTH, pattern, 0)?;
        for (peer, object) in [(&peer0, local), (&peer0, out), (&peer1, back), (&peer1, other)] {
            peer.close(object)?;
        }
    }
    Ok(())
}

/// The other operations, against results computed here.
fn fill_checksum_compare(bench: &mut Bench<'_>) -> Verdict {
    let peer = bench.peer(0)?;
    let object = peer.alloc(64 << 10, 1)?;
    let view = peer.view(object)?;

    let fill = 0x8877_6655_4433_2211_u64;
    must(peer, Work::fill(object.at(0), 256, 0))?;
    must(peer, Work::fill(object.at(13), 100, fill))?;
    for offset in 0..100 {
        let (found, expected) = (view.byte(13 + offset), fill.to_le_bytes()[offset % 8]);
        ensure!(
            found == expected,
            "fill: byte {offset} is {found:#04x} instead of {expected:#04x}"
        );
    }
    view.expect_all(0..13, 0)?;
    view.expect_all(113..256, 0)?;

    let pattern = Pattern::new(5);
    view.store(0..4096, pattern);
    let expected = crc32c((17..17 + 3000).map(|position| pattern.byte(position)));
    let found = must(peer, Work::checksum(object.at(17), 3000))?.result;
    ensure!(found == u64::from(expected), "checksum: {found:#x} instead of {expected:#x}");

    must(peer, Work::copy(object.at(0), object.at(8192), 4096))?;
    if peer.info.features & uapi::FEATURE_COMPARE != 0 {
        must(peer, Work::compare(object.at(0), object.at(8192), 4096))?;
        view.set_byte(8192 + 2345, !view.byte(8192 + 2345));
        let result = peer.run(Work::compare(object.at(0), object.at(8192), 4096))?;
        ensure!(
            result.status == uapi::STATUS_MISMATCH && result.result == 2345,
            "comparing with a wrong byte at 2345: error {}, status {}, result {}",
            result.error,
            result.status,
            result.result
        );
    }
    Ok(())
}

/// CRC-32C (RFC 3720, appendix B.4), bit by bit: written to be right, not fast, and not the device's code.
pub(super) fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const REFLECTED: u32 = 0x82f6_3b78;
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ REFLECTED } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32c() {
        // RFC 3720, appendix B.4: 32 bytes of zeros, of ones, and the check value of "123456789".
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
        assert_eq!(crc32c([0xff; 32].into_iter()), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    }

    #[test]
    fn every_copy_fits_into_its_buffer() {
        for &(length, source, target) in SIZES {
            assert!(source + length <= 128 << 10 && target + length + GUARD <= 128 << 10);
        }
    }

    #[test]
    fn marks_are_words_inside_their_block() {
        for block in 0..20_000 {
            let at = mark_offset(block);
            assert!(at.is_multiple_of(8) && at / BLOCK == block && at % BLOCK + 8 <= BLOCK);
        }
    }
}
