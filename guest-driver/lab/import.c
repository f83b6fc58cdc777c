// SPDX-License-Identifier: GPL-2.0-only
/*
 * An importer that makes mistakes: it unmaps while its work is under way, or goes on
 * with a mapping that was invalidated, or forgets to unmap, or looks at the pages of a
 * table that is for its DMA addresses only.
 */
#include <linux/uaccess.h>

#include "../import.h"
#include "lab.h"

/* Unmaps at once, whatever is in flight. */
static void peerdma_lab_invalidate(struct dma_buf_attachment *attach)
{
	struct peerdma_imported *imp = attach->importer_priv;
	struct peerdma_object *obj = &imp->base;

	dma_resv_assert_held(attach->dmabuf->resv);
	peerdma_count(obj->peer, PEERDMA_COUNT_INVALIDATIONS);
	if (obj->segments)
		obj->ops->unmap(obj);
}

static const struct dma_buf_attach_ops peerdma_lab_p2p_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = peerdma_lab_invalidate,
};

static const struct dma_buf_attach_ops peerdma_lab_host_ops = {
	.allow_peer2peer = false,
	.invalidate_mappings = peerdma_lab_invalidate,
};

/* Does nothing. */
static void peerdma_lab_ignore_invalidate(struct dma_buf_attachment *attach)
{
	struct peerdma_imported *imp = attach->importer_priv;

	dma_resv_assert_held(attach->dmabuf->resv);
	peerdma_count(imp->base.peer, PEERDMA_COUNT_INVALIDATIONS);
}

static const struct dma_buf_attach_ops peerdma_lab_ignoring_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = peerdma_lab_ignore_invalidate,
};

const struct dma_buf_attach_ops *peerdma_lab_import(u32 flags)
{
	const u32 all = PEERDMA_IMPORT_PEER2PEER | PEERDMA_IMPORT_PINNED |
			PEERDMA_IMPORT_LAB_UNMAP_EARLY;

	if (flags & ~all &&
	    flags != (PEERDMA_IMPORT_PEER2PEER | PEERDMA_IMPORT_LAB_IGNORE_INVALIDATE))
		return ERR_PTR(-EINVAL);
	if (!capable(CAP_SYS_ADMIN))
		return ERR_PTR(-EPERM);
	if (flags & PEERDMA_IMPORT_LAB_IGNORE_INVALIDATE)
		return &peerdma_lab_ignoring_ops;
	return flags & PEERDMA_IMPORT_PEER2PEER ? &peerdma_lab_p2p_ops : &peerdma_lab_host_ops;
}

int peerdma_ioctl_lab_read_page(struct peerdma_call *call, void *data)
{
	struct peerdma_lab_read_page *arg = data;
	struct peerdma_object *obj;
	struct sg_table *sgt;
	struct page *page;
	int ret;

	obj = peerdma_object_find_kind(call->file, arg->handle, PEERDMA_KIND_IMPORT);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	ret = peerdma_object_lock(obj);
	if (ret)
		goto out_put;
	ret = -EINVAL;
	sgt = to_peerdma_imported(obj)->sgt;
	if (!obj->segments)
		goto out_unlock;
	arg->entries = sgt->orig_nents;
	page = sg_page(sgt->sgl);
	ret = -EFAULT;
	if (page &&
	    !copy_from_kernel_nofault(&arg->value, page_address(page), sizeof(arg->value)))
		ret = 0;
out_unlock:
	peerdma_object_unlock(obj);
out_put:
	peerdma_object_put(obj);
	return ret;
}

int peerdma_ioctl_lab_forget(struct peerdma_call *call, void *data)
{
	struct peerdma_handle *arg = data;
	struct peerdma_imported *imp;
	struct peerdma_object *obj;
	int ret;

	if (arg->reserved)
		return -EINVAL;
	obj = peerdma_object_find_kind(call->file, arg->handle, PEERDMA_KIND_IMPORT);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	ret = peerdma_object_lock(obj);
	if (ret)
		goto out_put;
	imp = to_peerdma_imported(obj);
	peerdma_object_wait_idle(obj);
	/* The core would warn of an attachment in the list of a dma-buf that goes. */
	if (imp->attach)
		list_del_init(&imp->attach->node);
	imp->attach = NULL;
	imp->sgt = NULL;
	kvfree(obj->segments);
	obj->segments = NULL;
	peerdma_object_unlock(obj);
out_put:
	peerdma_object_put(obj);
	return ret;
}
