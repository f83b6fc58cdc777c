// SPDX-License-Identifier: GPL-2.0-only
/* Streaming mappings: all of them tracepoints of kernel/dma/mapping.c. */
#include "compat.h"
#include "witness.h"

static u8 attr_flags(unsigned long attrs)
{
	return attrs & DMA_ATTR_MMIO ? WITNESS_F_MMIO : 0;
}

/* @data: flags that the tracepoint's name implies. */
static void on_map(void *data, struct device *dev, phys_addr_t phys, dma_addr_t addr, size_t size,
		   enum dma_data_direction dir, unsigned long attrs)
{
	struct witness_event event = {
		.kind = WITNESS_MAP,
		.direction = dir,
		.flags = attr_flags(attrs) | (uintptr_t)data,
		.address = addr,
		.length = size,
	};

	if (addr == DMA_MAPPING_ERROR)
		return;
	event.function = witness_function(dev);
	witness_report(&event);
}

static void on_unmap(void *data, struct device *dev, dma_addr_t addr, size_t size,
		     enum dma_data_direction dir, unsigned long attrs)
{
	struct witness_event event = {
		.kind = WITNESS_UNMAP,
		.direction = dir,
		.flags = attr_flags(attrs) | (uintptr_t)data,
		.function = witness_function(dev),
		.address = addr,
		.length = size,
	};

	witness_report(&event);
}

/**
 * witness_report_list() - Report each DMA segment of a scatterlist
 * @event: all that the segments have in common
 * @sgl: the list
 * @count: its entries at most; as for the DMA API, one without a DMA length ends it
 */
void witness_report_list(struct witness_event *event, struct scatterlist *sgl, int count)
{
	u8 flags = event->flags;
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, count, i) {
		struct scatterlist *next = i + 1 < count ? sg_next(sg) : NULL;
		u64 ticket;

		if (!sg_dma_len(sg))
			break;
		event->address = sg_dma_address(sg);
		event->length = sg_dma_len(sg);
		event->flags = flags;
		if (sg_dma_is_bus_address(sg))
			event->flags |= WITNESS_F_BUS_ADDRESS;
		if (next && sg_dma_len(next))
			event->flags |= WITNESS_F_MORE;
		ticket = witness_report(event);
		if (!event->group)
			event->group = ticket;
	}
}

static void on_map_sg(void *data, struct device *dev, struct scatterlist *sgl, int nents, int ents,
		      enum dma_data_direction dir, unsigned long attrs)
{
	struct witness_event event = {
		.kind = WITNESS_MAP,
		.direction = dir,
		.flags = attr_flags(attrs),
		.function = witness_function(dev),
	};

	witness_report_list(&event, sgl, ents);
}

static void on_unmap_sg(void *data, struct device *dev, struct scatterlist *sgl, int nents,
			enum dma_data_direction dir, unsigned long attrs)
{
	struct witness_event event = {
		.kind = WITNESS_UNMAP,
		.direction = dir,
		.flags = attr_flags(attrs),
		.function = witness_function(dev),
	};

	witness_report_list(&event, sgl, nents);
}

/* @data: the kind of record. */
static void on_sync(void *data, struct device *dev, dma_addr_t addr, size_t size,
		    enum dma_data_direction dir)
{
	struct witness_event event = {
		.kind = (uintptr_t)data,
		.direction = dir,
		.function = witness_function(dev),
		.address = addr,
		.length = size,
	};

	witness_report(&event);
}

static void on_sync_sg(void *data, struct device *dev, struct scatterlist *sgl, int nents,
		       enum dma_data_direction dir)
{
	struct witness_event event = {
		.kind = (uintptr_t)data,
		.direction = dir,
		.function = witness_function(dev),
	};

	witness_report_list(&event, sgl, nents);
}

#define FLAG(flag)	((void *)(uintptr_t)(flag))

static struct witness_tracepoint tracepoints[] = {
	{ "dma_map_phys", on_map, NULL, WITNESS_HOOK_MAP_PHYS, 0 },
	{ "dma_map_page", on_map, NULL, WITNESS_HOOK_MAP_PHYS, 1 },
	{ "dma_map_resource", on_map, FLAG(WITNESS_F_MMIO), WITNESS_HOOK_MAP_PHYS, 1 },
	{ "dma_unmap_phys", on_unmap, NULL, WITNESS_HOOK_UNMAP_PHYS, 0 },
	{ "dma_unmap_page", on_unmap, NULL, WITNESS_HOOK_UNMAP_PHYS, 1 },
	{ "dma_unmap_resource", on_unmap, FLAG(WITNESS_F_MMIO), WITNESS_HOOK_UNMAP_PHYS, 1 },
	{ "dma_map_sg", on_map_sg, NULL, WITNESS_HOOK_MAP_SG, 0 },
	{ "dma_unmap_sg", on_unmap_sg, NULL, WITNESS_HOOK_UNMAP_SG, 0 },
	{ "dma_sync_single_for_cpu", on_sync, FLAG(WITNESS_SYNC_FOR_CPU), WITNESS_HOOK_SYNC, 0 },
	{ "dma_sync_single_for_device", on_sync, FLAG(WITNESS_SYNC_FOR_DEVICE),
	  WITNESS_HOOK_SYNC, 0 },
	{ "dma_sync_sg_for_cpu", on_sync_sg, FLAG(WITNESS_SYNC_FOR_CPU), WITNESS_HOOK_SYNC, 0 },
	{ "dma_sync_sg_for_device", on_sync_sg, FLAG(WITNESS_SYNC_FOR_DEVICE),
	  WITNESS_HOOK_SYNC, 0 },
};

const struct witness_hooks witness_hooks_dma = {
	.tracepoints = tracepoints,
	.tracepoint_count = ARRAY_SIZE(tracepoints),
};
