/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Mappings: what importers have of our dma-bufs. The dma-buf's dma_resv guards them.
 */
#ifndef PEERDMA_MAPPING_H
#define PEERDMA_MAPPING_H

#include "driver.h"

/**
 * struct peerdma_mapping - one mapping that an importer has
 * @sgt:	the importer's table
 * @node:	in peerdma_buffer.mappings
 * @attach:	whose
 * @invalidation:	the export's @invalidations when it was made
 * @direction:	of the mapping
 * @pages:	@sgt has pages, mapped by dma_map_sgtable()
 * @ram:	and they are the system's, not those of a BAR
 * @unmapped:	its DMA addresses have been unmapped; only the table is left
 * @parts:	elements of @part
 * @part:	mappings of physical ranges, joined in @sgt
 */
struct peerdma_mapping {
	struct sg_table sgt;
	struct list_head node;
	struct dma_buf_attachment *attach;
	u64 invalidation;
	enum dma_data_direction direction;
	bool pages;
	bool ram;
	bool unmapped;
	u32 parts;
	struct sg_table *part[] __counted_by(parts);
};

static inline struct peerdma_mapping *to_peerdma_mapping(struct sg_table *sgt)
{
	return container_of(sgt, struct peerdma_mapping, sgt);
}

struct peerdma_mapping *peerdma_mapping_alloc(struct dma_buf_attachment *attach,
					      enum dma_data_direction dir, u32 parts);
struct peerdma_mapping *peerdma_mapping_of_ranges(struct dma_buf_attachment *attach,
						  struct p2pdma_provider *provider,
						  struct phys_vec *range, u32 ranges,
						  enum dma_data_direction dir);
struct peerdma_mapping *peerdma_mapping_of_pages(struct dma_buf_attachment *attach,
						 struct page **pages, u32 count, bool ram,
						 enum dma_data_direction dir);
void peerdma_mapping_unmap(struct peerdma_mapping *mapping);
void peerdma_mapping_free(struct peerdma_mapping *mapping);

#endif /* PEERDMA_MAPPING_H */
