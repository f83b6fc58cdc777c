// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lab's part of PEERDMA_SUBMIT: work at raw addresses, work that ignores the
 * buffers' fences, and the verdict that the lab's device reaches on work.
 */
#include <linux/io.h>

#include "../submit.h"
#include "lab.h"

int peerdma_lab_submit(struct peerdma_submission *sub, u32 flags)
{
	if (flags & ~(PEERDMA_SUBMIT_NO_SYNC | PEERDMA_SUBMIT_VERDICT))
		return -EINVAL;
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	sub->explicit_sync = flags & PEERDMA_SUBMIT_NO_SYNC;
	sub->alone = flags & PEERDMA_SUBMIT_VERDICT;
	return 0;
}

int peerdma_lab_locate(struct peerdma_submission *sub, unsigned int which,
		       const struct peerdma_location *location)
{
	struct peerdma_place *place = &sub->place[which];

	switch (location->kind) {
	case PEERDMA_AT_LOCAL:
		place->local = true;
		break;
	case PEERDMA_AT_ADDRESS:
		break;
	default:
		return -EINVAL;
	}
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	/* The device takes addresses modulo 2^64, so nothing overflows. */
	place->raw.address = location->offset;
	place->raw.length = sub->arg->length;
	place->segment = &place->raw;
	place->count = 1;
	return 0;
}

void peerdma_lab_record(struct peerdma_channel *ch, struct peerdma_work *work)
{
	u32 verdict;

	lockdep_assert_held(&ch->lock);
	verdict = readl(ch->regs + PEERDMA_CH_VERDICT);
	if (!verdict)
		return;
	work->verdict_count += readl(ch->regs + PEERDMA_CH_VERDICT_COUNT);
	if (work->verdict)
		return;
	work->verdict = verdict;
	work->verdict_address = peerdma_channel_read64(ch, PEERDMA_CH_VERDICT_LO);
}
