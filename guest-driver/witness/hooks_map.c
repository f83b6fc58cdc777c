// SPDX-License-Identifier: GPL-2.0-only
/*
 * What importers do with an attachment. The table that dma_buf_map_attachment() returns is the
 * record of a mapping, whichever way the exporter made it: a bus address needs no call of the
 * DMA API.
 */
#include <linux/err.h>
#include <linux/fs.h>

#include "compat.h"
#include "witness.h"

static struct witness_event event_of(u16 kind, const struct dma_buf_attachment *attach)
{
	return (struct witness_event) {
		.kind = kind,
		.direction = DMA_NONE,
		.function = witness_function(attach->dev),
		.group = (uintptr_t)attach,
		.buffer = file_inode(attach->dmabuf->file)->i_ino,
	};
}

/* dma_buf_map_attachment(attach, direction) */
static int at_map(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct witness_arguments *arguments = (void *)instance->data;

	arguments->arg[0] = regs_get_kernel_argument(regs, 0);
	arguments->arg[1] = regs_get_kernel_argument(regs, 1);
	return 0;
}

static int map_returned(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct witness_arguments *arguments = (void *)instance->data;
	struct sg_table *sgt = (void *)regs_return_value(regs);
	struct witness_event event;

	if (IS_ERR_OR_NULL(sgt))
		return 0;
	event = event_of(WITNESS_BUFFER_MAP, (void *)arguments->arg[0]);
	event.direction = arguments->arg[1];
	witness_report_list(&event, sgt->sgl, sgt->nents);
	return 0;
}

/* dma_buf_unmap_attachment(attach, sgt, direction) */
static int unmap_entry(struct kprobe *kp, struct pt_regs *regs)
{
	struct dma_buf_attachment *attach = (void *)regs_get_kernel_argument(regs, 0);
	struct sg_table *sgt = (void *)regs_get_kernel_argument(regs, 1);
	struct witness_event event;
	struct scatterlist *sg;
	int i;

	if (!attach || !attach->dmabuf || !sgt)
		return 0;
	event = event_of(WITNESS_BUFFER_UNMAP, attach);
	event.from = witness_from(regs);
	event.direction = regs_get_kernel_argument(regs, 2);
	/* Which table, should there be two. */
	event.address = sg_dma_address(sgt->sgl);
	for_each_sgtable_dma_sg(sgt, sg, i)
		event.length += sg_dma_len(sg);
	witness_report(&event);
	return 0;
}

static void report_pin(u16 kind, struct pt_regs *regs)
{
	struct witness_event event = event_of(kind, (void *)regs_get_kernel_argument(regs, 0));

	event.from = witness_from(regs);
	witness_report(&event);
}

/* dma_buf_pin(attach) */
static int pin_entry(struct kprobe *kp, struct pt_regs *regs)
{
	report_pin(WITNESS_PIN, regs);
	return 0;
}

/* dma_buf_unpin(attach) */
static int unpin_entry(struct kprobe *kp, struct pt_regs *regs)
{
	report_pin(WITNESS_UNPIN, regs);
	return 0;
}

static struct witness_probe probes[] = {
	{ .name = "dma_buf_map_attachment", .at_entry = at_map, .returned = map_returned,
	  .hook = WITNESS_HOOK_BUF_MAP },
	{ .name = "dma_buf_map_attachment", .inlined_in = "dma_buf_map_attachment_unlocked",
	  .at_entry = at_map, .returned = map_returned, .hook = WITNESS_HOOK_BUF_MAP },
	{ .name = "dma_buf_unmap_attachment", .entry = unmap_entry,
	  .hook = WITNESS_HOOK_BUF_UNMAP },
	{ .name = "dma_buf_unmap_attachment", .inlined_in = "dma_buf_unmap_attachment_unlocked",
	  .entry = unmap_entry, .hook = WITNESS_HOOK_BUF_UNMAP },
	{ .name = "dma_buf_pin", .entry = pin_entry, .hook = WITNESS_HOOK_BUF_PIN },
	{ .name = "dma_buf_unpin", .entry = unpin_entry, .hook = WITNESS_HOOK_BUF_UNPIN },
};

const struct witness_hooks witness_hooks_map = {
	.probes = probes,
	.probe_count = ARRAY_SIZE(probes),
};
