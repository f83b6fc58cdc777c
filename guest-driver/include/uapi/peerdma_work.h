/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * peerdma: work for the device's DMA channels, part of <peerdma.h>.
 */
#ifndef _UAPI_PEERDMA_WORK_H
#define _UAPI_PEERDMA_WORK_H

#include <linux/types.h>

/* struct peerdma_location.kind */
#define PEERDMA_AT_NOWHERE	0 /* the operation has no such operand */
#define PEERDMA_AT_OBJECT	1 /* handle + offset into it */

/**
 * struct peerdma_location - source or destination of work
 * @kind:	PEERDMA_AT_*, here or in <peerdma_lab.h>
 * @handle:	the object, for PEERDMA_AT_OBJECT; else zero
 * @offset:	bytes, any alignment
 *
 * An offset and length past the end of an object give ERANGE.
 */
struct peerdma_location {
	__u32 kind;
	__u32 handle;
	__u64 offset;
};

/* struct peerdma_submit.operation */
#define PEERDMA_WORK_COPY	1 /* source to destination */
#define PEERDMA_WORK_FILL	2 /* pattern to destination */
#define PEERDMA_WORK_CHECKSUM	3 /* CRC-32C of the source */
#define PEERDMA_WORK_COMPARE	4 /* reads source and destination */

/* struct peerdma_submit.flags */
#define PEERDMA_SUBMIT_POLL	(1U << 0) /* no interrupt: the waiter looks itself */
#define PEERDMA_SUBMIT_IN_FENCE	(1U << 1) /* start after the sync_file in_fence */
#define PEERDMA_SUBMIT_OUT_FENCE (1U << 2) /* give a sync_file in out_fence */
#define PEERDMA_SUBMIT_FLUSH	(1U << 5) /* read back what was written last */
#define PEERDMA_SUBMIT_NO_FLUSH	(1U << 6) /* do not, wherever it was written to */

/* Longest time-out that can be asked for, ms */
#define PEERDMA_TIMEOUT_MAX_MS	60000

/**
 * struct peerdma_submit - PEERDMA_SUBMIT: gives work to a channel
 * @operation:	[in] PEERDMA_OP_*
 * @channel:	[in] 0..channels-1; work on one channel starts and ends in order
 * @flags:	[in] PEERDMA_SUBMIT_*, here or in <peerdma_lab.h>
 * @timeout_ms:	[in] when the device counts as dead for this work, ms; 0 for the
 *		default (the module parameter timeout_ms)
 * @source:	[in]
 * @destination:[in]
 * @length:	[in] bytes, 1..
 * @pattern:	[in] for FILL: eight bytes that repeat from the destination's
 *		first byte on, least significant byte first. For CHECKSUM: the
 *		CRC of what comes before, 0 to begin. Else zero
 * @in_fence:	[in] sync_file, with PEERDMA_SUBMIT_IN_FENCE
 * @out_fence:	[out] sync_file, with PEERDMA_SUBMIT_OUT_FENCE
 * @cookie:	[out] names the work for PEERDMA_WAIT, 1..
 *
 * A memory write is posted: that the device has finished does not mean that the
 * bytes have arrived at a peer. Work that writes into an import mapped
 * BIDIRECTIONAL therefore ends with reading the last byte back, which no write
 * overtakes; FLUSH asks for it elsewhere, NO_FLUSH leaves it out.
 *
 * Returns when the work is queued. Before that it waits for @in_fence and for
 * those fences of the buffers that implicit synchronisation demands (a reader
 * for writers, a writer for all; not for work of the same channel, which
 * runs in order anyway). That such a fence ended with an error does not stop
 * ours. A file may have 4096 pieces of work whose result has not been taken (else
 * ENOSPC). ERANGE: past the end of an object. EACCES: against the direction of
 * an object's mapping. ETIME: what it had to wait
 * for took longer than @timeout_ms. An exporter that refuses to map an import
 * has its error passed on (ENODEV: revoked for good).
 */
struct peerdma_submit {
	__u32 operation;
	__u32 channel;
	__u32 flags;
	__u32 timeout_ms;
	struct peerdma_location source;
	struct peerdma_location destination;
	__u64 length;
	__u64 pattern;
	__s32 in_fence;
	__s32 out_fence;
	__u64 cookie;
};

/* struct peerdma_wait.flags */
#define PEERDMA_WAIT_KEEP	(1U << 0) /* the result may be asked for again */

/**
 * struct peerdma_wait - PEERDMA_WAIT: the result of work
 * @cookie:	[in]
 * @timeout_ms:	[in] 0 looks only; at most PEERDMA_TIMEOUT_MAX_MS
 * @flags:	[in] PEERDMA_WAIT_*
 * @error:	[out] 0, or what became of it:
 *		-EIO: the device says that it failed, see @status and @halt;
 *		-EILSEQ: COMPARE found a difference, see @result;
 *		-EPROTO: a completion record that belongs to nothing we asked;
 *		-ETIMEDOUT: it never answered;
 *		-ECANCELED: reset, unbound, or its file was closed
 * @status:	[out] the device's status of the first descriptor that failed, a
 *		PEERDMA_STATUS code of peerdma_regs.h; 0: success
 * @bytes:	[out] bytes done before the first failure
 * @result:	[out] CHECKSUM: the CRC; COMPARE: offset of the first difference
 * @error_address:[out] with -EIO: DMA address of the access that failed
 * @verdict_address:[out] with PEERDMA_SUBMIT_VERDICT: DMA address that @verdict
 *		is about
 * @verdict:	[out] likewise: the first verdict that was not 0, a VERDICT code
 * @verdict_count:[out] likewise: faulty accesses
 * @halt:	[out] with -EIO: why the channel halted, a PEERDMA_HALT code; 0:
 *		it did not
 * @descriptors:[out] descriptors the work was split into
 * @interrupted:[out] 1 if an interrupt brought the news, 0 if polling did
 * @reserved:	zero
 *
 * ETIME if the work has not finished in time; it goes on, the cookie stays.
 */
struct peerdma_wait {
	__u64 cookie;
	__u32 timeout_ms;
	__u32 flags;
	__s32 error;
	__u32 status;
	__u64 bytes;
	__u64 result;
	__u64 error_address;
	__u64 verdict_address;
	__u32 verdict;
	__u32 verdict_count;
	__u32 halt;
	__u32 descriptors;
	__u32 interrupted;
	__u32 reserved;
};

#endif /* _UAPI_PEERDMA_WORK_H */
