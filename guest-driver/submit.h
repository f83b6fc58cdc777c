/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A submission on its way: what submit.c and buffers.c share.
 */
#ifndef PEERDMA_SUBMIT_H
#define PEERDMA_SUBMIT_H

#include <linux/ww_mutex.h>

#include "work.h"

enum { PD_SOURCE, PD_DESTINATION, PD_PLACES };

/**
 * struct pd_submit - a submission on its way
 * @pd:		the device
 * @arg:	what was asked for
 * @channel:	where it will run
 * @writes:	whether the operation writes to its destination
 * @object:	references; NULL where the place is none
 * @place:	resolved places
 * @resv:	the dma_resvs of the objects, each once
 * @resvs:	how many
 * @write:	whether the work writes to what @resv guards
 * @plain:	the objects without one, each once, as they were locked
 * @ctx:	of the locks on @resv
 * @deadline:	jiffies; for waits before the work begins
 */
struct pd_submit {
	struct pd_device *pd;
	struct peerdma_submit *arg;
	struct pd_channel *channel;
	bool writes;
	struct pd_object *object[PD_PLACES];
	struct pd_place place[PD_PLACES];
	struct dma_resv *resv[PD_PLACES];
	unsigned int resvs;
	bool write[PD_PLACES];
	struct pd_object *plain[PD_PLACES];
	struct ww_acquire_ctx ctx;
	unsigned long deadline;
};

void pd_buffers_collect(struct pd_submit *sub);
int pd_buffers_lock(struct pd_submit *sub);
void pd_buffers_unlock(struct pd_submit *sub);
int pd_buffers_lock_plain(struct pd_submit *sub);
void pd_buffers_unlock_plain(struct pd_submit *sub);
int pd_buffers_sync(struct pd_submit *sub);

#endif /* PEERDMA_SUBMIT_H */
