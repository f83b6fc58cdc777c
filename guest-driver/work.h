/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Work and the channels that it runs on. The locks are explained in driver.h.
 */
#ifndef PEERDMA_WORK_H
#define PEERDMA_WORK_H

#include <linux/completion.h>
#include <linux/dma-fence.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/kref.h>
#include <linux/workqueue.h>

#include "driver.h"

/* What one descriptor will ask for; local offsets are marked in @flags. */
struct peerdma_op {
	u64 source;
	u64 destination;
	u32 length;
	u16 flags;
};

/**
 * struct peerdma_work - what one PEERDMA_SUBMIT asks for, and its result
 * @refs:	the channel's (until it is finished), the cookie's, a waiter's
 * @node:	in a list of the channel
 * @channel:	where it runs
 * @owner:	whose cookie it is; only compared
 * @object:	whose in_flight it holds; either may be NULL
 * @fence:	signalled when it is finished; a reference
 * @finished:	completed when the result stands
 * @op:		descriptors to be
 * @ops:	how many; falls to @issued when one fails
 * @issued:	how many are or were in the ring
 * @done:	how many have ended
 * @opcode:	PEERDMA_OP_*
 * @poll:	without interrupts
 * @serial:	one descriptor at a time (a checksum goes through them all)
 * @alone:	no other work's descriptor beside it (verdict)
 * @pattern:	of the next descriptor
 * @timeout:	jiffies without an answer until the device counts as dead
 * @error:	result, as are the following; see struct peerdma_wait
 */
struct peerdma_work {
	struct kref refs;
	struct list_head node;
	struct peerdma_channel *channel;
	struct peerdma_file *owner;
	struct peerdma_object *object[2];
	struct dma_fence *fence;
	struct completion finished;

	struct peerdma_op *op;
	u32 ops;
	u32 issued;
	u32 done;
	u8 opcode;
	bool poll;
	bool serial;
	bool alone;
	u64 pattern;
	unsigned long timeout;

	int error;
	u32 status;
	u64 bytes;
	u64 result;
	u64 error_address;
	u64 verdict_address;
	u32 verdict;
	u32 verdict_count;
	u32 halt;
	u32 interrupted;
};

/**
 * struct peerdma_channel - a DMA channel and its rings
 * @peer:		the device
 * @index:	number of the channel
 * @regs:	its registers
 * @ring:	descriptors, PEERDMA_RING_ENTRIES of them
 * @ring_dma:	their DMA address
 * @records:	completion records, as many
 * @records_dma: their DMA address
 * @fence_context: timeline of its fences
 * @watchdog:	looks after unfinished work
 * @submit_lock: makes the order of fences that of @queue; guards @seqno
 * @seqno:	of the last fence
 * @poll_wanted: there are waiters for a fence of work without interrupts
 * @lock:	guards all that follows
 * @stopped:	takes no work (not started, reset, unbound)
 * @restarting:	takes work but issues none
 * @queue:	work that is not yet issued completely, oldest first
 * @active:	work that is, and unfinished; all older than @queue
 * @issued:	descriptors given to the device since its reset; modulo 2^32
 * @completed:	records taken; the next one's sequence number is one more
 * @progress:	jiffies when something last moved
 */
struct peerdma_channel {
	struct peerdma_device *peer;
	u32 index;
	void __iomem *regs;
	struct peerdma_desc *ring;
	dma_addr_t ring_dma;
	struct peerdma_record *records;
	dma_addr_t records_dma;
	u64 fence_context;
	struct delayed_work watchdog;
	struct mutex submit_lock;
	u64 seqno;
	bool poll_wanted;

	spinlock_t lock;
	bool stopped;
	bool restarting;
	struct list_head queue;
	struct list_head active;
	u32 issued;
	u32 completed;
	unsigned long progress;
};

/* A register of the channel that comes in two halves */
static inline u64 peerdma_channel_read64(struct peerdma_channel *ch, u32 low)
{
	u64 value = readl(ch->regs + low);

	return value | (u64)readl(ch->regs + low + 4) << 32;
}

extern unsigned int peerdma_timeout_ms;

int peerdma_channels_create(struct peerdma_device *peer);
void peerdma_channels_start(struct peerdma_device *peer);
void peerdma_channels_stop(struct peerdma_device *peer);
void peerdma_channel_cancel(struct peerdma_channel *ch, struct peerdma_file *owner);
int peerdma_channel_queue(struct peerdma_channel *ch, struct peerdma_work *work);
void peerdma_channel_poll(struct peerdma_channel *ch);
irqreturn_t peerdma_channel_interrupt(int irq, void *data);
void peerdma_channel_watchdog(struct work_struct *work);

/* ring.c */
#define PEERDMA_RING_ORDER 8
#define PEERDMA_RING_ENTRIES (1U << PEERDMA_RING_ORDER)

void peerdma_ring_pump(struct peerdma_channel *ch);
void peerdma_ring_reap(struct peerdma_channel *ch, struct list_head *finished, bool irq);
struct peerdma_work *peerdma_ring_oldest(struct peerdma_channel *ch);

/**
 * struct peerdma_place - source or destination of work, resolved
 * @segment:	where it lies; NULL: the operation has none
 * @count:	how many segments
 * @offset:	of the first byte, into the segments
 * @local:	they are offsets in the local memory
 * @raw:	what @segment may point to
 */
struct peerdma_place {
	const struct peerdma_segment *segment;
	u32 count;
	u64 offset;
	bool local;
	struct peerdma_segment raw;
};

/* work.c */
struct peerdma_work *peerdma_work_alloc(struct peerdma_channel *ch);
int peerdma_work_build(struct peerdma_work *work, const struct peerdma_place *source,
		       const struct peerdma_place *destination, u64 length, bool flush);
void peerdma_work_get(struct peerdma_work *work);
void peerdma_work_put(struct peerdma_work *work);
void peerdma_work_finish(struct peerdma_device *peer, struct list_head *finished);
void peerdma_works_release(struct peerdma_file *file);

/* fence.c */
struct dma_fence *peerdma_fence_create(struct peerdma_channel *ch, bool poll);
int peerdma_fence_wait(struct peerdma_device *peer, struct dma_fence *fence,
		       unsigned long deadline);

#endif /* PEERDMA_WORK_H */
