// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loans: what importers have of our dma-bufs, one for each mapping. All calls that
 * make DMA addresses for another device are here.
 */
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>

#include "loan.h"

static struct peerdma_loan *peerdma_loan_new(struct dma_buf_attachment *attach,
					     enum dma_data_direction dir, u32 parts)
{
	struct peerdma_loan *loan = kzalloc_flex(*loan, part, parts);

	if (!loan)
		return NULL;
	loan->parts = parts;
	loan->attach = attach;
	loan->direction = dir;
	INIT_LIST_HEAD(&loan->node);
	return loan;
}

static void peerdma_loan_end_part(struct peerdma_loan *loan, u32 i)
{
	struct sg_table *part = loan->part[i];

	if (!part)
		return;
	/*
	 * The helper says by orig_nents that there are no pages, and 7.3 then
	 * frees that many entries: none. It may have all of them back.
	 */
	part->orig_nents = part->nents;
	dma_buf_free_sgt(loan->attach, part, loan->direction);
	loan->part[i] = NULL;
}

/*
 * Pages of RAM are the own device's too. The DMA API takes it for a mistake when two
 * mappings hand the same cachelines over (CONFIG_DMA_API_DEBUG says so, before 7.3): it
 * is told apart from mapping, as CPU access between devices' accesses is.
 */
static unsigned long peerdma_loan_attrs(bool ram)
{
	return ram ? DMA_ATTR_SKIP_CPU_SYNC : 0;
}

/* Takes the DMA addresses away; the table stays, for who still has it. */
void peerdma_loan_tear(struct peerdma_loan *loan)
{
	u32 i;

	if (loan->torn)
		return;
	loan->torn = true;
	if (loan->pages && loan->ram)
		dma_sync_sgtable_for_cpu(loan->attach->dev, &loan->sgt, loan->direction);
	if (loan->pages)
		dma_unmap_sgtable(loan->attach->dev, &loan->sgt, loan->direction,
				  peerdma_loan_attrs(loan->ram));
	for (i = 0; i < loan->parts; i++)
		peerdma_loan_end_part(loan, i);
}

void peerdma_loan_end(struct peerdma_loan *loan)
{
	peerdma_loan_tear(loan);
	/* A table without pages has its entries all the same. */
	if (!loan->pages)
		loan->sgt.orig_nents = loan->sgt.nents;
	sg_free_table(&loan->sgt);
	kfree(loan);
}

/* Joins the parts. There are no pages: importers see that by orig_nents. */
static int peerdma_loan_join(struct peerdma_loan *loan)
{
	struct scatterlist *sg, *part_sg;
	unsigned int j, nents = 0;
	u32 i;
	int ret;

	for (i = 0; i < loan->parts; i++)
		nents += loan->part[i]->nents;
	ret = sg_alloc_table(&loan->sgt, nents, GFP_KERNEL);
	if (ret)
		return ret;
	sg = loan->sgt.sgl;
	for (i = 0; i < loan->parts; i++) {
		for_each_sgtable_dma_sg(loan->part[i], part_sg, j) {
			sg_set_page(sg, NULL, 0, 0);
			sg_dma_address(sg) = sg_dma_address(part_sg);
			sg_dma_len(sg) = sg_dma_len(part_sg);
			sg = sg_next(sg);
		}
	}
	loan->sgt.orig_nents = 0;
	return 0;
}

/*
 * Physical ranges of the provider's BAR, without pages. Each is mapped by a call of
 * its own, because dma_buf_phys_vec_to_sgt() of 7.3 links all ranges of a call to
 * the same place of the IOVA range that it has taken for them (behind an IOMMU).
 */
struct peerdma_loan *peerdma_loan_ranges(struct dma_buf_attachment *attach,
					 struct p2pdma_provider *provider, struct phys_vec *range,
					 u32 ranges, enum dma_data_direction dir)
{
	struct sg_table *part;
	struct peerdma_loan *loan;
	u32 i;
	int ret;

	loan = peerdma_loan_new(attach, dir, ranges);
	if (!loan)
		return ERR_PTR(-ENOMEM);
	for (i = 0; i < ranges; i++) {
		part = dma_buf_phys_vec_to_sgt(attach, provider, &range[i], 1, range[i].len, dir);
		if (IS_ERR(part)) {
			ret = PTR_ERR(part);
			goto err_loan;
		}
		loan->part[i] = part;
	}
	ret = peerdma_loan_join(loan);
	if (ret)
		goto err_loan;
	return loan;

err_loan:
	peerdma_loan_end(loan);
	return ERR_PTR(ret);
}

/* Pages, the system's (@ram) or those of a BAR. */
struct peerdma_loan *peerdma_loan_pages(struct dma_buf_attachment *attach, struct page **pages,
					u32 count, bool ram, enum dma_data_direction dir)
{
	struct peerdma_loan *loan = peerdma_loan_new(attach, dir, 0);
	int ret;

	if (!loan)
		return ERR_PTR(-ENOMEM);
	ret = sg_alloc_table_from_pages(&loan->sgt, pages, count, 0, (size_t)count << PAGE_SHIFT,
					GFP_KERNEL);
	if (ret)
		goto err_loan;
	ret = dma_map_sgtable(attach->dev, &loan->sgt, dir, peerdma_loan_attrs(ram));
	if (ret)
		goto err_table;
	if (ram)
		dma_sync_sgtable_for_device(attach->dev, &loan->sgt, dir);
	loan->pages = true;
	loan->ram = ram;
	return loan;

err_table:
	sg_free_table(&loan->sgt);
err_loan:
	kfree(loan);
	return ERR_PTR(ret);
}

/* Lab only: an address that nobody has mapped for this device. */
struct peerdma_loan *peerdma_loan_wrong(struct dma_buf_attachment *attach, u64 address, u64 size,
					enum dma_data_direction dir)
{
	struct peerdma_loan *loan = peerdma_loan_new(attach, dir, 0);
	int ret;

	if (!loan)
		return ERR_PTR(-ENOMEM);
	ret = sg_alloc_table(&loan->sgt, 1, GFP_KERNEL);
	if (ret) {
		kfree(loan);
		return ERR_PTR(ret);
	}
	sg_dma_address(loan->sgt.sgl) = address;
	sg_dma_len(loan->sgt.sgl) = size;
	loan->sgt.orig_nents = 0;
	return loan;
}
