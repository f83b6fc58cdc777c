//! The constants of the header, by its names without the prefix.

/// Declares constants and the table that the drift test compares.
macro_rules! constants {
    ($($(#[$meta:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$meta])* pub const $name: u32 = $value;)*

        /// Every constant: its name in the header without `PEERDMA_`, and its value here.
        pub fn constants() -> Vec<(&'static str, u32)> {
            vec![$((stringify!($name), $name),)*]
        }
    };
}

constants! {
    /// The interface's version, as the module reports it.
    ABI_VERSION = 1;
    /// The type byte of all call numbers.
    IOCTL_BASE = 0xdb;

    /// Memory can be exported.
    FEATURE_P2PDMA = 1 << 0;
    /// Fences in and out.
    FEATURE_SYNC_FILE = 1 << 1;
    /// A vector for each channel.
    FEATURE_MSIX = 1 << 2;
    /// The device compares ([`WORK_COMPARE`]).
    FEATURE_COMPARE = 1 << 3;
    /// The lab gives its verdict on work ([`SUBMIT_VERDICT`]).
    FEATURE_VERDICT = 1 << 4;
    /// Exported memory is mapped by the way to it: past the IOMMU where there is one, and not at all where it cannot be.
    FEATURE_WAYS = 1 << 16;
    /// Dynamic importers without a callback for invalidation ([`IMPORT_NO_INVALIDATE`]).
    FEATURE_NO_INVALIDATE = 1 << 17;

    /// No IOMMU, or one that is bypassed.
    IOMMU_NONE = 0;
    /// A pass-through domain.
    IOMMU_IDENTITY = 1;
    /// Translated; unmapping invalidates at once.
    IOMMU_STRICT = 2;
    /// Translated; invalidated some time after the unmapping.
    IOMMU_LAZY = 3;
    /// Something the driver does not know.
    IOMMU_OTHER = 4;

    /// The new descriptor closes on exec.
    EXPORT_CLOEXEC = 1 << 0;
    /// The dma-buf can be mapped for writing.
    EXPORT_RDWR = 1 << 1;

    /// The importer can reach device memory (`allow_peer2peer`).
    IMPORT_PEER2PEER = 1 << 0;
    /// A static attachment.
    IMPORT_STATIC = 1 << 1;
    /// Pinned while attached.
    IMPORT_PINNED = 1 << 2;
    /// No callback for invalidation; needs [`IMPORT_PINNED`].
    IMPORT_NO_INVALIDATE = 1 << 3;

    /// Unmaps with work in flight. Lab only.
    IMPORT_LAB_UNMAP_EARLY = 1 << 4;
    /// Keeps a mapping that was invalidated, and uses it. Lab only.
    IMPORT_LAB_IGNORE_INVALIDATE = 1 << 5;

    /// Local memory without struct pages.
    BUFFER_LOCAL = 0;
    /// Local memory with ZONE_DEVICE pages.
    BUFFER_P2PMEM = 1;
    /// Pages of the system.
    BUFFER_PAGES = 2;
    /// Of `dma_alloc_noncontiguous()`.
    BUFFER_NONCONTIGUOUS = 3;
    /// Of `dma_alloc_noncoherent()`.
    BUFFER_NONCOHERENT = 4;
    /// Of `dma_alloc_coherent()`.
    BUFFER_COHERENT = 5;
    /// Local memory or pages, as need be.
    BUFFER_MIGRATING = 6;
    /// Its dma-bufs give CPU physical addresses away. Lab only.
    BUFFER_LAB_PHYSICAL = 1 << 0;
    /// Its dma-bufs give away what `dma_get_sgtable()` makes. Lab only.
    BUFFER_LAB_SGTABLE = 1 << 1;
    /// Importers without peer2peer are given peer-to-peer addresses. Lab only.
    BUFFER_LAB_ANY_IMPORTER = 1 << 2;
    /// In the device.
    PLACE_LOCAL = 0;
    /// In RAM.
    PLACE_SYSTEM = 1;
    /// Importers' fences are not waited for. Lab only.
    MOVE_LAB_NO_WAIT = 1 << 0;

    /// The device reads and writes.
    BIDIRECTIONAL = 0;
    /// The device only reads.
    TO_DEVICE = 1;
    /// The device only writes.
    FROM_DEVICE = 2;

    /// The operation has no such operand.
    AT_NOWHERE = 0;
    /// A handle and an offset.
    AT_OBJECT = 1;
    /// A raw DMA address. Lab only.
    AT_ADDRESS = 2;
    /// A raw offset in local memory. Lab only.
    AT_LOCAL = 3;

    /// Source to destination.
    WORK_COPY = 1;
    /// Pattern to destination.
    WORK_FILL = 2;
    /// CRC-32C of the source.
    WORK_CHECKSUM = 3;
    /// Source against destination.
    WORK_COMPARE = 4;

    /// No interrupt.
    SUBMIT_POLL = 1 << 0;
    /// Start after a fence.
    SUBMIT_IN_FENCE = 1 << 1;
    /// Give a fence.
    SUBMIT_OUT_FENCE = 1 << 2;
    /// Ignore the buffers' fences. Lab only.
    SUBMIT_NO_SYNC = 1 << 3;
    /// Report the lab's verdict. Lab only.
    SUBMIT_VERDICT = 1 << 4;
    /// Read back what was written last.
    SUBMIT_FLUSH = 1 << 5;
    /// Do not, wherever it was written to.
    SUBMIT_NO_FLUSH = 1 << 6;
    /// Longest time-out of work and waits, ms.
    TIMEOUT_MAX_MS = 60_000;

    /// The result may be asked for again.
    WAIT_KEEP = 1 << 0;

    /// A coherent buffer, always mapped.
    SYSTEM_COHERENT = 1 << 0;
    /// Hand the pages to the CPU.
    SYNC_FOR_CPU = 0;
    /// Hand the pages to the device.
    SYNC_FOR_DEVICE = 1;

    /// The range is not RAM. Lab only.
    LAB_MAP_MMIO = 1 << 0;
    /// Never unmapped. Lab only.
    LAB_MAP_LEAK = 1 << 1;

    /// Bytes of a channel's name, with the 0.
    DMA_NAME = 20;
    /// The engine has copied.
    DMA_DONE = 0;
    /// It could not read.
    DMA_READ_FAILED = 1;
    /// It could not write.
    DMA_WRITE_FAILED = 2;
    /// It was stopped because of another copy.
    DMA_ABORTED = 3;
}
