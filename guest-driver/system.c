// SPDX-License-Identifier: GPL-2.0-only
/*
 * System memory for tests: pages mapped by the streaming DMA API, a coherent
 * buffer, or (lab-only) whatever lies at a physical address.
 */
#include <linux/ioport.h>
#include <linux/slab.h>

#include "system.h"

static struct peerdma_segment_list *peerdma_system_one_segment(struct peerdma_system *sys)
{
	struct peerdma_segment_list *segments = peerdma_segment_list_alloc(1);

	if (segments) {
		segments->segment[0].address = sys->dma;
		segments->segment[0].length = sys->base.size;
	}
	return segments;
}

static int peerdma_system_map_pages(struct peerdma_system *sys, enum dma_data_direction dir)
{
	struct device *dev = peerdma_system_dev(sys);
	int ret;

	ret = dma_map_sgtable(dev, &sys->sgt, dir, 0);
	if (ret)
		return ret;
	sys->base.segments = peerdma_segment_list_from_sgt(&sys->sgt);
	if (!sys->base.segments) {
		dma_unmap_sgtable(dev, &sys->sgt, dir, 0);
		return -ENOMEM;
	}
	return 0;
}

static int peerdma_system_map_phys(struct peerdma_system *sys, enum dma_data_direction dir)
{
	struct device *dev = peerdma_system_dev(sys);

	sys->dma = dma_map_phys(dev, sys->phys, sys->base.size, dir, sys->attrs);
	if (dma_mapping_error(dev, sys->dma))
		return -ENOMEM;
	sys->base.segments = peerdma_system_one_segment(sys);
	if (!sys->base.segments) {
		dma_unmap_phys(dev, sys->dma, sys->base.size, dir, sys->attrs);
		return -ENOMEM;
	}
	return 0;
}

static int peerdma_system_map(struct peerdma_object *obj, enum dma_data_direction dir)
{
	struct peerdma_system *sys = to_peerdma_system(obj);
	int ret;

	switch (sys->type) {
	case PEERDMA_SYSTEM_TYPE_PAGES:
		ret = peerdma_system_map_pages(sys, dir);
		break;
	case PEERDMA_SYSTEM_TYPE_PHYS:
		ret = peerdma_system_map_phys(sys, dir);
		break;
	default:
		ret = -EINVAL;
	}
	if (ret)
		return ret;
	obj->direction = dir;
	obj->generation++;
	return 0;
}

static void peerdma_system_forget(struct peerdma_object *obj)
{
	kvfree(obj->segments);
	obj->segments = NULL;
}

static void peerdma_system_unmap(struct peerdma_object *obj)
{
	struct peerdma_system *sys = to_peerdma_system(obj);
	struct device *dev = peerdma_system_dev(sys);

	switch (sys->type) {
	case PEERDMA_SYSTEM_TYPE_PAGES:
		dma_unmap_sgtable(dev, &sys->sgt, obj->direction, 0);
		break;
	case PEERDMA_SYSTEM_TYPE_PHYS:
		dma_unmap_phys(dev, sys->dma, obj->size, obj->direction, sys->attrs);
		break;
	case PEERDMA_SYSTEM_TYPE_COHERENT:
		/* Its memory goes with the mapping; the VMAs have been zapped. */
		dma_free_coherent(dev, obj->size, sys->cpu, sys->dma);
		sys->cpu = NULL;
		break;
	}
	peerdma_system_forget(obj);
}

static int peerdma_system_prepare(struct peerdma_object *obj)
{
	return obj->segments ? 0 : -EINVAL;
}

static void peerdma_system_shutdown(struct peerdma_object *obj)
{
	mutex_lock(&obj->lock);
	if (obj->segments)
		peerdma_system_unmap(obj);
	mutex_unlock(&obj->lock);
}

static void peerdma_system_free_pages(struct peerdma_system *sys)
{
	u32 i;

	if (!sys->pages)
		return;
	sg_free_table(&sys->sgt);
	/* A VMA has references of its own to the pages it shows. */
	for (i = 0; i < sys->count; i++)
		put_page(sys->pages[i]);
	kvfree(sys->pages);
}

static void peerdma_system_release(struct peerdma_object *obj)
{
	struct peerdma_system *sys = to_peerdma_system(obj);

	peerdma_uncount(obj->peer, PEERDMA_COUNT_LIVE_SYSTEMS);
	peerdma_system_free_pages(sys);
	kfree(sys);
}

static const struct peerdma_object_ops peerdma_system_ops = {
	.map = peerdma_system_map,
	.unmap = peerdma_system_unmap,
	.prepare = peerdma_system_prepare,
	.mmap = peerdma_system_mmap,
	.shutdown = peerdma_system_shutdown,
	.release = peerdma_system_release,
};

/* The memory of a coherent object is its mapping: it cannot lose it. */
static const struct peerdma_object_ops peerdma_system_coherent_ops = {
	.prepare = peerdma_system_prepare,
	.mmap = peerdma_system_mmap,
	.shutdown = peerdma_system_shutdown,
	.release = peerdma_system_release,
};

static const struct peerdma_object_ops peerdma_system_phys_ops = {
	.map = peerdma_system_map,
	.unmap = peerdma_system_unmap,
	.prepare = peerdma_system_prepare,
	.shutdown = peerdma_system_shutdown,
	.release = peerdma_system_release,
};

/* -------------------------------------------------------------- creating */

static struct peerdma_system *peerdma_system_new(struct peerdma_device *peer,
						 enum peerdma_system_type type, u64 size,
						 const struct peerdma_object_ops *ops)
{
	struct peerdma_system *sys = kzalloc_obj(*sys);

	if (!sys)
		return NULL;
	peerdma_object_init(&sys->base, peer, PEERDMA_KIND_SYSTEM, ops, size);
	sys->type = type;
	peerdma_count(peer, PEERDMA_COUNT_LIVE_SYSTEMS);
	return sys;
}

static int peerdma_system_alloc_pages(struct peerdma_system *sys)
{
	u32 i, count = sys->base.size >> PAGE_SHIFT;
	int ret;

	sys->pages = kvcalloc(count, sizeof(*sys->pages), GFP_KERNEL);
	if (!sys->pages)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		sys->pages[i] = alloc_page(GFP_HIGHUSER | __GFP_ZERO | __GFP_NOWARN);
		if (!sys->pages[i])
			return -ENOMEM;
		sys->count++;
	}
	ret = sg_alloc_table_from_pages(&sys->sgt, sys->pages, count, 0, sys->base.size,
					GFP_KERNEL);
	return ret;
}

static int peerdma_system_alloc_coherent(struct peerdma_system *sys)
{
	struct device *dev = peerdma_system_dev(sys);

	sys->cpu = dma_alloc_coherent(dev, sys->base.size, &sys->dma, GFP_KERNEL | __GFP_NOWARN);
	if (!sys->cpu)
		return -ENOMEM;
	sys->base.segments = peerdma_system_one_segment(sys);
	if (!sys->base.segments) {
		dma_free_coherent(dev, sys->base.size, sys->cpu, sys->dma);
		sys->cpu = NULL;
		return -ENOMEM;
	}
	sys->base.direction = DMA_BIDIRECTIONAL;
	sys->base.generation = 1;
	return 0;
}

static int peerdma_system_publish(struct peerdma_call *call, struct peerdma_system *sys,
				  u32 *handle)
{
	int ret = peerdma_object_publish(call->file, &sys->base, handle);

	if (ret)
		peerdma_object_put(&sys->base);
	return ret;
}

int peerdma_ioctl_system_alloc(struct peerdma_call *call, void *data)
{
	struct peerdma_device *peer = call->file->peer;
	struct peerdma_system_alloc *arg = data;
	bool coherent = arg->flags & PEERDMA_SYSTEM_COHERENT;
	struct peerdma_system *sys;
	int ret;

	if (arg->flags & ~PEERDMA_SYSTEM_COHERENT || !arg->size || arg->size > PEERDMA_MAX_SYSTEM ||
	    arg->direction > PEERDMA_FROM_DEVICE)
		return -EINVAL;
	if (coherent && arg->direction != PEERDMA_BIDIRECTIONAL)
		return -EINVAL;
	arg->size = PAGE_ALIGN(arg->size);

	sys = peerdma_system_new(peer,
				 coherent ? PEERDMA_SYSTEM_TYPE_COHERENT :
					    PEERDMA_SYSTEM_TYPE_PAGES,
				 arg->size,
				 coherent ? &peerdma_system_coherent_ops : &peerdma_system_ops);
	if (!sys)
		return -ENOMEM;
	if (coherent) {
		ret = peerdma_system_alloc_coherent(sys);
	} else {
		ret = peerdma_system_alloc_pages(sys);
		if (!ret)
			ret = peerdma_system_map(&sys->base, arg->direction);
	}
	if (ret) {
		peerdma_object_put(&sys->base);
		return ret;
	}
	arg->segments = sys->base.segments->count;
	ret = peerdma_system_publish(call, sys, &arg->handle);
	if (!ret)
		arg->mmap_offset = (u64)arg->handle << PEERDMA_MMAP_SHIFT;
	return ret;
}

int peerdma_ioctl_system_sync(struct peerdma_call *call, void *data)
{
	struct peerdma_system_sync *arg = data;
	struct peerdma_system *sys;
	struct peerdma_object *obj;
	int ret;

	if (arg->target > PEERDMA_SYNC_FOR_DEVICE)
		return -EINVAL;
	obj = peerdma_object_find_kind(call->file, arg->handle, PEERDMA_KIND_SYSTEM);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	sys = to_peerdma_system(obj);
	ret = peerdma_object_lock(obj);
	if (ret)
		goto out_put;
	if (!obj->segments)
		ret = -EINVAL;
	else if (sys->type != PEERDMA_SYSTEM_TYPE_PAGES)
		; /* coherent, or nobody's business */
	else if (arg->target == PEERDMA_SYNC_FOR_CPU)
		dma_sync_sgtable_for_cpu(peerdma_system_dev(sys), &sys->sgt, obj->direction);
	else
		dma_sync_sgtable_for_device(peerdma_system_dev(sys), &sys->sgt, obj->direction);
	peerdma_object_unlock(obj);
out_put:
	peerdma_object_put(obj);
	return ret;
}

int peerdma_ioctl_lab_map_phys(struct peerdma_call *call, void *data)
{
	struct peerdma_device *peer = call->file->peer;
	struct peerdma_lab_map_phys *arg = data;
	bool mmio = arg->flags & PEERDMA_LAB_MAP_MMIO;
	struct peerdma_system *sys;
	int ret;

	if (arg->flags & ~PEERDMA_LAB_MAP_MMIO || arg->reserved ||
	    arg->direction > PEERDMA_FROM_DEVICE || !arg->length ||
	    arg->length > PEERDMA_MAX_SYSTEM || arg->phys + arg->length < arg->phys)
		return -EINVAL;
	/* swiotlb and debugging code look at the pages unless told not to. */
	if (!mmio && region_intersects(arg->phys, arg->length, IORESOURCE_SYSTEM_RAM,
				       IORES_DESC_NONE) != REGION_INTERSECTS)
		return -EINVAL;

	sys = peerdma_system_new(peer, PEERDMA_SYSTEM_TYPE_PHYS, arg->length,
				 &peerdma_system_phys_ops);
	if (!sys)
		return -ENOMEM;
	sys->phys = arg->phys;
	sys->attrs = mmio ? DMA_ATTR_MMIO : 0;
	ret = peerdma_system_map(&sys->base, arg->direction);
	if (ret) {
		peerdma_object_put(&sys->base);
		return ret;
	}
	arg->address = sys->dma;
	return peerdma_system_publish(call, sys, &arg->handle);
}
