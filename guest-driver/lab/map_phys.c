// SPDX-License-Identifier: GPL-2.0-only
/*
 * PEERDMA_LAB_MAP_PHYS: maps whatever lies at a physical address for this device, as a
 * system object.
 */
#include <linux/ioport.h>
#include <linux/slab.h>

#include "../system.h"
#include "lab.h"

/**
 * struct peerdma_lab_range - a physical range
 * @sys:	a system object; its @dma is the range's DMA address
 * @phys:	physical address
 * @attrs:	DMA_ATTR_*
 * @leak:	never unmapped
 */
struct peerdma_lab_range {
	struct peerdma_system sys;
	phys_addr_t phys;
	unsigned long attrs;
	bool leak;
};

static struct peerdma_lab_range *to_range(struct peerdma_object *obj)
{
	return container_of(obj, struct peerdma_lab_range, sys.base);
}

static int peerdma_lab_range_map(struct peerdma_object *obj, enum dma_data_direction dir)
{
	struct peerdma_lab_range *range = to_range(obj);
	struct device *dev = peerdma_system_dev(&range->sys);

	lockdep_assert_held(&obj->lock);
	range->sys.dma = dma_map_phys(dev, range->phys, obj->size, dir, range->attrs);
	if (dma_mapping_error(dev, range->sys.dma))
		return -ENOMEM;
	obj->segments = peerdma_system_one_segment(&range->sys);
	if (!obj->segments) {
		dma_unmap_phys(dev, range->sys.dma, obj->size, dir, range->attrs);
		return -ENOMEM;
	}
	obj->direction = dir;
	obj->generation++;
	return 0;
}

static void peerdma_lab_range_unmap(struct peerdma_object *obj)
{
	struct peerdma_lab_range *range = to_range(obj);

	lockdep_assert_held(&obj->lock);
	if (!range->leak)
		dma_unmap_phys(peerdma_system_dev(&range->sys), range->sys.dma, obj->size,
			       obj->direction, range->attrs);
	kvfree(obj->segments);
	obj->segments = NULL;
}

static void peerdma_lab_range_shutdown(struct peerdma_object *obj)
{
	mutex_lock(&obj->lock);
	if (obj->segments)
		peerdma_lab_range_unmap(obj);
	mutex_unlock(&obj->lock);
}

static void peerdma_lab_range_release(struct peerdma_object *obj)
{
	peerdma_uncount(obj->peer, PEERDMA_COUNT_LIVE_SYSTEMS);
	kfree(to_range(obj));
}

static const struct peerdma_object_ops peerdma_lab_range_ops = {
	.map = peerdma_lab_range_map,
	.unmap = peerdma_lab_range_unmap,
	.prepare = peerdma_system_prepare,
	.shutdown = peerdma_lab_range_shutdown,
	.release = peerdma_lab_range_release,
};

int peerdma_ioctl_lab_map_phys(struct peerdma_call *call, void *data)
{
	struct peerdma_lab_map_phys *arg = data;
	bool mmio = arg->flags & PEERDMA_LAB_MAP_MMIO;
	struct peerdma_lab_range *range;
	struct peerdma_object *obj;
	int ret;

	if (arg->flags & ~(PEERDMA_LAB_MAP_MMIO | PEERDMA_LAB_MAP_LEAK) || arg->reserved ||
	    arg->direction > PEERDMA_FROM_DEVICE || !arg->length ||
	    arg->length > PEERDMA_MAX_SYSTEM || arg->phys + arg->length < arg->phys)
		return -EINVAL;
	/* swiotlb and debugging code look at the pages unless told not to. */
	if (!mmio && region_intersects(arg->phys, arg->length, IORESOURCE_SYSTEM_RAM,
				       IORES_DESC_NONE) != REGION_INTERSECTS)
		return -EINVAL;

	range = kzalloc_obj(*range);
	if (!range)
		return -ENOMEM;
	range->phys = arg->phys;
	range->attrs = mmio ? DMA_ATTR_MMIO : 0;
	range->leak = arg->flags & PEERDMA_LAB_MAP_LEAK;
	obj = &range->sys.base;
	peerdma_system_init(&range->sys, call->file->peer, PEERDMA_SYSTEM_TYPE_OTHER, arg->length,
			    &peerdma_lab_range_ops);
	mutex_lock(&obj->lock);
	ret = peerdma_lab_range_map(obj, arg->direction);
	mutex_unlock(&obj->lock);
	if (!ret) {
		arg->address = range->sys.dma;
		ret = peerdma_object_publish(call->file, obj, &arg->handle);
	}
	if (ret)
		peerdma_object_put(obj);
	return ret;
}
