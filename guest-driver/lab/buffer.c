// SPDX-License-Identifier: GPL-2.0-only
/*
 * Buffers whose exporter makes mistakes: it gives importers addresses that were not
 * mapped for them or that they do not take, or moves a buffer while they use it.
 */
#include <linux/slab.h>

#include "../buffer.h"
#include "../mapping.h"
#include "lab.h"

/* A mapping of @address, which nothing has mapped for this device. */
static struct peerdma_mapping *peerdma_lab_mapping(struct dma_buf_attachment *attach, u64 address,
						   u64 size, enum dma_data_direction dir)
{
	struct peerdma_mapping *mapping = peerdma_mapping_alloc(attach, dir, 0);
	int ret;

	if (!mapping)
		return ERR_PTR(-ENOMEM);
	ret = sg_alloc_table(&mapping->sgt, 1, GFP_KERNEL);
	if (ret) {
		kfree(mapping);
		return ERR_PTR(ret);
	}
	sg_dma_address(mapping->sgt.sgl) = address;
	sg_dma_len(mapping->sgt.sgl) = size;
	mapping->sgt.orig_nents = 0;
	return mapping;
}

/* Takes a CPU physical address for a DMA address. */
static struct peerdma_mapping *peerdma_lab_map_physical(struct peerdma_buffer *buf,
							struct dma_buf_attachment *attach,
							enum dma_data_direction dir)
{
	phys_addr_t phys;

	dma_resv_assert_held(&buf->resv);
	phys = buf->io && buf->place == PEERDMA_PLACE_LOCAL ? buf->local.paddr :
							      page_to_phys(buf->pages[0]);
	return peerdma_lab_mapping(attach, phys, buf->base.size, dir);
}

/* Takes the table of dma_get_sgtable(), and with it the exporter's own DMA address. */
static struct peerdma_mapping *peerdma_lab_map_sgtable(struct peerdma_buffer *buf,
						       struct dma_buf_attachment *attach,
						       enum dma_data_direction dir)
{
	struct peerdma_mapping *mapping;
	struct sg_table sgt;
	int ret;

	dma_resv_assert_held(&buf->resv);
	ret = dma_get_sgtable(peerdma_buffer_dev(buf), &sgt, buf->cpu, buf->dma, buf->base.size);
	if (ret)
		return ERR_PTR(ret);
	sg_dma_address(sgt.sgl) = buf->dma;
	mapping = peerdma_lab_mapping(attach, sg_dma_address(sgt.sgl), buf->base.size, dir);
	sg_free_table(&sgt);
	return mapping;
}

int peerdma_lab_buffer(struct peerdma_buffer *buf, u32 flags)
{
	bool coherent = buf->kind == PEERDMA_BUFFER_COHERENT;

	if (flags & ~(PEERDMA_BUFFER_LAB_PHYSICAL | PEERDMA_BUFFER_LAB_SGTABLE |
		      PEERDMA_BUFFER_LAB_ANY_IMPORTER))
		return -EINVAL;
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (flags == PEERDMA_BUFFER_LAB_ANY_IMPORTER && buf->kind == PEERDMA_BUFFER_P2PMEM) {
		buf->any_importer = true;
		return 0;
	}
	/* Each kind has its own mistake. */
	if (flags != (coherent ? PEERDMA_BUFFER_LAB_SGTABLE : PEERDMA_BUFFER_LAB_PHYSICAL))
		return -EINVAL;
	buf->map = coherent ? peerdma_lab_map_sgtable : peerdma_lab_map_physical;
	return 0;
}

/* Moves the buffer without waiting for fences, and unmaps what importers still use. */
int peerdma_lab_move(struct peerdma_buffer *buf, const struct peerdma_buffer_move *arg)
{
	struct peerdma_mapping *mapping;
	int ret;

	dma_resv_assert_held(&buf->resv);
	if (arg->flags & ~PEERDMA_MOVE_LAB_NO_WAIT)
		return -EINVAL;
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (buf->place == arg->place)
		return 0;
	ret = peerdma_migrate_begin(buf, arg->place);
	if (ret)
		return ret;
	list_for_each_entry(mapping, &buf->mappings, node)
		peerdma_mapping_unmap(mapping);
	peerdma_migrate_finish(buf, arg->place);
	return 0;
}
