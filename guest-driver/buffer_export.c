// SPDX-License-Identifier: GPL-2.0-only
/*
 * dma-bufs over buffers: which importers may attach, and what they get.
 */
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>

#include "buffer.h"
#include "mapping.h"

static struct peerdma_buffer *peerdma_buffer_of(struct dma_buf *dmabuf)
{
	struct peerdma_exported *exp = dmabuf->priv;

	return to_peerdma_buffer(exp->obj);
}

/* The device is there. */
static int peerdma_buffer_admit(struct peerdma_buffer *buf, struct dma_buf_attachment *attach)
{
	switch (buf->kind) {
	case PEERDMA_BUFFER_P2PMEM:
		/* There are pages, but they are a peer's all the same. */
		if (!attach->peer2peer && !buf->any_importer)
			return -EOPNOTSUPP;
		if (pci_p2pdma_distance(buf->base.peer->pdev, attach->dev, false) < 0)
			return -EREMOTEIO;
		return 0;
	case PEERDMA_BUFFER_COHERENT:
		/*
		 * Nothing makes a second device's address from it: dma_get_sgtable()
		 * gives the own device's.
		 */
		return buf->map ? 0 : -EOPNOTSUPP;
	case PEERDMA_BUFFER_MIGRATING:
		return peerdma_migrate_attach(buf, attach);
	default:
		return 0;
	}
}

static int peerdma_buffer_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct peerdma_buffer *buf = peerdma_buffer_of(dmabuf);
	struct peerdma_device *peer = buf->base.peer;
	int ret, idx;

	if (buf->storage->stays)
		return 0;
	idx = srcu_read_lock(&peer->srcu);
	ret = READ_ONCE(peer->gone) ? -ENODEV : peerdma_buffer_admit(buf, attach);
	srcu_read_unlock(&peer->srcu, idx);
	return ret;
}

/* ---------------------------------------------------------------- mapping */

static struct peerdma_mapping *peerdma_buffer_map_storage(struct peerdma_buffer *buf,
							  struct dma_buf_attachment *attach,
							  enum dma_data_direction dir)
{
	struct peerdma_device *peer = buf->base.peer;
	int ret;

	dma_resv_assert_held(&buf->resv);
	if (buf->kind == PEERDMA_BUFFER_MIGRATING && buf->bound) {
		ret = peerdma_migrate(buf, PEERDMA_PLACE_SYSTEM);
		if (ret)
			return ERR_PTR(ret);
	}
	/* Set before peerdma_exports_revoke() takes the lock that we hold. */
	if (buf->place == PEERDMA_PLACE_LOCAL && READ_ONCE(peer->bar_blocked))
		return ERR_PTR(-EAGAIN);
	return buf->map(buf, attach, dir);
}

static struct sg_table *peerdma_buffer_map(struct dma_buf_attachment *attach,
					   enum dma_data_direction dir)
{
	struct peerdma_exported *exp = attach->dmabuf->priv;
	struct peerdma_buffer *buf = to_peerdma_buffer(exp->obj);
	struct peerdma_mapping *mapping;

	dma_resv_assert_held(attach->dmabuf->resv);

	if (exp->revoked)
		return ERR_PTR(-ENODEV);
	mapping = peerdma_buffer_map_storage(buf, attach, dir);
	if (IS_ERR(mapping))
		return ERR_CAST(mapping);
	list_add_tail(&mapping->node, &buf->mappings);
	buf->mapped++;
	peerdma_export_mapped(exp, mapping);
	return &mapping->sgt;
}

static void peerdma_buffer_unmap(struct dma_buf_attachment *attach, struct sg_table *sgt,
				 enum dma_data_direction dir)
{
	struct peerdma_buffer *buf = peerdma_buffer_of(attach->dmabuf);
	struct peerdma_mapping *mapping = to_peerdma_mapping(sgt);
	u64 invalidation = mapping->invalidation;

	dma_resv_assert_held(attach->dmabuf->resv);

	list_del(&mapping->node);
	buf->mapped--;
	peerdma_mapping_free(mapping);
	peerdma_export_unmapped(attach->dmabuf->priv, attach, invalidation);
}

/* ------------------------------------------------------------- CPU access */

static void peerdma_buffer_sync(struct peerdma_buffer *buf, bool for_cpu)
{
	struct peerdma_mapping *mapping;

	dma_resv_lock(&buf->resv, NULL);
	if (buf->storage->sync && !buf->gone)
		buf->storage->sync(buf, for_cpu);
	list_for_each_entry(mapping, &buf->mappings, node) {
		/* A peer's memory is neither cached nor bounced. */
		if (!mapping->ram || mapping->unmapped)
			continue;
		if (for_cpu)
			dma_sync_sgtable_for_cpu(mapping->attach->dev, &mapping->sgt,
						 mapping->direction);
		else
			dma_sync_sgtable_for_device(mapping->attach->dev, &mapping->sgt,
						    mapping->direction);
	}
	dma_resv_unlock(&buf->resv);
}

/*
 * A mapping by the kernel, the next thing that may come, must not fail: the core
 * warns of it. So what would make it fail is found here.
 */
static int peerdma_buffer_make_accessible(struct peerdma_buffer *buf)
{
	int ret = 0;

	dma_resv_lock(&buf->resv, NULL);
	if (peerdma_buffer_is_lost(buf))
		ret = -ENODEV;
	else if (buf->bound)
		ret = peerdma_migrate(buf, PEERDMA_PLACE_SYSTEM);
	dma_resv_unlock(&buf->resv);
	return ret;
}

static int peerdma_buffer_begin_cpu_access(struct dma_buf *dmabuf, enum dma_data_direction dir)
{
	bool write = dir != DMA_FROM_DEVICE;
	long ret;

	/* The core waits after us: too late for what we do. */
	ret = dma_resv_wait_timeout(dmabuf->resv, dma_resv_usage_rw(write), true,
				    MAX_SCHEDULE_TIMEOUT);
	if (ret < 0)
		return ret;
	ret = peerdma_buffer_make_accessible(peerdma_buffer_of(dmabuf));
	if (ret)
		return ret;
	peerdma_buffer_sync(peerdma_buffer_of(dmabuf), true);
	return 0;
}

static int peerdma_buffer_end_cpu_access(struct dma_buf *dmabuf, enum dma_data_direction dir)
{
	if (dir != DMA_FROM_DEVICE) {
		/* The CPU's mappings of a BAR combine writes. */
		wmb();
		peerdma_buffer_sync(peerdma_buffer_of(dmabuf), false);
	}
	return 0;
}

static int peerdma_buffer_vmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct peerdma_buffer *buf = peerdma_buffer_of(dmabuf);
	int ret;

	dma_resv_assert_held(dmabuf->resv);
	/* Until then remove() waits for us. */
	if (buf->gone && !buf->storage->stays)
		return -ENODEV;
	ret = buf->storage->vmap(buf, map);
	if (!ret)
		WRITE_ONCE(buf->vmaps, buf->vmaps + 1);
	return ret;
}

static void peerdma_buffer_vunmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct peerdma_buffer *buf = peerdma_buffer_of(dmabuf);

	dma_resv_assert_held(dmabuf->resv);
	if (buf->storage->vunmap)
		buf->storage->vunmap(buf, map);
	WRITE_ONCE(buf->vmaps, buf->vmaps - 1);
	/* remove() may be waiting for it. */
	wake_up_all(&buf->base.peer->idle);
}

/* ----------------------------------------------------------------- the rest */

static void peerdma_buffer_dmabuf_release(struct dma_buf *dmabuf)
{
	struct peerdma_exported *exp = dmabuf->priv;

	dma_resv_lock(dmabuf->resv, NULL);
	list_del_init(&exp->sibling);
	dma_resv_unlock(dmabuf->resv);
	peerdma_export_release(dmabuf);
}

static const struct dma_buf_ops peerdma_buffer_dmabuf_ops = {
	.attach = peerdma_buffer_attach,
	.pin = peerdma_export_pin,
	.unpin = peerdma_export_unpin,
	.map_dma_buf = peerdma_buffer_map,
	.unmap_dma_buf = peerdma_buffer_unmap,
	.release = peerdma_buffer_dmabuf_release,
	.begin_cpu_access = peerdma_buffer_begin_cpu_access,
	.end_cpu_access = peerdma_buffer_end_cpu_access,
	.mmap = peerdma_buffer_mmap,
	.vmap = peerdma_buffer_vmap,
	.vunmap = peerdma_buffer_vunmap,
};

/* Only what moves has to be pinned. */
static const struct dma_buf_ops peerdma_buffer_migrating_dmabuf_ops = {
	.attach = peerdma_buffer_attach,
	.detach = peerdma_migrate_detach,
	.pin = peerdma_migrate_pin,
	.unpin = peerdma_migrate_unpin,
	.map_dma_buf = peerdma_buffer_map,
	.unmap_dma_buf = peerdma_buffer_unmap,
	.release = peerdma_buffer_dmabuf_release,
	.begin_cpu_access = peerdma_buffer_begin_cpu_access,
	.end_cpu_access = peerdma_buffer_end_cpu_access,
	.mmap = peerdma_buffer_mmap,
	.vmap = peerdma_buffer_vmap,
	.vunmap = peerdma_buffer_vunmap,
};

bool peerdma_buffer_is_any(struct dma_buf *dmabuf)
{
	return dmabuf->ops == &peerdma_buffer_dmabuf_ops ||
	       dmabuf->ops == &peerdma_buffer_migrating_dmabuf_ops;
}

const struct dma_buf_ops *peerdma_buffer_export_ops(struct peerdma_object *obj)
{
	return to_peerdma_buffer(obj)->kind == PEERDMA_BUFFER_MIGRATING ?
		       &peerdma_buffer_migrating_dmabuf_ops :
		       &peerdma_buffer_dmabuf_ops;
}
