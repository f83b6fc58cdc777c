// SPDX-License-Identifier: GPL-2.0-only
/*
 * One ring per CPU. Interrupts are off from a record's ticket to its commit, so that nothing
 * on this CPU comes in between; no other CPU writes here.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/irqflags.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/timekeeping.h>

#include "witness.h"

struct witness_ring {
	struct witness_record *records;
	struct witness_slot *slot;
	u32 head;
};

static DEFINE_PER_CPU(struct witness_ring, rings);
static struct witness_header *header;
static size_t header_size;
static size_t ring_size;
static u32 ring_entries;
static atomic64_t tickets;

static bool has_room(const struct witness_ring *ring)
{
	/* The VMM has read what it lets us overwrite. */
	return ring->head - smp_load_acquire(&ring->slot->tail) < ring_entries;
}

/* A probe's breakpoint counts as an NMI, and as an interrupt. */
static bool is_task(void)
{
	unsigned long interrupts = hardirq_count();

	if (in_nmi())
		interrupts -= HARDIRQ_OFFSET;
	return !interrupts && !in_serving_softirq();
}

static void fill(struct witness_record *record, const struct witness_event *event, u64 ticket)
{
	const char *text = event->text ? event->text : event->symbol;

	record->ticket = cpu_to_le64(ticket);
	record->time = cpu_to_le64(ktime_get_mono_fast_ns());
	record->address = cpu_to_le64(event->address);
	record->length = cpu_to_le64(event->length);
	record->kind = cpu_to_le16(event->kind);
	record->direction = event->direction;
	record->flags = event->flags;
	record->function = cpu_to_le32(event->function);
	record->group = cpu_to_le64(event->group ? event->group : ticket);
	record->buffer = cpu_to_le64(event->buffer);
	record->caller = cpu_to_le64(event->caller);
	record->cpu = cpu_to_le32(smp_processor_id());
	if (is_task()) {
		record->pid = cpu_to_le32(current->pid);
		memcpy(record->task, current->comm, sizeof(record->task));
	} else {
		record->pid = 0;
		memset(record->task, 0, sizeof(record->task));
	}
	if (*text)
		strscpy_pad(record->text, text, sizeof(record->text));
	else
		memset(record->text, 0, sizeof(record->text));
}

/**
 * witness_report() - Hand a record to the VMM
 * @event: what it says; the caller is looked up and kept in it, if callers are asked for
 *
 * Context: any but NMI.
 * Return: the record's ticket, or 0 if it was lost, which the VMM learns.
 */
u64 witness_report(struct witness_event *event)
{
	struct witness_ring *ring;
	unsigned long flags;
	u64 ticket = 0;

	if (READ_ONCE(witness_callers) && !event->caller)
		witness_find_caller(event);

	local_irq_save(flags);
	ring = this_cpu_ptr(&rings);
	if (unlikely(!has_room(ring)))
		outl(1, WITNESS_DRAIN_PORT);
	if (likely(has_room(ring))) {
		ticket = atomic64_inc_return(&tickets);
		fill(&ring->records[ring->head & (ring_entries - 1)], event, ticket);
		/* The record before the head that tells of it. */
		smp_store_release(&ring->slot->head, ++ring->head);
	} else {
		/* No ticket: the VMM would wait for it. */
		WRITE_ONCE(ring->slot->lost, ring->slot->lost + 1);
	}
	local_irq_restore(flags);
	return ticket;
}

static void rings_free(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		struct witness_ring *ring = per_cpu_ptr(&rings, cpu);

		if (ring->records)
			free_pages_exact(ring->records, ring_size);
		ring->records = NULL;
	}
	free_pages_exact(header, header_size);
	header = NULL;
}

/* A CPU that is not there yet, or not any more, has a ring too: nothing to do for hotplug. */
static int rings_alloc(void)
{
	struct witness_slot *slot = (struct witness_slot *)(header + 1);
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		struct witness_ring *ring = per_cpu_ptr(&rings, cpu);

		ring->records = alloc_pages_exact(ring_size, GFP_KERNEL | __GFP_ZERO);
		if (!ring->records)
			return -ENOMEM;
		ring->head = 0;
		ring->slot = slot++;
		ring->slot->ring = cpu_to_le64(virt_to_phys(ring->records));
	}
	return 0;
}

/**
 * witness_rings_attach() - Make the rings, and tell the VMM of them
 * @entries: records in each, a power of two
 *
 * Return: -ENODEV where no VMM takes records.
 */
int witness_rings_attach(unsigned int entries)
{
	unsigned int count = num_possible_cpus();
	int ret;

	if (inl(WITNESS_ATTACH_PORT) != WITNESS_MAGIC) {
		pr_info("the machine takes no records: not a guest of peerdma, or its VMM does not want them\n");
		return -ENODEV;
	}
	if (count > WITNESS_MAX_RINGS) {
		pr_err("%u possible CPUs, and the VMM takes %u rings\n", count, WITNESS_MAX_RINGS);
		return -E2BIG;
	}
	ring_entries = entries;
	ring_size = array_size(entries, sizeof(struct witness_record));
	header_size = PAGE_ALIGN(sizeof(*header) + count * sizeof(struct witness_slot));
	header = alloc_pages_exact(header_size, GFP_KERNEL | __GFP_ZERO);
	if (!header)
		return -ENOMEM;
	ret = rings_alloc();
	if (!ret && virt_to_phys(header) >> PAGE_SHIFT > U32_MAX)
		ret = -ERANGE;
	if (ret) {
		rings_free();
		return ret;
	}
	header->magic = cpu_to_le32(WITNESS_MAGIC);
	header->version = cpu_to_le32(WITNESS_VERSION);
	header->rings = cpu_to_le32(count);
	header->entries = cpu_to_le32(entries);
	header->now = cpu_to_le64(ktime_get_mono_fast_ns());
	/* Orders itself behind the stores above. */
	outl(virt_to_phys(header) >> PAGE_SHIFT, WITNESS_ATTACH_PORT);
	return 0;
}

/* When no hook runs any more. */
void witness_rings_detach(void)
{
	outl(0, WITNESS_ATTACH_PORT);
	rings_free();
}
