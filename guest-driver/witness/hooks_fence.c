// SPDX-License-Identifier: GPL-2.0-only
/* What ends an importer's access after the exporter has invalidated its mappings. */
#include <linux/dma-fence.h>
#include <linux/dma-resv.h>
#include <linux/fs.h>

#include "compat.h"
#include "witness.h"

static void on_signaled(void *data, struct dma_fence *fence)
{
	struct witness_event event = {
		.kind = WITNESS_FENCE_SIGNALED,
		.direction = DMA_NONE,
		.function = WITNESS_NO_FUNCTION,
		.address = (uintptr_t)fence,
	};

	witness_report(&event);
}

/**
 * witness_report_fence() - A fence guards a buffer
 * @resv: the buffer's reservation object
 * @inode: the buffer
 * @fence: the fence
 * @usage: its enum dma_resv_usage
 * @from: the return address of the function that was hooked
 */
void witness_report_fence(struct dma_resv *resv, u64 inode, struct dma_fence *fence,
			  unsigned int usage, unsigned long from)
{
	struct witness_event event = {
		.kind = WITNESS_FENCE_ADD,
		.direction = DMA_NONE,
		.function = WITNESS_NO_FUNCTION,
		.address = (uintptr_t)fence,
		.length = usage,
		.group = (uintptr_t)resv,
		.buffer = inode,
		.from = from,
	};

	witness_report(&event);
	/*
	 * One that has signalled already will not do so again. If it does at this moment the VMM
	 * reads it twice.
	 */
	if (test_bit(DMA_FENCE_FLAG_SIGNALED_BIT, &fence->flags))
		on_signaled(NULL, fence);
}

/* dma_resv_add_fence(resv, fence, usage) */
static int add_entry(struct kprobe *kp, struct pt_regs *regs)
{
	witness_buffers_fence((void *)regs_get_kernel_argument(regs, 0),
			      (void *)regs_get_kernel_argument(regs, 1),
			      regs_get_kernel_argument(regs, 2), witness_from(regs));
	return 0;
}

/*
 * dma_buf_invalidate_mappings(dmabuf). All fences that the buffer has at this moment are
 * reported first: those from before it was exported, or that replaced others, came without a
 * call of dma_resv_add_fence() for it.
 */
static int invalidate_entry(struct kprobe *kp, struct pt_regs *regs)
{
	struct dma_buf *dmabuf = (void *)regs_get_kernel_argument(regs, 0);
	u64 inode = file_inode(dmabuf->file)->i_ino;
	struct witness_event event = {
		.kind = WITNESS_INVALIDATE,
		.direction = DMA_NONE,
		.function = WITNESS_NO_FUNCTION,
		.length = dmabuf->size,
		.group = (uintptr_t)dmabuf->resv,
		.from = witness_from(regs),
		.buffer = inode,
	};
	struct dma_resv_iter cursor;
	struct dma_fence *fence;

	/* The exporter holds it, or has a bug that lockdep finds. */
	if (dma_resv_is_locked(dmabuf->resv)) {
		dma_resv_for_each_fence(&cursor, dmabuf->resv, DMA_RESV_USAGE_BOOKKEEP, fence) {
			if (!test_bit(DMA_FENCE_FLAG_SIGNALED_BIT, &fence->flags))
				witness_report_fence(dmabuf->resv, inode, fence,
						     dma_resv_iter_usage(&cursor), event.from);
		}
	}
	witness_report(&event);
	return 0;
}

static struct witness_tracepoint tracepoints[] = {
	{ "dma_fence_signaled", on_signaled, NULL, WITNESS_HOOK_FENCE_SIGNALED, 0 },
};

static struct witness_probe probes[] = {
	{ .name = "dma_resv_add_fence", .entry = add_entry, .hook = WITNESS_HOOK_FENCE_ADD },
	{ .name = "dma_buf_invalidate_mappings", .entry = invalidate_entry,
	  .hook = WITNESS_HOOK_BUF_INVALIDATE, .set = 0 },
	{ .name = "dma_buf_move_notify", .entry = invalidate_entry,
	  .hook = WITNESS_HOOK_BUF_INVALIDATE, .set = 1 },
};

const struct witness_hooks witness_hooks_fence = {
	.tracepoints = tracepoints,
	.tracepoint_count = ARRAY_SIZE(tracepoints),
	.probes = probes,
	.probe_count = ARRAY_SIZE(probes),
};
