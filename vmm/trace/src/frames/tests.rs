use std::io::{Cursor, Read};

use super::*;

const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// A block of this length, of bytes that are compressed badly, or well.
fn block(length: usize, seed: &mut u64, hard: bool) -> Vec<u8> {
    let mut next = || {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if hard { seed.to_be_bytes()[0] } else { 7 }
    };
    let mut bytes: Vec<u8> = (0..length).map(|_| next()).collect();
    bytes[4..8].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
    bytes
}

fn packed(frames: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
    let mut writer = Frames::new(Vec::new()).unwrap();
    let plain = frames.concat();
    frames.iter().for_each(|frame| writer.frame(frame).unwrap());
    let (bytes, written) = writer.finish().unwrap();
    assert_eq!(written, bytes.len() as u64);
    (plain, bytes)
}

fn check(plain: &[u8], bytes: &[u8]) -> usize {
    let mut again = Vec::new();
    zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut again).unwrap();
    assert!(again == plain);
    let table = SeekTable::from_seekable(&mut Cursor::new(bytes)).unwrap();
    assert_eq!(table.size_decomp(), plain.len() as u64);
    let end = usize::try_from(table.size_comp()).unwrap();
    for at in (0..end).step_by(CHUNK) {
        assert_eq!(bytes[at..at + 4], MAGIC, "at {at} of {end}");
    }
    // Each frame can be found by its place in the table, and read by itself.
    let mut waste = 0;
    for index in 0..table.num_frames() {
        let place = |at: u64| usize::try_from(at).unwrap();
        let from = place(table.frame_start_comp(index).unwrap());
        let to = place(table.frame_end_comp(index).unwrap());
        let first = place(table.frame_start_decomp(index).unwrap());
        let last = place(table.frame_end_decomp(index).unwrap());
        if bytes[from..to].starts_with(&SKIPPABLE) {
            assert_eq!(first, last);
            waste += to - from;
            continue;
        }
        let mut frame = Vec::new();
        let decoder = zstd::stream::read::Decoder::new(&bytes[from..to]).unwrap();
        decoder.single_frame().read_to_end(&mut frame).unwrap();
        assert!(frame == plain[first..last], "frame {index}");
        assert_eq!(whole_blocks(&frame, usize::MAX), frame.len(), "no block is cut");
    }
    waste
}

#[test]
fn a_frame_begins_at_each_chunk_of_the_file() {
    let mut seed = 1;
    for hard in [true, false] {
        let sizes = if hard { 40..3000 } else { 200_000..262_144 };
        let frames: Vec<Vec<u8>> = (0..60)
            .map(|_| {
                let mut frame = Vec::new();
                while frame.len() < 200_000 {
                    let span = sizes.end - sizes.start;
                    let length =
                        sizes.start + usize::from(block(8, &mut seed, true)[0]) * span / 256;
                    frame.extend(block(length / 4 * 4, &mut seed, hard));
                }
                frame
            })
            .collect();
        let (plain, bytes) = packed(&frames);
        let waste = check(&plain, &bytes);
        assert!(!hard || bytes.len() > 20 * CHUNK);
        assert!(waste < bytes.len() / 20 + CHUNK, "{waste} of {}", bytes.len());
    }
}

#[test]
fn little_frames_are_kept_in_chunks_too() {
    let mut seed = 5;
    let frames: Vec<_> = (0..4000).map(|_| block(200, &mut seed, true)).collect();
    let (plain, bytes) = packed(&frames);
    assert!(bytes.len() > 6 * CHUNK);
    check(&plain, &bytes);
}

#[test]
fn a_block_of_64_kib_that_cannot_be_compressed_fits_into_a_chunk() {
    let mut seed = 9;
    let frames: Vec<_> = (0..20).map(|_| block(66 << 10, &mut seed, true)).collect();
    let (plain, bytes) = packed(&frames);
    check(&plain, &bytes);
}

#[test]
fn a_block_that_is_longer_than_a_chunk_is_written_all_the_same() {
    let mut seed = 3;
    let frames = [block(100, &mut seed, true), block(300_000, &mut seed, true)];
    let (plain, bytes) = packed(&frames);
    let mut again = Vec::new();
    zstd::stream::read::Decoder::new(&bytes[..]).unwrap().read_to_end(&mut again).unwrap();
    assert!(again == plain);
}

/// What came before does not promise anything: behind much that gets small comes what does not.
#[test]
fn a_part_that_is_larger_than_was_hoped_is_packed_once_more() {
    let mut seed = 9;
    // Soft ones that fill half of the chunk, and one hard one that fits, or not.
    for hard in [20_000, 60_000, 100_000, 131_000] {
        let mut frame: Vec<u8> = Vec::new();
        for _ in 0..8 {
            frame.extend(block(8000, &mut seed, true));
            (0..20).for_each(|_| frame.extend(block(5000, &mut seed, false)));
        }
        (0..hard / 1000).for_each(|_| frame.extend(block(1000, &mut seed, true)));
        let frames = vec![frame; 5];
        let (plain, bytes) = packed(&frames);
        let waste = check(&plain, &bytes);
        assert!(waste < bytes.len() / 10 + CHUNK, "{hard}: {waste} of {}", bytes.len());
    }
}
