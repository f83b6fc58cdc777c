// SPDX-License-Identifier: GPL-2.0-only
/*
 * Importer: somebody's dma-buf, attached to this device.
 *
 * The usual import is dynamic: its exporter may move or revoke the memory and
 * says so by invalidate_mappings. Work that is under way may still finish (its
 * fence is in the dma_resv, the exporter waits for it); then the mapping goes
 * back, and the next work makes a new one.
 */
#include <linux/capability.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "driver.h"

/**
 * struct pd_import - an import
 * @base:	its segments are the mapping's DMA addresses
 * @dmabuf:	the buffer; a reference
 * @attach:	the attachment; NULL after shutdown
 * @sgt:	the mapping, when @base.segments is there. Under dma_resv
 * @invalid:	the mapping has been invalidated and must go. Under dma_resv
 * @pinned:	dma_buf_pin() has been called
 * @hasty:	lab only: unmaps when told to, whatever is in flight
 * @unmap:	lets an invalidated mapping go when its last work has finished
 */
struct pd_import {
	struct pd_object base;
	struct dma_buf *dmabuf;
	struct dma_buf_attachment *attach;
	struct sg_table *sgt;
	bool invalid;
	bool pinned;
	bool hasty;
	struct work_struct unmap;
};

static struct pd_import *to_pd_import(struct pd_object *obj)
{
	return container_of(obj, struct pd_import, base);
}

static int pd_import_map(struct pd_object *obj, enum dma_data_direction dir)
{
	struct pd_import *imp = to_pd_import(obj);
	struct pd_segments *segments;
	struct sg_table *sgt;

	if (!imp->attach)
		return -ENODEV;
	sgt = dma_buf_map_attachment(imp->attach, dir);
	if (IS_ERR(sgt))
		return PTR_ERR(sgt);
	segments = pd_segments_from_sgt(sgt);
	if (!segments) {
		dma_buf_unmap_attachment(imp->attach, sgt, dir);
		return -ENOMEM;
	}
	imp->sgt = sgt;
	imp->invalid = false;
	obj->segments = segments;
	obj->direction = dir;
	obj->generation++;
	pd_count(obj->pd, PD_MAPS);
	return 0;
}

/* Only when nothing is in flight. */
static void pd_import_unmap(struct pd_object *obj)
{
	struct pd_import *imp = to_pd_import(obj);

	dma_buf_unmap_attachment(imp->attach, imp->sgt, obj->direction);
	imp->sgt = NULL;
	imp->invalid = false;
	kvfree(obj->segments);
	obj->segments = NULL;
	pd_count(obj->pd, PD_UNMAPS);
}

static int pd_import_prepare(struct pd_object *obj)
{
	struct pd_import *imp = to_pd_import(obj);

	if (imp->invalid) {
		/* Nothing new gets in while we hold the lock. */
		pd_object_wait_idle(obj);
		pd_import_unmap(obj);
	}
	if (obj->segments)
		return 0;
	return pd_import_map(obj, obj->direction);
}

static void pd_import_unmap_work(struct work_struct *work)
{
	struct pd_import *imp = container_of(work, struct pd_import, unmap);
	struct pd_object *obj = &imp->base;
	bool again;

	do {
		pd_object_wait_idle(obj);
		dma_resv_lock(imp->dmabuf->resv, NULL);
		again = imp->invalid && atomic_read(&obj->in_flight);
		if (imp->invalid && !again)
			pd_import_unmap(obj);
		dma_resv_unlock(imp->dmabuf->resv);
	} while (again);
}

/* The exporter holds the dma_resv. */
static void pd_import_invalidate(struct dma_buf_attachment *attach)
{
	struct pd_import *imp = attach->importer_priv;
	struct pd_object *obj = &imp->base;

	dma_resv_assert_held(attach->dmabuf->resv);
	pd_count(obj->pd, PD_INVALIDATIONS);
	if (!obj->segments)
		return;
	if (imp->hasty || !atomic_read(&obj->in_flight)) {
		pd_import_unmap(obj);
		return;
	}
	imp->invalid = true;
	queue_work(system_dfl_wq, &imp->unmap);
}

static const struct dma_buf_attach_ops pd_import_p2p_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = pd_import_invalidate,
};

static const struct dma_buf_attach_ops pd_import_host_ops = {
	.allow_peer2peer = false,
	.invalidate_mappings = pd_import_invalidate,
};

/* Pinned, and deaf to revocation: what good exporters of device memory refuse */
static const struct dma_buf_attach_ops pd_import_p2p_deaf_ops = {
	.allow_peer2peer = true,
};

static const struct dma_buf_attach_ops pd_import_host_deaf_ops = {
	.allow_peer2peer = false,
};

static void pd_import_shutdown(struct pd_object *obj)
{
	struct pd_import *imp = to_pd_import(obj);
	struct dma_buf_attachment *attach;

	dma_resv_lock(imp->dmabuf->resv, NULL);
	attach = imp->attach;
	if (attach) {
		pd_object_wait_idle(obj);
		if (obj->segments)
			pd_import_unmap(obj);
		if (imp->pinned)
			dma_buf_unpin(attach);
		imp->pinned = false;
		imp->attach = NULL;
	}
	dma_resv_unlock(imp->dmabuf->resv);
	if (!attach)
		return;

	/* After this nobody calls pd_import_invalidate() any more. */
	dma_buf_detach(imp->dmabuf, attach);
	cancel_work_sync(&imp->unmap);
}

static void pd_import_release(struct pd_object *obj)
{
	struct pd_import *imp = to_pd_import(obj);

	pd_uncount(obj->pd, PD_LIVE_IMPORTS);
	dma_buf_put(imp->dmabuf);
	kfree(imp);
}

static const struct pd_object_ops pd_import_object_ops = {
	.map = pd_import_map,
	.unmap = pd_import_unmap,
	.prepare = pd_import_prepare,
	.shutdown = pd_import_shutdown,
	.release = pd_import_release,
};

static const struct dma_buf_attach_ops *pd_import_attach_ops(u32 flags)
{
	bool p2p = flags & PEERDMA_IMPORT_PEER2PEER;

	if (flags & PEERDMA_IMPORT_NO_INVALIDATE)
		return p2p ? &pd_import_p2p_deaf_ops : &pd_import_host_deaf_ops;
	return p2p ? &pd_import_p2p_ops : &pd_import_host_ops;
}

static int pd_import_pin(struct pd_import *imp)
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
static struct pd_import *pd_import_create(struct pd_device *pd,
					  struct dma_buf *dmabuf, u32 flags)
{
	struct dma_buf_attachment *attach;
	struct pd_import *imp;
	int ret;

	imp = kzalloc_obj(*imp);
	if (!imp) {
		dma_buf_put(dmabuf);
		return ERR_PTR(-ENOMEM);
	}
	imp->dmabuf = dmabuf;
	INIT_WORK(&imp->unmap, pd_import_unmap_work);
	pd_object_init(&imp->base, pd, PD_IMPORT, &pd_import_object_ops,
		       dmabuf->size);
	imp->hasty = flags & PEERDMA_IMPORT_LAB_HASTY;
	imp->base.resv = dmabuf->resv;
	imp->base.direction = DMA_BIDIRECTIONAL;
	pd_count(pd, PD_LIVE_IMPORTS);

	if (flags & PEERDMA_IMPORT_STATIC)
		attach = dma_buf_attach(dmabuf, &pd->pdev->dev);
	else
		attach = dma_buf_dynamic_attach(dmabuf, &pd->pdev->dev,
						pd_import_attach_ops(flags),
						imp);
	if (IS_ERR(attach)) {
		ret = PTR_ERR(attach);
		goto err_put;
	}
	imp->attach = attach;
	if (flags & PEERDMA_IMPORT_PINNED) {
		ret = pd_import_pin(imp);
		if (ret)
			goto err_put;
	}
	return imp;

err_put:
	pd_object_put(&imp->base);
	return ERR_PTR(ret);
}

int pd_ioctl_import(struct pd_call *call, void *data)
{
	const u32 all = PEERDMA_IMPORT_PEER2PEER | PEERDMA_IMPORT_STATIC |
			PEERDMA_IMPORT_PINNED | PEERDMA_IMPORT_NO_INVALIDATE |
			PEERDMA_IMPORT_LAB_HASTY;
	struct pd_device *pd = call->file->pd;
	struct peerdma_import *arg = data;
	struct dma_buf *dmabuf;
	struct pd_object *obj;
	int ret;

	if (arg->flags & ~all || arg->reserved)
		return -EINVAL;
	if (arg->flags & PEERDMA_IMPORT_STATIC &&
	    arg->flags != PEERDMA_IMPORT_STATIC)
		return -EINVAL;
	if (arg->flags & PEERDMA_IMPORT_NO_INVALIDATE && !PD_HAS_DEAF_IMPORTERS)
		return -EOPNOTSUPP;
	/* Without a callback the buffer must not move, so it has to be pinned. */
	if (arg->flags & PEERDMA_IMPORT_NO_INVALIDATE &&
	    !(arg->flags & PEERDMA_IMPORT_PINNED))
		return -EINVAL;

	if (arg->flags & PEERDMA_IMPORT_LAB_HASTY && !capable(CAP_SYS_ADMIN))
		return -EPERM;

	dmabuf = dma_buf_get(arg->fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);

	obj = pd_export_own(dmabuf, pd);
	if (obj) {
		dma_buf_put(dmabuf);
		if (IS_ERR(obj))
			return PTR_ERR(obj);
	} else {
		struct pd_import *imp = pd_import_create(pd, dmabuf, arg->flags);

		if (IS_ERR(imp))
			return PTR_ERR(imp);
		obj = &imp->base;
	}

	arg->size = obj->size;
	ret = pd_object_publish(call->file, obj, &arg->handle);
	if (ret)
		pd_object_put(obj);
	return ret;
}

/* What no importer may do: the table is for its DMA addresses only. */
int pd_ioctl_lab_read_page(struct pd_call *call, void *data)
{
	struct peerdma_lab_read_page *arg = data;
	struct pd_object *obj;
	struct sg_table *sgt;
	struct page *page;
	int ret;

	obj = pd_object_find_kind(call->file, arg->handle, PD_IMPORT);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	ret = pd_object_lock(obj);
	if (ret)
		goto out_put;
	ret = -EINVAL;
	sgt = to_pd_import(obj)->sgt;
	if (!obj->segments)
		goto out_unlock;
	arg->entries = sgt->orig_nents;
	page = sg_page(sgt->sgl);
	ret = -EFAULT;
	if (page && !copy_from_kernel_nofault(&arg->value, page_address(page),
					      sizeof(arg->value)))
		ret = 0;
out_unlock:
	pd_object_unlock(obj);
out_put:
	pd_object_put(obj);
	return ret;
}
