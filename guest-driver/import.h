/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Imports: dma-bufs of other exporters that this device is attached to.
 */
#ifndef PEERDMA_IMPORT_H
#define PEERDMA_IMPORT_H

#include "driver.h"

/**
 * struct peerdma_imported - an import
 * @base:	its segments are the mapping's DMA addresses
 * @dmabuf:	the dma-buf; a reference
 * @attach:	the attachment; NULL after shutdown
 * @sgt:	the mapping, valid while @base.segments is not NULL
 * @invalid:	the mapping has been invalidated and must be unmapped
 * @pinned:	dma_buf_pin() has been called
 * @unmap:	unmaps an invalidated mapping when the last work on it has ended
 *
 * The dma-buf's dma_resv guards @attach, @sgt, @invalid and @pinned.
 */
struct peerdma_imported {
	struct peerdma_object base;
	struct dma_buf *dmabuf;
	struct dma_buf_attachment *attach;
	struct sg_table *sgt;
	bool invalid;
	bool pinned;
	struct work_struct unmap;
};

static inline struct peerdma_imported *to_peerdma_imported(struct peerdma_object *obj)
{
	return container_of(obj, struct peerdma_imported, base);
}

#endif /* PEERDMA_IMPORT_H */
