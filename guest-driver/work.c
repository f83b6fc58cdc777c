// SPDX-License-Identifier: GPL-2.0-only
/*
 * Work: from places and a length to descriptors, and from the end of the last
 * one to the result.
 */
#include <linux/delay.h>
#include <linux/slab.h>

#include "ioctl.h"
#include "work.h"

/* Most descriptors of one piece of work */
#define PEERDMA_MAX_OPS (1U << 20)

struct peerdma_work *peerdma_work_alloc(struct peerdma_channel *ch)
{
	struct peerdma_work *work = kzalloc_obj(*work);

	if (!work)
		return NULL;
	kref_init(&work->refs);
	INIT_LIST_HEAD(&work->node);
	init_completion(&work->finished);
	work->channel = ch;
	return work;
}

void peerdma_work_get(struct peerdma_work *work)
{
	kref_get(&work->refs);
}

static void peerdma_work_release(struct kref *refs)
{
	struct peerdma_work *work = container_of(refs, struct peerdma_work, refs);

	kvfree(work->op);
	kfree(work);
}

/* Process context. */
void peerdma_work_put(struct peerdma_work *work)
{
	kref_put(&work->refs, peerdma_work_release);
}

/* ------------------------------------------------------------- descriptors */

struct peerdma_cursor {
	const struct peerdma_segment *segment;
	u64 skip;
	u32 left;
};

/* False if the place ends before its offset. */
static bool peerdma_cursor_init(struct peerdma_cursor *at, const struct peerdma_place *place)
{
	at->segment = place->segment;
	at->left = place->count;
	at->skip = place->offset;
	while (at->left && at->skip >= at->segment->length) {
		at->skip -= at->segment->length;
		at->segment++;
		at->left--;
	}
	return at->left;
}

/* The next piece of at most @want bytes: its address and how long it is. */
static u64 peerdma_cursor_piece(struct peerdma_cursor *at, u64 want, u64 *address)
{
	*address = at->segment->address + at->skip;
	return min(want, at->segment->length - at->skip);
}

static void peerdma_cursor_advance(struct peerdma_cursor *at, u64 bytes)
{
	at->skip += bytes;
	while (at->left && at->skip >= at->segment->length) {
		at->skip -= at->segment->length;
		at->segment++;
		at->left--;
	}
}

/*
 * Cuts the work at the segments of both places and at what a descriptor holds.
 * Fills @op, if there is one; returns the number of descriptors, 0 if a place is
 * too short.
 */
static u32 peerdma_work_cut(struct peerdma_work *work, const struct peerdma_place *source,
			    const struct peerdma_place *destination, u64 length,
			    struct peerdma_op *op)
{
	u64 max_length = work->channel->peer->max_length;
	struct peerdma_cursor from, to;
	u32 count = 0;

	if (source->segment && !peerdma_cursor_init(&from, source))
		return 0;
	if (destination->segment && !peerdma_cursor_init(&to, destination))
		return 0;
	while (length && count <= PEERDMA_MAX_OPS) {
		u64 piece = min(length, max_length);
		u64 from_address = 0, to_address = 0;

		if (source->segment) {
			if (!from.left)
				return 0;
			piece = peerdma_cursor_piece(&from, piece, &from_address);
		}
		if (destination->segment) {
			if (!to.left)
				return 0;
			piece = peerdma_cursor_piece(&to, piece, &to_address);
		}
		if (source->segment)
			peerdma_cursor_advance(&from, piece);
		if (destination->segment)
			peerdma_cursor_advance(&to, piece);
		if (op) {
			op->source = from_address;
			op->destination = to_address;
			op->length = piece;
			op->flags = source->local ? PEERDMA_DESC_SOURCE_LOCAL : 0;
			op->flags |= destination->local ? PEERDMA_DESC_DESTINATION_LOCAL : 0;
			op++;
		}
		count++;
		length -= piece;
	}
	return count;
}

/*
 * Makes the descriptors. @flush: the last one reads back what it wrote. The objects
 * behind the places stay locked until the work is queued: peerdma_submit_prepare().
 */
int peerdma_work_build(struct peerdma_work *work, const struct peerdma_place *source,
		       const struct peerdma_place *destination, u64 length, bool flush)
{
	u32 count;

	count = peerdma_work_cut(work, source, destination, length, NULL);
	if (!count)
		return -ERANGE;
	if (count > PEERDMA_MAX_OPS)
		return -E2BIG;
	work->op = kvcalloc(count, sizeof(*work->op), GFP_KERNEL);
	if (!work->op)
		return -ENOMEM;
	peerdma_work_cut(work, source, destination, length, work->op);
	work->ops = count;
	if (flush)
		work->op[count - 1].flags |= PEERDMA_DESC_FLUSH;
	return 0;
}

/* ----------------------------------------------------------------- the end */

/*
 * Gives up the work's objects, signals its fence, wakes the waiters, for all of
 * @finished. In any context, without peerdma_channel.lock.
 */
void peerdma_work_finish(struct peerdma_device *peer, struct list_head *finished)
{
	struct peerdma_work *work, *next;

	list_for_each_entry_safe(work, next, finished, node) {
		unsigned int i;

		list_del_init(&work->node);
		if (work->error) {
			dma_fence_set_error(work->fence, work->error);
			peerdma_count(peer, PEERDMA_COUNT_FAILED);
		}
		peerdma_count(peer, PEERDMA_COUNT_FINISHED);
		peerdma_uncount(peer, PEERDMA_COUNT_LIVE_WORK);
		dma_fence_signal(work->fence);
		dma_fence_put(work->fence);
		work->fence = NULL;

		/* After this the objects may be gone; peer->idle stays. */
		for (i = 0; i < ARRAY_SIZE(work->object); i++)
			if (work->object[i])
				atomic_dec(&work->object[i]->in_flight);
		wake_up_all(&peer->idle);
		complete_all(&work->finished);
		peerdma_work_put(work);
	}
}

/* ------------------------------------------------------------- the result */

/* Returns a reference, or NULL. */
static struct peerdma_work *peerdma_work_find(struct peerdma_file *file, u64 cookie)
{
	struct peerdma_work *work;

	xa_lock(&file->works);
	work = cookie > U32_MAX ? NULL : xa_load(&file->works, cookie);
	if (work)
		peerdma_work_get(work);
	xa_unlock(&file->works);
	return work;
}

/* Looks itself: soon at first, then less often. */
static int peerdma_work_wait_polling(struct peerdma_work *work, unsigned long deadline)
{
	unsigned int pause_us = 10;

	for (;;) {
		peerdma_channel_poll(work->channel);
		if (completion_done(&work->finished))
			return 0;
		if (time_after_eq(jiffies, deadline))
			return -ETIME;
		if (signal_pending(current))
			return -ERESTARTSYS;
		usleep_range(pause_us, pause_us * 2);
		pause_us = min(pause_us * 2, 1000U);
	}
}

static int peerdma_work_wait(struct peerdma_device *peer, struct peerdma_work *work,
			     unsigned int timeout_ms)
{
	unsigned long timeout = msecs_to_jiffies(timeout_ms);
	long ret;

	if (work->poll && !READ_ONCE(peer->gone))
		return peerdma_work_wait_polling(work, jiffies + timeout);
	if (completion_done(&work->finished))
		return 0;
	ret = wait_for_completion_interruptible_timeout(&work->finished, timeout);
	if (ret < 0)
		return ret;
	return ret ? 0 : -ETIME;
}

/* Not under srcu: remove() ends the work that we wait for. */
int peerdma_ioctl_wait(struct peerdma_call *call, void *data)
{
	struct peerdma_file *file = call->file;
	struct peerdma_wait *arg = data;
	struct peerdma_work *work;
	int ret;

	if (arg->flags & ~PEERDMA_WAIT_KEEP || arg->reserved ||
	    arg->timeout_ms > PEERDMA_TIMEOUT_MAX_MS)
		return -EINVAL;
	work = peerdma_work_find(file, arg->cookie);
	if (!work)
		return -ENOENT;
	ret = peerdma_work_wait(file->peer, work, arg->timeout_ms);
	if (ret)
		goto out_put;

	arg->error = work->error;
	arg->status = work->status;
	arg->bytes = work->bytes;
	arg->result = work->result;
	arg->error_address = work->error_address;
	arg->verdict_address = work->verdict_address;
	arg->verdict = work->verdict;
	arg->verdict_count = work->verdict_count;
	arg->halt = work->halt;
	arg->descriptors = work->done;
	arg->interrupted = work->interrupted;

	if (!(arg->flags & PEERDMA_WAIT_KEEP) &&
	    xa_cmpxchg(&file->works, arg->cookie, work, NULL, GFP_KERNEL) == work) {
		atomic_dec(&file->untaken);
		peerdma_work_put(work);
	}
out_put:
	peerdma_work_put(work);
	return ret;
}

/* The file is being closed: its results will not be asked for. */
void peerdma_works_release(struct peerdma_file *file)
{
	struct peerdma_work *work;
	unsigned long cookie;

	xa_for_each(&file->works, cookie, work) {
		if (!completion_done(&work->finished))
			peerdma_channel_cancel(work->channel, file);
		wait_for_completion(&work->finished);
		xa_erase(&file->works, cookie);
		peerdma_work_put(work);
	}
	xa_destroy(&file->works);
}
