// SPDX-License-Identifier: GPL-2.0-only
/* Loading and unloading: in this order, so that a driver that is seen to bind is seen whole. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/log2.h>
#include <linux/module.h>
#include <linux/ioport.h>

#include "witness.h"

static unsigned int entries = 1024;
module_param(entries, uint, 0444);
MODULE_PARM_DESC(entries, "Records in each CPU's ring: a power of two, up to 65536");
module_param_named(callers, witness_callers, bool, 0644);
MODULE_PARM_DESC(callers, "Whether records name who called; costs as much again as all the rest");

static u64 have;

/* What is missing, on one line. */
static void tell(void)
{
	static char lacks[512] __initdata;
	unsigned int hook, count = 0;
	size_t length = 0;

	for (hook = 0; witness_hook_name(hook); hook++) {
		if (have & BIT_ULL(hook)) {
			count++;
			continue;
		}
		length += scnprintf(lacks + length, sizeof(lacks) - length, "%s%s",
				    length ? ", " : "", witness_hook_name(hook));
	}
	if (length)
		pr_info("%u hooks; this kernel has no way to see %s\n", count, lacks);
	else
		pr_info("%u hooks\n", count);
}

static void report_loaded(void)
{
	struct witness_event event = {
		.kind = WITNESS_LOADED,
		.direction = DMA_NONE,
		.function = WITNESS_NO_FUNCTION,
		.address = have,
	};

	witness_report(&event);
}

static int __init witness_init(void)
{
	int ret;

	if (!is_power_of_2(entries) || entries > WITNESS_MAX_ENTRIES) {
		pr_err("entries=%u: a power of two up to %u\n", entries, WITNESS_MAX_ENTRIES);
		return -EINVAL;
	}
	if (!IS_ENABLED(CONFIG_TRACEPOINTS)) {
		pr_info("this kernel has no tracepoints (CONFIG_TRACEPOINTS)\n");
		return -EOPNOTSUPP;
	}
	ret = witness_rings_attach(entries);
	if (ret)
		return ret;
	ret = witness_callers_attach();
	if (ret)
		goto err_rings;
	/* The notifier comes last: what binds from then on has all hooks. */
	have = witness_hooks_attach() | BIT_ULL(WITNESS_HOOK_BIND);
	report_loaded();
	ret = witness_bind_attach();
	if (ret)
		goto err_hooks;
	tell();
	return 0;

err_hooks:
	witness_hooks_detach();
	witness_callers_detach();
err_rings:
	witness_rings_detach();
	return ret;
}

static void __exit witness_exit(void)
{
	witness_bind_detach();
	witness_hooks_detach();
	witness_callers_detach();
	witness_rings_detach();
}

module_init(witness_init);
module_exit(witness_exit);

MODULE_DESCRIPTION("Tells a peerdma VMM what the kernel maps for DMA");
MODULE_LICENSE("GPL");
