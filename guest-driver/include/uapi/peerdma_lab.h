/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * peerdma: calls for the lab only, part of <peerdma.h>.
 */
#ifndef _UAPI_PEERDMA_LAB_H
#define _UAPI_PEERDMA_LAB_H

#include <linux/types.h>

/*
 * What follows breaks rules on purpose, to see whether the lab notices, and asks for
 * the lab's verdict. All of it needs CAP_SYS_ADMIN. No driver for real hardware should
 * offer the like.
 */

/* struct peerdma_location.kind: passed to the device unchecked, handle is zero */
#define PEERDMA_AT_ADDRESS	2 /* offset is a raw DMA address, mapped or not */
#define PEERDMA_AT_LOCAL	3 /* offset is a raw offset in local memory */

/*
 * struct peerdma_submit.flags
 *
 * VERDICT makes the descriptors of the work run one at a time and nothing else beside
 * them on the channel, and reads the lab's verdict after each.
 */
#define PEERDMA_SUBMIT_NO_SYNC	(1U << 3) /* ignore the buffers' fences */
#define PEERDMA_SUBMIT_VERDICT	(1U << 4) /* report the lab's verdict */

/* struct peerdma_buffer_alloc.flags: what the dma-bufs of the buffer give away */
#define PEERDMA_BUFFER_LAB_PHYSICAL	(1U << 0) /* CPU physical addresses */
#define PEERDMA_BUFFER_LAB_SGTABLE	(1U << 1) /* COHERENT: dma_get_sgtable() */
#define PEERDMA_BUFFER_LAB_ANY_IMPORTER	(1U << 2) /* P2PMEM: also without peer2peer */

/*
 * struct peerdma_buffer_move.flags: waits for no fences, and unmaps the mappings of
 * importers at once
 */
#define PEERDMA_MOVE_LAB_NO_WAIT (1U << 0)

/* struct peerdma_import.flags: what the importer does when it is invalidated */
#define PEERDMA_IMPORT_LAB_UNMAP_EARLY	(1U << 4) /* unmaps with work in flight */
#define PEERDMA_IMPORT_LAB_IGNORE_INVALIDATE (1U << 5) /* keeps its mapping, and uses it */

/**
 * struct peerdma_lab_bus_master - PEERDMA_LAB_BUS_MASTER
 * @enable:	[in] 0 clears Bus Master Enable, 1 sets it; 2 only asks
 * @was:	[out] what it was
 *
 * Work that the device could not finish in between ends by its time-out.
 */
struct peerdma_lab_bus_master {
	__u32 enable;
	__u32 was;
};

/* struct peerdma_lab_map_phys.flags */
#define PEERDMA_LAB_MAP_MMIO	(1U << 0) /* DMA_ATTR_MMIO */
#define PEERDMA_LAB_MAP_LEAK	(1U << 1) /* never unmapped, not even by closing */

/**
 * struct peerdma_lab_map_phys - PEERDMA_LAB_MAP_PHYS: maps any physical range
 * @phys:	[in] CPU physical address
 * @length:	[in] bytes, 1..256 MiB
 * @direction:	[in] PEERDMA_BIDIRECTIONAL, ...
 * @flags:	[in] PEERDMA_LAB_MAP_*; MMIO for everything that is not RAM
 * @handle:	[out] a system object (without mmap)
 * @reserved:	zero
 * @address:	[out] its DMA address
 *
 * Calls dma_map_phys(), blind to topology and to the ends of BARs. Without
 * PEERDMA_LAB_MAP_MMIO the range must be RAM (else EINVAL).
 */
struct peerdma_lab_map_phys {
	__u64 phys;
	__u64 length;
	__u32 direction;
	__u32 flags;
	__u32 handle;
	__u32 reserved;
	__u64 address;
};

/**
 * struct peerdma_lab_register - PEERDMA_LAB_REGISTER: the register BAR, raw
 * @offset:	[in] naturally aligned, inside the BAR
 * @width:	[in] 4 or 8 bytes
 * @write:	[in] 0 reads, 1 writes
 * @value:	[in/out]
 */
struct peerdma_lab_register {
	__u64 offset;
	__u32 width;
	__u32 write;
	__u64 value;
};

/**
 * struct peerdma_lab_read_page - PEERDMA_LAB_READ_PAGE: an importer that looks at
 *				  the pages of the table it got
 * @handle:	[in] import that is mapped (else EINVAL)
 * @entries:	[out] entries of the table that claim to have pages (orig_nents)
 * @value:	[out] the first eight bytes, by way of the first struct page
 *
 * No importer may do that. EFAULT: there is no page, or its memory cannot be read.
 */
struct peerdma_lab_read_page {
	__u32 handle;
	__u32 entries;
	__u64 value;
};

#define PEERDMA_LAB_BUS_MASTER	PEERDMA_IOC(0x80, struct peerdma_lab_bus_master)
#define PEERDMA_LAB_MAP_PHYS	PEERDMA_IOC(0x81, struct peerdma_lab_map_phys)
#define PEERDMA_LAB_REGISTER	PEERDMA_IOC(0x82, struct peerdma_lab_register)
#define PEERDMA_LAB_READ_PAGE	PEERDMA_IOC(0x88, struct peerdma_lab_read_page)
/*
 * An import, mapped or not, loses its attachment without unmapping or detaching: only
 * its reference to the dma-buf is left, which goes when it is closed. The mapping and
 * the attachment leak.
 */
#define PEERDMA_LAB_FORGET	PEERDMA_IOC(0x89, struct peerdma_handle)

#endif /* _UAPI_PEERDMA_LAB_H */
