// SPDX-License-Identifier: GPL-2.0-only
/*
 * dma-bufs and their attachments from first to last. 7.3 has tracepoints, which are called with
 * the buffer's name_lock held; before that, probes of returns: nothing of it is hot.
 */
#include <linux/err.h>
#include <linux/fs.h>

#include "compat.h"
#include "witness.h"

static u64 inode_of(const struct dma_buf *dmabuf)
{
	return file_inode(dmabuf->file)->i_ino;
}

static void on_export(void *data, struct dma_buf *dmabuf)
{
	struct witness_event event = {
		.kind = WITNESS_EXPORT,
		.direction = DMA_NONE,
		.function = WITNESS_NO_FUNCTION,
		.length = dmabuf->size,
		.group = (uintptr_t)dmabuf->resv,
		.buffer = inode_of(dmabuf),
		.text = dmabuf->exp_name,
	};

	witness_report(&event);
	witness_buffer_add(dmabuf->resv, event.buffer);
}

static void report_attachment(u16 kind, struct dma_buf_attachment *attach, u8 flags,
			      unsigned long from)
{
	struct witness_event event = {
		.kind = kind,
		.direction = DMA_NONE,
		.flags = flags,
		.function = witness_function(attach->dev),
		.length = attach->dmabuf->size,
		.group = (uintptr_t)attach,
		.buffer = inode_of(attach->dmabuf),
		.from = from,
	};

	witness_report(&event);
}

static void on_attach(void *data, struct dma_buf *dmabuf, struct dma_buf_attachment *attach,
		      bool is_dynamic, struct device *dev)
{
	const struct dma_buf_attach_ops *ops = attach->importer_ops;
	u8 flags = 0;

	if (ops && ops->allow_peer2peer)
		flags |= WITNESS_F_PEER2PEER;
	if (ops && ops->invalidate_mappings)
		flags |= WITNESS_F_DYNAMIC;
	report_attachment(WITNESS_ATTACH, attach, flags, 0);
}

static void on_detach(void *data, struct dma_buf *dmabuf, struct dma_buf_attachment *attach,
		      bool is_dynamic, struct device *dev)
{
	report_attachment(WITNESS_DETACH, attach, 0, 0);
}

static int export_returned(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct dma_buf *dmabuf = (void *)regs_return_value(regs);

	if (!IS_ERR_OR_NULL(dmabuf))
		on_export(NULL, dmabuf);
	return 0;
}

static int attach_returned(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct dma_buf_attachment *attach = (void *)regs_return_value(regs);

	if (!IS_ERR_OR_NULL(attach))
		on_attach(NULL, attach->dmabuf, attach, false, attach->dev);
	return 0;
}

/* dma_buf_detach(dmabuf, attach) */
static int detach_entry(struct kprobe *kp, struct pt_regs *regs)
{
	struct dma_buf *dmabuf = (void *)regs_get_kernel_argument(regs, 0);
	struct dma_buf_attachment *attach = (void *)regs_get_kernel_argument(regs, 1);

	if (dmabuf && attach && attach->dmabuf == dmabuf)
		report_attachment(WITNESS_DETACH, attach, 0, witness_from(regs));
	return 0;
}

/* dma_buf_file_release(inode, file): the last reference is gone, the exporter knows not yet. */
static int release_entry(struct kprobe *kp, struct pt_regs *regs)
{
	struct inode *inode = (void *)regs_get_kernel_argument(regs, 0);
	struct file *file = (void *)regs_get_kernel_argument(regs, 1);
	struct dma_buf *dmabuf = file->private_data;
	struct witness_event event = {
		.kind = WITNESS_RELEASE,
		.direction = DMA_NONE,
		.function = WITNESS_NO_FUNCTION,
		.buffer = inode->i_ino,
		.from = witness_from(regs),
	};

	/* An export that failed has none. */
	if (!dmabuf)
		return 0;
	witness_buffer_remove(dmabuf->resv, event.buffer);
	witness_report(&event);
	return 0;
}

static struct witness_tracepoint tracepoints[] = {
	{ "dma_buf_export", on_export, NULL, WITNESS_HOOK_BUF, 0 },
	{ "dma_buf_dynamic_attach", on_attach, NULL, WITNESS_HOOK_BUF, 0 },
	{ "dma_buf_detach", on_detach, NULL, WITNESS_HOOK_BUF, 0 },
};

static struct witness_probe probes[] = {
	{ .name = "dma_buf_file_release", .entry = release_entry,
	  .hook = WITNESS_HOOK_BUF, .set = WITNESS_ANY_SET },
	{ .name = "dma_buf_export", .returned = export_returned,
	  .hook = WITNESS_HOOK_BUF, .set = 1 },
	{ .name = "dma_buf_dynamic_attach", .returned = attach_returned,
	  .hook = WITNESS_HOOK_BUF, .set = 1 },
	{ .name = "dma_buf_detach", .entry = detach_entry, .hook = WITNESS_HOOK_BUF, .set = 1 },
};

const struct witness_hooks witness_hooks_buf = {
	.tracepoints = tracepoints,
	.tracepoint_count = ARRAY_SIZE(tracepoints),
	.probes = probes,
	.probe_count = ARRAY_SIZE(probes),
};
