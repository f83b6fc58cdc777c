// SPDX-License-Identifier: GPL-2.0-only
/*
 * A fence is added to a reservation object, which does not know whose it is: one dma-buf's, that
 * of several, or of none. So exports are remembered, in a table that never grows, since hooks
 * must not allocate.
 */
#include <linux/hash.h>
#include <linux/list.h>
#include <linux/spinlock.h>

#include "witness.h"

#define BUFFER_COUNT	4096
#define HASH_BITS	8

struct buffer {
	struct hlist_node node;
	const struct dma_resv *resv;
	u64 inode;
};

static struct buffer buffers[BUFFER_COUNT];
static unsigned int used;
static HLIST_HEAD(unused);
static struct hlist_head by_resv[1 << HASH_BITS];
static DEFINE_RAW_SPINLOCK(lock);

static struct hlist_head *bucket(const struct dma_resv *resv)
{
	return &by_resv[hash_ptr(resv, HASH_BITS)];
}

void witness_buffer_add(struct dma_resv *resv, u64 inode)
{
	struct buffer *buffer = NULL;
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	if (!hlist_empty(&unused)) {
		buffer = hlist_entry(unused.first, struct buffer, node);
		hlist_del(&buffer->node);
	} else if (used < BUFFER_COUNT) {
		buffer = &buffers[used++];
	}
	if (buffer) {
		buffer->resv = resv;
		buffer->inode = inode;
		hlist_add_head(&buffer->node, bucket(resv));
	}
	raw_spin_unlock_irqrestore(&lock, flags);
	if (!buffer)
		witness_missed("dma_resv_add_fence: too many dma-bufs", 1);
}

void witness_buffer_remove(struct dma_resv *resv, u64 inode)
{
	struct buffer *buffer;
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	hlist_for_each_entry(buffer, bucket(resv), node) {
		if (buffer->resv != resv || buffer->inode != inode)
			continue;
		hlist_del(&buffer->node);
		hlist_add_head(&buffer->node, &unused);
		break;
	}
	raw_spin_unlock_irqrestore(&lock, flags);
}

/* Reports the fence once for each dma-buf that the object guards. */
void witness_buffers_fence(struct dma_resv *resv, struct dma_fence *fence, unsigned int usage,
			   unsigned long from)
{
	struct buffer *buffer;
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	hlist_for_each_entry(buffer, bucket(resv), node) {
		if (buffer->resv == resv)
			witness_report_fence(resv, buffer->inode, fence, usage, from);
	}
	raw_spin_unlock_irqrestore(&lock, flags);
}
