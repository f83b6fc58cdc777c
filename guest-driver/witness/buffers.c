// SPDX-License-Identifier: GPL-2.0-only
/*
 * A fence is added to a reservation object, which does not know whose it is: one dma-buf's, that
 * of several, or of none. So exports are remembered, in a table that never grows, since hooks
 * must not allocate.
 */
#include <linux/hash.h>
#include <linux/irqflags.h>
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
/*
 * Taken in a probe's breakpoint, too, which lockdep takes for an NMI that might interrupt us
 * here. But nothing that is called with the lock held has a probe of ours.
 */
static arch_spinlock_t lock = __ARCH_SPIN_LOCK_UNLOCKED;

static unsigned long table_lock(void)
{
	unsigned long flags;

	local_irq_save(flags);
	arch_spin_lock(&lock);
	return flags;
}

static void table_unlock(unsigned long flags)
{
	arch_spin_unlock(&lock);
	local_irq_restore(flags);
}

static struct hlist_head *bucket(const struct dma_resv *resv)
{
	return &by_resv[hash_ptr(resv, HASH_BITS)];
}

void witness_buffer_add(struct dma_resv *resv, u64 inode)
{
	struct buffer *buffer = NULL;
	unsigned long flags;

	flags = table_lock();
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
	table_unlock(flags);
	if (!buffer)
		witness_missed("dma_resv_add_fence: too many dma-bufs", 1);
}

void witness_buffer_remove(struct dma_resv *resv, u64 inode)
{
	struct buffer *buffer;
	unsigned long flags;

	flags = table_lock();
	hlist_for_each_entry(buffer, bucket(resv), node) {
		if (buffer->resv != resv || buffer->inode != inode)
			continue;
		hlist_del(&buffer->node);
		hlist_add_head(&buffer->node, &unused);
		break;
	}
	table_unlock(flags);
}

/* Reports the fence once for each dma-buf that the object guards. */
void witness_buffers_fence(struct dma_resv *resv, struct dma_fence *fence, unsigned int usage,
			   unsigned long from)
{
	struct buffer *buffer;
	unsigned long flags;

	flags = table_lock();
	hlist_for_each_entry(buffer, bucket(resv), node) {
		if (buffer->resv == resv)
			witness_report_fence(resv, buffer->inode, fence, usage, from);
	}
	table_unlock(flags);
}
