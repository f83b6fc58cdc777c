// SPDX-License-Identifier: GPL-2.0-only
/*
 * The buffers of a submission: which have fences, their locks, and the fences to wait
 * for before the work may begin.
 */
#include "submit.h"

/* Which buffers have fences to wait for and to leave, and for what access. */
void peerdma_buffers_collect(struct peerdma_submission *sub)
{
	unsigned int i;

	for (i = 0; i < PEERDMA_PLACES; i++) {
		struct peerdma_object *obj = sub->object[i];

		if (!obj || !obj->resv)
			continue;
		if (sub->resvs && sub->resv[0] == obj->resv) {
			sub->write[0] |= sub->writes && i == PEERDMA_DESTINATION;
			continue;
		}
		sub->resv[sub->resvs] = obj->resv;
		sub->write[sub->resvs] = sub->writes && i == PEERDMA_DESTINATION;
		sub->resvs++;
	}
}

void peerdma_buffers_unlock(struct peerdma_submission *sub)
{
	unsigned int i;

	if (!sub->resvs)
		return;
	for (i = 0; i < sub->resvs; i++)
		dma_resv_unlock(sub->resv[i]);
	ww_acquire_fini(&sub->ctx);
}

/* Locks one or two dma_resvs. Two may have to be taken the other way round. */
int peerdma_buffers_lock(struct peerdma_submission *sub)
{
	int ret;

	if (!sub->resvs)
		return 0;
	ww_acquire_init(&sub->ctx, &reservation_ww_class);
	ret = dma_resv_lock_interruptible(sub->resv[0], &sub->ctx);
	if (ret)
		goto err_fini;
	if (sub->resvs == 1)
		goto done;
	ret = dma_resv_lock_interruptible(sub->resv[1], &sub->ctx);
	while (ret == -EDEADLK) {
		dma_resv_unlock(sub->resv[0]);
		ret = dma_resv_lock_slow_interruptible(sub->resv[1], &sub->ctx);
		if (ret)
			goto err_fini;
		swap(sub->resv[0], sub->resv[1]);
		swap(sub->write[0], sub->write[1]);
		ret = dma_resv_lock_interruptible(sub->resv[1], &sub->ctx);
	}
	if (ret) {
		dma_resv_unlock(sub->resv[0]);
		goto err_fini;
	}
done:
	ww_acquire_done(&sub->ctx);
	return 0;

err_fini:
	ww_acquire_fini(&sub->ctx);
	return ret;
}

/*
 * Objects without a dma_resv. Two of them are taken in the order of their
 * addresses; nothing else takes two.
 */
int peerdma_buffers_lock_plain(struct peerdma_submission *sub)
{
	struct peerdma_object **plain = sub->plain;
	unsigned int i, n = 0;
	int ret;

	for (i = 0; i < PEERDMA_PLACES; i++) {
		struct peerdma_object *obj = sub->object[i];

		if (obj && !obj->resv && !(n && plain[0] == obj))
			plain[n++] = obj;
	}
	if (n == 2 && plain[1] < plain[0])
		swap(plain[0], plain[1]);
	for (i = 0; i < n; i++) {
		ret = mutex_lock_interruptible_nested(&plain[i]->lock, i);
		if (ret) {
			if (i)
				mutex_unlock(&plain[0]->lock);
			plain[0] = NULL;
			plain[1] = NULL;
			return ret;
		}
	}
	return 0;
}

void peerdma_buffers_unlock_plain(struct peerdma_submission *sub)
{
	unsigned int i;

	for (i = 0; i < PEERDMA_PLACES; i++)
		if (sub->plain[i])
			mutex_unlock(&sub->plain[i]->lock);
}

/*
 * Implicit synchronisation: a reader waits for writers, a writer for all.
 * Our channel works in order, so its own fences need no wait. The locks stay
 * held: signalling a fence never needs them.
 */
int peerdma_buffers_sync(struct peerdma_submission *sub)
{
	unsigned int i;

	for (i = 0; i < sub->resvs; i++) {
		struct dma_resv_iter cursor;
		struct dma_fence *fence;

		dma_resv_assert_held(sub->resv[i]);
		dma_resv_for_each_fence(&cursor, sub->resv[i], dma_resv_usage_rw(sub->write[i]),
					fence) {
			int ret;

			if (fence->context == sub->channel->fence_context)
				continue;
			ret = peerdma_fence_wait(sub->peer, fence, sub->deadline);
			if (ret)
				return ret;
		}
	}
	return 0;
}
