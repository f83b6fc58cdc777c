// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fences: one for each piece of work, a timeline for each channel.
 *
 * A fence stands alone: it has its own lock and name, and since it brings no
 * release or wait of its own the core detaches it from this module when it
 * signals. It may outlive the device.
 */
#include <linux/dma-fence.h>
#include <linux/slab.h>

#include "work.h"

struct peerdma_fence {
	struct dma_fence base; /* first: the core frees by this pointer */
	struct peerdma_channel *channel;
	bool poll;
	struct peerdma_fence_lock lock;
	char timeline[24];
};

static struct peerdma_fence *to_peerdma_fence(struct dma_fence *fence)
{
	return container_of(fence, struct peerdma_fence, base);
}

static const char *peerdma_fence_driver_name(struct dma_fence *fence)
{
	return KBUILD_MODNAME;
}

static const char *peerdma_fence_timeline_name(struct dma_fence *fence)
{
	return to_peerdma_fence(fence)->timeline;
}

/*
 * Called for the first waiter. Work with interrupts signals anyway; for work without, the
 * watchdog has to look more often. Called only while the fence is not signalled,
 * so the channel is still there.
 */
static bool peerdma_fence_enable_signaling(struct dma_fence *fence)
{
	struct peerdma_channel *ch = to_peerdma_fence(fence)->channel;

	if (!to_peerdma_fence(fence)->poll)
		return true;
	WRITE_ONCE(ch->poll_wanted, true);
	mod_delayed_work(ch->peer->wq, &ch->watchdog, 1);
	return true;
}

static void peerdma_fence_release(struct dma_fence *fence)
{
	dma_fence_free(fence);
	module_put(THIS_MODULE);
}

static const struct dma_fence_ops peerdma_fence_ops = {
	.get_driver_name = peerdma_fence_driver_name,
	.get_timeline_name = peerdma_fence_timeline_name,
	.enable_signaling = peerdma_fence_enable_signaling,
	/* With a release of its own a fence would need the module as long as it lives. */
	.release = PEERDMA_FENCE_HOLDS_MODULE ? peerdma_fence_release : NULL,
};

/* The next fence of the channel's timeline. */
struct dma_fence *peerdma_fence_create(struct peerdma_channel *ch, bool poll)
{
	struct peerdma_fence *fence;

	lockdep_assert_held(&ch->submit_lock);
	fence = kzalloc_obj(*fence);
	if (!fence)
		return NULL;
	fence->channel = ch;
	fence->poll = poll;
	snprintf(fence->timeline, sizeof(fence->timeline), "peerdma%u-%u", ch->peer->instance,
		 ch->index);
	peerdma_fence_init(&fence->base, &peerdma_fence_ops, &fence->lock, ch->fence_context,
			   ++ch->seqno);
	return &fence->base;
}

/*
 * Waits for a fence until @deadline (jiffies). It may be another driver's and never
 * signal, so this looks up now and then whether the device is still there.
 */
int peerdma_fence_wait(struct peerdma_device *peer, struct dma_fence *fence, unsigned long deadline)
{
	while (!READ_ONCE(peer->gone)) {
		long left = deadline - jiffies;
		long ret;

		if (left <= 0)
			return dma_fence_is_signaled(fence) ? 0 : -ETIME;
		ret = dma_fence_wait_timeout(fence, true, min(left, HZ / 4));
		if (ret)
			return ret < 0 ? ret : 0;
	}
	return -ENODEV;
}
