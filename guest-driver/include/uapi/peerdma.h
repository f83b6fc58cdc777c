/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * peerdma: user interface of the peer device's driver.
 *
 * Every bound function has a character device /dev/peerdmaN. Functions get their
 * N in the order in which they are first bound, which is that of their bus
 * address when the module is loaded; so N is the lab's number of the peer
 * ("peer0", "peer1"). A function keeps its N when it is unbound and bound again.
 *
 * An open file owns objects, each named by a handle (1..) that is valid for
 * this file only. Four kinds exist:
 *
 *   memory    a piece of the device's local memory (PEERDMA_ALLOC)
 *   buffer    memory of any kind, to be exported (PEERDMA_BUFFER_ALLOC)
 *   import    another exporter's dma-buf, attached to this device (PEERDMA_IMPORT)
 *   system    pages or a coherent buffer of the DMA API (PEERDMA_SYSTEM_ALLOC)
 *
 * Closing the file waits for its unfinished work and frees all of them; a
 * dma-buf that was exported keeps its memory until the dma-buf itself is gone.
 *
 * Growing: structures only ever grow at their end, and a zero means "as
 * before". The kernel takes a shorter structure than its own as zero filled,
 * and a longer one only if what it does not know is zero (else E2BIG). Unknown
 * flags and reserved fields that are not zero give EINVAL.
 *
 * Errors that every call may give: EINVAL (a malformed argument), ENOTTY (no
 * such call), EFAULT (bad pointer), ENOENT (no such handle or cookie), ENODEV
 * (the device has been unbound or is lost), EAGAIN (a reset is going on; try
 * again), ENOMEM, ERESTARTSYS/EINTR (a signal), EPERM (what <peerdma_lab.h>
 * defines, without CAP_SYS_ADMIN).
 */
#ifndef _UAPI_PEERDMA_H
#define _UAPI_PEERDMA_H

#include <linux/ioctl.h>
#include <linux/types.h>

#include "peerdma_lab.h"
#include "peerdma_work.h"

#define PEERDMA_ABI_VERSION	1
#define PEERDMA_IOCTL_BASE	0xDB

/* ------------------------------------------------------------------ info */

/* struct peerdma_info.features */
#define PEERDMA_FEATURE_P2PDMA		(1U << 0) /* memory can be exported */
#define PEERDMA_FEATURE_SYNC_FILE	(1U << 1) /* fences in and out */
#define PEERDMA_FEATURE_MSIX		(1U << 2) /* a vector for each channel */
#define PEERDMA_FEATURE_COMPARE		(1U << 3) /* PEERDMA_WORK_COMPARE */
#define PEERDMA_FEATURE_VERDICT		(1U << 4) /* PEERDMA_SUBMIT_VERDICT */
#define PEERDMA_FEATURE_WAYS		(1U << 16) /* mapped by the way to it */
#define PEERDMA_FEATURE_NO_INVALIDATE		(1U << 17) /* PEERDMA_IMPORT_NO_INVALIDATE */

/* struct peerdma_info.iommu: how the DMA API treats this device */
#define PEERDMA_IOMMU_NONE		0 /* no IOMMU, or one that is bypassed */
#define PEERDMA_IOMMU_IDENTITY		1 /* a pass-through domain */
#define PEERDMA_IOMMU_STRICT		2 /* translated, unmap invalidates at once */
#define PEERDMA_IOMMU_LAZY		3 /* translated, invalidated later */
#define PEERDMA_IOMMU_OTHER		4

/**
 * struct peerdma_info - PEERDMA_GET_INFO: what this function is
 * @abi:		PEERDMA_ABI_VERSION of the module
 * @features:		PEERDMA_FEATURE_*
 * @segment:		PCI segment (domain)
 * @bdf:		bus << 8 | device << 3 | function, the requester ID
 * @instance:		N of /dev/peerdmaN
 * @channels:		DMA channels, numbered from 0
 * @vectors:		interrupt vectors in use
 * @iommu:		PEERDMA_IOMMU_*
 * @page_size:		unit in which memory is handed out and exported, bytes
 * @memory_size:	bytes of local memory
 * @memory_free:	bytes of it that can be allocated now
 * @memory_phys:	CPU physical address of the local memory's BAR; zero
 *			without CAP_SYS_ADMIN
 * @memory_bus:		the same BAR as seen on the PCI bus; differs from
 *			@memory_phys where the host bridge translates; zero
 *			without CAP_SYS_ADMIN
 * @registers_phys:	CPU physical address of the register BAR, likewise
 * @registers_size:	bytes of it
 * @descriptor_bytes:	the most one descriptor moves; longer work is split
 */
struct peerdma_info {
	__u32 abi;
	__u32 features;
	__u32 segment;
	__u32 bdf;
	__u32 instance;
	__u32 channels;
	__u32 vectors;
	__u32 iommu;
	__u64 page_size;
	__u64 memory_size;
	__u64 memory_free;
	__u64 memory_phys;
	__u64 memory_bus;
	__u64 registers_phys;
	__u64 registers_size;
	__u64 descriptor_bytes;
};

/**
 * struct peerdma_counters - PEERDMA_GET_COUNTERS: since the driver bound
 * @interrupts:		interrupts taken, all vectors
 * @completions:	descriptors that ended, well or not
 * @submitted:		pieces of work accepted
 * @finished:		pieces of work that ended, well or not
 * @failed:		those of them that ended with an error
 * @timeouts:		those of them the device never answered
 * @invalidations:	calls of our importer's invalidate_mappings
 * @maps:		mappings made by our importer (dma_buf_map_attachment)
 * @unmaps:		mappings given back by it; equals @maps when idle
 * @exporter_maps:	mappings our exporter handed out
 * @exporter_unmaps:	mappings our exporter got back
 * @revocations:	times our exporter invalidated a buffer
 * @resets:		function level resets survived
 * @errors:		AER recoveries in which this driver took part
 * @live_memory:	memory and buffer objects now alive (exported ones included)
 * @live_dmabufs:	dma-bufs of ours now alive
 * @live_imports:	imports now alive
 * @live_systems:	system objects now alive
 * @live_work:		pieces of work not yet finished
 */
struct peerdma_counters {
	__u64 interrupts;
	__u64 completions;
	__u64 submitted;
	__u64 finished;
	__u64 failed;
	__u64 timeouts;
	__u64 invalidations;
	__u64 maps;
	__u64 unmaps;
	__u64 exporter_maps;
	__u64 exporter_unmaps;
	__u64 revocations;
	__u64 resets;
	__u64 errors;
	__u64 live_memory;
	__u64 live_dmabufs;
	__u64 live_imports;
	__u64 live_systems;
	__u64 live_work;
};

/**
 * struct peerdma_distance - PEERDMA_GET_DISTANCE: the kernel's view of a path
 * @segment:	[in] PCI segment of the client, the device that would do DMA
 * @bdf:	[in] its requester ID
 * @distance:	[out] what pci_p2pdma_distance() says of DMA by the client into
 *		our memory: 0.. the hops of a path that works, -1 none does
 * @reserved:	zero
 *
 * ENODEV if there is no such device.
 */
struct peerdma_distance {
	__u32 segment;
	__u32 bdf;
	__s32 distance;
	__u32 reserved;
};

/* --------------------------------------------------------------- memory */

/**
 * struct peerdma_alloc - PEERDMA_ALLOC: a piece of local memory
 * @size:	[in] bytes, 1..; rounded up to pages. [out] the rounded size
 * @ranges:	[in] 0 or 1: one range; more: scatter it over that many, with
 *		a gap between each two. At most 64 and one for each page
 * @flags:	[in] zero
 * @handle:	[out] a memory object
 * @reserved:	zero
 * @offset:	[out] offset of the first range in the local memory, bytes
 * @mmap_offset:[out] offset for mmap() of /dev/peerdmaN, uncached or write
 *		combining as the BAR allows
 *
 * The contents are not cleared: the lab poisons what has not been written. ENOSPC if
 * the local memory is full.
 */
struct peerdma_alloc {
	__u64 size;
	__u32 ranges;
	__u32 flags;
	__u32 handle;
	__u32 reserved;
	__u64 offset;
	__u64 mmap_offset;
};

/**
 * struct peerdma_handle - PEERDMA_CLOSE: gives an object back
 * @handle:	[in] memory, import or system object
 * @reserved:	zero
 *
 * Waits for the work that uses it. An mmap() of the object stays usable.
 */
struct peerdma_handle {
	__u32 handle;
	__u32 reserved;
};

/* struct peerdma_export.flags: the file descriptor's, as for open(2) */
#define PEERDMA_EXPORT_CLOEXEC	(1U << 0)
#define PEERDMA_EXPORT_RDWR	(1U << 1) /* else it cannot be mmapped for writing */

/**
 * struct peerdma_export - PEERDMA_EXPORT: a dma-buf over a memory object
 * @handle:	[in] memory or buffer object
 * @flags:	[in] PEERDMA_EXPORT_*
 * @offset:	[in] first byte, a multiple of the page size; 0 for a buffer
 * @size:	[in] bytes, a multiple of the page size; 0: up to the end. A
 *		buffer is exported as a whole (else EINVAL)
 * @fd:		[out] the dma-buf
 * @reserved:	zero
 *
 * All dma-bufs of one object share its reservation object. EOPNOTSUPP if the
 * kernel or the device has no p2pdma.
 */
struct peerdma_export {
	__u32 handle;
	__u32 flags;
	__u64 offset;
	__u64 size;
	__s32 fd;
	__u32 reserved;
};

/**
 * struct peerdma_invalidate - PEERDMA_INVALIDATE: exporter's side of a move
 * @handle:	[in] memory or buffer object
 * @reserved:	zero
 *
 * Invalidates the mappings of every importer of the object's dma-bufs, and
 * waits until their fences have signalled and the mappings are gone. Importers
 * may map again at once. Those that cannot be notified keep theirs. ETIME:
 * those of one dma-buf are not all gone in time (the module's timeout_ms, for
 * each); they have been notified, importers of the dma-bufs behind it have not.
 */
struct peerdma_invalidate {
	__u32 handle;
	__u32 reserved;
};

/* -------------------------------------------------------------- buffers */

/* struct peerdma_buffer_alloc.kind: what backs the buffer */
#define PEERDMA_BUFFER_LOCAL		0 /* local memory without struct pages */
#define PEERDMA_BUFFER_P2PMEM		1 /* local memory with ZONE_DEVICE pages */
#define PEERDMA_BUFFER_PAGES		2 /* pages of the system */
#define PEERDMA_BUFFER_NONCONTIGUOUS	3 /* dma_alloc_noncontiguous() */
#define PEERDMA_BUFFER_NONCOHERENT	4 /* dma_alloc_noncoherent() */
#define PEERDMA_BUFFER_COHERENT		5 /* dma_alloc_coherent() */
#define PEERDMA_BUFFER_MIGRATING	6 /* local memory or pages, as need be */

/**
 * struct peerdma_buffer_alloc - PEERDMA_BUFFER_ALLOC: memory to be shared
 * @size:	[in] bytes, 1..256 MiB; rounded up to pages. [out] the rounded size
 * @kind:	[in] PEERDMA_BUFFER_*
 * @ranges:	[in] as for PEERDMA_ALLOC, LOCAL only; else 0 or 1
 * @flags:	[in] zero, or one of <peerdma_lab.h>
 * @handle:	[out] a memory object for LOCAL, a buffer object for the others
 *
 * A buffer object takes part in work of its own device like a memory object. The
 * CPU reaches it by mmap() of a dma-buf over it. What its dma-bufs promise:
 *
 *   kind		accepts			moves	goes with the driver
 *   LOCAL		peer2peer, revocable	no	yes, revoked
 *   P2PMEM		peer2peer		no	yes, waited for
 *   PAGES		all			no	no
 *   NONCONTIGUOUS	all			no	yes, waited for
 *   NONCOHERENT	all			no	yes, waited for
 *   COHERENT		own device only		no	yes
 *   MIGRATING		all			yes	yes, revoked
 *
 * An attachment that is refused gets EOPNOTSUPP, or EREMOTEIO where the kernel has
 * no path for peer-to-peer DMA. MIGRATING begins in local memory and goes to pages
 * by itself for an attachment that may not have peers' memory, cannot be reached,
 * or cannot be notified (EBUSY if local memory is pinned or mapped by the
 * kernel just then); it returns by PEERDMA_BUFFER_MOVE only. "Waited for": an
 * importer that can be notified is; unbinding waits for the mappings of the
 * others. An importer that cannot be notified keeps a MIGRATING buffer's pages
 * as long as its mapping.
 *
 * ENOSPC: the local memory, or the part of it that has struct pages (module
 * parameter p2pmem_percent), is full. EOPNOTSUPP: no p2pdma in kernel or device.
 */
struct peerdma_buffer_alloc {
	__u64 size;
	__u32 kind;
	__u32 ranges;
	__u32 flags;
	__u32 handle;
};

/* struct peerdma_buffer_move.place, struct peerdma_buffer_state.place */
#define PEERDMA_PLACE_LOCAL	0 /* in the device */
#define PEERDMA_PLACE_SYSTEM	1 /* in RAM */

/**
 * struct peerdma_buffer_move - PEERDMA_BUFFER_MOVE: a MIGRATING buffer elsewhere
 * @handle:	[in] buffer object of that kind (else EINVAL)
 * @place:	[in] PEERDMA_PLACE_*
 * @flags:	[in] zero, or one of <peerdma_lab.h>
 * @reserved:	zero
 *
 * Importers are notified, their fences waited for, the contents copied. EBUSY:
 * it is pinned where it is, or an attachment cannot have it there. ETIME: a
 * fence has not signalled within the module's timeout_ms; nothing has moved.
 */
struct peerdma_buffer_move {
	__u32 handle;
	__u32 place;
	__u32 flags;
	__u32 reserved;
};

/**
 * struct peerdma_buffer_state - PEERDMA_BUFFER_STATE: where a buffer is
 * @handle:	[in] buffer object
 * @kind:	[out] PEERDMA_BUFFER_*
 * @place:	[out] PEERDMA_PLACE_*
 * @pins:	[out] how often importers have pinned it
 * @mappings:	[out] how many importers have now
 * @reserved:	zero
 * @moves:	[out] moves so far
 */
struct peerdma_buffer_state {
	__u32 handle;
	__u32 kind;
	__u32 place;
	__u32 pins;
	__u32 mappings;
	__u32 reserved;
	__u64 moves;
};

/**
 * struct peerdma_kernel_copy - PEERDMA_KERNEL_COPY: the kernel's CPU access
 * @fd:		[in] a dma-buf, any exporter's
 * @write:	[in] 0: from the dma-buf to @data; 1: from @data to the dma-buf
 * @offset:	[in] first byte in the dma-buf
 * @length:	[in] bytes, 1..64 KiB; past its end: ERANGE
 * @data:	[in] pointer
 *
 * By dma_buf_vmap(), between dma_buf_begin_cpu_access() and _end_. EINVAL: it has no
 * vmap (several ranges).
 */
struct peerdma_kernel_copy {
	__s32 fd;
	__u32 write;
	__u64 offset;
	__u64 length;
	__u64 data;
};

/* --------------------------------------------------------------- import */

/* struct peerdma_import.flags */
#define PEERDMA_IMPORT_PEER2PEER	(1U << 0) /* allow_peer2peer */
#define PEERDMA_IMPORT_STATIC		(1U << 1) /* dma_buf_attach(), no ops at all */
#define PEERDMA_IMPORT_PINNED		(1U << 2) /* dma_buf_pin() while attached */
#define PEERDMA_IMPORT_NO_INVALIDATE	(1U << 3) /* no invalidate_mappings; needs PINNED */

/**
 * struct peerdma_import - PEERDMA_IMPORT: attaches a dma-buf to this device
 * @fd:		[in] the dma-buf, ours or any exporter's; the caller keeps it
 * @flags:	[in] PEERDMA_IMPORT_*; the usual one is PEER2PEER alone
 * @handle:	[out] an import
 * @reserved:	zero
 * @size:	[out] the dma-buf's size, bytes
 *
 * The exporter's refusal is passed on: EOPNOTSUPP when the buffer is device
 * memory and the attachment does not allow peer2peer (or cannot be revoked).
 * EBADF, EINVAL if @fd is not a dma-buf.
 */
struct peerdma_import {
	__s32 fd;
	__u32 flags;
	__u32 handle;
	__u32 reserved;
	__u64 size;
};

/* Directions, seen from memory as in the DMA API */
#define PEERDMA_BIDIRECTIONAL	0 /* the device reads and writes */
#define PEERDMA_TO_DEVICE	1 /* the device only reads */
#define PEERDMA_FROM_DEVICE	2 /* the device only writes */

/**
 * struct peerdma_map - PEERDMA_MAP: maps an import or a system object
 * @handle:	[in] import or system object that is not mapped (else EBUSY)
 * @direction:	[in] what the mapping permits
 * @segments:	[out] how many pieces the mapping has in DMA addresses
 * @reserved:	zero
 *
 * An import that is not mapped is mapped BIDIRECTIONAL by the first work that
 * uses it, and again after its exporter has invalidated it (with the direction
 * it had). EINVAL here may be the exporter's: no path for peer-to-peer DMA.
 */
struct peerdma_map {
	__u32 handle;
	__u32 direction;
	__u32 segments;
	__u32 reserved;
};

/*
 * PEERDMA_UNMAP (struct peerdma_handle): waits for the work that uses the
 * mapping, then gives it back. The object stays, so do a system object's pages.
 * An unmapped system object cannot be named in work (EINVAL).
 */

/**
 * struct peerdma_segment - one piece of a mapping
 * @address:	DMA address for imports and system objects; offset in the local
 *		memory for memory objects
 * @length:	bytes
 */
struct peerdma_segment {
	__u64 address;
	__u64 length;
};

/**
 * struct peerdma_segments - PEERDMA_GET_SEGMENTS: where an object lies
 * @handle:	[in] any object
 * @first:	[in] first segment wanted
 * @capacity:	[in] room in @array, in segments. [out] how many were written
 * @total:	[out] segments of the mapping; 0: not mapped now
 * @array:	[in] pointer to struct peerdma_segment[]
 * @generation:	[out] counts the mappings made of this object, so that a test
 *		sees a remap; 0 before the first
 * @direction:	[out] the mapping's direction
 * @reserved:	zero
 */
struct peerdma_segments {
	__u32 handle;
	__u32 first;
	__u32 capacity;
	__u32 total;
	__u64 array;
	__u64 generation;
	__u32 direction;
	__u32 reserved;
};

/* -------------------------------------------------------- system memory */

/* struct peerdma_system_alloc.flags */
#define PEERDMA_SYSTEM_COHERENT	(1U << 0) /* dma_alloc_coherent(), always mapped */

/**
 * struct peerdma_system_alloc - PEERDMA_SYSTEM_ALLOC: system memory for DMA
 * @size:	[in] bytes, 1..256 MiB; rounded up to pages. [out] the rounded size
 * @flags:	[in] PEERDMA_SYSTEM_*; without COHERENT: zeroed pages, mapped by
 *		dma_map_sgtable() in @direction
 * @direction:	[in] PEERDMA_BIDIRECTIONAL, ...; COHERENT takes that one only
 * @handle:	[out] a system object, mapped
 * @segments:	[out] how many pieces it has in DMA addresses
 * @mmap_offset:[out] offset for mmap() of /dev/peerdmaN
 */
struct peerdma_system_alloc {
	__u64 size;
	__u32 flags;
	__u32 direction;
	__u32 handle;
	__u32 segments;
	__u64 mmap_offset;
};

/* struct peerdma_system_sync.target */
#define PEERDMA_SYNC_FOR_CPU	0
#define PEERDMA_SYNC_FOR_DEVICE	1

/**
 * struct peerdma_system_sync - PEERDMA_SYSTEM_SYNC: hands pages over
 * @handle:	[in] system object; for a COHERENT one nothing needs to be done
 * @target:	[in] PEERDMA_SYNC_FOR_*
 */
struct peerdma_system_sync {
	__u32 handle;
	__u32 target;
};

#define PEERDMA_IOC(nr, type)	_IOWR(PEERDMA_IOCTL_BASE, nr, type)

#define PEERDMA_GET_INFO	PEERDMA_IOC(0x00, struct peerdma_info)
#define PEERDMA_GET_COUNTERS	PEERDMA_IOC(0x01, struct peerdma_counters)
#define PEERDMA_GET_DISTANCE	PEERDMA_IOC(0x02, struct peerdma_distance)
#define PEERDMA_ALLOC		PEERDMA_IOC(0x10, struct peerdma_alloc)
#define PEERDMA_EXPORT		PEERDMA_IOC(0x11, struct peerdma_export)
#define PEERDMA_INVALIDATE	PEERDMA_IOC(0x12, struct peerdma_invalidate)
#define PEERDMA_CLOSE		PEERDMA_IOC(0x13, struct peerdma_handle)
#define PEERDMA_IMPORT		PEERDMA_IOC(0x20, struct peerdma_import)
#define PEERDMA_MAP		PEERDMA_IOC(0x21, struct peerdma_map)
#define PEERDMA_UNMAP		PEERDMA_IOC(0x22, struct peerdma_handle)
#define PEERDMA_GET_SEGMENTS	PEERDMA_IOC(0x23, struct peerdma_segments)
#define PEERDMA_SUBMIT		PEERDMA_IOC(0x30, struct peerdma_submit)
#define PEERDMA_WAIT		PEERDMA_IOC(0x31, struct peerdma_wait)
#define PEERDMA_SYSTEM_ALLOC	PEERDMA_IOC(0x40, struct peerdma_system_alloc)
#define PEERDMA_SYSTEM_SYNC	PEERDMA_IOC(0x41, struct peerdma_system_sync)
#define PEERDMA_BUFFER_ALLOC	PEERDMA_IOC(0x48, struct peerdma_buffer_alloc)
#define PEERDMA_BUFFER_MOVE	PEERDMA_IOC(0x49, struct peerdma_buffer_move)
#define PEERDMA_BUFFER_STATE	PEERDMA_IOC(0x4a, struct peerdma_buffer_state)
#define PEERDMA_KERNEL_COPY	PEERDMA_IOC(0x4b, struct peerdma_kernel_copy)

#endif /* _UAPI_PEERDMA_H */
