// SPDX-License-Identifier: GPL-2.0-only
/*
 * Taking exported memory back: for a move, for a reset, or for good.
 */
#include <linux/file.h>

#include "buffer.h"
#include "ioctl.h"
#include "work.h"

/* Whether the memory cannot stay where it is when the driver goes, or in a reset. */
static bool peerdma_export_concerned(struct peerdma_exported *exp, bool for_good)
{
	return exp->obj->kind == PEERDMA_KIND_MEMORY ||
	       peerdma_buffer_concerned(exp->obj, for_good);
}

/* Invalidates the importers' mappings. */
static void peerdma_export_invalidate_mappings(struct peerdma_exported *exp)
{
	dma_resv_assert_held(exp->dmabuf->resv);
	exp->invalidations++;
	atomic64_add(exp->mapped, &exp->invalidated);
	exp->mapped = 0;
	dma_buf_invalidate_mappings(exp->dmabuf);
}

/* Whether every invalidated mapping has been unmapped. */
static bool peerdma_export_is_unmapped(struct peerdma_exported *exp)
{
	return !atomic64_read(&exp->invalidated);
}

/*
 * Takes back what importers have: they are notified, may go on until their
 * fences have signalled, and have to unmap. With @exp->dmabuf kept alive by the
 * caller.
 */
static void peerdma_export_revoke(struct peerdma_exported *exp, bool for_good)
{
	struct dma_buf *dmabuf = exp->dmabuf;
	struct peerdma_device *peer = exp->obj->peer;

	lockdep_assert_held(&peer->revoke_lock);
	lockdep_assert_not_held(&peer->exports_lock);

	dma_resv_lock(dmabuf->resv, NULL);
	if (for_good)
		exp->revoked = true;
	peerdma_export_invalidate_mappings(exp);
	/*
	 * BOOKKEEP: all fences, also those without implicit synchronisation. Work on
	 * mappings ends, or its importer does not unmap; other fences may never
	 * signal: not for ever.
	 */
	if (!dma_resv_wait_timeout(dmabuf->resv, DMA_RESV_USAGE_BOOKKEEP, false,
				   msecs_to_jiffies(peerdma_timeout_ms)))
		dev_warn(&peer->pdev->dev,
			 "a fence of a dma-buf has not signalled in %u ms; taken back without it\n",
			 peerdma_timeout_ms);
	dma_resv_unlock(dmabuf->resv);

	/*
	 * Every importer that got in here can be notified (see attach), so this ends.
	 * Mappings made since then are none of ours to wait for, and their ends do
	 * not count for others.
	 */
	wait_event(peer->idle, peerdma_export_is_unmapped(exp));
	peerdma_count(peer, PEERDMA_COUNT_REVOCATIONS);
}

/*
 * The same on request, with a time limit and until a signal comes. What has not been
 * unmapped by then is unmapped later: the next one waits for it as well.
 */
static int peerdma_export_invalidate(struct peerdma_exported *exp)
{
	struct dma_buf *dmabuf = exp->dmabuf;
	struct peerdma_device *peer = exp->obj->peer;
	long left = msecs_to_jiffies(peerdma_timeout_ms);

	lockdep_assert_held(&peer->revoke_lock);
	lockdep_assert_not_held(&peer->exports_lock);

	dma_resv_lock(dmabuf->resv, NULL);
	peerdma_export_invalidate_mappings(exp);
	left = dma_resv_wait_timeout(dmabuf->resv, DMA_RESV_USAGE_BOOKKEEP, true, left);
	dma_resv_unlock(dmabuf->resv);
	if (left > 0)
		left = wait_event_interruptible_timeout(peer->idle, peerdma_export_is_unmapped(exp),
							left);
	if (left <= 0)
		return left ?: -ETIME;
	peerdma_count(peer, PEERDMA_COUNT_REVOCATIONS);
	return 0;
}

/*
 * The dma-bufs to revoke: those over @obj, or all that are concerned if @obj is NULL.
 * Puts them into @found, each with a reference to its file, so that nothing has to be
 * waited for under exports_lock. The reference keeps @exp as well: it goes in the
 * dma-buf's release.
 *
 * What comes later is not missed. remove() has waited for all calls that export; in a
 * reset a new dma-buf of local memory gives no mappings while @bar_blocked is set. An
 * importer that attaches or maps before its dma-buf's turn is notified then.
 */
static void peerdma_exports_find(struct peerdma_device *peer, struct peerdma_object *obj,
				 bool for_good, struct list_head *found)
{
	struct peerdma_exported *exp;

	lockdep_assert_held(&peer->revoke_lock);
	mutex_lock(&peer->exports_lock);
	list_for_each_entry(exp, &peer->exports, node) {
		if (obj ? exp->obj != obj : !peerdma_export_concerned(exp, for_good))
			continue;
		/*
		 * Without a reference left it is being released: it has no mappings.
		 * Its file is freed after its release, which waits for exports_lock.
		 */
		if (get_file_active(&exp->dmabuf->file))
			list_add_tail(&exp->revoking, found);
	}
	mutex_unlock(&peer->exports_lock);
}

/* Takes the first dma-buf out of the list; NULL at its end. */
static struct peerdma_exported *peerdma_exports_next(struct peerdma_device *peer,
						     struct list_head *found)
{
	struct peerdma_exported *exp;

	lockdep_assert_held(&peer->revoke_lock);
	exp = list_first_entry_or_null(found, struct peerdma_exported, revoking);
	if (exp)
		list_del(&exp->revoking);
	return exp;
}

/*
 * Revokes all mappings of all dma-bufs, those of CPUs too. The caller has called
 * peerdma_bar_block(), so that no new ones are made.
 *
 * This waits for importers without a time limit. It holds the device_lock and
 * revoke_lock meanwhile. Neither is needed to unmap: an importer unmaps under the
 * dma_resv, in its callback, in a work item, or while a task closes the importer's
 * files. Such a task may exit with dma-bufs of ours among its files. Releasing one
 * takes exports_lock, which is free while we wait.
 */
void peerdma_exports_revoke(struct peerdma_device *peer, bool for_good)
{
	struct peerdma_exported *exp;
	LIST_HEAD(found);

	device_lock_assert(&peer->pdev->dev);
	mutex_lock(&peer->revoke_lock);
	peerdma_exports_find(peer, NULL, for_good, &found);
	while ((exp = peerdma_exports_next(peer, &found))) {
		struct file *file = exp->dmabuf->file;

		peerdma_export_revoke(exp, for_good);
		/* After that: until then a buffer's page faults are served. */
		unmap_mapping_range(file->f_mapping, 0, 0, 1);
		fput(file);
	}
	mutex_unlock(&peer->revoke_lock);
	/* Importers without a callback keep the memory, and us, as long as they like. */
	if (for_good)
		wait_event(peer->idle, !atomic_read(&peer->held));
}

int peerdma_ioctl_invalidate(struct peerdma_call *call, void *data)
{
	struct peerdma_device *peer = call->file->peer;
	struct peerdma_invalidate *arg = data;
	struct peerdma_exported *exp;
	struct peerdma_object *obj;
	LIST_HEAD(found);
	int ret;

	if (arg->reserved)
		return -EINVAL;
	obj = peerdma_object_find_exportable(call->file, arg->handle);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	ret = mutex_lock_interruptible(&peer->revoke_lock);
	if (ret)
		goto out_put;
	peerdma_exports_find(peer, obj, false, &found);
	while ((exp = peerdma_exports_next(peer, &found))) {
		struct file *file = exp->dmabuf->file;

		if (!ret)
			ret = peerdma_export_invalidate(exp);
		fput(file);
	}
	mutex_unlock(&peer->revoke_lock);
out_put:
	peerdma_object_put(obj);
	return ret;
}
