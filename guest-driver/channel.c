// SPDX-License-Identifier: GPL-2.0-only
/*
 * Channels: starting, stopping, and what happens when the device has something
 * to say, or does not say it in time.
 */
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>

#include "work.h"

unsigned int peerdma_timeout_ms = 10000;
module_param_named(timeout_ms, peerdma_timeout_ms, uint, 0644);
MODULE_PARM_DESC(timeout_ms, "Default time without an answer until the device counts as dead, ms");

/* How often the watchdog looks at a channel that has work */
#define PEERDMA_WATCHDOG_PERIOD (HZ / 4)
/* How long a channel may take to stop, us */
#define PEERDMA_STOP_TIMEOUT_US (500 * USEC_PER_MSEC)

/* The rings are devm; the device's structure keeps the rest until its end. */
int peerdma_channels_create(struct peerdma_device *peer)
{
	struct device *dev = &peer->pdev->dev;
	u64 context = dma_fence_context_alloc(peer->channels);
	u32 i;

	/* Not devm: a file may still ask for results after remove(). */
	peer->channel = kzalloc_objs(*peer->channel, peer->channels);
	if (!peer->channel)
		return -ENOMEM;
	for (i = 0; i < peer->channels; i++) {
		struct peerdma_channel *ch = &peer->channel[i];

		ch->peer = peer;
		ch->index = i;
		ch->regs = peer->regs + PEERDMA_CHANNEL(i);
		ch->fence_context = context + i;
		ch->stopped = true;
		mutex_init(&ch->submit_lock);
		spin_lock_init(&ch->lock);
		INIT_LIST_HEAD(&ch->queue);
		INIT_LIST_HEAD(&ch->active);
		INIT_DELAYED_WORK(&ch->watchdog, peerdma_channel_watchdog);
		disable_delayed_work(&ch->watchdog);
		ch->ring = dmam_alloc_coherent(dev, PEERDMA_RING_ENTRIES * sizeof(*ch->ring),
					       &ch->ring_dma, GFP_KERNEL);
		ch->records = dmam_alloc_coherent(dev, PEERDMA_RING_ENTRIES * sizeof(*ch->records),
						  &ch->records_dma, GFP_KERNEL);
		if (!ch->ring || !ch->records)
			return -ENOMEM;
	}
	return 0;
}

/* The device has been reset or is new: programs the addresses of the rings. */
static void peerdma_channel_program(struct peerdma_channel *ch)
{
	void __iomem *regs = ch->regs;

	lockdep_assert_held(&ch->lock);
	memset(ch->records, 0, PEERDMA_RING_ENTRIES * sizeof(*ch->records));
	ch->issued = 0;
	ch->completed = 0;

	writel(lower_32_bits(ch->ring_dma), regs + PEERDMA_CH_RING_LO);
	writel(upper_32_bits(ch->ring_dma), regs + PEERDMA_CH_RING_HI);
	writel(PEERDMA_RING_ORDER, regs + PEERDMA_CH_RING_SIZE);
	writel(lower_32_bits(ch->records_dma), regs + PEERDMA_CH_RECORD_LO);
	writel(upper_32_bits(ch->records_dma), regs + PEERDMA_CH_RECORD_HI);
	writel(ch->index % ch->peer->vectors, regs + PEERDMA_CH_VECTOR);
	/* writel() orders after the memset: the device finds the records clean. */
	writel(PEERDMA_CH_CTRL_ENABLE, regs + PEERDMA_CH_CTRL);
}

/*
 * Makes the device forget all about the channel. When this returns it does not
 * touch memory for it any more; if it will not listen, it loses the bus.
 */
static void peerdma_channel_silence(struct peerdma_channel *ch)
{
	struct pci_dev *pdev = ch->peer->pdev;
	u32 status;

	writel(PEERDMA_CH_CTRL_RESET, ch->regs + PEERDMA_CH_CTRL);
	readl_poll_timeout(ch->regs + PEERDMA_CH_STATUS, status,
			   PCI_POSSIBLE_ERROR(status) || (status & PEERDMA_CH_STATUS_STATE_MASK) ==
								 PEERDMA_CH_STATE_DISABLED,
			   10, PEERDMA_STOP_TIMEOUT_US);
	if ((status & PEERDMA_CH_STATUS_STATE_MASK) == PEERDMA_CH_STATE_DISABLED)
		return;
	dev_dbg(&pdev->dev, "channel %u does not stop: %#x\n", ch->index, status);
	pci_clear_master(pdev);
}

/* Takes @work out of the channel's lists and ends it with @error. */
static void peerdma_channel_fail(struct peerdma_work *work, int error, struct list_head *finished)
{
	lockdep_assert_held(&work->channel->lock);
	if (!work->error)
		work->error = error;
	list_move_tail(&work->node, finished);
}

/*
 * Ends what the device has been given: the oldest with @error, since it is the
 * one that does not end, the others as cancelled. Then begins again with the rest.
 */
static void peerdma_channel_restart(struct peerdma_channel *ch, int error, u32 halt)
{
	LIST_HEAD(finished);
	struct peerdma_work *work, *next;
	u64 error_address = 0;
	bool first = true;

	if (halt)
		error_address = peerdma_channel_read64(ch, PEERDMA_CH_ERROR_LO);
	peerdma_channel_silence(ch);

	spin_lock_irq(&ch->lock);
	/* What came in at the last moment is not lost. */
	peerdma_ring_reap(ch, &finished, false);
	list_splice_tail_init(&ch->queue, &ch->active);
	list_for_each_entry_safe(work, next, &ch->active, node) {
		if (work->issued == work->done) {
			list_move_tail(&work->node, &ch->queue);
			continue;
		}
		if (first) {
			work->halt = halt;
			work->error_address = error_address;
		}
		peerdma_channel_fail(work, first ? error : -ECANCELED, &finished);
		first = false;
	}
	if (!first && error == -ETIMEDOUT)
		peerdma_count(ch->peer, PEERDMA_COUNT_TIMEOUTS);
	ch->restarting = false;
	if (!ch->stopped) {
		peerdma_channel_program(ch);
		peerdma_ring_pump(ch);
	}
	spin_unlock_irq(&ch->lock);
	peerdma_work_finish(ch->peer, &finished);
}

void peerdma_channel_watchdog(struct work_struct *work)
{
	struct peerdma_channel *ch = container_of(work, struct peerdma_channel, watchdog.work);
	unsigned long period = PEERDMA_WATCHDOG_PERIOD;
	LIST_HEAD(finished);
	struct peerdma_work *oldest;
	bool again, late, signalling;
	int error = 0;
	u32 halt = 0;

	signalling = dma_fence_begin_signalling();
	spin_lock_irq(&ch->lock);
	oldest = ch->stopped ? NULL : peerdma_ring_oldest(ch);
	late = oldest && time_after_eq(jiffies, ch->progress + oldest->timeout);
	/*
	 * Work with interrupts is left to them, so that one that does not come is
	 * seen; only before it is given up its record is looked for.
	 */
	if (oldest && (oldest->poll || late)) {
		peerdma_ring_reap(ch, &finished, false);
		peerdma_ring_pump(ch);
		oldest = peerdma_ring_oldest(ch);
	}
	if (oldest && ch->issued != ch->completed) {
		u32 status = readl(ch->regs + PEERDMA_CH_STATUS);

		if (PCI_POSSIBLE_ERROR(status)) {
			error = -EIO;
		} else if ((status & PEERDMA_CH_STATUS_STATE_MASK) == PEERDMA_CH_STATE_HALTED) {
			error = -EIO;
			halt = (status & PEERDMA_CH_STATUS_HALT_MASK) >>
			       PEERDMA_CH_STATUS_HALT_SHIFT;
		} else if (time_after_eq(jiffies, ch->progress + oldest->timeout)) {
			error = -ETIMEDOUT;
		}
	}
	if (error)
		ch->restarting = true;
	spin_unlock_irq(&ch->lock);
	peerdma_work_finish(ch->peer, &finished);

	if (error)
		peerdma_channel_restart(ch, error, halt);

	spin_lock_irq(&ch->lock);
	oldest = peerdma_ring_oldest(ch);
	again = oldest && !ch->stopped;
	if (!oldest)
		WRITE_ONCE(ch->poll_wanted, false);
	else if (READ_ONCE(ch->poll_wanted))
		period = 1;
	spin_unlock_irq(&ch->lock);
	dma_fence_end_signalling(signalling);
	/* Sooner, if that has been asked for meanwhile. */
	if (again)
		queue_delayed_work(ch->peer->wq, &ch->watchdog, period);
}

/* Takes over the channel's reference to the work, unless it fails. */
int peerdma_channel_queue(struct peerdma_channel *ch, struct peerdma_work *work)
{
	unsigned long flags;
	int ret = 0;

	spin_lock_irqsave(&ch->lock, flags);
	if (ch->stopped) {
		ret = READ_ONCE(ch->peer->gone) ? -ENODEV : -EAGAIN;
	} else {
		list_add_tail(&work->node, &ch->queue);
		peerdma_ring_pump(ch);
		queue_delayed_work(ch->peer->wq, &ch->watchdog, PEERDMA_WATCHDOG_PERIOD);
	}
	spin_unlock_irqrestore(&ch->lock, flags);
	return ret;
}

static void peerdma_channel_service(struct peerdma_channel *ch, bool irq)
{
	LIST_HEAD(finished);
	unsigned long flags;

	spin_lock_irqsave(&ch->lock, flags);
	if (!ch->stopped && !ch->restarting) {
		peerdma_ring_reap(ch, &finished, irq);
		peerdma_ring_pump(ch);
	}
	spin_unlock_irqrestore(&ch->lock, flags);
	peerdma_work_finish(ch->peer, &finished);
}

void peerdma_channel_poll(struct peerdma_channel *ch)
{
	peerdma_channel_service(ch, false);
}

/* One handler for each vector; @data is the first channel that uses it. */
irqreturn_t peerdma_channel_interrupt(int irq, void *data)
{
	struct peerdma_channel *first = data;
	struct peerdma_device *peer = first->peer;
	u32 i;

	peerdma_count(peer, PEERDMA_COUNT_INTERRUPTS);
	for (i = first->index; i < peer->channels; i += peer->vectors)
		peerdma_channel_service(&peer->channel[i], true);
	return IRQ_HANDLED;
}

/* Ends what @owner has queued and the device has not seen. */
void peerdma_channel_cancel(struct peerdma_channel *ch, struct peerdma_file *owner)
{
	LIST_HEAD(finished);
	struct peerdma_work *work;

	spin_lock_irq(&ch->lock);
	list_for_each_entry(work, &ch->queue, node) {
		if (work->owner != owner || work->issued)
			continue;
		/* It ends when those before it have, see peerdma_ring_retire(). */
		work->error = -ECANCELED;
		work->ops = 0;
	}
	peerdma_ring_reap(ch, &finished, false);
	peerdma_ring_pump(ch);
	spin_unlock_irq(&ch->lock);
	peerdma_work_finish(ch->peer, &finished);
}

void peerdma_channels_start(struct peerdma_device *peer)
{
	u32 i;

	for (i = 0; i < peer->channels; i++) {
		struct peerdma_channel *ch = &peer->channel[i];

		if (WARN_ON(!ch->stopped))
			continue;
		/* Whatever was there before us: an earlier kernel, a test. */
		peerdma_channel_silence(ch);
		enable_delayed_work(&ch->watchdog);
		spin_lock_irq(&ch->lock);
		peerdma_channel_program(ch);
		ch->stopped = false;
		ch->restarting = false;
		spin_unlock_irq(&ch->lock);
	}
}

/*
 * Takes no more work, stops the device, and ends all work as cancelled. After
 * this nothing of ours happens on the bus until peerdma_channels_start(), and no
 * interrupt handler is at work any more.
 */
void peerdma_channels_stop(struct peerdma_device *peer)
{
	u32 i;

	for (i = 0; i < peer->channels; i++) {
		struct peerdma_channel *ch = &peer->channel[i];
		struct peerdma_work *work, *next;
		LIST_HEAD(finished);
		bool stopped;

		spin_lock_irq(&ch->lock);
		stopped = ch->stopped;
		ch->stopped = true;
		spin_unlock_irq(&ch->lock);
		if (stopped)
			continue;

		disable_delayed_work_sync(&ch->watchdog);
		peerdma_channel_silence(ch);

		spin_lock_irq(&ch->lock);
		peerdma_ring_reap(ch, &finished, false);
		list_splice_tail_init(&ch->queue, &ch->active);
		list_for_each_entry_safe(work, next, &ch->active, node)
			peerdma_channel_fail(work, -ECANCELED, &finished);
		ch->issued = 0;
		ch->completed = 0;
		spin_unlock_irq(&ch->lock);
		peerdma_work_finish(peer, &finished);
	}
	for (i = 0; i < peer->vectors; i++)
		synchronize_irq(pci_irq_vector(peer->pdev, i));
}
