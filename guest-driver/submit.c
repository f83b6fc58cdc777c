// SPDX-License-Identifier: GPL-2.0-only
/*
 * PEERDMA_SUBMIT: finds the places, makes the work, gives it to its channel, and
 * leaves a fence behind in the buffers.
 */
#include <linux/file.h>
#include <linux/sync_file.h>

#include "ioctl.h"
#include "lab_ops.h"
#include "submit.h"

/* Which places an operation has. */
static const struct {
	u8 opcode;
	bool place[PEERDMA_PLACES];
	bool writes;
} peerdma_operations[] = {
	[PEERDMA_WORK_COPY] = { PEERDMA_OP_COPY, { true, true }, true },
	[PEERDMA_WORK_FILL] = { PEERDMA_OP_FILL, { false, true }, true },
	[PEERDMA_WORK_CHECKSUM] = { PEERDMA_OP_CHECKSUM, { true, false }, false },
	[PEERDMA_WORK_COMPARE] = { PEERDMA_OP_COMPARE, { true, true }, false },
};

static int peerdma_submit_check(struct peerdma_submission *sub)
{
	const u32 all = PEERDMA_SUBMIT_POLL | PEERDMA_SUBMIT_IN_FENCE | PEERDMA_SUBMIT_OUT_FENCE |
			PEERDMA_SUBMIT_FLUSH | PEERDMA_SUBMIT_NO_FLUSH;
	const struct peerdma_submit *arg = sub->arg;
	const u32 flush = PEERDMA_SUBMIT_FLUSH | PEERDMA_SUBMIT_NO_FLUSH;
	bool writes;

	if (!arg->operation || arg->operation >= ARRAY_SIZE(peerdma_operations) ||
	    arg->channel >= sub->peer->channels ||
	    arg->timeout_ms > PEERDMA_TIMEOUT_MAX_MS || !arg->length)
		return -EINVAL;
	if (arg->flags & (PEERDMA_SUBMIT_IN_FENCE | PEERDMA_SUBMIT_OUT_FENCE) &&
	    !PEERDMA_HAS_SYNC_FILE)
		return -EOPNOTSUPP;
	writes = peerdma_operations[arg->operation].writes;
	if ((arg->flags & flush) == flush)
		return -EINVAL;
	if (arg->flags & PEERDMA_SUBMIT_FLUSH && !writes)
		return -EINVAL;
	if (arg->pattern && arg->operation != PEERDMA_WORK_FILL &&
	    arg->operation != PEERDMA_WORK_CHECKSUM)
		return -EINVAL;
	if (arg->operation == PEERDMA_WORK_CHECKSUM && arg->pattern > U32_MAX)
		return -EINVAL;
	if (arg->flags & ~all)
		return peerdma_lab.submit(sub, arg->flags & ~all);
	return 0;
}

static int peerdma_submit_find(struct peerdma_submission *sub, struct peerdma_file *file,
			       unsigned int which, const struct peerdma_location *location)
{
	struct peerdma_place *place = &sub->place[which];
	bool wanted = peerdma_operations[sub->arg->operation].place[which];

	if (wanted ? location->kind == PEERDMA_AT_NOWHERE : location->kind != PEERDMA_AT_NOWHERE)
		return -EINVAL;
	if (location->kind != PEERDMA_AT_OBJECT && location->handle)
		return -EINVAL;

	switch (location->kind) {
	case PEERDMA_AT_NOWHERE:
		return location->offset ? -EINVAL : 0;
	case PEERDMA_AT_OBJECT:
		sub->object[which] = peerdma_object_find(file, location->handle);
		if (!sub->object[which])
			return -ENOENT;
		if (location->offset > sub->object[which]->size ||
		    sub->arg->length > sub->object[which]->size - location->offset)
			return -ERANGE;
		place->offset = location->offset;
		return 0;
	default:
		return peerdma_lab.locate(sub, which, location);
	}
}

static bool peerdma_submit_flush(struct peerdma_submission *sub)
{
	struct peerdma_object *obj = sub->object[PEERDMA_DESTINATION];

	if (sub->arg->flags & PEERDMA_SUBMIT_FLUSH)
		return true;
	if (sub->arg->flags & PEERDMA_SUBMIT_NO_FLUSH || !sub->writes)
		return false;
	/* What may be a peer's memory, and may be read. */
	return obj && obj->kind == PEERDMA_KIND_IMPORT && obj->direction == DMA_BIDIRECTIONAL;
}

/* Whether the mapping permits what the work does with it. */
static bool peerdma_submit_permitted(struct peerdma_submission *sub, unsigned int which)
{
	if (which == PEERDMA_DESTINATION && sub->writes)
		return sub->object[which]->direction != DMA_TO_DEVICE;
	return sub->object[which]->direction != DMA_FROM_DEVICE;
}

static int peerdma_submit_prepare_objects(struct peerdma_submission *sub)
{
	unsigned int i;
	int ret;

	for (i = 0; i < PEERDMA_PLACES; i++) {
		if (!sub->object[i])
			continue;
		peerdma_object_assert_locked(sub->object[i]);
		ret = sub->object[i]->ops->prepare(sub->object[i]);
		if (ret)
			return ret;
	}
	return 0;
}

/* Mappings, room for fences, waits, descriptors: all that may fail or sleep. */
static int peerdma_submit_prepare(struct peerdma_submission *sub, struct peerdma_work *work)
{
	unsigned int i;
	int ret;

	/*
	 * Two imports may be of one buffer. Mapping the second can make the buffer
	 * move, which takes the mapping of the first away; it stays where it has
	 * moved to, so the second time both mappings last until we unlock.
	 */
	ret = peerdma_submit_prepare_objects(sub);
	if (!ret)
		ret = peerdma_submit_prepare_objects(sub);
	if (ret)
		return ret;
	for (i = 0; i < PEERDMA_PLACES; i++) {
		struct peerdma_object *obj = sub->object[i];

		if (!obj)
			continue;
		/* Another driver's exporter that moves to and fro. */
		if (!obj->segments)
			return -EAGAIN;
		if (!peerdma_submit_permitted(sub, i))
			return -EACCES;
		sub->place[i].segment = obj->segments->segment;
		sub->place[i].count = obj->segments->count;
		sub->place[i].local = obj->local;
	}
	for (i = 0; i < sub->resvs; i++) {
		ret = dma_resv_reserve_fences(sub->resv[i], 1);
		if (ret)
			return ret;
	}
	if (!sub->explicit_sync) {
		ret = peerdma_buffers_sync(sub);
		if (ret)
			return ret;
	}
	return peerdma_work_build(work, &sub->place[PEERDMA_SOURCE],
				  &sub->place[PEERDMA_DESTINATION], sub->arg->length,
				  peerdma_submit_flush(sub));
}

/* The work goes to the channel and its fence to the buffers: as one. */
static int peerdma_submit_commit(struct peerdma_submission *sub, struct peerdma_work *work)
{
	struct dma_fence *fence = work->fence;
	bool signalling;
	unsigned int i;
	int ret;

	lockdep_assert_held(&sub->channel->submit_lock);
	/* The end of the work takes all of these away again. */
	for (i = 0; i < PEERDMA_PLACES; i++) {
		work->object[i] = sub->object[i];
		if (!work->object[i])
			continue;
		peerdma_object_assert_locked(work->object[i]);
		atomic_inc(&work->object[i]->in_flight);
	}
	peerdma_count(sub->peer, PEERDMA_COUNT_LIVE_WORK);
	peerdma_count(sub->peer, PEERDMA_COUNT_SUBMITTED);
	peerdma_work_get(work);
	dma_fence_get(fence);

	/* No allocation, and no lock under which others allocate, until the end. */
	signalling = dma_fence_begin_signalling();
	ret = peerdma_channel_queue(sub->channel, work);
	if (ret) {
		LIST_HEAD(finished);

		work->error = ret;
		list_add(&work->node, &finished);
		peerdma_work_finish(sub->peer, &finished);
	} else {
		/* The buffers' fences are not looked at before we unlock. */
		for (i = 0; i < sub->resvs; i++)
			dma_resv_add_fence(sub->resv[i], fence,
					   sub->write[i] ? DMA_RESV_USAGE_WRITE :
							   DMA_RESV_USAGE_READ);
	}
	dma_fence_end_signalling(signalling);
	dma_fence_put(fence);
	return ret;
}

/* The order of fences is that of the queue. */
static int peerdma_submit_locked(struct peerdma_submission *sub, struct peerdma_call *call,
				 struct peerdma_work *work)
{
	struct peerdma_channel *ch = sub->channel;
	int ret;

	ret = peerdma_submit_prepare(sub, work);
	if (ret)
		return ret;
	ret = mutex_lock_interruptible(&ch->submit_lock);
	if (ret)
		return ret;
	work->fence = peerdma_fence_create(ch, work->poll);
	if (!work->fence) {
		ret = -ENOMEM;
		goto out_unlock;
	}
	if (sub->arg->flags & PEERDMA_SUBMIT_OUT_FENCE) {
		struct sync_file *sync = sync_file_create(work->fence);

		if (!sync) {
			/* Nothing has seen it; it must not stay unsignalled. */
			dma_fence_signal(work->fence);
			dma_fence_put(work->fence);
			work->fence = NULL;
			ret = -ENOMEM;
			goto out_unlock;
		}
		call->out_file = sync->file;
	}
	ret = peerdma_submit_commit(sub, work);
out_unlock:
	mutex_unlock(&ch->submit_lock);
	return ret;
}

static int peerdma_submit_in_fence(struct peerdma_submission *sub)
{
	struct dma_fence *fence;
	int ret;

	if (!(sub->arg->flags & PEERDMA_SUBMIT_IN_FENCE))
		return 0;
	fence = sync_file_get_fence(sub->arg->in_fence);
	if (!fence)
		return -EINVAL;
	ret = peerdma_fence_wait(sub->peer, fence, sub->deadline);
	dma_fence_put(fence);
	return ret;
}

static struct peerdma_work *peerdma_submit_work(struct peerdma_submission *sub,
						struct peerdma_file *file)
{
	struct peerdma_submit *arg = sub->arg;
	struct peerdma_work *work = peerdma_work_alloc(sub->channel);

	if (!work)
		return NULL;
	work->owner = file;
	work->opcode = peerdma_operations[arg->operation].opcode;
	work->pattern = arg->pattern;
	work->poll = arg->flags & PEERDMA_SUBMIT_POLL;
	work->alone = sub->alone;
	work->serial = work->alone || work->opcode == PEERDMA_OP_CHECKSUM;
	work->timeout = msecs_to_jiffies(arg->timeout_ms ?: peerdma_timeout_ms);
	return work;
}

/* Everything but the cookie. */
static int peerdma_submit_run(struct peerdma_submission *sub, struct peerdma_call *call,
			      struct peerdma_work *work)
{
	int ret;

	ret = peerdma_submit_in_fence(sub);
	if (ret)
		return ret;
	peerdma_buffers_collect(sub);
	ret = peerdma_buffers_lock(sub);
	if (ret)
		return ret;
	ret = peerdma_buffers_lock_plain(sub);
	if (!ret) {
		ret = peerdma_submit_locked(sub, call, work);
		peerdma_buffers_unlock_plain(sub);
	}
	peerdma_buffers_unlock(sub);
	return ret;
}

int peerdma_ioctl_submit(struct peerdma_call *call, void *data)
{
	struct peerdma_file *file = call->file;
	struct peerdma_submit *arg = data;
	struct peerdma_submission sub = { .peer = file->peer, .arg = arg };
	struct peerdma_work *work;
	u32 cookie;
	int ret;

	ret = peerdma_submit_check(&sub);
	if (ret)
		return ret;
	sub.channel = &sub.peer->channel[arg->channel];
	sub.writes = peerdma_operations[arg->operation].writes;
	sub.deadline = jiffies + msecs_to_jiffies(arg->timeout_ms ?: peerdma_timeout_ms);

	ret = peerdma_submit_find(&sub, file, PEERDMA_SOURCE, &arg->source);
	if (ret)
		goto out_objects;
	ret = peerdma_submit_find(&sub, file, PEERDMA_DESTINATION, &arg->destination);
	if (ret)
		goto out_objects;

	/* What can fail for want of memory comes before the work is queued. */
	if (arg->flags & PEERDMA_SUBMIT_OUT_FENCE) {
		ret = get_unused_fd_flags(O_CLOEXEC);
		if (ret < 0)
			goto out_objects;
		call->fd = ret;
	}
	ret = -ENOSPC;
	if (atomic_inc_return(&file->untaken) > PEERDMA_MAX_WORK)
		goto out_untaken;
	ret = xa_alloc_cyclic(&file->works, &cookie, NULL, XA_LIMIT(1, INT_MAX), &file->next_cookie,
			      GFP_KERNEL);
	if (ret < 0)
		goto out_untaken;
	ret = -ENOMEM;
	work = peerdma_submit_work(&sub, file);
	if (!work)
		goto out_cookie;

	ret = peerdma_submit_run(&sub, call, work);
	if (ret) {
		peerdma_work_put(work);
		goto out_cookie;
	}
	/* The place in the array is there already, so this cannot fail. */
	xa_store(&file->works, cookie, work, GFP_KERNEL);
	arg->cookie = cookie;
	arg->out_fence = call->fd;
	goto out_objects;

out_cookie:
	xa_erase(&file->works, cookie);
out_untaken:
	atomic_dec(&file->untaken);
out_objects:
	peerdma_object_put(sub.object[PEERDMA_SOURCE]);
	peerdma_object_put(sub.object[PEERDMA_DESTINATION]);
	return ret;
}
