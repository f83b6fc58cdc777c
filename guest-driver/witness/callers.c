// SPDX-License-Identifier: GPL-2.0-only
/* On whose behalf: the first function on the stack that is not of the DMA API or dma-buf. */
#include <linux/irqflags.h>
#include <linux/kallsyms.h>
#include <linux/percpu.h>
#include <linux/stacktrace.h>
#include <linux/string.h>

#include "witness.h"

bool witness_callers;

/* Built-in functions that are not the caller: of the API, and of how hooks are called. */
static const char * const skipped[] = {
	"dma_", "__dma_", "dmam_", "iommu_dma_", "debug_dma_", "pci_p2pdma_", "pcim_p2pdma_",
	"swiotlb_", "blk_rq_dma_map_", "__traceiter_", "__SCT__", "kprobe_", "kretprobe_",
	"aggr_pre_handler",
	"opt_pre_handler", "optimized_callback", "optprobe_", "arch_rethook_", "rethook_",
	"ftrace_", "do_int3", "exc_int3", "asm_exc_int3", "stack_trace_", "arch_stack_walk",
	/* Of a trampoline, without a symbol. */
	"0x",
};

struct scratch {
	unsigned long stack[32];
	char symbol[KSYM_SYMBOL_LEN];
};

static DEFINE_PER_CPU(struct scratch, scratches);

static bool is_skipped(const char *symbol)
{
	const char *module = strstr(symbol, " [");
	unsigned int i;

	/* A driver's functions may be called as it likes. */
	if (module)
		return !strcmp(module, " [" KBUILD_MODNAME "]");
	for (i = 0; i < ARRAY_SIZE(skipped); i++) {
		if (strstarts(symbol, skipped[i]))
			return true;
	}
	return false;
}

static bool take(struct witness_event *event, struct scratch *scratch, unsigned long address)
{
	/* A return address may lie behind the function that never returns. */
	sprint_symbol_no_offset(scratch->symbol, address - 1);
	if (is_skipped(scratch->symbol))
		return false;
	event->caller = address;
	strscpy(event->symbol, scratch->symbol, sizeof(event->symbol));
	return true;
}

/**
 * witness_find_caller() - Look up who asked for what an event reports
 * @event: gets the address and the symbol, or stays as it is
 */
void witness_find_caller(struct witness_event *event)
{
	struct scratch *scratch;
	unsigned int count, i;
	unsigned long flags;

	local_irq_save(flags);
	scratch = this_cpu_ptr(&scratches);
	if (event->from && take(event, scratch, event->from))
		goto out;
	/* Without this function and witness_report(). */
	count = stack_trace_save(scratch->stack, ARRAY_SIZE(scratch->stack), 2);
	for (i = 0; i < count; i++) {
		if (take(event, scratch, scratch->stack[i]))
			break;
	}
out:
	local_irq_restore(flags);
}
