// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hanging the hooks into the kernel, and watching that none is missed.
 *
 * The kernel does not call a probe while it is in another one on the same CPU; it counts that
 * (nmissed), and so does it with returns for which it has no room left.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/kallsyms.h>
#include <linux/kernel.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "witness.h"

/* How many tasks may be in a function whose return is hooked. None of them is hot. */
#define RETURNS_AT_ONCE	512
/* Bytes of a function that are searched for a call; those in question have less. */
#define TEXT_LIMIT	1024
/* From a function to where a call of it may lead: its prologue's padding, or past an ENDBR. */
#define CALL_SLACK	64

static const struct witness_hooks *const all[] = {
	&witness_hooks_dma, &witness_hooks_alloc, &witness_hooks_iova,
#if IS_ENABLED(CONFIG_DMA_SHARED_BUFFER)
	&witness_hooks_buf, &witness_hooks_map, &witness_hooks_fence,
#endif
};

/* As HOOKS of witness.rs. */
static const char *const names[] = {
	[WITNESS_HOOK_MAP_PHYS] = "dma_map_phys",
	[WITNESS_HOOK_UNMAP_PHYS] = "dma_unmap_phys",
	[WITNESS_HOOK_MAP_SG] = "dma_map_sg",
	[WITNESS_HOOK_UNMAP_SG] = "dma_unmap_sg",
	[WITNESS_HOOK_ALLOC] = "dma_alloc",
	[WITNESS_HOOK_FREE] = "dma_free",
	[WITNESS_HOOK_SYNC] = "dma_sync",
	[WITNESS_HOOK_IOVA_LINK] = "dma_iova_link",
	[WITNESS_HOOK_IOVA_UNLINK] = "dma_iova_unlink",
	[WITNESS_HOOK_BUF] = "dma_buf",
	[WITNESS_HOOK_BUF_MAP] = "dma_buf_map_attachment",
	[WITNESS_HOOK_BUF_UNMAP] = "dma_buf_unmap_attachment",
	[WITNESS_HOOK_BUF_INVALIDATE] = "dma_buf_invalidate_mappings",
	[WITNESS_HOOK_BUF_PIN] = "dma_buf_pin",
	[WITNESS_HOOK_BUF_UNPIN] = "dma_buf_unpin",
	[WITNESS_HOOK_FENCE_ADD] = "dma_resv_add_fence",
	[WITNESS_HOOK_FENCE_SIGNALED] = "dma_fence_signaled",
	[WITNESS_HOOK_BIND] = "bind",
};

const char *witness_hook_name(unsigned int hook)
{
	return hook < ARRAY_SIZE(names) ? names[hook] : NULL;
}

static void poll_missed(struct work_struct *work);
/* Deferrable: it does not wake an idle CPU, on which no hook is missed either. */
static DECLARE_DEFERRABLE_WORK(poll_work, poll_missed);
static DEFINE_MUTEX(poll_lock);

void witness_missed(const char *what, unsigned long count)
{
	struct witness_event event = {
		.kind = WITNESS_MISSED,
		.direction = DMA_NONE,
		.function = WITNESS_NO_FUNCTION,
		.length = count,
		.text = what,
	};

	witness_report(&event);
}

static void check_missed(struct witness_probe *probe)
{
	unsigned long missed;

	if (!probe->on)
		return;
	missed = READ_ONCE(probe->rp.kp.nmissed) + READ_ONCE(probe->rp.nmissed);
	if (missed == probe->reported)
		return;
	witness_missed(probe->name, missed - probe->reported);
	probe->reported = missed;
}

static void check_all(void)
{
	unsigned int i, k;

	guard(mutex)(&poll_lock);
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		for (k = 0; k < all[i]->probe_count; k++)
			check_missed(&all[i]->probes[k]);
	}
}

static void poll_missed(struct work_struct *work)
{
	check_all();
	schedule_delayed_work(&poll_work, HZ / 4);
}

/*
 * Whether the function at @outer calls the one at @inner. If not, the compiler has put a copy
 * of the latter into it, which a probe of the latter does not see.
 */
static bool calls(const u8 *outer, const u8 *inner)
{
	unsigned long size, offset;
	char symbol[64];
	const char *slash;

	/* "name+0x4/0x5e": there is no other way for a module to learn a function's size. */
	snprintf(symbol, sizeof(symbol), "%pS", outer);
	slash = strchr(symbol, '/');
	if (!slash || sscanf(slash, "/0x%lx", &size) != 1)
		size = TEXT_LIMIT;
	for (offset = 0; offset + 5 <= min(size, TEXT_LIMIT); offset++) {
		const u8 *target;
		u8 code[5];
		s32 far;

		if (copy_from_kernel_nofault(code, outer + offset, sizeof(code)))
			break;
		/* CALL rel32 */
		if (code[0] != 0xe8)
			continue;
		memcpy(&far, code + 1, sizeof(far));
		target = outer + offset + 5 + far;
		if (target >= inner - CALL_SLACK && target <= inner + CALL_SLACK)
			return true;
	}
	return false;
}

/*
 * Keeps a probe from being turned into a jump. Interrupts are on in the code that a jump leads
 * to, and a probe that an interrupt meets meanwhile would be missed; with a breakpoint they are
 * off. Besides, code is then changed when this module is loaded and at no other time.
 */
static void no_jump(struct kprobe *kp, struct pt_regs *regs, unsigned long flags)
{
}

static int register_probe(struct witness_probe *probe)
{
	int ret;

	memset(&probe->rp, 0, sizeof(probe->rp));
	probe->reported = 0;
	probe->rp.kp.symbol_name = probe->inlined_in ? probe->inlined_in : probe->name;
	if (probe->returned) {
		probe->rp.handler = probe->returned;
		probe->rp.entry_handler = probe->at_entry;
		probe->rp.maxactive = RETURNS_AT_ONCE;
		probe->rp.data_size = sizeof(struct witness_arguments);
		ret = register_kretprobe(&probe->rp);
	} else {
		probe->rp.kp.pre_handler = probe->entry;
		probe->rp.kp.post_handler = no_jump;
		ret = register_kprobe(&probe->rp.kp);
	}
	probe->on = !ret;
	return ret;
}

static void unregister_probe(struct witness_probe *probe)
{
	if (!probe->on)
		return;
	if (probe->returned)
		unregister_kretprobe(&probe->rp);
	else
		unregister_kprobe(&probe->rp.kp);
	probe->on = false;
}

static void unregister_tracepoint(struct witness_tracepoint *tp)
{
	if (tp->tp)
		tracepoint_probe_unregister(tp->tp, tp->func, tp->data);
	tp->tp = NULL;
}

static void match(struct tracepoint *tp, void *data)
{
	struct witness_tracepoint *wanted = data;

	if (!strcmp(tp->name, wanted->name))
		wanted->tp = tp;
}

static int register_tracepoint(struct witness_tracepoint *tp)
{
	int ret;

	tp->tp = NULL;
	for_each_kernel_tracepoint(match, tp);
	if (!tp->tp)
		return -ENOENT;
	ret = tracepoint_probe_register(tp->tp, tp->func, tp->data);
	if (ret)
		tp->tp = NULL;
	return ret;
}

static bool is_member(u8 of_hook, u8 of_set, unsigned int hook, unsigned int set)
{
	return of_hook == hook && (of_set == set || of_set == WITNESS_ANY_SET);
}

static void detach_set(unsigned int hook, unsigned int set)
{
	unsigned int i, k;

	for (i = 0; i < ARRAY_SIZE(all); i++) {
		for (k = 0; k < all[i]->tracepoint_count; k++) {
			struct witness_tracepoint *tp = &all[i]->tracepoints[k];

			if (is_member(tp->hook, tp->set, hook, set))
				unregister_tracepoint(tp);
		}
		for (k = 0; k < all[i]->probe_count; k++) {
			struct witness_probe *probe = &all[i]->probes[k];

			if (is_member(probe->hook, probe->set, hook, set))
				unregister_probe(probe);
		}
	}
}

/* A probe of an inlined copy comes behind that of the function itself, which must be on. */
static int attach_probe(struct witness_probe *probes, unsigned int k)
{
	struct witness_probe *probe = &probes[k];
	int ret = register_probe(probe);

	/* No such function, no copy of another in it. */
	if (probe->inlined_in && ret == -ENOENT)
		return 0;
	if (ret || !probe->inlined_in)
		return ret;
	if (calls((u8 *)probe->rp.kp.addr, (u8 *)probes[k - 1].rp.kp.addr))
		unregister_probe(probe);
	return 0;
}

/* Return: how many members the set has, all attached; 0 if one of them cannot be had. */
static unsigned int attach_set(unsigned int hook, unsigned int set)
{
	unsigned int i, k, own = 0;

	for (i = 0; i < ARRAY_SIZE(all); i++) {
		for (k = 0; k < all[i]->tracepoint_count; k++) {
			struct witness_tracepoint *tp = &all[i]->tracepoints[k];

			if (!is_member(tp->hook, tp->set, hook, set))
				continue;
			if (register_tracepoint(tp))
				goto err;
			own += tp->set == set;
		}
		for (k = 0; k < all[i]->probe_count; k++) {
			struct witness_probe *probe = &all[i]->probes[k];

			if (!is_member(probe->hook, probe->set, hook, set))
				continue;
			if (attach_probe(all[i]->probes, k))
				goto err;
			own += probe->set == set;
		}
	}
	return own;

err:
	detach_set(hook, set);
	return 0;
}

/**
 * witness_hooks_attach() - Hang in all that this kernel has
 *
 * Return: a bit for each hook of enum witness_hook that is complete.
 */
u64 witness_hooks_attach(void)
{
	unsigned int hook, set;
	u64 have = 0;

	for (hook = 0; hook < ARRAY_SIZE(names); hook++) {
		for (set = 0; set < WITNESS_SETS; set++) {
			if (attach_set(hook, set)) {
				have |= BIT_ULL(hook);
				break;
			}
		}
	}
	schedule_delayed_work(&poll_work, HZ / 4);
	return have;
}

/* When it returns no hook runs any more. */
void witness_hooks_detach(void)
{
	unsigned int i, k;

	cancel_delayed_work_sync(&poll_work);
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		for (k = 0; k < all[i]->tracepoint_count; k++)
			unregister_tracepoint(&all[i]->tracepoints[k]);
	}
	check_all();
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		for (k = 0; k < all[i]->probe_count; k++)
			unregister_probe(&all[i]->probes[k]);
	}
	tracepoint_synchronize_unregister();
}
