/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A submission on its way: what submit.c and buffers.c share.
 */
#ifndef PEERDMA_SUBMIT_H
#define PEERDMA_SUBMIT_H

#include <linux/ww_mutex.h>

#include "work.h"

enum { PEERDMA_SOURCE, PEERDMA_DESTINATION, PEERDMA_PLACES };

/**
 * struct peerdma_submission - a submission on its way
 * @peer:		the device
 * @arg:	what was asked for
 * @channel:	where it will run
 * @writes:	whether the operation writes to its destination
 * @explicit_sync: the work waits for no fences of the buffers
 * @alone:	see struct peerdma_work
 * @object:	references; NULL where the place is none
 * @place:	resolved places
 * @resv:	the dma_resvs of the objects, each once
 * @resvs:	how many
 * @write:	whether the work writes to what @resv guards
 * @plain:	the objects without one, each once, as they were locked
 * @ctx:	of the locks on @resv
 * @deadline:	jiffies; for waits before the work begins
 */
struct peerdma_submission {
	struct peerdma_device *peer;
	struct peerdma_submit *arg;
	struct peerdma_channel *channel;
	bool writes;
	bool explicit_sync;
	bool alone;
	struct peerdma_object *object[PEERDMA_PLACES];
	struct peerdma_place place[PEERDMA_PLACES];
	struct dma_resv *resv[PEERDMA_PLACES];
	unsigned int resvs;
	bool write[PEERDMA_PLACES];
	struct peerdma_object *plain[PEERDMA_PLACES];
	struct ww_acquire_ctx ctx;
	unsigned long deadline;
};

void peerdma_buffers_collect(struct peerdma_submission *sub);
int peerdma_buffers_lock(struct peerdma_submission *sub);
void peerdma_buffers_unlock(struct peerdma_submission *sub);
int peerdma_buffers_lock_plain(struct peerdma_submission *sub);
void peerdma_buffers_unlock_plain(struct peerdma_submission *sub);
int peerdma_buffers_sync(struct peerdma_submission *sub);

#endif /* PEERDMA_SUBMIT_H */
