// SPDX-License-Identifier: GPL-2.0-only
/*
 * PEERDMA_SUBMIT: finds the places, makes the work, gives it to its channel, and
 * leaves a fence behind in the buffers.
 */
#include <linux/capability.h>
#include <linux/file.h>
#include <linux/sync_file.h>

#include "submit.h"

/* Which places an operation has. */
static const struct {
	u8 opcode;
	bool place[PD_PLACES];
	bool writes;
} pd_operations[] = {
	[PEERDMA_WORK_COPY] = { PEERDMA_OP_COPY, { true, true }, true },
	[PEERDMA_WORK_FILL] = { PEERDMA_OP_FILL, { false, true }, true },
	[PEERDMA_WORK_CHECKSUM] = { PEERDMA_OP_CHECKSUM, { true, false }, false },
	[PEERDMA_WORK_COMPARE] = { PEERDMA_OP_COMPARE, { true, true }, false },
};

static int pd_submit_check(struct pd_device *pd,
			   const struct peerdma_submit *arg)
{
	const u32 all = PEERDMA_SUBMIT_POLL | PEERDMA_SUBMIT_IN_FENCE |
			PEERDMA_SUBMIT_OUT_FENCE | PEERDMA_SUBMIT_NO_SYNC |
			PEERDMA_SUBMIT_VERDICT | PEERDMA_SUBMIT_FLUSH |
			PEERDMA_SUBMIT_NO_FLUSH;
	const u32 lab = PEERDMA_SUBMIT_NO_SYNC | PEERDMA_SUBMIT_VERDICT;
	const u32 flush = PEERDMA_SUBMIT_FLUSH | PEERDMA_SUBMIT_NO_FLUSH;
	bool writes;

	if (!arg->operation || arg->operation >= ARRAY_SIZE(pd_operations) ||
	    arg->channel >= pd->channels || arg->flags & ~all ||
	    arg->timeout_ms > PEERDMA_TIMEOUT_MAX_MS || !arg->length)
		return -EINVAL;
	if (arg->flags & (PEERDMA_SUBMIT_IN_FENCE | PEERDMA_SUBMIT_OUT_FENCE) &&
	    !PD_HAS_SYNC_FILE)
		return -EOPNOTSUPP;
	writes = pd_operations[arg->operation].writes;
	if ((arg->flags & flush) == flush)
		return -EINVAL;
	if (arg->flags & PEERDMA_SUBMIT_FLUSH && !writes)
		return -EINVAL;
	if (arg->pattern && arg->operation != PEERDMA_WORK_FILL &&
	    arg->operation != PEERDMA_WORK_CHECKSUM)
		return -EINVAL;
	if (arg->operation == PEERDMA_WORK_CHECKSUM && arg->pattern > U32_MAX)
		return -EINVAL;
	if (arg->flags & lab && !capable(CAP_SYS_ADMIN))
		return -EPERM;
	return 0;
}

static int pd_submit_find(struct pd_submit *sub, struct pd_file *file,
			  unsigned int which,
			  const struct peerdma_location *location)
{
	struct pd_place *place = &sub->place[which];
	bool wanted = pd_operations[sub->arg->operation].place[which];

	if (wanted ? location->kind == PEERDMA_AT_NOWHERE :
		     location->kind != PEERDMA_AT_NOWHERE)
		return -EINVAL;
	if (location->kind != PEERDMA_AT_OBJECT && location->handle)
		return -EINVAL;

	switch (location->kind) {
	case PEERDMA_AT_NOWHERE:
		return location->offset ? -EINVAL : 0;
	case PEERDMA_AT_OBJECT:
		sub->object[which] = pd_object_find(file, location->handle);
		if (!sub->object[which])
			return -ENOENT;
		if (location->offset > sub->object[which]->size ||
		    sub->arg->length >
		    sub->object[which]->size - location->offset)
			return -ERANGE;
		place->offset = location->offset;
		return 0;
	case PEERDMA_AT_LOCAL:
		place->local = true;
		fallthrough;
	case PEERDMA_AT_ADDRESS:
		if (!capable(CAP_SYS_ADMIN))
			return -EPERM;
		/* The device takes addresses modulo 2^64, so nothing overflows. */
		place->raw.address = location->offset;
		place->raw.length = sub->arg->length;
		place->segment = &place->raw;
		place->count = 1;
		return 0;
	default:
		return -EINVAL;
	}
}

static bool pd_submit_flush(struct pd_submit *sub)
{
	struct pd_object *obj = sub->object[PD_DESTINATION];

	if (sub->arg->flags & PEERDMA_SUBMIT_FLUSH)
		return true;
	if (sub->arg->flags & PEERDMA_SUBMIT_NO_FLUSH || !sub->writes)
		return false;
	/* What may be a peer's memory, and may be read. */
	return obj && obj->kind == PD_IMPORT &&
	       obj->direction == DMA_BIDIRECTIONAL;
}

/* Whether the mapping permits what the work does with it. */
static bool pd_submit_permitted(struct pd_submit *sub, unsigned int which)
{
	if (which == PD_DESTINATION && sub->writes)
		return sub->object[which]->direction != DMA_TO_DEVICE;
	return sub->object[which]->direction != DMA_FROM_DEVICE;
}

static int pd_submit_prepare_objects(struct pd_submit *sub)
{
	unsigned int i;
	int ret;

	for (i = 0; i < PD_PLACES; i++) {
		if (!sub->object[i])
			continue;
		ret = sub->object[i]->ops->prepare(sub->object[i]);
		if (ret)
			return ret;
	}
	return 0;
}

/* Mappings, room for fences, waits, descriptors: all that may fail or sleep. */
static int pd_submit_prepare(struct pd_submit *sub, struct pd_work *work)
{
	unsigned int i;
	int ret;

	/*
	 * Two imports may be of one buffer. Mapping the second can make the buffer
	 * move, which takes the mapping of the first away; it stays where it has
	 * moved to, so the second time both mappings last until we unlock.
	 */
	ret = pd_submit_prepare_objects(sub);
	if (!ret)
		ret = pd_submit_prepare_objects(sub);
	if (ret)
		return ret;
	for (i = 0; i < PD_PLACES; i++) {
		struct pd_object *obj = sub->object[i];

		if (!obj)
			continue;
		/* Somebody else's exporter that moves to and fro. */
		if (!obj->segments)
			return -EAGAIN;
		if (!pd_submit_permitted(sub, i))
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
	if (!(sub->arg->flags & PEERDMA_SUBMIT_NO_SYNC)) {
		ret = pd_buffers_sync(sub);
		if (ret)
			return ret;
	}
	return pd_work_build(work, &sub->place[PD_SOURCE],
			     &sub->place[PD_DESTINATION], sub->arg->length,
			     pd_submit_flush(sub));
}

/* The work goes to the channel and its fence to the buffers: as one. */
static int pd_submit_commit(struct pd_submit *sub, struct pd_work *work)
{
	struct dma_fence *fence = work->fence;
	bool signalling;
	unsigned int i;
	int ret;

	/* The end of the work takes all of these away again. */
	for (i = 0; i < PD_PLACES; i++) {
		work->object[i] = sub->object[i];
		if (work->object[i])
			atomic_inc(&work->object[i]->in_flight);
	}
	pd_count(sub->pd, PD_LIVE_WORK);
	pd_count(sub->pd, PD_SUBMITTED);
	pd_work_get(work);
	dma_fence_get(fence);

	/* No allocation, and no lock under which others allocate, until the end. */
	signalling = dma_fence_begin_signalling();
	ret = pd_channel_queue(sub->channel, work);
	if (ret) {
		LIST_HEAD(finished);

		work->error = ret;
		list_add(&work->node, &finished);
		pd_work_finish(sub->pd, &finished);
	} else {
		/* Nobody looks at the buffers' fences before we unlock. */
		for (i = 0; i < sub->resvs; i++)
			dma_resv_add_fence(sub->resv[i], fence, sub->write[i] ?
					   DMA_RESV_USAGE_WRITE :
					   DMA_RESV_USAGE_READ);
	}
	dma_fence_end_signalling(signalling);
	dma_fence_put(fence);
	return ret;
}

/* With the buffers locked. The order of fences is that of the queue. */
static int pd_submit_locked(struct pd_submit *sub, struct pd_call *call,
			    struct pd_work *work)
{
	struct pd_channel *ch = sub->channel;
	int ret;

	ret = pd_submit_prepare(sub, work);
	if (ret)
		return ret;
	ret = mutex_lock_interruptible(&ch->submit_lock);
	if (ret)
		return ret;
	work->fence = pd_fence_create(ch, work->poll);
	if (!work->fence) {
		ret = -ENOMEM;
		goto out_unlock;
	}
	if (sub->arg->flags & PEERDMA_SUBMIT_OUT_FENCE) {
		struct sync_file *sync = sync_file_create(work->fence);

		if (!sync) {
			/* Nobody has seen it; it must not stay unsignalled. */
			dma_fence_signal(work->fence);
			dma_fence_put(work->fence);
			work->fence = NULL;
			ret = -ENOMEM;
			goto out_unlock;
		}
		call->out_file = sync->file;
	}
	ret = pd_submit_commit(sub, work);
out_unlock:
	mutex_unlock(&ch->submit_lock);
	return ret;
}

static int pd_submit_in_fence(struct pd_submit *sub)
{
	struct dma_fence *fence;
	int ret;

	if (!(sub->arg->flags & PEERDMA_SUBMIT_IN_FENCE))
		return 0;
	fence = sync_file_get_fence(sub->arg->in_fence);
	if (!fence)
		return -EINVAL;
	ret = pd_fence_wait(sub->pd, fence, sub->deadline);
	dma_fence_put(fence);
	return ret;
}

static struct pd_work *pd_submit_work(struct pd_submit *sub,
				      struct pd_file *file)
{
	struct peerdma_submit *arg = sub->arg;
	struct pd_work *work = pd_work_alloc(sub->channel);

	if (!work)
		return NULL;
	work->owner = file;
	work->opcode = pd_operations[arg->operation].opcode;
	work->pattern = arg->pattern;
	work->poll = arg->flags & PEERDMA_SUBMIT_POLL;
	work->alone = arg->flags & PEERDMA_SUBMIT_VERDICT;
	work->serial = work->alone || work->opcode == PEERDMA_OP_CHECKSUM;
	work->timeout = msecs_to_jiffies(arg->timeout_ms ?: pd_timeout_ms);
	return work;
}

/* Everything but the cookie. */
static int pd_submit_run(struct pd_submit *sub, struct pd_call *call,
			 struct pd_work *work)
{
	int ret;

	ret = pd_submit_in_fence(sub);
	if (ret)
		return ret;
	pd_buffers_collect(sub);
	ret = pd_buffers_lock(sub);
	if (ret)
		return ret;
	ret = pd_buffers_lock_plain(sub);
	if (!ret) {
		ret = pd_submit_locked(sub, call, work);
		pd_buffers_unlock_plain(sub);
	}
	pd_buffers_unlock(sub);
	return ret;
}

int pd_ioctl_submit(struct pd_call *call, void *data)
{
	struct pd_file *file = call->file;
	struct peerdma_submit *arg = data;
	struct pd_submit sub = { .pd = file->pd, .arg = arg };
	struct pd_work *work;
	u32 cookie;
	int ret;

	ret = pd_submit_check(sub.pd, arg);
	if (ret)
		return ret;
	sub.channel = &sub.pd->channel[arg->channel];
	sub.writes = pd_operations[arg->operation].writes;
	sub.deadline = jiffies +
		msecs_to_jiffies(arg->timeout_ms ?: pd_timeout_ms);

	ret = pd_submit_find(&sub, file, PD_SOURCE, &arg->source);
	if (ret)
		goto out_objects;
	ret = pd_submit_find(&sub, file, PD_DESTINATION, &arg->destination);
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
	if (atomic_inc_return(&file->untaken) > PD_MAX_WORK)
		goto out_untaken;
	ret = xa_alloc_cyclic(&file->works, &cookie, NULL,
			      XA_LIMIT(1, INT_MAX), &file->next_cookie,
			      GFP_KERNEL);
	if (ret < 0)
		goto out_untaken;
	ret = -ENOMEM;
	work = pd_submit_work(&sub, file);
	if (!work)
		goto out_cookie;

	ret = pd_submit_run(&sub, call, work);
	if (ret) {
		pd_work_put(work);
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
	pd_object_put(sub.object[PD_SOURCE]);
	pd_object_put(sub.object[PD_DESTINATION]);
	return ret;
}
