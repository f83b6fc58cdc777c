/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ioctls of the character device: their table's entries and their functions.
 */
#ifndef PEERDMA_IOCTL_H
#define PEERDMA_IOCTL_H

#include <linux/build_bug.h>

#include "driver.h"

/**
 * struct peerdma_call - an ioctl that is being served
 * @file:	the open file it was called on
 * @fd:		reserved file descriptor, -1 without one; installed only after the
 *		answer has been copied to the user
 * @out_file:	the file to install as @fd, or NULL
 * @out_dmabuf:	the dma-buf to install as @fd, or NULL
 */
struct peerdma_call {
	struct peerdma_file *file;
	int fd;
	struct file *out_file;
	struct dma_buf *out_dmabuf;
};

/**
 * struct peerdma_ioctl - an entry in the table of ioctls
 * @call:	the function; the argument has been copied from the user
 * @size:	bytes of the argument
 * @unguarded:	not called under srcu, because it may sleep for very long
 */
struct peerdma_ioctl {
	int (*call)(struct peerdma_call *call, void *data);
	unsigned int size;
	bool unguarded;
};

/* Large enough for every argument; on the stack. */
union peerdma_argument {
	struct peerdma_info info;
	struct peerdma_counters counters;
	u8 bytes[192];
};

#define PEERDMA_ARGUMENT_SIZE(type) \
	(sizeof(struct type) + \
	 BUILD_BUG_ON_ZERO(sizeof(struct type) > sizeof(union peerdma_argument)))
#define PEERDMA_IOCTL(cmd, type, function) \
	[_IOC_NR(cmd)] = { .call = function, .size = PEERDMA_ARGUMENT_SIZE(type) }

/* info.c */
int peerdma_ioctl_info(struct peerdma_call *call, void *data);
int peerdma_ioctl_counters(struct peerdma_call *call, void *data);
int peerdma_ioctl_distance(struct peerdma_call *call, void *data);

/* object.c */
int peerdma_ioctl_close(struct peerdma_call *call, void *data);
int peerdma_ioctl_map(struct peerdma_call *call, void *data);
int peerdma_ioctl_unmap(struct peerdma_call *call, void *data);
int peerdma_ioctl_segments(struct peerdma_call *call, void *data);

/* memory.c, buffer.c, migrate.c, system.c */
int peerdma_ioctl_alloc(struct peerdma_call *call, void *data);
int peerdma_ioctl_buffer_alloc(struct peerdma_call *call, void *data);
int peerdma_ioctl_buffer_state(struct peerdma_call *call, void *data);
int peerdma_ioctl_buffer_move(struct peerdma_call *call, void *data);
int peerdma_ioctl_system_alloc(struct peerdma_call *call, void *data);
int peerdma_ioctl_system_sync(struct peerdma_call *call, void *data);

/* export.c, revoke.c, import.c, kernel_copy.c */
int peerdma_ioctl_export(struct peerdma_call *call, void *data);
int peerdma_ioctl_invalidate(struct peerdma_call *call, void *data);
int peerdma_ioctl_import(struct peerdma_call *call, void *data);
int peerdma_ioctl_kernel_copy(struct peerdma_call *call, void *data);

/* submit.c, work.c */
int peerdma_ioctl_submit(struct peerdma_call *call, void *data);
int peerdma_ioctl_wait(struct peerdma_call *call, void *data);

#endif /* PEERDMA_IOCTL_H */
