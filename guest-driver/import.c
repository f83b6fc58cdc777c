// SPDX-License-Identifier: GPL-2.0-only
/*
 * Importer: another exporter's dma-buf, attached to this device.
 *
 * The usual import is dynamic: its exporter may move or revoke the memory and
 * says so by invalidate_mappings. Work that is under way may still finish (its
 * fence is in the dma_resv, the exporter waits for it); then the mapping goes
 * back, and the next work makes a new one.
 */
#include <linux/slab.h>

#include "import.h"
#include "ioctl.h"
#include "lab_ops.h"

static int peerdma_import_map(struct peerdma_object *obj, enum dma_data_direction dir)
{
	struct peerdma_imported *imp = to_peerdma_imported(obj);
	struct peerdma_segment_list *segments;
	struct sg_table *sgt;

	dma_resv_assert_held(obj->resv);
	if (!imp->attach)
		return -ENODEV;
	sgt = dma_buf_map_attachment(imp->attach, dir);
	if (IS_ERR(sgt))
		return PTR_ERR(sgt);
	segments = peerdma_segment_list_from_sgt(sgt);
	if (!segments) {
		dma_buf_unmap_attachment(imp->attach, sgt, dir);
		return -ENOMEM;
	}
	imp->sgt = sgt;
	imp->invalid = false;
	obj->segments = segments;
	obj->direction = dir;
	obj->generation++;
	peerdma_count(obj->peer, PEERDMA_COUNT_MAPS);
	return 0;
}

/* Only when nothing is in flight. */
static void peerdma_import_unmap(struct peerdma_object *obj)
{
	struct peerdma_imported *imp = to_peerdma_imported(obj);

	dma_resv_assert_held(obj->resv);
	dma_buf_unmap_attachment(imp->attach, imp->sgt, obj->direction);
	imp->sgt = NULL;
	imp->invalid = false;
	kvfree(obj->segments);
	obj->segments = NULL;
	peerdma_count(obj->peer, PEERDMA_COUNT_UNMAPS);
}

static int peerdma_import_prepare(struct peerdma_object *obj)
{
	struct peerdma_imported *imp = to_peerdma_imported(obj);

	dma_resv_assert_held(obj->resv);
	if (imp->invalid) {
		/* Nothing new gets in while we hold the lock. */
		peerdma_object_wait_idle(obj);
		peerdma_import_unmap(obj);
	}
	if (obj->segments)
		return 0;
	return peerdma_import_map(obj, obj->direction);
}

static void peerdma_import_unmap_work(struct work_struct *work)
{
	struct peerdma_imported *imp = container_of(work, struct peerdma_imported, unmap);
	struct peerdma_object *obj = &imp->base;
	bool again;

	do {
		peerdma_object_wait_idle(obj);
		dma_resv_lock(imp->dmabuf->resv, NULL);
		again = imp->invalid && atomic_read(&obj->in_flight);
		if (imp->invalid && !again)
			peerdma_import_unmap(obj);
		dma_resv_unlock(imp->dmabuf->resv);
	} while (again);
}

static void peerdma_import_invalidate(struct dma_buf_attachment *attach)
{
	struct peerdma_imported *imp = attach->importer_priv;
	struct peerdma_object *obj = &imp->base;

	dma_resv_assert_held(attach->dmabuf->resv);
	peerdma_count(obj->peer, PEERDMA_COUNT_INVALIDATIONS);
	if (!obj->segments)
		return;
	if (!atomic_read(&obj->in_flight)) {
		peerdma_import_unmap(obj);
		return;
	}
	imp->invalid = true;
	queue_work(system_dfl_wq, &imp->unmap);
}

static const struct dma_buf_attach_ops peerdma_import_p2p_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = peerdma_import_invalidate,
};

static const struct dma_buf_attach_ops peerdma_import_host_ops = {
	.allow_peer2peer = false,
	.invalidate_mappings = peerdma_import_invalidate,
};

/* Pinned, without the callback. Exporters of device memory refuse these */
static const struct dma_buf_attach_ops peerdma_import_p2p_pinned_ops = {
	.allow_peer2peer = true,
};

static const struct dma_buf_attach_ops peerdma_import_host_pinned_ops = {
	.allow_peer2peer = false,
};

static void peerdma_import_shutdown(struct peerdma_object *obj)
{
	struct peerdma_imported *imp = to_peerdma_imported(obj);
	struct dma_buf_attachment *attach;

	dma_resv_lock(imp->dmabuf->resv, NULL);
	attach = imp->attach;
	if (attach) {
		peerdma_object_wait_idle(obj);
		if (obj->segments)
			peerdma_import_unmap(obj);
		if (imp->pinned)
			dma_buf_unpin(attach);
		imp->pinned = false;
		imp->attach = NULL;
	}
	dma_resv_unlock(imp->dmabuf->resv);
	if (!attach)
		return;

	/* After this peerdma_import_invalidate() is not called any more. */
	dma_buf_detach(imp->dmabuf, attach);
	cancel_work_sync(&imp->unmap);
}

static void peerdma_import_release(struct peerdma_object *obj)
{
	struct peerdma_imported *imp = to_peerdma_imported(obj);

	peerdma_uncount(obj->peer, PEERDMA_COUNT_LIVE_IMPORTS);
	dma_buf_put(imp->dmabuf);
	kfree(imp);
}

static const struct peerdma_object_ops peerdma_import_object_ops = {
	.map = peerdma_import_map,
	.unmap = peerdma_import_unmap,
	.prepare = peerdma_import_prepare,
	.shutdown = peerdma_import_shutdown,
	.release = peerdma_import_release,
};

/* For flags of PEERDMA_IMPORT: NULL for a static attachment, or an error. */
static const struct dma_buf_attach_ops *peerdma_import_attach_ops(u32 flags)
{
	const u32 all = PEERDMA_IMPORT_PEER2PEER | PEERDMA_IMPORT_STATIC | PEERDMA_IMPORT_PINNED |
			PEERDMA_IMPORT_NO_INVALIDATE;
	bool p2p = flags & PEERDMA_IMPORT_PEER2PEER;

	if (flags & ~all)
		return peerdma_lab.import(flags);
	if (flags & PEERDMA_IMPORT_STATIC)
		return flags == PEERDMA_IMPORT_STATIC ? NULL : ERR_PTR(-EINVAL);
	if (!(flags & PEERDMA_IMPORT_NO_INVALIDATE))
		return p2p ? &peerdma_import_p2p_ops : &peerdma_import_host_ops;
	if (!PEERDMA_HAS_OPTIONAL_INVALIDATE)
		return ERR_PTR(-EOPNOTSUPP);
	/* Without a callback the buffer must not move, so it has to be pinned. */
	if (!(flags & PEERDMA_IMPORT_PINNED))
		return ERR_PTR(-EINVAL);
	return p2p ? &peerdma_import_p2p_pinned_ops : &peerdma_import_host_pinned_ops;
}

static int peerdma_import_pin(struct peerdma_imported *imp)
{
	int ret;

	ret = dma_resv_lock_interruptible(imp->dmabuf->resv, NULL);
	if (ret)
		return ret;
	ret = dma_buf_pin(imp->attach);
	imp->pinned = !ret;
	dma_resv_unlock(imp->dmabuf->resv);
	return ret;
}

/* Takes over the reference to the dma-buf, also when it fails. */
static struct peerdma_imported *peerdma_import_create(struct peerdma_device *peer,
						      struct dma_buf *dmabuf,
						      const struct dma_buf_attach_ops *ops,
						      bool pin)
{
	struct dma_buf_attachment *attach;
	struct peerdma_imported *imp;
	int ret;

	imp = kzalloc_obj(*imp);
	if (!imp) {
		dma_buf_put(dmabuf);
		return ERR_PTR(-ENOMEM);
	}
	imp->dmabuf = dmabuf;
	INIT_WORK(&imp->unmap, peerdma_import_unmap_work);
	peerdma_object_init(&imp->base, peer, PEERDMA_KIND_IMPORT, &peerdma_import_object_ops,
			    dmabuf->size);
	imp->base.resv = dmabuf->resv;
	imp->base.direction = DMA_BIDIRECTIONAL;
	peerdma_count(peer, PEERDMA_COUNT_LIVE_IMPORTS);

	if (ops)
		attach = dma_buf_dynamic_attach(dmabuf, &peer->pdev->dev, ops, imp);
	else
		attach = dma_buf_attach(dmabuf, &peer->pdev->dev);
	if (IS_ERR(attach)) {
		ret = PTR_ERR(attach);
		goto err_put;
	}
	imp->attach = attach;
	if (pin) {
		ret = peerdma_import_pin(imp);
		if (ret)
			goto err_put;
	}
	return imp;

err_put:
	peerdma_object_put(&imp->base);
	return ERR_PTR(ret);
}

int peerdma_ioctl_import(struct peerdma_call *call, void *data)
{
	struct peerdma_device *peer = call->file->peer;
	const struct dma_buf_attach_ops *ops;
	struct peerdma_import *arg = data;
	struct dma_buf *dmabuf;
	struct peerdma_object *obj;
	int ret;

	if (arg->reserved)
		return -EINVAL;
	ops = peerdma_import_attach_ops(arg->flags);
	if (IS_ERR(ops))
		return PTR_ERR(ops);

	dmabuf = dma_buf_get(arg->fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);

	obj = peerdma_export_own(dmabuf, peer);
	if (obj) {
		dma_buf_put(dmabuf);
		if (IS_ERR(obj))
			return PTR_ERR(obj);
	} else {
		bool pin = arg->flags & PEERDMA_IMPORT_PINNED;
		struct peerdma_imported *imp = peerdma_import_create(peer, dmabuf, ops, pin);

		if (IS_ERR(imp))
			return PTR_ERR(imp);
		obj = &imp->base;
	}

	arg->size = obj->size;
	ret = peerdma_object_publish(call->file, obj, &arg->handle);
	if (ret)
		peerdma_object_put(obj);
	return ret;
}
