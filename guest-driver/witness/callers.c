// SPDX-License-Identifier: GPL-2.0-only
/* On whose behalf: the first function on the stack that is not of the DMA API or dma-buf. */
#include <linux/hash.h>
#include <linux/irqflags.h>
#include <linux/kallsyms.h>
#include <linux/module.h>
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

/* What was looked up before: that takes longer than all the rest, and repeats itself. */
#define KNOWN_BITS	8

struct known {
	unsigned long address;
	unsigned int generation;
	bool is_skipped;
	char symbol[sizeof_field(struct witness_event, symbol)];
};

struct scratch {
	unsigned long stack[32];
	char symbol[KSYM_SYMBOL_LEN];
	struct known known[1 << KNOWN_BITS];
};

/* Changes when a module comes or goes: another one may get its addresses. From 1. */
static unsigned int generation = 1;

/* Too large for the per-CPU area that a module brings. */
static struct scratch __percpu *scratches;

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
	struct known *known = &scratch->known[hash_long(address, KNOWN_BITS)];
	unsigned int now = READ_ONCE(generation);

	if (known->address != address || known->generation != now) {
		/* A return address may lie behind the function that never returns. */
		sprint_symbol_no_offset(scratch->symbol, address - 1);
		known->address = address;
		known->generation = now;
		known->is_skipped = is_skipped(scratch->symbol);
		strscpy(known->symbol, scratch->symbol, sizeof(known->symbol));
	}
	if (known->is_skipped)
		return false;
	event->caller = address;
	memcpy(event->symbol, known->symbol, sizeof(event->symbol));
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
	scratch = this_cpu_ptr(scratches);
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

static int modules_change(struct notifier_block *nb, unsigned long action, void *data)
{
	WRITE_ONCE(generation, generation + 1);
	return NOTIFY_DONE;
}

/* Its chain is called by one at a time. */
static struct notifier_block notifier = { .notifier_call = modules_change };

int witness_callers_attach(void)
{
	int ret;

	scratches = alloc_percpu(struct scratch);
	if (!scratches)
		return -ENOMEM;
	ret = register_module_notifier(&notifier);
	if (ret)
		free_percpu(scratches);
	return ret;
}

void witness_callers_detach(void)
{
	unregister_module_notifier(&notifier);
	free_percpu(scratches);
}
