/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Driver of the peer device: what its files share.
 *
 * Locks, outermost first. A lock further down may be taken while one above it is held,
 * never the other way round:
 *
 *   device_lock		held by the PCI core around probe, remove, reset, AER
 *   peerdma_device.srcu	read side: every ioctl but PEERDMA_WAIT and
 *				PEERDMA_KERNEL_COPY, open, mmap. remove() sets @gone
 *				and waits for the readers
 *   peerdma_device.revoke_lock	one revocation at a time; held while it waits for
 *				importers, so nothing that closes a file may take it
 *   peerdma_device.files_lock,
 *   peerdma_device.exports_lock	neither inside the other; nothing is waited for
 *				while either is held, as closing a file takes them
 *   mmap_lock			user memory is copied with none of the locks below held
 *   peerdma_device.bar_lock	read: page faults on the local memory; write: @bar_blocked
 *   dma_resv			guards a dma-buf's mappings; several at once only with a
 *				ww_acquire_ctx (buffers.c)
 *   peerdma_object.lock	guards the mapping of an object without a dma_resv
 *   peerdma_channel.submit_lock	orders a channel's fences as its queue
 *   peerdma_device.objects_lock	spinlock, nothing inside
 *   peerdma_channel.lock	spinlock, interrupts off: ring, lists of work
 *   dma_fence's lock		fences are signalled after peerdma_channel.lock has been
 *				dropped; nothing of ours but a workqueue's lock is
 *				taken inside
 *
 * Functions that need a lock say so by lockdep_assert_held() or dma_resv_assert_held().
 *
 * What is waited for under a dma_resv or peerdma_object.lock ends by itself: work by its
 * time-out, fences of others by a deadline. Only two waits have no limit: a revocation's
 * for importers to unmap (peerdma_exports_revoke()), and remove()'s for mappings that
 * cannot be taken back. Both hold the device_lock, the first revoke_lock too.
 *
 * Rules that no lock shows:
 *  - peerdma_object.in_flight goes up under the lock that guards the object's mapping
 *    (dma_resv or peerdma_object.lock) and goes down without any. With that lock held and
 *    zero seen, unmapping is safe. Nothing on the way from a completion to the
 *    decrement takes a dma_resv or allocates memory: it signals fences.
 *  - Work holds in_flight of its objects, not references: an object's release
 *    waits for it, so objects are only ever released by processes.
 *  - Once a fence of ours has signalled, the device does not touch the memory
 *    any more: a channel is stopped (or bus mastering cleared) before the fences
 *    of unfinished work are signalled with an error.
 */
#ifndef PEERDMA_DRIVER_H
#define PEERDMA_DRIVER_H

#include <linux/atomic.h>
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include <uapi/peerdma.h>

#include "compat.h"
#include "peerdma_regs.h"

struct gen_pool;
struct peerdma_channel;
struct peerdma_device;
struct peerdma_file;
struct peerdma_work;

/* Most handles and most untaken results of a file */
#define PEERDMA_MAX_HANDLES ((1U << 20) - 1)
#define PEERDMA_MAX_WORK 4096
/* Largest piece of system memory that a call maps, bytes */
#define PEERDMA_MAX_SYSTEM (256UL << 20)
/* Most functions that ever get a number */
#define PEERDMA_MAX_DEVICES 256
/* mmap offset of an object: its handle above this bit */
#define PEERDMA_MMAP_SHIFT 40

/* ------------------------------------------------------------- counters */

enum peerdma_counter {
	PEERDMA_COUNT_INTERRUPTS,
	PEERDMA_COUNT_COMPLETIONS,
	PEERDMA_COUNT_SUBMITTED,
	PEERDMA_COUNT_FINISHED,
	PEERDMA_COUNT_FAILED,
	PEERDMA_COUNT_TIMEOUTS,
	PEERDMA_COUNT_INVALIDATIONS,
	PEERDMA_COUNT_MAPS,
	PEERDMA_COUNT_UNMAPS,
	PEERDMA_COUNT_EXPORTER_MAPS,
	PEERDMA_COUNT_EXPORTER_UNMAPS,
	PEERDMA_COUNT_REVOCATIONS,
	PEERDMA_COUNT_RESETS,
	PEERDMA_COUNT_ERRORS,
	PEERDMA_COUNT_LIVE_MEMORY,
	PEERDMA_COUNT_LIVE_DMABUFS,
	PEERDMA_COUNT_LIVE_IMPORTS,
	PEERDMA_COUNT_LIVE_SYSTEMS,
	PEERDMA_COUNT_LIVE_WORK,
	PEERDMA_COUNTERS
};

/* --------------------------------------------------------------- device */

/**
 * struct peerdma_device - one bound function
 * @dev:	the character device's; its references keep this structure
 * @cdev:	the character device
 * @pdev:	valid until remove() has returned, so: under @srcu or in work
 * @wq:		of the channels' watchdogs; fences depend on it
 * @instance:	N of /dev/peerdmaN
 * @regs:	register BAR
 * @bar_phys:	CPU physical address of the local memory
 * @bar_size:	bytes of it
 * @p2pmem_size: bytes at its end that have struct pages and belong to p2pdma
 * @pool:	its allocator; addresses have PEERDMA_POOL_BASE added
 * @provider:	of the local memory, NULL without p2pdma
 * @max_length:	most bytes of a descriptor
 * @channels:	number of elements of @channel
 * @vectors:	number of interrupt vectors
 * @srcu:	see above
 * @gone:	set once, by remove()
 * @bar_lock:	see above
 * @bar_blocked: the local memory cannot be mapped: reset going on, or unbound
 * @files:	open files, under @files_lock
 * @revoke_lock: see above; guards peerdma_exported.revoking
 * @exports:	dma-bufs of ours, under @exports_lock
 * @held:	mappings of memory that goes with the driver and cannot be taken
 *		back: of importers without a callback, and the kernel's own
 * @objects:	all objects, also those without a handle, under @objects_lock
 * @idle:	woken whenever something falls to zero that may be waited for
 * @counter:	see enum peerdma_counter
 */
struct peerdma_device {
	struct device dev;
	struct cdev cdev;
	struct pci_dev *pdev;
	struct workqueue_struct *wq;
	unsigned int instance;

	void __iomem *regs;
	phys_addr_t bar_phys;
	u64 bar_size;
	u64 p2pmem_size;
	struct gen_pool *pool;
	struct p2pdma_provider *provider;
	u32 max_length;
	u32 channels;
	u32 vectors;

	struct srcu_struct srcu;
	bool gone;

	struct rw_semaphore bar_lock;
	bool bar_blocked;

	struct mutex files_lock;
	struct list_head files;

	struct mutex revoke_lock;
	struct mutex exports_lock;
	struct list_head exports;
	atomic_t held;

	spinlock_t objects_lock;
	struct list_head objects;

	wait_queue_head_t idle;
	atomic64_t counter[PEERDMA_COUNTERS];

	struct peerdma_channel *channel;
};

static inline void peerdma_count(struct peerdma_device *peer, enum peerdma_counter which)
{
	atomic64_inc(&peer->counter[which]);
}

static inline void peerdma_uncount(struct peerdma_device *peer, enum peerdma_counter which)
{
	atomic64_dec(&peer->counter[which]);
}

/* -------------------------------------------------------------- objects */

enum peerdma_kind {
	PEERDMA_KIND_MEMORY,
	PEERDMA_KIND_IMPORT,
	PEERDMA_KIND_SYSTEM,
	PEERDMA_KIND_BUFFER,
};

/* Where a mapped object lies: DMA addresses, or offsets in the local memory */
struct peerdma_segment_list {
	u32 count;
	struct peerdma_segment segment[] __counted_by(count);
};

struct peerdma_object;

/**
 * struct peerdma_object_ops - what differs between the kinds
 * @map:	makes @segments. NULL: always mapped
 * @unmap:	the reverse. Nothing in flight, @segments not NULL
 * @prepare:	before use by work: sees to it that @segments is good
 * @mmap:	NULL: cannot be
 * @shutdown:	lets go of the device; nothing is in flight. By remove() and by
 *		the last reference, so twice at times. NULL: nothing to do
 * @release:	frees the object
 *
 * @map, @unmap and @prepare are called with the object locked: peerdma_object_lock().
 */
struct peerdma_object_ops {
	int (*map)(struct peerdma_object *obj, enum dma_data_direction dir);
	void (*unmap)(struct peerdma_object *obj);
	int (*prepare)(struct peerdma_object *obj);
	int (*mmap)(struct peerdma_object *obj, struct vm_area_struct *vma);
	void (*shutdown)(struct peerdma_object *obj);
	void (*release)(struct peerdma_object *obj);
};

/**
 * struct peerdma_object - what a handle names
 * @refs:	a handle, a VMA, a dma-buf of ours, or a call that looks at it
 * @node:	in peerdma_device.objects
 * @shut:	has let go of the device for good; under peerdma_device.objects_lock
 * @kind:	which structure this is the beginning of
 * @peer:	the device; a reference
 * @ops:	by kind
 * @resv:	fences of the object; NULL: no implicit synchronisation
 * @lock:	guards the mapping where there is no @resv
 * @size:	bytes
 * @in_flight:	pieces of work that use the mapping
 * @segments:	the mapping, NULL: there is none
 * @direction:	of the mapping, or of the last one there was
 * @generation:	mappings made so far
 * @local:	@segments are offsets in the local memory, not DMA addresses
 */
struct peerdma_object {
	struct kref refs;
	struct list_head node;
	bool shut;
	enum peerdma_kind kind;
	struct peerdma_device *peer;
	const struct peerdma_object_ops *ops;
	struct dma_resv *resv;
	struct mutex lock;
	u64 size;
	atomic_t in_flight;
	struct peerdma_segment_list *segments;
	enum dma_data_direction direction;
	u64 generation;
	bool local;
};

/* A piece of the local memory; its segments never change. */
struct peerdma_memory {
	struct peerdma_object base;
	struct dma_resv resv;
};

void peerdma_object_init(struct peerdma_object *obj, struct peerdma_device *peer,
			 enum peerdma_kind kind, const struct peerdma_object_ops *ops, u64 size);
void peerdma_object_get(struct peerdma_object *obj);
void peerdma_object_put(struct peerdma_object *obj);
int peerdma_object_lock(struct peerdma_object *obj);
void peerdma_object_unlock(struct peerdma_object *obj);
void peerdma_object_assert_locked(struct peerdma_object *obj);
void peerdma_object_wait_idle(struct peerdma_object *obj);
void peerdma_objects_shutdown(struct peerdma_device *peer);
int peerdma_object_publish(struct peerdma_file *file, struct peerdma_object *obj, u32 *handle);
struct peerdma_object *peerdma_object_find(struct peerdma_file *file, u32 handle);
struct peerdma_object *peerdma_object_find_kind(struct peerdma_file *file, u32 handle,
						enum peerdma_kind kind);
struct peerdma_object *peerdma_object_find_exportable(struct peerdma_file *file, u32 handle);
struct peerdma_segment_list *peerdma_segment_list_alloc(u32 count);
struct peerdma_segment_list *peerdma_segment_list_from_sgt(struct sg_table *sgt);

static inline struct peerdma_memory *to_peerdma_memory(struct peerdma_object *obj)
{
	return container_of(obj, struct peerdma_memory, base);
}

/* ---------------------------------------------------------------- files */

/**
 * struct peerdma_file - one open(2) of the character device
 * @peer:	a reference
 * @file:	for zapping mappings
 * @node:	in peerdma_device.files
 * @objects:	by handle
 * @works:	by cookie, until the result has been taken
 * @next_cookie: where the next search begins, so that cookies come back late
 * @untaken:	elements of @works
 */
struct peerdma_file {
	struct peerdma_device *peer;
	struct file *file;
	struct list_head node;
	struct xarray objects;
	struct xarray works;
	u32 next_cookie;
	atomic_t untaken;
};

int peerdma_chardev_init(void);
void peerdma_chardev_exit(void);
struct peerdma_device *peerdma_chardev_create(struct pci_dev *pdev);
int peerdma_chardev_add(struct peerdma_device *peer);
void peerdma_chardev_remove(struct peerdma_device *peer);
void peerdma_files_zap(struct peerdma_device *peer);
int peerdma_instance_get(struct pci_dev *pdev);
void peerdma_instances_free(void);

/* --------------------------------------------------------- local memory */

#define PEERDMA_POOL_BASE (1UL << 40)

/* A private, writable mapping: the CPU would copy what a device should see. */
static inline bool peerdma_vma_is_private(const struct vm_area_struct *vma)
{
	return (vma->vm_flags & (VM_SHARED | VM_MAYWRITE)) == VM_MAYWRITE;
}

int peerdma_memory_pool_create(struct peerdma_device *peer);
void peerdma_memory_pool_destroy(struct peerdma_device *peer);
struct peerdma_memory *peerdma_memory_create(struct peerdma_device *peer, u64 *size, u32 ranges);
int peerdma_memory_map_vma(struct peerdma_memory *mem, struct vm_area_struct *vma, u64 offset);
void peerdma_bar_block(struct peerdma_device *peer);
void peerdma_bar_unblock(struct peerdma_device *peer);

/* ------------------------------------------------------------- exporter */

/**
 * struct peerdma_exported - a dma-buf of ours
 * @obj:	what it shows, a memory or a buffer; a reference
 * @dmabuf:	itself
 * @node:	in peerdma_device.exports
 * @revoking:	in the list of a revocation
 * @sibling:	in peerdma_buffer.exports, for a buffer
 * @offset:	where it begins in @obj
 * @invalidations: how often mappings of importers have been invalidated
 * @mapped:	mappings made since the last invalidation, of importers with a callback
 * @invalidated: mappings made before it that are not yet unmapped
 * @revoked:	there are no new mappings any more
 * @ranges:	elements of @range
 * @range:	physical ranges, for memory
 *
 * exports_lock guards @node, revoke_lock @revoking, and the dma_resv @sibling,
 * @invalidations, @mapped and @revoked.
 */
struct peerdma_exported {
	struct peerdma_object *obj;
	struct dma_buf *dmabuf;
	struct list_head node;
	struct list_head revoking;
	struct list_head sibling;
	u64 offset;
	u64 invalidations;
	u64 mapped;
	atomic64_t invalidated;
	bool revoked;
	u32 ranges;
	struct phys_vec range[] __counted_by(ranges);
};

struct peerdma_mapping;

struct peerdma_object *peerdma_export_own(struct dma_buf *dmabuf, struct peerdma_device *peer);
void peerdma_export_mapped(struct peerdma_exported *exp, struct peerdma_mapping *mapping);
void peerdma_export_unmapped(struct peerdma_exported *exp, struct dma_buf_attachment *attach,
			     u64 invalidation);
int peerdma_export_pin(struct dma_buf_attachment *attach);
void peerdma_export_unpin(struct dma_buf_attachment *attach);
void peerdma_export_release(struct dma_buf *dmabuf);
void peerdma_exports_revoke(struct peerdma_device *peer, bool for_good);

/* pci.c */
void peerdma_device_sync(struct peerdma_device *peer);

#endif /* PEERDMA_DRIVER_H */
