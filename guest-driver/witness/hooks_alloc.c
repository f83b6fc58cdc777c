// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that the DMA API allocates. What dma_alloc_coherent() gives is coherent and for both
 * directions; dma_alloc_pages() and dma_alloc_noncontiguous() give memory that is mapped as if
 * by dma_map_phys(), and synced by the same rules.
 *
 * 6.12 traces the first kind only, without a direction: the handlers take no argument behind
 * the size.
 */
#include <linux/err.h>

#include "compat.h"
#include "witness.h"

static void report(u16 kind, u8 flags, struct device *dev, dma_addr_t addr, size_t size,
		   enum dma_data_direction dir)
{
	struct witness_event event = {
		.kind = kind,
		.direction = dir,
		.flags = flags,
		.function = witness_function(dev),
		.address = addr,
		.length = size,
	};

	witness_report(&event);
}

static void on_alloc(void *data, struct device *dev, void *virt, dma_addr_t addr, size_t size)
{
	if (virt)
		report(WITNESS_MAP, WITNESS_F_COHERENT, dev, addr, size, DMA_BIDIRECTIONAL);
}

static void on_free(void *data, struct device *dev, void *virt, dma_addr_t addr, size_t size)
{
	if (virt)
		report(WITNESS_UNMAP, WITNESS_F_COHERENT, dev, addr, size, DMA_BIDIRECTIONAL);
}

static void on_alloc_pages(void *data, struct device *dev, void *virt, dma_addr_t addr,
			   size_t size, enum dma_data_direction dir, gfp_t gfp,
			   unsigned long attrs)
{
	if (virt)
		report(WITNESS_MAP, 0, dev, addr, size, dir);
}

static void on_free_pages(void *data, struct device *dev, void *virt, dma_addr_t addr, size_t size,
			  enum dma_data_direction dir, unsigned long attrs)
{
	report(WITNESS_UNMAP, 0, dev, addr, size, dir);
}

static void on_alloc_sgt(void *data, struct device *dev, struct sg_table *sgt, size_t size,
			 enum dma_data_direction dir, gfp_t gfp, unsigned long attrs)
{
	/* One DMA segment, always. */
	report(WITNESS_MAP, 0, dev, sg_dma_address(sgt->sgl), size, dir);
}

static void on_free_sgt(void *data, struct device *dev, struct sg_table *sgt, size_t size,
			enum dma_data_direction dir)
{
	report(WITNESS_UNMAP, 0, dev, sg_dma_address(sgt->sgl), size, dir);
}

/* Of dma_alloc_pages(dev, size, dma_handle, dir), dma_alloc_noncontiguous(dev, size, dir). */
static int at_alloc(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct witness_arguments *arguments = (void *)instance->data;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(arguments->arg); i++)
		arguments->arg[i] = regs_get_kernel_argument(regs, i);
	return 0;
}

static int alloc_pages_returned(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct witness_arguments *arguments = (void *)instance->data;

	if (regs_return_value(regs))
		report(WITNESS_MAP, 0, (void *)arguments->arg[0], *(dma_addr_t *)arguments->arg[2],
		       arguments->arg[1], arguments->arg[3]);
	return 0;
}

static int alloc_sgt_returned(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct witness_arguments *arguments = (void *)instance->data;
	struct sg_table *sgt = (void *)regs_return_value(regs);

	if (sgt)
		report(WITNESS_MAP, 0, (void *)arguments->arg[0], sg_dma_address(sgt->sgl),
		       arguments->arg[1], arguments->arg[2]);
	return 0;
}

/* dma_free_pages(dev, size, page, dma_handle, dir) */
static int free_pages_entry(struct kprobe *kp, struct pt_regs *regs)
{
	report(WITNESS_UNMAP, 0, (void *)regs_get_kernel_argument(regs, 0),
	       regs_get_kernel_argument(regs, 3), regs_get_kernel_argument(regs, 1),
	       regs_get_kernel_argument(regs, 4));
	return 0;
}

/* dma_free_noncontiguous(dev, size, sgt, dir) */
static int free_sgt_entry(struct kprobe *kp, struct pt_regs *regs)
{
	struct sg_table *sgt = (void *)regs_get_kernel_argument(regs, 2);

	report(WITNESS_UNMAP, 0, (void *)regs_get_kernel_argument(regs, 0),
	       sg_dma_address(sgt->sgl), regs_get_kernel_argument(regs, 1),
	       regs_get_kernel_argument(regs, 3));
	return 0;
}

static struct witness_tracepoint tracepoints[] = {
	{ "dma_alloc", on_alloc, NULL, WITNESS_HOOK_ALLOC, WITNESS_ANY_SET },
	{ "dma_alloc_pages", on_alloc_pages, NULL, WITNESS_HOOK_ALLOC, 0 },
	{ "dma_alloc_sgt", on_alloc_sgt, NULL, WITNESS_HOOK_ALLOC, 0 },
	{ "dma_free", on_free, NULL, WITNESS_HOOK_FREE, WITNESS_ANY_SET },
	{ "dma_free_pages", on_free_pages, NULL, WITNESS_HOOK_FREE, 0 },
	{ "dma_free_sgt", on_free_sgt, NULL, WITNESS_HOOK_FREE, 0 },
};

static struct witness_probe probes[] = {
	{ .name = "dma_alloc_pages", .at_entry = at_alloc, .returned = alloc_pages_returned,
	  .hook = WITNESS_HOOK_ALLOC, .set = 1 },
	{ .name = "dma_alloc_noncontiguous", .at_entry = at_alloc,
	  .returned = alloc_sgt_returned, .hook = WITNESS_HOOK_ALLOC, .set = 1 },
	{ .name = "dma_free_pages", .entry = free_pages_entry,
	  .hook = WITNESS_HOOK_FREE, .set = 1 },
	{ .name = "dma_free_noncontiguous", .entry = free_sgt_entry,
	  .hook = WITNESS_HOOK_FREE, .set = 1 },
};

const struct witness_hooks witness_hooks_alloc = {
	.tracepoints = tracepoints,
	.tracepoint_count = ARRAY_SIZE(tracepoints),
	.probes = probes,
	.probe_count = ARRAY_SIZE(probes),
};
