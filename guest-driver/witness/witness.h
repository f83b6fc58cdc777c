/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The witness: what its files share. README.md says what each hook means for the VMM.
 *
 * A hook runs wherever the kernel maps memory: with spinlocks held, in interrupts, on all CPUs
 * at once. It never sleeps and never allocates. The only lock is that of buffers.c.
 */
#ifndef DMA_WITNESS_H
#define DMA_WITNESS_H

#include <linux/device.h>
#include <linux/dma-direction.h>
#include <linux/kprobes.h>
#include <linux/ptrace.h>
#include <linux/scatterlist.h>
#include <linux/tracepoint.h>
#include <linux/types.h>

#include "wire.h"

/* What a record says. The rest (ticket, time, CPU, task) is filled in by witness_report(). */
struct witness_event {
	u16 kind;
	u8 direction;
	u8 flags;
	u32 function;
	u64 address;
	u64 length;
	/* 0: the record's own ticket. */
	u64 group;
	u64 buffer;
	/* NULL: the caller's symbol, where callers are asked for. */
	const char *text;
	/* At a function's entry, where stack walks miss it: its return address. */
	unsigned long from;
	/* Looked up by the first report, kept for the next one of the same event. */
	unsigned long caller;
	char symbol[sizeof_field(struct witness_record, text)];
};

/* ring.c */
int witness_rings_attach(unsigned int entries);
void witness_rings_detach(void);
u64 witness_report(struct witness_event *event);

/* callers.c */
extern bool witness_callers;

static inline unsigned long witness_from(struct pt_regs *regs)
{
	return regs_get_kernel_stack_nth(regs, 0);
}

int witness_callers_attach(void);
void witness_callers_detach(void);
void witness_find_caller(struct witness_event *event);

/* identity.c */
u32 witness_function(const struct device *dev);

/*
 * A hook of enum witness_hook has one or more sets of members, for different kernels. The
 * first set whose members can all be had is taken.
 */
#define WITNESS_SETS	2
#define WITNESS_ANY_SET	WITNESS_SETS

struct witness_tracepoint {
	const char *name;
	void *func;
	void *data;
	u8 hook;
	u8 set;
	struct tracepoint *tp;
};

struct witness_probe {
	const char *name;
	/* At the function's entry: @entry. At its return, if @returned: @at_entry, then that. */
	int (*entry)(struct kprobe *kp, struct pt_regs *regs);
	int (*at_entry)(struct kretprobe_instance *instance, struct pt_regs *regs);
	int (*returned)(struct kretprobe_instance *instance, struct pt_regs *regs);
	/* The function whose copy of this one the compiler may have inlined; see attach.c. */
	const char *inlined_in;
	u8 hook;
	u8 set;
	bool on;
	unsigned long reported;
	struct kretprobe rp;
};

struct witness_hooks {
	struct witness_tracepoint *tracepoints;
	unsigned int tracepoint_count;
	struct witness_probe *probes;
	unsigned int probe_count;
};

extern const struct witness_hooks witness_hooks_dma;
extern const struct witness_hooks witness_hooks_alloc;
extern const struct witness_hooks witness_hooks_iova;
extern const struct witness_hooks witness_hooks_buf;
extern const struct witness_hooks witness_hooks_map;
extern const struct witness_hooks witness_hooks_fence;

/* attach.c */
u64 witness_hooks_attach(void);
void witness_hooks_detach(void);
const char *witness_hook_name(unsigned int hook);

/* What a probe on a return keeps of the arguments. */
struct witness_arguments {
	unsigned long arg[4];
};

/* hooks_bind.c */
int witness_bind_attach(void);
void witness_bind_detach(void);

/* buffers.c: dma-bufs by their reservation object. */
struct dma_fence;
struct dma_resv;
void witness_buffer_add(struct dma_resv *resv, u64 inode);
void witness_buffer_remove(struct dma_resv *resv, u64 inode);
void witness_buffers_fence(struct dma_resv *resv, struct dma_fence *fence, unsigned int usage,
			   unsigned long from);
void witness_report_fence(struct dma_resv *resv, u64 inode, struct dma_fence *fence,
			  unsigned int usage, unsigned long from);

/* Hooks were missed, or a table of ours was too small. */
void witness_missed(const char *what, unsigned long count);

/* hooks_dma.c: one record for each DMA segment of a list of at most @count. */
void witness_report_list(struct witness_event *event, struct scatterlist *sgl, int count);

#endif
