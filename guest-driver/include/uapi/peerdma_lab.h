/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * peerdma: calls for the lab only, part of <peerdma.h>.
 */
#ifndef _UAPI_PEERDMA_LAB_H
#define _UAPI_PEERDMA_LAB_H

#include <linux/types.h>

/*
 * What follows breaks rules on purpose, to see whether the lab notices. It
 * needs CAP_SYS_ADMIN, as do PEERDMA_AT_ADDRESS, PEERDMA_AT_LOCAL,
 * PEERDMA_SUBMIT_NO_SYNC and PEERDMA_SUBMIT_VERDICT. No driver for real hardware
 * should offer the like.
 */

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

/**
 * struct peerdma_lab_map_phys - PEERDMA_LAB_MAP_PHYS: maps any physical range
 * @phys:	[in] CPU physical address
 * @length:	[in] bytes, 1..256 MiB
 * @direction:	[in] PEERDMA_BIDIRECTIONAL, ...
 * @flags:	[in] PEERDMA_LAB_MAP_MMIO for everything that is not RAM
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

#endif /* _UAPI_PEERDMA_LAB_H */
