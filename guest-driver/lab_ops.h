/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the driver calls into lab/, and nowhere else: calls and flags of the user
 * interface that only the lab has (uapi/peerdma_lab.h). A driver for real hardware
 * answers them with EINVAL or ENOTTY.
 */
#ifndef PEERDMA_LAB_OPS_H
#define PEERDMA_LAB_OPS_H

#include <linux/types.h>

struct dma_buf_attach_ops;
struct peerdma_buffer;
struct peerdma_buffer_move;
struct peerdma_channel;
struct peerdma_ioctl;
struct peerdma_location;
struct peerdma_submission;
struct peerdma_work;

/**
 * struct peerdma_lab_ops - what the lab adds to the driver
 * @ioctl:	an ioctl that is not in the driver's table: its entry, or an error
 * @submit:	flags of PEERDMA_SUBMIT that the driver does not know; sets @explicit_sync
 *		and @alone of the submission
 * @locate:	a kind of location in PEERDMA_SUBMIT that the driver does not know
 * @record:	a descriptor of work with @alone has ended. Under peerdma_channel.lock
 * @buffer:	flags of PEERDMA_BUFFER_ALLOC, before the buffer gets its memory; may
 *		replace peerdma_buffer.map
 * @move:	PEERDMA_BUFFER_MOVE with flags. Under the buffer's dma_resv
 * @import:	flags of PEERDMA_IMPORT with one that the driver does not know: the
 *		attachment's ops, or an error
 */
struct peerdma_lab_ops {
	const struct peerdma_ioctl *(*ioctl)(unsigned int nr);
	int (*submit)(struct peerdma_submission *sub, u32 flags);
	int (*locate)(struct peerdma_submission *sub, unsigned int which,
		      const struct peerdma_location *location);
	void (*record)(struct peerdma_channel *ch, struct peerdma_work *work);
	int (*buffer)(struct peerdma_buffer *buf, u32 flags);
	int (*move)(struct peerdma_buffer *buf, const struct peerdma_buffer_move *arg);
	const struct dma_buf_attach_ops *(*import)(u32 flags);
};

extern const struct peerdma_lab_ops peerdma_lab;

#endif /* PEERDMA_LAB_OPS_H */
