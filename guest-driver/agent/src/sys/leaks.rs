//! Counts of kernel objects that should have been freed.

use super::{FileError, read, write};
use std::path::Path;
use std::time::Duration;

const DMA_BUFS: &str = "/sys/kernel/debug/dma_buf/bufinfo";
const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// How many dma-bufs live in the whole system.
///
/// # Errors
/// When the kernel does not show it (`CONFIG_DEBUG_FS`).
pub fn dma_bufs() -> Result<u64, FileError> {
    let text = read(DMA_BUFS)?;
    parse_total(&text).ok_or_else(|| FileError {
        what: "understanding".into(),
        path: DMA_BUFS.into(),
        source: std::io::Error::other("no line `Total N objects`"),
    })
}

fn parse_total(text: &str) -> Option<u64> {
    text.lines().rev().find_map(|line| line.strip_prefix("Total ")?.split(' ').next()?.parse().ok())
}

/// Whether this kernel looks for lost memory (`CONFIG_DEBUG_KMEMLEAK`).
pub fn has_kmemleak() -> bool {
    Path::new(KMEMLEAK).exists()
}

/// The objects that kmemleak holds for lost and that were allocated on behalf of `ours`, as it stands in a
/// backtrace: what, and where it was allocated.
///
/// # Errors
/// When kmemleak cannot be asked.
pub fn lost_objects(ours: &str) -> Result<Vec<String>, FileError> {
    // It reports only what is older than five seconds, and only what did not change between two scans.
    std::thread::sleep(Duration::from_millis(5200));
    write(KMEMLEAK, "scan")?;
    write(KMEMLEAK, "scan")?;
    Ok(parse_lost(&read(KMEMLEAK)?, ours))
}

fn parse_lost(text: &str, ours: &str) -> Vec<String> {
    text.split("unreferenced object ")
        .skip(1)
        .filter_map(|object| {
            // The backtrace begins where the memory was taken; the first function of ours is the one to look at.
            let place = object.lines().find(|line| line.contains(ours))?;
            let what = object.lines().next().unwrap_or_default().trim_end_matches(':');
            Some(format!("{what} allocated in {}", place.trim()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_dma_bufs() {
        assert_eq!(parse_total("Dma-buf Objects:\nsize\n\nTotal 0 objects, 0 bytes\n"), Some(0));
        assert_eq!(parse_total("\nTotal 12 objects, 98304 bytes"), Some(12));
        assert_eq!(parse_total("nothing"), None);
    }

    #[test]
    fn only_our_objects_are_lost_ones() {
        let text = "unreferenced object 0xffff1 (size 64):\n  comm \"init\", pid 1\n  backtrace:\n    kmalloc+0x1\n    alloc+0x1 [peerdma]\n\
                    unreferenced object 0xffff2 (size 8):\n  comm \"x\"\n  backtrace:\n    other+0x1\n";
        assert_eq!(
            parse_lost(text, "[peerdma]"),
            ["0xffff1 (size 64) allocated in alloc+0x1 [peerdma]"]
        );
    }
}
