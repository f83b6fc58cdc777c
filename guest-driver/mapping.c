// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mappings: what importers have of our dma-bufs, one for each mapping. All calls that
 * make DMA addresses for another device are here.
 */
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>

#include "mapping.h"

struct peerdma_mapping *peerdma_mapping_alloc(struct dma_buf_attachment *attach,
					      enum dma_data_direction dir, u32 parts)
{
	struct peerdma_mapping *mapping;

	dma_resv_assert_held(attach->dmabuf->resv);
	mapping = kzalloc_flex(*mapping, part, parts);
	if (!mapping)
		return NULL;
	mapping->parts = parts;
	mapping->attach = attach;
	mapping->direction = dir;
	INIT_LIST_HEAD(&mapping->node);
	return mapping;
}

static void peerdma_mapping_free_part(struct peerdma_mapping *mapping, u32 i)
{
	struct sg_table *part = mapping->part[i];

	if (!part)
		return;
	/*
	 * The helper says by orig_nents that there are no pages, and 7.3 then
	 * frees that many entries: none. It may have all of them back.
	 */
	part->orig_nents = part->nents;
	dma_buf_free_sgt(mapping->attach, part, mapping->direction);
	mapping->part[i] = NULL;
}

/*
 * Pages of RAM are the own device's too. The DMA API takes it for a mistake when two
 * mappings hand the same cachelines over (CONFIG_DMA_API_DEBUG says so, before 7.3): it
 * is separate from mapping, as CPU access between devices' accesses is.
 */
static unsigned long peerdma_mapping_attrs(bool ram)
{
	return ram ? DMA_ATTR_SKIP_CPU_SYNC : 0;
}

/* Takes the DMA addresses away; the table stays with the importer. */
void peerdma_mapping_unmap(struct peerdma_mapping *mapping)
{
	u32 i;

	dma_resv_assert_held(mapping->attach->dmabuf->resv);
	if (mapping->unmapped)
		return;
	mapping->unmapped = true;
	if (mapping->pages && mapping->ram)
		dma_sync_sgtable_for_cpu(mapping->attach->dev, &mapping->sgt, mapping->direction);
	if (mapping->pages)
		dma_unmap_sgtable(mapping->attach->dev, &mapping->sgt, mapping->direction,
				  peerdma_mapping_attrs(mapping->ram));
	for (i = 0; i < mapping->parts; i++)
		peerdma_mapping_free_part(mapping, i);
}

void peerdma_mapping_free(struct peerdma_mapping *mapping)
{
	peerdma_mapping_unmap(mapping);
	/* A table without pages has its entries all the same. */
	if (!mapping->pages)
		mapping->sgt.orig_nents = mapping->sgt.nents;
	sg_free_table(&mapping->sgt);
	kfree(mapping);
}

/* Joins the parts. There are no pages: importers see that by orig_nents. */
static int peerdma_mapping_join(struct peerdma_mapping *mapping)
{
	struct scatterlist *sg, *part_sg;
	unsigned int j, nents = 0;
	u32 i;
	int ret;

	for (i = 0; i < mapping->parts; i++)
		nents += mapping->part[i]->nents;
	ret = sg_alloc_table(&mapping->sgt, nents, GFP_KERNEL);
	if (ret)
		return ret;
	sg = mapping->sgt.sgl;
	for (i = 0; i < mapping->parts; i++) {
		for_each_sgtable_dma_sg(mapping->part[i], part_sg, j) {
			sg_set_page(sg, NULL, 0, 0);
			sg_dma_address(sg) = sg_dma_address(part_sg);
			sg_dma_len(sg) = sg_dma_len(part_sg);
			sg = sg_next(sg);
		}
	}
	mapping->sgt.orig_nents = 0;
	return 0;
}

/*
 * Physical ranges of the provider's BAR, without pages. Each is mapped by a call of
 * its own, because dma_buf_phys_vec_to_sgt() of 7.3 links all ranges of a call to
 * the same place of the IOVA range that it has taken for them (behind an IOMMU).
 */
struct peerdma_mapping *peerdma_mapping_of_ranges(struct dma_buf_attachment *attach,
						  struct p2pdma_provider *provider,
						  struct phys_vec *range, u32 ranges,
						  enum dma_data_direction dir)
{
	struct sg_table *part;
	struct peerdma_mapping *mapping;
	u32 i;
	int ret;

	mapping = peerdma_mapping_alloc(attach, dir, ranges);
	if (!mapping)
		return ERR_PTR(-ENOMEM);
	for (i = 0; i < ranges; i++) {
		part = dma_buf_phys_vec_to_sgt(attach, provider, &range[i], 1, range[i].len, dir);
		if (IS_ERR(part)) {
			ret = PTR_ERR(part);
			goto err_mapping;
		}
		mapping->part[i] = part;
	}
	ret = peerdma_mapping_join(mapping);
	if (ret)
		goto err_mapping;
	return mapping;

err_mapping:
	peerdma_mapping_free(mapping);
	return ERR_PTR(ret);
}

/* Pages, the system's (@ram) or those of a BAR. */
struct peerdma_mapping *peerdma_mapping_of_pages(struct dma_buf_attachment *attach,
						 struct page **pages, u32 count, bool ram,
						 enum dma_data_direction dir)
{
	struct peerdma_mapping *mapping = peerdma_mapping_alloc(attach, dir, 0);
	int ret;

	if (!mapping)
		return ERR_PTR(-ENOMEM);
	ret = sg_alloc_table_from_pages(&mapping->sgt, pages, count, 0, (size_t)count << PAGE_SHIFT,
					GFP_KERNEL);
	if (ret)
		goto err_mapping;
	ret = dma_map_sgtable(attach->dev, &mapping->sgt, dir, peerdma_mapping_attrs(ram));
	if (ret)
		goto err_table;
	if (ram)
		dma_sync_sgtable_for_device(attach->dev, &mapping->sgt, dir);
	mapping->pages = true;
	mapping->ram = ram;
	return mapping;

err_table:
	sg_free_table(&mapping->sgt);
err_mapping:
	kfree(mapping);
	return ERR_PTR(ret);
}
