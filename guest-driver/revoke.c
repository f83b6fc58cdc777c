// SPDX-License-Identifier: GPL-2.0-only
/*
 * Taking exported memory back: for a move, for a reset, or for good.
 */
#include <linux/file.h>

#include "buffer.h"
#include "work.h"

/* Whether the memory cannot stay where it is when the driver goes, or in a reset. */
static bool pd_export_concerned(struct pd_export *exp, bool for_good)
{
	return exp->obj->kind == PD_MEMORY ||
	       pd_buffer_concerned(exp->obj, for_good);
}

/* Tells importers to let go of what they have. Under dma_resv. */
static void pd_export_recall(struct pd_export *exp)
{
	exp->recall++;
	atomic64_add(exp->lent, &exp->recalled);
	exp->lent = 0;
	dma_buf_invalidate_mappings(exp->dmabuf);
}

/* Whether nobody has anything any more that he was told to let go. */
static bool pd_export_is_back(struct pd_export *exp)
{
	return !atomic64_read(&exp->recalled);
}

/*
 * Takes back what importers have: they are told, may go on until their fences
 * have signalled, and have to unmap. With @exp->dmabuf kept alive by the caller.
 */
static void pd_export_revoke(struct pd_export *exp, bool for_good)
{
	struct dma_buf *dmabuf = exp->dmabuf;
	struct pd_device *pd = exp->obj->pd;

	dma_resv_lock(dmabuf->resv, NULL);
	if (for_good)
		exp->revoked = true;
	pd_export_recall(exp);
	/*
	 * BOOKKEEP: all fences, also those that nobody syncs to implicitly. Work on
	 * mappings ends, or its importer does not give them back; what else there is
	 * may be anybody's fence, who may never signal it: not for ever.
	 */
	if (!dma_resv_wait_timeout(dmabuf->resv, DMA_RESV_USAGE_BOOKKEEP, false,
				   msecs_to_jiffies(pd_timeout_ms)))
		dev_warn(&pd->pdev->dev,
			 "a fence of a dma-buf has not signalled in %u ms; taken back without it\n",
			 pd_timeout_ms);
	dma_resv_unlock(dmabuf->resv);

	/*
	 * Every importer that got in here can be told (see attach), so this ends.
	 * Mappings made since then are none of ours to wait for, and their ends do
	 * not count for others.
	 */
	wait_event(pd->idle, pd_export_is_back(exp));
	pd_count(pd, PD_REVOCATIONS);
}

/*
 * The same because somebody wants it. Fences are anybody's, and he may want to live
 * no longer. What has not come back then comes back some time: the next one waits
 * for it as well.
 */
static int pd_export_invalidate(struct pd_export *exp)
{
	struct dma_buf *dmabuf = exp->dmabuf;
	struct pd_device *pd = exp->obj->pd;
	long left = msecs_to_jiffies(pd_timeout_ms);

	dma_resv_lock(dmabuf->resv, NULL);
	pd_export_recall(exp);
	left = dma_resv_wait_timeout(dmabuf->resv, DMA_RESV_USAGE_BOOKKEEP,
				     true, left);
	dma_resv_unlock(dmabuf->resv);
	if (left > 0)
		left = wait_event_interruptible_timeout(pd->idle,
							pd_export_is_back(exp),
							left);
	if (left <= 0)
		return left ?: -ETIME;
	pd_count(pd, PD_REVOCATIONS);
	return 0;
}

/*
 * Takes back all mappings of all dma-bufs, the CPUs' too. The caller has called
 * pd_bar_block(), so nobody gets new ones.
 */
void pd_exports_revoke(struct pd_device *pd, bool for_good)
{
	struct pd_export *exp;

	mutex_lock(&pd->exports_lock);
	list_for_each_entry(exp, &pd->exports, node) {
		struct file *file;

		if (!pd_export_concerned(exp, for_good))
			continue;
		file = get_file_active(&exp->dmabuf->file);
		/* Being released: nobody can have a mapping. */
		if (!file)
			continue;
		pd_export_revoke(exp, for_good);
		/* After that: until then a buffer's page faults are served. */
		unmap_mapping_range(file->f_mapping, 0, 0, 1);
		fput(file);
	}
	mutex_unlock(&pd->exports_lock);
	/*
	 * Whoever cannot be told keeps the memory, and us, as long as he likes. Not
	 * under the mutex: dma-bufs may be released meanwhile.
	 */
	if (for_good)
		wait_event(pd->idle, !atomic_read(&pd->held));
}

int pd_ioctl_invalidate(struct pd_call *call, void *data)
{
	struct pd_device *pd = call->file->pd;
	struct peerdma_invalidate *arg = data;
	struct pd_export *exp;
	struct pd_object *obj;
	int ret;

	if (arg->reserved)
		return -EINVAL;
	obj = pd_object_find_exportable(call->file, arg->handle);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	ret = mutex_lock_interruptible(&pd->exports_lock);
	if (ret)
		goto out_put;
	list_for_each_entry(exp, &pd->exports, node) {
		struct file *file;

		if (exp->obj != obj)
			continue;
		file = get_file_active(&exp->dmabuf->file);
		if (!file)
			continue;
		ret = pd_export_invalidate(exp);
		fput(file);
		if (ret)
			break;
	}
	mutex_unlock(&pd->exports_lock);
out_put:
	pd_object_put(obj);
	return ret;
}
