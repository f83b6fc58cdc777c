//! The structures of the calls.
#![allow(
    missing_docs,
    reason = "the header documents every field, and only it: two texts would drift apart"
)]

use super::{FieldLayout, Layout};

/// Declares structures together with what the drift test needs to know about them. The size after the name is checked
/// at compile time: it is what the kernel copies.
macro_rules! structures {
    ($($(#[$meta:meta])* $c_name:literal $name:ident $size:literal { $($field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub struct $name { $(pub $field: $kind,)* }

            const _: () = assert!(size_of::<$name>() == $size, "the size differs from what the kernel copies");
        )*

        /// The layout of every structure.
        pub fn layouts() -> Vec<Layout> {
            vec![$(Layout {
                c_name: $c_name,
                size: size_of::<$name>(),
                fields: vec![$(FieldLayout {
                    name: stringify!($field),
                    offset: std::mem::offset_of!($name, $field),
                    size: size_of::<$kind>(),
                },)*],
            },)*]
        }
    };
}

structures! {
    /// What a function is.
    "peerdma_info" Info 96 {
        abi: u32,
        features: u32,
        segment: u32,
        bdf: u32,
        instance: u32,
        channels: u32,
        vectors: u32,
        iommu: u32,
        page_size: u64,
        memory_size: u64,
        memory_free: u64,
        memory_phys: u64,
        memory_bus: u64,
        registers_phys: u64,
        registers_size: u64,
        descriptor_bytes: u64,
    }

    /// What happened since the driver bound.
    "peerdma_counters" Counters 152 {
        interrupts: u64,
        completions: u64,
        submitted: u64,
        finished: u64,
        failed: u64,
        timeouts: u64,
        invalidations: u64,
        maps: u64,
        unmaps: u64,
        exporter_maps: u64,
        exporter_unmaps: u64,
        revocations: u64,
        resets: u64,
        errors: u64,
        live_memory: u64,
        live_dmabufs: u64,
        live_imports: u64,
        live_systems: u64,
        live_work: u64,
    }

    /// The kernel's view of a path.
    "peerdma_distance" Distance 16 {
        segment: u32,
        bdf: u32,
        distance: i32,
        reserved: u32,
    }

    /// A piece of local memory.
    "peerdma_alloc" Alloc 40 {
        size: u64,
        ranges: u32,
        flags: u32,
        handle: u32,
        reserved: u32,
        offset: u64,
        mmap_offset: u64,
    }

    /// Names an object.
    "peerdma_handle" Handle 8 {
        handle: u32,
        reserved: u32,
    }

    /// A dma-buf over a memory object.
    "peerdma_export" Export 32 {
        handle: u32,
        flags: u32,
        offset: u64,
        size: u64,
        fd: i32,
        reserved: u32,
    }

    /// The exporter's side of a move.
    "peerdma_invalidate" Invalidate 8 {
        handle: u32,
        reserved: u32,
    }

    /// Attaches a dma-buf.
    "peerdma_import" Import 24 {
        fd: i32,
        flags: u32,
        handle: u32,
        reserved: u32,
        size: u64,
    }

    /// Maps an import or a system object.
    "peerdma_map" Map 16 {
        handle: u32,
        direction: u32,
        segments: u32,
        reserved: u32,
    }

    /// One piece of a mapping.
    "peerdma_segment" Segment 16 {
        address: u64,
        length: u64,
    }

    /// Where an object lies.
    "peerdma_segments" Segments 40 {
        handle: u32,
        first: u32,
        capacity: u32,
        total: u32,
        array: u64,
        generation: u64,
        direction: u32,
        reserved: u32,
    }

    /// Source or destination of work.
    "peerdma_location" Location 16 {
        kind: u32,
        handle: u32,
        offset: u64,
    }

    /// Work for a channel.
    "peerdma_submit" Submit 80 {
        operation: u32,
        channel: u32,
        flags: u32,
        timeout_ms: u32,
        source: Location,
        destination: Location,
        length: u64,
        pattern: u64,
        in_fence: i32,
        out_fence: i32,
        cookie: u64,
    }

    /// The result of work.
    "peerdma_wait" Wait 80 {
        cookie: u64,
        timeout_ms: u32,
        flags: u32,
        error: i32,
        status: u32,
        bytes: u64,
        result: u64,
        error_address: u64,
        verdict_address: u64,
        verdict: u32,
        verdict_count: u32,
        halt: u32,
        descriptors: u32,
        interrupted: u32,
        reserved: u32,
    }

    /// System memory for DMA.
    "peerdma_system_alloc" SystemAlloc 32 {
        size: u64,
        flags: u32,
        direction: u32,
        handle: u32,
        segments: u32,
        mmap_offset: u64,
    }

    /// Hands pages over between CPU and device.
    "peerdma_system_sync" SystemSync 8 {
        handle: u32,
        target: u32,
    }

    /// Bus Master Enable. Lab only.
    "peerdma_lab_bus_master" LabBusMaster 8 {
        enable: u32,
        was: u32,
    }

    /// Maps any physical range. Lab only.
    "peerdma_lab_map_phys" LabMapPhys 40 {
        phys: u64,
        length: u64,
        direction: u32,
        flags: u32,
        handle: u32,
        reserved: u32,
        address: u64,
    }

    /// The register BAR, raw. Lab only.
    "peerdma_lab_register" LabRegister 24 {
        offset: u64,
        width: u32,
        write: u32,
        value: u64,
    }

    /// Memory of any kind, to be shared.
    "peerdma_buffer_alloc" BufferAlloc 24 {
        size: u64,
        kind: u32,
        ranges: u32,
        flags: u32,
        handle: u32,
    }

    /// A migrating buffer elsewhere.
    "peerdma_buffer_move" BufferMove 16 {
        handle: u32,
        place: u32,
        flags: u32,
        reserved: u32,
    }

    /// Where a buffer is.
    "peerdma_buffer_state" BufferState 32 {
        handle: u32,
        kind: u32,
        place: u32,
        pins: u32,
        mappings: u32,
        reserved: u32,
        moves: u64,
    }

    /// The kernel's CPU access.
    "peerdma_kernel_copy" KernelCopy 32 {
        fd: i32,
        write: u32,
        offset: u64,
        length: u64,
        data: u64,
    }

    /// Pages of an import's table. Lab only.
    "peerdma_lab_read_page" LabReadPage 16 {
        handle: u32,
        entries: u32,
        value: u64,
    }
    /// A copy by a channel of any DMA engine.
    "peerdma_dma_copy" DmaCopy 64 {
        channel: [u8; 20],
        source_fd: i32,
        target_fd: i32,
        length: u32,
        source: u64,
        target: u64,
        timeout_ms: u32,
        result: u32,
        reserved: u64,
    }

    /// Where a channel's device finds a byte of a dma-buf.
    "peerdma_dma_address" DmaAddress 56 {
        channel: [u8; 20],
        fd: i32,
        offset: u64,
        address: u64,
        length: u64,
        segments: u32,
        reserved: u32,
    }
}
