/* SPDX-License-Identifier: GPL-2.0-only */
/* What the long-term series 6.12 calls otherwise, in terms of 7.3. */
#ifndef DMA_WITNESS_COMPAT_H
#define DMA_WITNESS_COMPAT_H

#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/version.h>

/* None is linked where there are none: so it is compiled. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 16, 0)
struct dma_iova_state {
	dma_addr_t addr;
};
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 18, 0)
#define DMA_ATTR_MMIO (1UL << 10)
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
#define invalidate_mappings move_notify
#endif

#endif
