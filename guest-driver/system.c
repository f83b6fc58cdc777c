// SPDX-License-Identifier: GPL-2.0-only
/*
 * System memory: pages mapped by the streaming DMA API, or a coherent buffer.
 */
#include <linux/slab.h>

#include "ioctl.h"
#include "system.h"

struct peerdma_segment_list *peerdma_system_one_segment(struct peerdma_system *sys)
{
	struct peerdma_segment_list *segments = peerdma_segment_list_alloc(1);

	if (segments) {
		segments->segment[0].address = sys->dma;
		segments->segment[0].length = sys->base.size;
	}
	return segments;
}

static int peerdma_system_map(struct peerdma_object *obj, enum dma_data_direction dir)
{
	struct peerdma_system *sys = to_peerdma_system(obj);
	struct device *dev = peerdma_system_dev(sys);
	int ret;

	lockdep_assert_held(&obj->lock);
	ret = dma_map_sgtable(dev, &sys->sgt, dir, 0);
	if (ret)
		return ret;
	obj->segments = peerdma_segment_list_from_sgt(&sys->sgt);
	if (!obj->segments) {
		dma_unmap_sgtable(dev, &sys->sgt, dir, 0);
		return -ENOMEM;
	}
	obj->direction = dir;
	obj->generation++;
	return 0;
}

static void peerdma_system_unmap(struct peerdma_object *obj)
{
	struct peerdma_system *sys = to_peerdma_system(obj);
	struct device *dev = peerdma_system_dev(sys);

	lockdep_assert_held(&obj->lock);
	if (sys->type == PEERDMA_SYSTEM_TYPE_COHERENT) {
		/* Its memory goes with the mapping; the VMAs have been zapped. */
		dma_free_coherent(dev, obj->size, sys->cpu, sys->dma);
		sys->cpu = NULL;
	} else {
		dma_unmap_sgtable(dev, &sys->sgt, obj->direction, 0);
	}
	kvfree(obj->segments);
	obj->segments = NULL;
}

int peerdma_system_prepare(struct peerdma_object *obj)
{
	lockdep_assert_held(&obj->lock);
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

/* -------------------------------------------------------------- creating */

void peerdma_system_init(struct peerdma_system *sys, struct peerdma_device *peer,
			 enum peerdma_system_type type, u64 size,
			 const struct peerdma_object_ops *ops)
{
	peerdma_object_init(&sys->base, peer, PEERDMA_KIND_SYSTEM, ops, size);
	sys->type = type;
	peerdma_count(peer, PEERDMA_COUNT_LIVE_SYSTEMS);
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

int peerdma_ioctl_system_alloc(struct peerdma_call *call, void *data)
{
	struct peerdma_system_alloc *arg = data;
	bool coherent = arg->flags & PEERDMA_SYSTEM_COHERENT;
	enum peerdma_system_type type = coherent ? PEERDMA_SYSTEM_TYPE_COHERENT :
						   PEERDMA_SYSTEM_TYPE_PAGES;
	struct peerdma_system *sys;
	int ret;

	if (arg->flags & ~PEERDMA_SYSTEM_COHERENT || !arg->size || arg->size > PEERDMA_MAX_SYSTEM ||
	    arg->direction > PEERDMA_FROM_DEVICE)
		return -EINVAL;
	if (coherent && arg->direction != PEERDMA_BIDIRECTIONAL)
		return -EINVAL;
	arg->size = PAGE_ALIGN(arg->size);

	sys = kzalloc_obj(*sys);
	if (!sys)
		return -ENOMEM;
	peerdma_system_init(sys, call->file->peer, type, arg->size,
			    coherent ? &peerdma_system_coherent_ops : &peerdma_system_ops);
	ret = coherent ? peerdma_system_alloc_coherent(sys) : peerdma_system_alloc_pages(sys);
	if (!ret && !coherent) {
		mutex_lock(&sys->base.lock);
		ret = peerdma_system_map(&sys->base, arg->direction);
		mutex_unlock(&sys->base.lock);
	}
	if (ret)
		goto err_put;
	/* Once it has a handle, another thread may unmap it. */
	arg->segments = sys->base.segments->count;
	ret = peerdma_object_publish(call->file, &sys->base, &arg->handle);
	if (ret)
		goto err_put;
	arg->mmap_offset = (u64)arg->handle << PEERDMA_MMAP_SHIFT;
	return 0;

err_put:
	peerdma_object_put(&sys->base);
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
		; /* nothing to hand over */
	else if (arg->target == PEERDMA_SYNC_FOR_CPU)
		dma_sync_sgtable_for_cpu(peerdma_system_dev(sys), &sys->sgt, obj->direction);
	else
		dma_sync_sgtable_for_device(peerdma_system_dev(sys), &sys->sgt, obj->direction);
	peerdma_object_unlock(obj);
out_put:
	peerdma_object_put(obj);
	return ret;
}
