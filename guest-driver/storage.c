// SPDX-License-Identifier: GPL-2.0-only
/*
 * What backs a buffer, one kind after the other. Only this knows how memory of a kind
 * is had, synchronised and given back; importers see DMA addresses.
 */
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "buffer.h"
#include "mapping.h"

/* The own device's view of a buffer that is one piece. */
static int peerdma_storage_one_segment(struct peerdma_buffer *buf, u64 address)
{
	buf->base.segments = peerdma_segment_list_alloc(1);
	if (!buf->base.segments)
		return -ENOMEM;
	buf->base.segments->segment[0].address = address;
	buf->base.segments->segment[0].length = buf->base.size;
	return 0;
}

static int peerdma_storage_page_array(struct peerdma_buffer *buf)
{
	u32 count = buf->base.size >> PAGE_SHIFT;

	buf->pages = kvcalloc(count, sizeof(*buf->pages), GFP_KERNEL);
	return buf->pages ? 0 : -ENOMEM;
}

/* Memory that is one piece to the kernel. */
static int peerdma_storage_pages_of(struct peerdma_buffer *buf, void *cpu)
{
	int ret = peerdma_storage_page_array(buf);
	u32 i;

	if (ret)
		return ret;
	buf->count = buf->base.size >> PAGE_SHIFT;
	for (i = 0; i < buf->count; i++)
		buf->pages[i] = virt_to_page(cpu + ((size_t)i << PAGE_SHIFT));
	return 0;
}

static void peerdma_storage_forget_pages(struct peerdma_buffer *buf)
{
	kvfree(buf->pages);
	buf->pages = NULL;
	buf->count = 0;
}

struct peerdma_mapping *peerdma_storage_map_pages(struct peerdma_buffer *buf,
						  struct dma_buf_attachment *attach,
						  enum dma_data_direction dir)
{
	dma_resv_assert_held(&buf->resv);
	return peerdma_mapping_of_pages(attach, buf->pages, buf->count,
					buf->place == PEERDMA_PLACE_SYSTEM, dir);
}

static int peerdma_storage_vmap_cpu(struct peerdma_buffer *buf, struct iosys_map *map)
{
	iosys_map_set_vaddr(map, buf->cpu);
	return 0;
}

/* ------------------------------------------- local memory with struct pages */

static int peerdma_p2pmem_take(struct peerdma_buffer *buf)
{
	struct peerdma_device *peer = buf->base.peer;
	int ret;

	if (!peer->p2pmem_size)
		return -EOPNOTSUPP;
	buf->cpu = pci_alloc_p2pmem(peer->pdev, buf->base.size);
	if (!buf->cpu)
		return -ENOSPC;
	ret = peerdma_storage_pages_of(buf, buf->cpu);
	if (ret)
		goto err_free;
	ret = peerdma_storage_one_segment(buf, page_to_phys(buf->pages[0]) - peer->bar_phys);
	if (ret)
		goto err_free;
	buf->base.local = true;
	buf->place = PEERDMA_PLACE_LOCAL;
	return 0;

err_free:
	peerdma_storage_forget_pages(buf);
	pci_free_p2pmem(peer->pdev, buf->cpu, buf->base.size);
	return ret;
}

static void peerdma_p2pmem_let_go(struct peerdma_buffer *buf)
{
	dma_resv_assert_held(&buf->resv);
	pci_free_p2pmem(buf->base.peer->pdev, buf->cpu, buf->base.size);
	peerdma_storage_forget_pages(buf);
}

static int peerdma_p2pmem_vmap(struct peerdma_buffer *buf, struct iosys_map *map)
{
	iosys_map_set_vaddr_iomem(map, (void __iomem *)buf->cpu);
	return 0;
}

const struct peerdma_storage peerdma_storage_p2pmem = {
	.take = peerdma_p2pmem_take,
	.let_go = peerdma_p2pmem_let_go,
	.map = peerdma_storage_map_pages,
	.vmap = peerdma_p2pmem_vmap,
	.in_bar = true,
	.waits = true,
};

/* ---------------------------------------------------------- the system's pages */

void peerdma_storage_free_pages(struct peerdma_buffer *buf)
{
	u32 i;

	for (i = 0; i < buf->count; i++)
		__free_page(buf->pages[i]);
	peerdma_storage_forget_pages(buf);
}

static int peerdma_storage_alloc_pages(struct peerdma_buffer *buf)
{
	u32 count = buf->base.size >> PAGE_SHIFT;
	int ret = peerdma_storage_page_array(buf);

	while (!ret && buf->count < count) {
		struct page *page = alloc_page(GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN);

		if (page)
			buf->pages[buf->count++] = page;
		else
			ret = -ENOMEM;
	}
	if (ret)
		peerdma_storage_free_pages(buf);
	return ret;
}

/* Pages, and the own device's mapping of them; they are freed with the object. */
int peerdma_storage_take_pages(struct peerdma_buffer *buf)
{
	struct device *dev = peerdma_buffer_dev(buf);
	int ret;

	ret = peerdma_storage_alloc_pages(buf);
	if (ret)
		return ret;
	ret = sg_alloc_table_from_pages(&buf->sgt, buf->pages, buf->count, 0, buf->base.size,
					GFP_KERNEL);
	if (ret)
		goto err_pages;
	ret = dma_map_sgtable(dev, &buf->sgt, DMA_BIDIRECTIONAL, 0);
	if (ret)
		goto err_table;
	buf->base.segments = peerdma_segment_list_from_sgt(&buf->sgt);
	if (buf->base.segments)
		return 0;

	ret = -ENOMEM;
	dma_unmap_sgtable(dev, &buf->sgt, DMA_BIDIRECTIONAL, 0);
err_table:
	sg_free_table(&buf->sgt);
err_pages:
	peerdma_storage_free_pages(buf);
	return ret;
}

void peerdma_storage_unmap_pages(struct peerdma_buffer *buf)
{
	dma_unmap_sgtable(peerdma_buffer_dev(buf), &buf->sgt, DMA_BIDIRECTIONAL, 0);
	sg_free_table(&buf->sgt);
}

void peerdma_storage_sync_pages(struct peerdma_buffer *buf, bool for_cpu)
{
	struct device *dev = peerdma_buffer_dev(buf);

	dma_resv_assert_held(&buf->resv);
	if (for_cpu)
		dma_sync_sgtable_for_cpu(dev, &buf->sgt, DMA_BIDIRECTIONAL);
	else
		dma_sync_sgtable_for_device(dev, &buf->sgt, DMA_BIDIRECTIONAL);
}

int peerdma_storage_vmap_pages(struct peerdma_buffer *buf, struct iosys_map *map)
{
	void *at = vmap(buf->pages, buf->count, VM_MAP, PAGE_KERNEL);

	if (!at)
		return -ENOMEM;
	iosys_map_set_vaddr(map, at);
	return 0;
}

void peerdma_storage_vunmap_pages(struct peerdma_buffer *buf, struct iosys_map *map)
{
	vunmap(map->vaddr);
}

const struct peerdma_storage peerdma_storage_pages = {
	.take = peerdma_storage_take_pages,
	.let_go = peerdma_storage_unmap_pages,
	.sync = peerdma_storage_sync_pages,
	.map = peerdma_storage_map_pages,
	.vmap = peerdma_storage_vmap_pages,
	.vunmap = peerdma_storage_vunmap_pages,
	.stays = true,
};

/* ------------------------------------------------- pages from the DMA API */

static int peerdma_noncontiguous_take(struct peerdma_buffer *buf)
{
	struct device *dev = peerdma_buffer_dev(buf);
	struct sg_page_iter at;
	int ret;

	buf->dma_sgt = dma_alloc_noncontiguous(dev, buf->base.size, DMA_BIDIRECTIONAL,
					       GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN, 0);
	if (!buf->dma_sgt)
		return -ENOMEM;
	ret = peerdma_storage_page_array(buf);
	if (ret)
		goto err_free;
	for_each_sgtable_page(buf->dma_sgt, &at, 0) {
		if (buf->count == buf->base.size >> PAGE_SHIFT)
			break;
		buf->pages[buf->count++] = sg_page_iter_page(&at);
	}
	/* One piece in DMA addresses, whatever it is in pages. */
	ret = peerdma_storage_one_segment(buf, sg_dma_address(buf->dma_sgt->sgl));
	if (!ret)
		return 0;

err_free:
	peerdma_storage_forget_pages(buf);
	dma_free_noncontiguous(dev, buf->base.size, buf->dma_sgt, DMA_BIDIRECTIONAL);
	return ret;
}

static void peerdma_noncontiguous_let_go(struct peerdma_buffer *buf)
{
	dma_resv_assert_held(&buf->resv);
	dma_free_noncontiguous(peerdma_buffer_dev(buf), buf->base.size, buf->dma_sgt,
			       DMA_BIDIRECTIONAL);
	peerdma_storage_forget_pages(buf);
}

static void peerdma_noncontiguous_sync(struct peerdma_buffer *buf, bool for_cpu)
{
	struct device *dev = peerdma_buffer_dev(buf);

	dma_resv_assert_held(&buf->resv);
	if (for_cpu)
		dma_sync_sgtable_for_cpu(dev, buf->dma_sgt, DMA_BIDIRECTIONAL);
	else
		dma_sync_sgtable_for_device(dev, buf->dma_sgt, DMA_BIDIRECTIONAL);
}

static int peerdma_noncontiguous_vmap(struct peerdma_buffer *buf, struct iosys_map *map)
{
	void *at = dma_vmap_noncontiguous(peerdma_buffer_dev(buf), buf->base.size, buf->dma_sgt);

	if (!at)
		return -ENOMEM;
	iosys_map_set_vaddr(map, at);
	return 0;
}

static void peerdma_noncontiguous_vunmap(struct peerdma_buffer *buf, struct iosys_map *map)
{
	dma_vunmap_noncontiguous(peerdma_buffer_dev(buf), map->vaddr);
}

const struct peerdma_storage peerdma_storage_noncontiguous = {
	.take = peerdma_noncontiguous_take,
	.let_go = peerdma_noncontiguous_let_go,
	.sync = peerdma_noncontiguous_sync,
	.map = peerdma_storage_map_pages,
	.vmap = peerdma_noncontiguous_vmap,
	.vunmap = peerdma_noncontiguous_vunmap,
	.waits = true,
};

static int peerdma_noncoherent_take(struct peerdma_buffer *buf)
{
	struct device *dev = peerdma_buffer_dev(buf);
	int ret;

	buf->cpu = dma_alloc_noncoherent(dev, buf->base.size, &buf->dma, DMA_BIDIRECTIONAL,
					 GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN);
	if (!buf->cpu)
		return -ENOMEM;
	ret = peerdma_storage_pages_of(buf, buf->cpu);
	if (!ret)
		ret = peerdma_storage_one_segment(buf, buf->dma);
	if (!ret)
		return 0;
	peerdma_storage_forget_pages(buf);
	dma_free_noncoherent(dev, buf->base.size, buf->cpu, buf->dma, DMA_BIDIRECTIONAL);
	return ret;
}

static void peerdma_noncoherent_let_go(struct peerdma_buffer *buf)
{
	dma_resv_assert_held(&buf->resv);
	dma_free_noncoherent(peerdma_buffer_dev(buf), buf->base.size, buf->cpu, buf->dma,
			     DMA_BIDIRECTIONAL);
	peerdma_storage_forget_pages(buf);
}

static void peerdma_noncoherent_sync(struct peerdma_buffer *buf, bool for_cpu)
{
	struct device *dev = peerdma_buffer_dev(buf);

	dma_resv_assert_held(&buf->resv);
	if (for_cpu) {
		/* What the device still holds, then what the CPU's caches do. */
		peerdma_device_sync(buf->base.peer);
		dma_sync_single_for_cpu(dev, buf->dma, buf->base.size, DMA_BIDIRECTIONAL);
		return;
	}
	dma_sync_single_for_device(dev, buf->dma, buf->base.size, DMA_BIDIRECTIONAL);
}

const struct peerdma_storage peerdma_storage_noncoherent = {
	.take = peerdma_noncoherent_take,
	.let_go = peerdma_noncoherent_let_go,
	.sync = peerdma_noncoherent_sync,
	.map = peerdma_storage_map_pages,
	.vmap = peerdma_storage_vmap_cpu,
	.waits = true,
};

/* --------------------------------------- coherent memory, for one device only */

static int peerdma_coherent_take(struct peerdma_buffer *buf)
{
	struct device *dev = peerdma_buffer_dev(buf);
	int ret;

	buf->cpu = dma_alloc_coherent(dev, buf->base.size, &buf->dma, GFP_KERNEL | __GFP_NOWARN);
	if (!buf->cpu)
		return -ENOMEM;
	ret = peerdma_storage_one_segment(buf, buf->dma);
	if (ret)
		dma_free_coherent(dev, buf->base.size, buf->cpu, buf->dma);
	return ret;
}

static void peerdma_coherent_let_go(struct peerdma_buffer *buf)
{
	dma_resv_assert_held(&buf->resv);
	dma_free_coherent(peerdma_buffer_dev(buf), buf->base.size, buf->cpu, buf->dma);
}

/* No map: a second device has no address for it. */
const struct peerdma_storage peerdma_storage_coherent = {
	.take = peerdma_coherent_take,
	.let_go = peerdma_coherent_let_go,
	.vmap = peerdma_storage_vmap_cpu,
	.waits = true,
};
