// SPDX-License-Identifier: GPL-2.0-only
/*
 * The rings: descriptors in, completion records out. peerdma_channel.lock guards them;
 * none of this sleeps.
 */
#include <linux/bitops.h>
#include <linux/io.h>
#include <linux/io-64-nonatomic-lo-hi.h>

#include "lab_ops.h"
#include "work.h"

#define PEERDMA_RING_MASK (PEERDMA_RING_ENTRIES - 1)

/* Given back by the device in the record; not zero, and no two near are equal. */
static u64 peerdma_ring_cookie(struct peerdma_channel *ch, u32 index)
{
	return (u64)(ch->index + 1) << 32 | index;
}

static struct peerdma_desc *peerdma_ring_write(struct peerdma_channel *ch,
					       struct peerdma_work *work)
{
	struct peerdma_desc *desc = &ch->ring[ch->issued & PEERDMA_RING_MASK];
	struct peerdma_op *op = &work->op[work->issued];
	u16 flags = op->flags;
	u64 pattern = work->pattern;

	lockdep_assert_held(&ch->lock);
	/* Each piece of a fill goes on where the last one stopped. */
	if (work->opcode == PEERDMA_OP_FILL)
		work->pattern = ror64(pattern, 8 * (op->length % 8));
	/*
	 * The end of the work is news, and so is every step that others wait
	 * for; quarters of the ring keep long lists going.
	 */
	if (!work->poll && (work->issued + 1 == work->ops || work->serial ||
			    !(ch->issued % (PEERDMA_RING_ENTRIES / 4))))
		flags |= PEERDMA_DESC_INTERRUPT;

	memset(desc, 0, sizeof(*desc));
	desc->opcode = work->opcode;
	desc->flags = cpu_to_le16(flags);
	desc->length = cpu_to_le32(op->length);
	desc->source = cpu_to_le64(op->source);
	desc->destination = cpu_to_le64(op->destination);
	desc->pattern = cpu_to_le64(pattern);
	desc->cookie = cpu_to_le64(peerdma_ring_cookie(ch, ch->issued));
	ch->issued++;
	work->issued++;
	return desc;
}

/* Whether the next descriptor of @work may go into the ring now. */
static bool peerdma_ring_may_issue(struct peerdma_channel *ch, struct peerdma_work *work)
{
	struct peerdma_work *oldest = peerdma_ring_oldest(ch);

	/* One slot stays empty: head equal to tail means an empty ring. */
	if (ch->issued - ch->completed >= PEERDMA_RING_ENTRIES - 1)
		return false;
	if (work->serial && work->issued != work->done)
		return false;
	if (oldest->alone)
		return work == oldest;
	return !work->alone || work == oldest;
}

/* Issues what there is room for, and rings the doorbell. */
void peerdma_ring_pump(struct peerdma_channel *ch)
{
	struct peerdma_desc *last = NULL;
	struct peerdma_work *work = NULL;

	lockdep_assert_held(&ch->lock);
	if (ch->stopped || ch->restarting)
		return;

	while (!list_empty(&ch->queue)) {
		work = list_first_entry(&ch->queue, struct peerdma_work, node);
		if (work->issued == work->ops) {
			list_move_tail(&work->node, &ch->active);
			continue;
		}
		if (!peerdma_ring_may_issue(ch, work))
			break;
		if (ch->issued == ch->completed)
			ch->progress = jiffies;
		last = peerdma_ring_write(ch, work);
	}
	if (!last)
		return;
	/* The ring is full: an interrupt has to say when there is room. */
	if (!work->poll && work->issued < work->ops)
		last->flags |= cpu_to_le16(PEERDMA_DESC_INTERRUPT);

	/* The device may read as soon as the doorbell rings. */
	dma_wmb();
	writel(ch->issued & PEERDMA_RING_MASK, ch->regs + PEERDMA_CH_TAIL);
}

/* The work whose descriptor is the next to end, or to be issued; or NULL. */
struct peerdma_work *peerdma_ring_oldest(struct peerdma_channel *ch)
{
	lockdep_assert_held(&ch->lock);
	if (!list_empty(&ch->active))
		return list_first_entry(&ch->active, struct peerdma_work, node);
	return list_first_entry_or_null(&ch->queue, struct peerdma_work, node);
}

static void peerdma_ring_failed(struct peerdma_channel *ch, struct peerdma_work *work, int error,
				u32 status)
{
	/* What is not in the ring yet does not go there. */
	work->ops = work->issued;
	if (work->error)
		return;
	work->error = error;
	work->status = status;
}

/* Takes one record into the result of the work it belongs to. */
static void peerdma_ring_record(struct peerdma_channel *ch, struct peerdma_work *work,
				const struct peerdma_record *record)
{
	u64 bytes = le64_to_cpu(record->bytes);
	u64 result = le64_to_cpu(record->result);
	u32 status = le16_to_cpu(record->status);
	bool failed_before = work->error;

	lockdep_assert_held(&ch->lock);
	if (le64_to_cpu(record->cookie) != peerdma_ring_cookie(ch, ch->completed)) {
		peerdma_ring_failed(ch, work, -EPROTO, status);
		return;
	}
	if (work->alone)
		peerdma_lab.record(ch, work);

	switch (status) {
	case PEERDMA_STATUS_SUCCESS:
		if (work->opcode == PEERDMA_OP_CHECKSUM) {
			work->result = result;
			work->pattern = lower_32_bits(result);
		}
		break;
	case PEERDMA_STATUS_MISMATCH:
		if (!failed_before)
			work->result = work->bytes + result;
		peerdma_ring_failed(ch, work, -EILSEQ, status);
		break;
	default:
		if (!failed_before)
			work->error_address = peerdma_channel_read64(ch, PEERDMA_CH_ERROR_LO);
		peerdma_ring_failed(ch, work, -EIO, status);
		break;
	}
	if (!failed_before)
		work->bytes += bytes;
}

/*
 * Moves work that has ended to @finished, strictly in order: a fence that stands
 * for an older one of its timeline must not signal first.
 */
static void peerdma_ring_retire(struct peerdma_channel *ch, struct list_head *finished, bool irq)
{
	struct peerdma_work *work;

	lockdep_assert_held(&ch->lock);
	for (work = peerdma_ring_oldest(ch); work && work->done == work->ops;
	     work = peerdma_ring_oldest(ch)) {
		work->interrupted = irq && !work->poll;
		list_move_tail(&work->node, finished);
	}
}

/*
 * Takes all records that are there. Work that has ended goes to @finished, for
 * peerdma_work_finish() once the lock has been dropped.
 */
void peerdma_ring_reap(struct peerdma_channel *ch, struct list_head *finished, bool irq)
{
	lockdep_assert_held(&ch->lock);

	peerdma_ring_retire(ch, finished, false);
	while (ch->completed != ch->issued) {
		struct peerdma_record *record;
		struct peerdma_work *work;

		record = &ch->records[ch->completed & PEERDMA_RING_MASK];
		if (le32_to_cpu(READ_ONCE(record->sequence)) != ch->completed + 1)
			break;
		/* The sequence number is written last; read it first. */
		dma_rmb();

		work = peerdma_ring_oldest(ch);
		peerdma_ring_record(ch, work, record);
		work->done++;
		ch->completed++;
		ch->progress = jiffies;
		peerdma_count(ch->peer, PEERDMA_COUNT_COMPLETIONS);
		peerdma_ring_retire(ch, finished, irq);
	}
}
