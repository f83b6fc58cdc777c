// SPDX-License-Identifier: GPL-2.0-only
/*
 * System memory for tests: pages mapped by the streaming DMA API, a coherent
 * buffer, or (lab-only) whatever lies at a physical address.
 */
#include <linux/ioport.h>
#include <linux/slab.h>

#include "system.h"

static struct pd_segments *pd_system_one_segment(struct pd_system *sys)
{
	struct pd_segments *segments = pd_segments_alloc(1);

	if (segments) {
		segments->segment[0].address = sys->dma;
		segments->segment[0].length = sys->base.size;
	}
	return segments;
}

static int pd_system_map_pages(struct pd_system *sys,
			       enum dma_data_direction dir)
{
	struct device *dev = pd_system_dev(sys);
	int ret;

	ret = dma_map_sgtable(dev, &sys->sgt, dir, 0);
	if (ret)
		return ret;
	sys->base.segments = pd_segments_from_sgt(&sys->sgt);
	if (!sys->base.segments) {
		dma_unmap_sgtable(dev, &sys->sgt, dir, 0);
		return -ENOMEM;
	}
	return 0;
}

static int pd_system_map_phys(struct pd_system *sys,
			      enum dma_data_direction dir)
{
	struct device *dev = pd_system_dev(sys);

	sys->dma = dma_map_phys(dev, sys->phys, sys->base.size, dir, sys->attrs);
	if (dma_mapping_error(dev, sys->dma))
		return -ENOMEM;
	sys->base.segments = pd_system_one_segment(sys);
	if (!sys->base.segments) {
		dma_unmap_phys(dev, sys->dma, sys->base.size, dir, sys->attrs);
		return -ENOMEM;
	}
	return 0;
}

static int pd_system_map(struct pd_object *obj, enum dma_data_direction dir)
{
	struct pd_system *sys = to_pd_system(obj);
	int ret;

	switch (sys->type) {
	case PD_SYSTEM_PAGES:
		ret = pd_system_map_pages(sys, dir);
		break;
	case PD_SYSTEM_PHYS:
		ret = pd_system_map_phys(sys, dir);
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

static void pd_system_forget(struct pd_object *obj)
{
	kvfree(obj->segments);
	obj->segments = NULL;
}

static void pd_system_unmap(struct pd_object *obj)
{
	struct pd_system *sys = to_pd_system(obj);
	struct device *dev = pd_system_dev(sys);

	switch (sys->type) {
	case PD_SYSTEM_PAGES:
		dma_unmap_sgtable(dev, &sys->sgt, obj->direction, 0);
		break;
	case PD_SYSTEM_PHYS:
		dma_unmap_phys(dev, sys->dma, obj->size, obj->direction,
			       sys->attrs);
		break;
	case PD_SYSTEM_COHERENT:
		/* Its memory goes with the mapping; the VMAs have been zapped. */
		dma_free_coherent(dev, obj->size, sys->cpu, sys->dma);
		sys->cpu = NULL;
		break;
	}
	pd_system_forget(obj);
}

static int pd_system_prepare(struct pd_object *obj)
{
	return obj->segments ? 0 : -EINVAL;
}

static void pd_system_shutdown(struct pd_object *obj)
{
	mutex_lock(&obj->lock);
	if (obj->segments)
		pd_system_unmap(obj);
	mutex_unlock(&obj->lock);
}

static void pd_system_free_pages(struct pd_system *sys)
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

static void pd_system_release(struct pd_object *obj)
{
	struct pd_system *sys = to_pd_system(obj);

	pd_uncount(obj->pd, PD_LIVE_SYSTEMS);
	pd_system_free_pages(sys);
	kfree(sys);
}

static const struct pd_object_ops pd_system_ops = {
	.map = pd_system_map,
	.unmap = pd_system_unmap,
	.prepare = pd_system_prepare,
	.mmap = pd_system_mmap,
	.shutdown = pd_system_shutdown,
	.release = pd_system_release,
};

/* The memory of a coherent object is its mapping: it cannot lose it. */
static const struct pd_object_ops pd_system_coherent_ops = {
	.prepare = pd_system_prepare,
	.mmap = pd_system_mmap,
	.shutdown = pd_system_shutdown,
	.release = pd_system_release,
};

static const struct pd_object_ops pd_system_phys_ops = {
	.map = pd_system_map,
	.unmap = pd_system_unmap,
	.prepare = pd_system_prepare,
	.shutdown = pd_system_shutdown,
	.release = pd_system_release,
};

/* -------------------------------------------------------------- creating */

static struct pd_system *pd_system_new(struct pd_device *pd,
				       enum pd_system_type type, u64 size,
				       const struct pd_object_ops *ops)
{
	struct pd_system *sys = kzalloc_obj(*sys);

	if (!sys)
		return NULL;
	pd_object_init(&sys->base, pd, PD_SYSTEM, ops, size);
	sys->type = type;
	pd_count(pd, PD_LIVE_SYSTEMS);
	return sys;
}

static int pd_system_alloc_pages(struct pd_system *sys)
{
	u32 i, count = sys->base.size >> PAGE_SHIFT;
	int ret;

	sys->pages = kvcalloc(count, sizeof(*sys->pages), GFP_KERNEL);
	if (!sys->pages)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		sys->pages[i] = alloc_page(GFP_HIGHUSER | __GFP_ZERO |
					   __GFP_NOWARN);
		if (!sys->pages[i])
			return -ENOMEM;
		sys->count++;
	}
	ret = sg_alloc_table_from_pages(&sys->sgt, sys->pages, count, 0,
					sys->base.size, GFP_KERNEL);
	return ret;
}

static int pd_system_alloc_coherent(struct pd_system *sys)
{
	struct device *dev = pd_system_dev(sys);

	sys->cpu = dma_alloc_coherent(dev, sys->base.size, &sys->dma,
				      GFP_KERNEL | __GFP_NOWARN);
	if (!sys->cpu)
		return -ENOMEM;
	sys->base.segments = pd_system_one_segment(sys);
	if (!sys->base.segments) {
		dma_free_coherent(dev, sys->base.size, sys->cpu, sys->dma);
		sys->cpu = NULL;
		return -ENOMEM;
	}
	sys->base.direction = DMA_BIDIRECTIONAL;
	sys->base.generation = 1;
	return 0;
}

static int pd_system_publish(struct pd_call *call, struct pd_system *sys,
			     u32 *handle)
{
	int ret = pd_object_publish(call->file, &sys->base, handle);

	if (ret)
		pd_object_put(&sys->base);
	return ret;
}

int pd_ioctl_system_alloc(struct pd_call *call, void *data)
{
	struct pd_device *pd = call->file->pd;
	struct peerdma_system_alloc *arg = data;
	bool coherent = arg->flags & PEERDMA_SYSTEM_COHERENT;
	struct pd_system *sys;
	int ret;

	if (arg->flags & ~PEERDMA_SYSTEM_COHERENT || !arg->size ||
	    arg->size > PD_MAX_SYSTEM || arg->direction > PEERDMA_FROM_DEVICE)
		return -EINVAL;
	if (coherent && arg->direction != PEERDMA_BIDIRECTIONAL)
		return -EINVAL;
	arg->size = PAGE_ALIGN(arg->size);

	sys = pd_system_new(pd, coherent ? PD_SYSTEM_COHERENT : PD_SYSTEM_PAGES,
			    arg->size,
			    coherent ? &pd_system_coherent_ops : &pd_system_ops);
	if (!sys)
		return -ENOMEM;
	if (coherent) {
		ret = pd_system_alloc_coherent(sys);
	} else {
		ret = pd_system_alloc_pages(sys);
		if (!ret)
			ret = pd_system_map(&sys->base, arg->direction);
	}
	if (ret) {
		pd_object_put(&sys->base);
		return ret;
	}
	arg->segments = sys->base.segments->count;
	ret = pd_system_publish(call, sys, &arg->handle);
	if (!ret)
		arg->mmap_offset = (u64)arg->handle << PD_MMAP_SHIFT;
	return ret;
}

int pd_ioctl_system_sync(struct pd_call *call, void *data)
{
	struct peerdma_system_sync *arg = data;
	struct pd_system *sys;
	struct pd_object *obj;
	int ret;

	if (arg->target > PEERDMA_SYNC_FOR_DEVICE)
		return -EINVAL;
	obj = pd_object_find_kind(call->file, arg->handle, PD_SYSTEM);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	sys = to_pd_system(obj);
	ret = pd_object_lock(obj);
	if (ret)
		goto out_put;
	if (!obj->segments)
		ret = -EINVAL;
	else if (sys->type != PD_SYSTEM_PAGES)
		; /* coherent, or nobody's business */
	else if (arg->target == PEERDMA_SYNC_FOR_CPU)
		dma_sync_sgtable_for_cpu(pd_system_dev(sys), &sys->sgt,
					 obj->direction);
	else
		dma_sync_sgtable_for_device(pd_system_dev(sys), &sys->sgt,
					    obj->direction);
	pd_object_unlock(obj);
out_put:
	pd_object_put(obj);
	return ret;
}

int pd_ioctl_lab_map_phys(struct pd_call *call, void *data)
{
	struct pd_device *pd = call->file->pd;
	struct peerdma_lab_map_phys *arg = data;
	bool mmio = arg->flags & PEERDMA_LAB_MAP_MMIO;
	struct pd_system *sys;
	int ret;

	if (arg->flags & ~PEERDMA_LAB_MAP_MMIO || arg->reserved ||
	    arg->direction > PEERDMA_FROM_DEVICE || !arg->length ||
	    arg->length > PD_MAX_SYSTEM || arg->phys + arg->length < arg->phys)
		return -EINVAL;
	/* swiotlb and debugging code look at the pages unless told not to. */
	if (!mmio && region_intersects(arg->phys, arg->length,
				       IORESOURCE_SYSTEM_RAM,
				       IORES_DESC_NONE) != REGION_INTERSECTS)
		return -EINVAL;

	sys = pd_system_new(pd, PD_SYSTEM_PHYS, arg->length, &pd_system_phys_ops);
	if (!sys)
		return -ENOMEM;
	sys->phys = arg->phys;
	sys->attrs = mmio ? DMA_ATTR_MMIO : 0;
	ret = pd_system_map(&sys->base, arg->direction);
	if (ret) {
		pd_object_put(&sys->base);
		return ret;
	}
	arg->address = sys->dma;
	return pd_system_publish(call, sys, &arg->handle);
}
