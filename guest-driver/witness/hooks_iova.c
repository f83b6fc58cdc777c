// SPDX-License-Identifier: GPL-2.0-only
/*
 * dma_iova_link() and its opposite have no tracepoints. Both are seen at their entry: a link
 * that fails leaves a mapping of which the IOMMU knows nothing.
 */
#include "compat.h"
#include "witness.h"

static void report(struct pt_regs *regs, u16 kind, const struct dma_iova_state *state,
		   size_t offset, size_t size, enum dma_data_direction dir, unsigned long attrs)
{
	struct witness_event event = {
		.kind = kind,
		.direction = dir,
		.flags = attrs & DMA_ATTR_MMIO ? WITNESS_F_MMIO : 0,
		/* The first argument of all of them. */
		.function = witness_function((void *)regs_get_kernel_argument(regs, 0)),
		.address = state->addr + offset,
		.length = size,
		.group = (uintptr_t)state,
		.from = witness_from(regs),
	};

	witness_report(&event);
}

/* dma_iova_link(dev, state, phys, offset, size, dir, attrs) */
static int link_entry(struct kprobe *kp, struct pt_regs *regs)
{
	report(regs, WITNESS_MAP, (void *)regs_get_kernel_argument(regs, 1),
	       regs_get_kernel_argument(regs, 3), regs_get_kernel_argument(regs, 4),
	       regs_get_kernel_argument(regs, 5), regs_get_kernel_argument(regs, 6));
	return 0;
}

/* dma_iova_unlink(dev, state, offset, size, dir, attrs) */
static int unlink_entry(struct kprobe *kp, struct pt_regs *regs)
{
	report(regs, WITNESS_UNMAP, (void *)regs_get_kernel_argument(regs, 1),
	       regs_get_kernel_argument(regs, 2), regs_get_kernel_argument(regs, 3),
	       regs_get_kernel_argument(regs, 4), regs_get_kernel_argument(regs, 5));
	return 0;
}

/* dma_iova_destroy(dev, state, mapped_len, dir, attrs), with a copy of the former in it */
static int destroy_entry(struct kprobe *kp, struct pt_regs *regs)
{
	size_t size = regs_get_kernel_argument(regs, 2);

	if (size)
		report(regs, WITNESS_UNMAP, (void *)regs_get_kernel_argument(regs, 1), 0, size,
		       regs_get_kernel_argument(regs, 3), regs_get_kernel_argument(regs, 4));
	return 0;
}

static struct witness_probe probes[] = {
	{ .name = "dma_iova_link", .entry = link_entry, .hook = WITNESS_HOOK_IOVA_LINK },
	{ .name = "dma_iova_unlink", .entry = unlink_entry, .hook = WITNESS_HOOK_IOVA_UNLINK },
	{ .name = "dma_iova_unlink", .inlined_in = "dma_iova_destroy", .entry = destroy_entry,
	  .hook = WITNESS_HOOK_IOVA_UNLINK },
};

const struct witness_hooks witness_hooks_iova = {
	.probes = probes,
	.probe_count = ARRAY_SIZE(probes),
};
