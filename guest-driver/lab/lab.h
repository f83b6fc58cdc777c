/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The driver's misbehaviour: what the files of this folder share. All of it breaks
 * rules on purpose, so that the lab can show that it notices. All of it needs
 * CAP_SYS_ADMIN.
 */
#ifndef PEERDMA_LAB_H
#define PEERDMA_LAB_H

#include <linux/capability.h>

#include "../ioctl.h"
#include "../lab_ops.h"

/* map_phys.c */
int peerdma_ioctl_lab_map_phys(struct peerdma_call *call, void *data);

/* submit.c */
int peerdma_lab_submit(struct peerdma_submission *sub, u32 flags);
int peerdma_lab_locate(struct peerdma_submission *sub, unsigned int which,
		       const struct peerdma_location *location);
void peerdma_lab_record(struct peerdma_channel *ch, struct peerdma_work *work);

/* buffer.c */
int peerdma_lab_buffer(struct peerdma_buffer *buf, u32 flags);
int peerdma_lab_move(struct peerdma_buffer *buf, const struct peerdma_buffer_move *arg);

/* import.c */
const struct dma_buf_attach_ops *peerdma_lab_import(u32 flags);
int peerdma_ioctl_lab_read_page(struct peerdma_call *call, void *data);
int peerdma_ioctl_lab_forget(struct peerdma_call *call, void *data);

#endif /* PEERDMA_LAB_H */
