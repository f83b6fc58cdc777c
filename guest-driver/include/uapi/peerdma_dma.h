/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * peerdma_dma: user interface of the client of the kernel's DMA engines.
 *
 * /dev/peerdma-dma gives one copy at a time to a channel of any DMA engine that
 * has a driver, for example Intel's I/OAT, and returns its DMA addresses. An
 * open file holds the channel that it named first until it is closed, or until
 * the engine leaves it without an answer.
 */
#ifndef _UAPI_PEERDMA_DMA_H
#define _UAPI_PEERDMA_DMA_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define PEERDMA_DMA_NAME	20	/* bytes of a channel's name, with the 0 */

/* What became of a copy, as the engine's driver says it */
#define PEERDMA_DMA_DONE	0
#define PEERDMA_DMA_READ_FAILED	1
#define PEERDMA_DMA_WRITE_FAILED 2
#define PEERDMA_DMA_ABORTED	3

/**
 * struct peerdma_dma_copy - one copy
 * @channel:	its name as in /sys/class/dma, zero-terminated
 * @source_fd:	a dma-buf, or -1: @source is a DMA address then
 * @target_fd:	likewise
 * @source:	offset into the dma-buf, or a DMA address as it is
 * @target:	likewise
 * @length:	bytes, 1 to 64 MiB
 * @timeout_ms:	time for all of it once the channel is taken, 1 to 60000
 * @result:	out: PEERDMA_DMA_*
 * @reserved:	0
 *
 * Errors: EINVAL (an argument), EPERM (a DMA address without CAP_SYS_RAWIO),
 * EBADF (no dma-buf), ENODEV (no such channel, or another has it), EBUSY (this
 * file holds another one), ERANGE (past the end of a dma-buf), ETIMEDOUT (a
 * foreign fence, or the engine, took longer; without an answer from the engine
 * the channel has been given back), EAGAIN (the exporter moved the buffer again
 * and again), EINTR (a signal, unless its handler has the call begun again),
 * and what the exporter says.
 */
struct peerdma_dma_copy {
	char channel[PEERDMA_DMA_NAME];
	__s32 source_fd;
	__s32 target_fd;
	__u32 length;
	__u64 source;
	__u64 target;
	__u32 timeout_ms;
	__u32 result;
	__u64 reserved;
};

/**
 * struct peerdma_dma_address - where a channel's device finds a byte of a dma-buf
 * @channel:	its name as in /sys/class/dma, zero-terminated
 * @fd:		the dma-buf
 * @offset:	of the byte
 * @address:	out: its DMA address. It was good while the call lasted: the
 *		mapping is gone
 * @length:	out: how many bytes followed there, that one included
 * @segments:	out: of how many pieces the mapping was
 * @reserved:	0
 *
 * Errors: as for a copy.
 */
struct peerdma_dma_address {
	char channel[PEERDMA_DMA_NAME];
	__s32 fd;
	__u64 offset;
	__u64 address;
	__u64 length;
	__u32 segments;
	__u32 reserved;
};

#define PEERDMA_DMA_COPY	_IOWR(0xDB, 0x70, struct peerdma_dma_copy)
#define PEERDMA_DMA_ADDRESS	_IOWR(0xDB, 0x71, struct peerdma_dma_address)

#endif /* _UAPI_PEERDMA_DMA_H */
