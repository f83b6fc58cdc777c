// SPDX-License-Identifier: GPL-2.0-only
/*
 * Exporter: dma-bufs over the local memory, for devices that can reach it.
 *
 * The memory has no struct pages. Its addresses for another device come from
 * the provider that p2pdma keeps for the BAR, which is good as long as the driver
 * is bound: so remove() and a reset take all mappings back first (revoke).
 *
 * All dma-bufs of one memory object share the object's dma_resv.
 */
#include <linux/fcntl.h>
#include <linux/io.h>
#include <linux/iosys-map.h>
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>

#include "buffer.h"
#include "ioctl.h"
#include "mapping.h"

static int peerdma_export_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct peerdma_exported *exp = dmabuf->priv;
	struct peerdma_device *peer = exp->obj->peer;
	int ret = 0;
	int idx;

	/* Device memory cannot be had in any other way than from the device... */
	if (!attach->peer2peer)
		return -EOPNOTSUPP;
	/* ... and it goes away with the driver, pinned or not. */
	if (!dma_buf_attach_revocable(attach))
		return -EOPNOTSUPP;

	idx = srcu_read_lock(&peer->srcu);
	if (READ_ONCE(peer->gone))
		ret = -ENODEV;
	else if (pci_p2pdma_distance(peer->pdev, attach->dev, false) < 0)
		ret = -EREMOTEIO;
	srcu_read_unlock(&peer->srcu, idx);
	return ret;
}

/*
 * The memory does not move, so that nothing has to be done to pin it. Before 6.19 the
 * core takes an exporter that cannot pin for a static one, and keeps what importers
 * have mapped until they detach.
 */
int peerdma_export_pin(struct dma_buf_attachment *attach)
{
	dma_resv_assert_held(attach->dmabuf->resv);
	return 0;
}

void peerdma_export_unpin(struct dma_buf_attachment *attach)
{
	dma_resv_assert_held(attach->dmabuf->resv);
}

/* Whether unbinding waits for importers without invalidate_mappings. */
static bool peerdma_export_waits(struct peerdma_exported *exp)
{
	return exp->obj->kind == PEERDMA_KIND_BUFFER && peerdma_buffer_waits(exp->obj);
}

/* An importer has got a mapping. */
void peerdma_export_mapped(struct peerdma_exported *exp, struct peerdma_mapping *mapping)
{
	dma_resv_assert_held(exp->dmabuf->resv);
	mapping->invalidation = exp->invalidations;
	if (dma_buf_attach_revocable(mapping->attach))
		exp->mapped++;
	else if (peerdma_export_waits(exp))
		atomic_inc(&exp->obj->peer->held);
	peerdma_count(exp->obj->peer, PEERDMA_COUNT_EXPORTER_MAPS);
}

/* ... and has unmapped it. @invalidation is that of the mapping, which is freed by now. */
void peerdma_export_unmapped(struct peerdma_exported *exp, struct dma_buf_attachment *attach,
			     u64 invalidation)
{
	struct peerdma_device *peer = exp->obj->peer;

	dma_resv_assert_held(exp->dmabuf->resv);
	peerdma_count(peer, PEERDMA_COUNT_EXPORTER_UNMAPS);
	if (dma_buf_attach_revocable(attach)) {
		if (invalidation == exp->invalidations)
			exp->mapped--;
		else
			atomic64_dec(&exp->invalidated);
	} else if (peerdma_export_waits(exp)) {
		atomic_dec(&peer->held);
	}
	wake_up_all(&peer->idle);
}

static struct sg_table *peerdma_export_map(struct dma_buf_attachment *attach,
					   enum dma_data_direction dir)
{
	struct peerdma_exported *exp = attach->dmabuf->priv;
	struct peerdma_device *peer = exp->obj->peer;
	struct peerdma_mapping *mapping;

	dma_resv_assert_held(attach->dmabuf->resv);

	if (exp->revoked)
		return ERR_PTR(-ENODEV);
	/* Set before peerdma_exports_revoke() takes the lock that we hold. */
	if (READ_ONCE(peer->bar_blocked))
		return ERR_PTR(-EAGAIN);

	mapping = peerdma_mapping_of_ranges(attach, peer->provider, exp->range, exp->ranges, dir);
	if (IS_ERR(mapping))
		return ERR_CAST(mapping);
	peerdma_export_mapped(exp, mapping);
	return &mapping->sgt;
}

static void peerdma_export_unmap(struct dma_buf_attachment *attach, struct sg_table *sgt,
				 enum dma_data_direction dir)
{
	struct peerdma_mapping *mapping = to_peerdma_mapping(sgt);
	u64 invalidation = mapping->invalidation;

	dma_resv_assert_held(attach->dmabuf->resv);

	peerdma_mapping_free(mapping);
	peerdma_export_unmapped(attach->dmabuf->priv, attach, invalidation);
}

void peerdma_export_release(struct dma_buf *dmabuf)
{
	struct peerdma_exported *exp = dmabuf->priv;
	struct peerdma_device *peer = exp->obj->peer;

	mutex_lock(&peer->exports_lock);
	list_del(&exp->node);
	mutex_unlock(&peer->exports_lock);
	peerdma_uncount(peer, PEERDMA_COUNT_LIVE_DMABUFS);
	/* The last reference to the device may go with it. */
	peerdma_object_put(exp->obj);
	kfree(exp);
}

/*
 * The core warns of a vmap that fails, so what is gone is refused before that. An
 * exporter that goes between the two calls still gets the warning.
 */
static int peerdma_export_begin_cpu_access(struct dma_buf *dmabuf, enum dma_data_direction dir)
{
	struct peerdma_exported *exp = dmabuf->priv;

	return READ_ONCE(exp->obj->peer->gone) ? -ENODEV : 0;
}

static int peerdma_export_end_cpu_access(struct dma_buf *dmabuf, enum dma_data_direction dir)
{
	if (dir != DMA_FROM_DEVICE) {
		/* The CPU's mappings combine writes; devices must find them. */
		wmb();
	}
	return 0;
}

static int peerdma_export_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	struct peerdma_exported *exp = dmabuf->priv;

	return peerdma_memory_map_vma(to_peerdma_memory(exp->obj), vma, exp->offset);
}

static int peerdma_export_vmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct peerdma_exported *exp = dmabuf->priv;
	void __iomem *at;

	dma_resv_assert_held(dmabuf->resv);
	if (exp->revoked)
		return -ENODEV;
	at = ioremap_wc(exp->range[0].paddr, exp->range[0].len);
	if (!at)
		return -ENOMEM;
	iosys_map_set_vaddr_iomem(map, at);
	/* A kernel mapping cannot be taken back: remove() waits for it. */
	atomic_inc(&exp->obj->peer->held);
	return 0;
}

static void peerdma_export_vunmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct peerdma_exported *exp = dmabuf->priv;
	struct peerdma_device *peer = exp->obj->peer;

	dma_resv_assert_held(dmabuf->resv);
	iounmap(map->vaddr_iomem);
	atomic_dec(&peer->held);
	wake_up_all(&peer->idle);
}

static const struct dma_buf_ops peerdma_export_ops = {
	.attach = peerdma_export_attach,
	.pin = peerdma_export_pin,
	.unpin = peerdma_export_unpin,
	.map_dma_buf = peerdma_export_map,
	.unmap_dma_buf = peerdma_export_unmap,
	.release = peerdma_export_release,
	.begin_cpu_access = peerdma_export_begin_cpu_access,
	.end_cpu_access = peerdma_export_end_cpu_access,
	.mmap = peerdma_export_mmap,
	.vmap = peerdma_export_vmap,
	.vunmap = peerdma_export_vunmap,
};

/* Several ranges cannot be one piece of kernel address space. */
static const struct dma_buf_ops peerdma_export_scattered_ops = {
	.attach = peerdma_export_attach,
	.pin = peerdma_export_pin,
	.unpin = peerdma_export_unpin,
	.map_dma_buf = peerdma_export_map,
	.unmap_dma_buf = peerdma_export_unmap,
	.release = peerdma_export_release,
	.begin_cpu_access = peerdma_export_begin_cpu_access,
	.end_cpu_access = peerdma_export_end_cpu_access,
	.mmap = peerdma_export_mmap,
};

static bool peerdma_export_is_any(struct dma_buf *dmabuf)
{
	return dmabuf->ops == &peerdma_export_ops || dmabuf->ops == &peerdma_export_scattered_ops ||
	       peerdma_buffer_is_any(dmabuf);
}

/*
 * The object behind the dma-buf, if it is @peer's own: then it needs no way over the
 * bus. A reference; NULL: it is not; EOPNOTSUPP: the dma-buf shows a part of it.
 */
struct peerdma_object *peerdma_export_own(struct dma_buf *dmabuf, struct peerdma_device *peer)
{
	struct peerdma_exported *exp = dmabuf->priv;

	if (!peerdma_export_is_any(dmabuf) || exp->obj->peer != peer)
		return NULL;
	if (dmabuf->size != exp->obj->size)
		return ERR_PTR(-EOPNOTSUPP);
	peerdma_object_get(exp->obj);
	return exp->obj;
}

/* ------------------------------------------------------------- exporting */

/* The physical ranges of @size bytes from @offset on; returns how many. */
static u32 peerdma_export_fill(struct peerdma_memory *mem, u64 offset, u64 size,
			       struct phys_vec *range)
{
	struct peerdma_segment_list *ranges = mem->base.segments;
	u32 i, count = 0;

	for (i = 0; i < ranges->count && size; i++) {
		u64 length = ranges->segment[i].length;

		if (offset >= length) {
			offset -= length;
			continue;
		}
		length = min(length - offset, size);
		if (range) {
			range[count].paddr =
				mem->base.peer->bar_phys + ranges->segment[i].address + offset;
			range[count].len = length;
		}
		count++;
		size -= length;
		offset = 0;
	}
	return count;
}

static struct peerdma_exported *peerdma_export_new(struct peerdma_object *obj, u64 offset, u64 size)
{
	struct peerdma_memory *mem = to_peerdma_memory(obj);
	struct peerdma_exported *exp;
	u32 ranges = 0;

	if (obj->kind == PEERDMA_KIND_MEMORY)
		ranges = peerdma_export_fill(mem, offset, size, NULL);
	exp = kzalloc_flex(*exp, range, ranges);
	if (!exp)
		return NULL;
	exp->ranges = ranges;
	if (ranges)
		peerdma_export_fill(mem, offset, size, exp->range);
	exp->offset = offset;
	exp->obj = obj;
	INIT_LIST_HEAD(&exp->sibling);
	return exp;
}

static struct dma_buf *peerdma_export_create(struct peerdma_device *peer,
					     struct peerdma_object *obj, u64 offset, u64 size,
					     int open_flags)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct dma_buf *dmabuf;
	struct peerdma_exported *exp;

	exp = peerdma_export_new(obj, offset, size);
	if (!exp)
		return ERR_PTR(-ENOMEM);
	if (obj->kind == PEERDMA_KIND_BUFFER)
		info.ops = peerdma_buffer_export_ops(obj);
	else
		info.ops = exp->ranges == 1 ? &peerdma_export_ops : &peerdma_export_scattered_ops;
	info.size = size;
	info.flags = open_flags;
	info.resv = obj->resv;
	info.priv = exp;

	/*
	 * Nothing else knows the dma-buf before it is in the list and the list is
	 * unlocked, so a revocation cannot miss it.
	 */
	mutex_lock(&peer->exports_lock);
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf)) {
		mutex_unlock(&peer->exports_lock);
		kfree(exp);
		return dmabuf;
	}
	exp->dmabuf = dmabuf;
	peerdma_object_get(obj);
	peerdma_count(peer, PEERDMA_COUNT_LIVE_DMABUFS);
	list_add_tail(&exp->node, &peer->exports);
	mutex_unlock(&peer->exports_lock);
	/* Waits for the dma_resv. Before the dma-buf has a user, so it misses no move. */
	if (obj->kind == PEERDMA_KIND_BUFFER)
		peerdma_buffer_exported(exp);
	return dmabuf;
}

int peerdma_ioctl_export(struct peerdma_call *call, void *data)
{
	struct peerdma_device *peer = call->file->peer;
	struct peerdma_export *arg = data;
	struct dma_buf *dmabuf;
	struct peerdma_object *obj;
	int flags, ret = 0;

	if (arg->flags & ~(PEERDMA_EXPORT_CLOEXEC | PEERDMA_EXPORT_RDWR) || arg->reserved)
		return -EINVAL;
	obj = peerdma_object_find_exportable(call->file, arg->handle);
	if (IS_ERR(obj))
		return PTR_ERR(obj);

	ret = -EOPNOTSUPP;
	if (obj->kind == PEERDMA_KIND_MEMORY && !peer->provider)
		goto out_put;
	ret = -EINVAL;
	if (!PAGE_ALIGNED(arg->offset) || !PAGE_ALIGNED(arg->size) || arg->offset >= obj->size)
		goto out_put;
	if (!arg->size)
		arg->size = obj->size - arg->offset;
	if (arg->size > obj->size - arg->offset)
		goto out_put;
	if (obj->kind == PEERDMA_KIND_BUFFER && arg->size != obj->size)
		goto out_put;

	flags = arg->flags & PEERDMA_EXPORT_CLOEXEC ? O_CLOEXEC : 0;
	ret = get_unused_fd_flags(flags);
	if (ret < 0)
		goto out_put;
	call->fd = ret;
	flags |= arg->flags & PEERDMA_EXPORT_RDWR ? O_RDWR : O_RDONLY;
	dmabuf = peerdma_export_create(peer, obj, arg->offset, arg->size, flags);
	if (IS_ERR(dmabuf)) {
		ret = PTR_ERR(dmabuf);
		goto out_put;
	}
	call->out_dmabuf = dmabuf;
	arg->fd = call->fd;
	ret = 0;
out_put:
	peerdma_object_put(obj);
	return ret;
}
