/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Driver of the lab's peer device: what its files share.
 *
 * Locks, outermost first. A lock further down may be taken while one above it
 * is held, never the other way round:
 *
 *   device_lock         held by the PCI core around probe, remove, reset, AER
 *   pd_device.srcu      read side: every ioctl but PEERDMA_WAIT, open, mmap.
 *                       remove() sets @gone and waits for the readers
 *   pd_device.files_lock, pd_device.exports_lock (neither inside the other)
 *   mmap_lock           user memory is copied with none of the locks below held
 *   pd_device.bar_lock  read: page faults on the local memory; write: @bar_blocked
 *   dma_resv            guards a dma-buf's mappings; several at once only with a
 *                       ww_acquire_ctx (submit.c)
 *   pd_object.lock      guards the mapping of an object without a dma_resv
 *   pd_channel.submit_lock  orders a channel's fences as its queue
 *   pd_device.objects_lock  spinlock, nothing inside
 *   pd_channel.lock     spinlock, interrupts off: ring, lists of work
 *   dma_fence's lock    fences are signalled after pd_channel.lock has been dropped;
 *                       nothing of ours but a workqueue's lock is taken inside
 *
 * Rules that no lock shows:
 *  - pd_object.in_flight goes up under the lock that guards the object's mapping
 *    (dma_resv or pd_object.lock) and goes down without any. Who holds that lock
 *    and sees zero may unmap. Nothing on the way from a completion to the
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
struct pd_call;
struct pd_channel;
struct pd_device;
struct pd_file;
struct pd_work;

/* Most handles and most untaken results of a file */
#define PD_MAX_HANDLES		((1U << 20) - 1)
#define PD_MAX_WORK		4096
/* Largest piece of system memory that a call maps, bytes */
#define PD_MAX_SYSTEM		(256UL << 20)
/* Most functions that ever get a number */
#define PD_MAX_DEVICES		256
/* mmap offset of an object: its handle above this bit */
#define PD_MMAP_SHIFT		40

/* ------------------------------------------------------------- counters */

enum pd_counter {
	PD_INTERRUPTS,
	PD_COMPLETIONS,
	PD_SUBMITTED,
	PD_FINISHED,
	PD_FAILED,
	PD_TIMEOUTS,
	PD_INVALIDATIONS,
	PD_MAPS,
	PD_UNMAPS,
	PD_EXPORTER_MAPS,
	PD_EXPORTER_UNMAPS,
	PD_REVOCATIONS,
	PD_RESETS,
	PD_ERRORS,
	PD_LIVE_MEMORY,
	PD_LIVE_DMABUFS,
	PD_LIVE_IMPORTS,
	PD_LIVE_SYSTEMS,
	PD_LIVE_WORK,
	PD_COUNTERS
};

/* --------------------------------------------------------------- device */

/**
 * struct pd_device - one bound function
 * @dev:	the character device's; its references keep this structure
 * @cdev:	the character device
 * @pdev:	valid until remove() has returned, so: under @srcu or in work
 * @wq:		of the channels' watchdogs; fences depend on it
 * @instance:	N of /dev/peerdmaN
 * @regs:	register BAR
 * @bar_phys:	CPU physical address of the local memory
 * @bar_size:	bytes of it
 * @p2pmem_size: bytes at its end that have struct pages and belong to p2pdma
 * @pool:	who owns what of it; addresses have PD_POOL_BASE added
 * @provider:	of the local memory, NULL without p2pdma
 * @max_length:	most bytes of a descriptor
 * @channels:	number of elements of @channel
 * @vectors:	number of interrupt vectors
 * @srcu:	see above
 * @gone:	set once, by remove()
 * @bar_lock:	see above
 * @bar_blocked: nobody may map the local memory: reset going on, or unbound
 * @files:	open files, under @files_lock
 * @exports:	dma-bufs of ours, under @exports_lock
 * @held:	mappings of memory that goes with the driver which nobody can take
 *		back: importers' who cannot be told, and the kernel's own
 * @objects:	all objects, also those without a handle, under @objects_lock
 * @idle:	woken whenever something falls to zero that somebody may wait for
 * @counter:	see enum pd_counter
 */
struct pd_device {
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

	struct mutex exports_lock;
	struct list_head exports;
	atomic_t held;

	spinlock_t objects_lock;
	struct list_head objects;

	wait_queue_head_t idle;
	atomic64_t counter[PD_COUNTERS];

	struct pd_channel *channel;
};

static inline void pd_count(struct pd_device *pd, enum pd_counter which)
{
	atomic64_inc(&pd->counter[which]);
}

static inline void pd_uncount(struct pd_device *pd, enum pd_counter which)
{
	atomic64_dec(&pd->counter[which]);
}

/* -------------------------------------------------------------- objects */

enum pd_kind {
	PD_MEMORY,
	PD_IMPORT,
	PD_SYSTEM,
	PD_BUFFER,
};

/* Where a mapped object lies: DMA addresses, or offsets in the local memory */
struct pd_segments {
	u32 count;
	struct peerdma_segment segment[] __counted_by(count);
};

struct pd_object;

/**
 * struct pd_object_ops - what differs between the kinds
 * @map:	makes @segments. Locked. NULL: always mapped
 * @unmap:	the reverse. Locked, nothing in flight, @segments not NULL
 * @prepare:	before use by work: sees to it that @segments is good. Locked
 * @mmap:	NULL: cannot be
 * @shutdown:	lets go of the device; nothing is in flight. By remove() and by
 *		the last reference, so twice at times. NULL: nothing to do
 * @release:	frees the object
 */
struct pd_object_ops {
	int (*map)(struct pd_object *obj, enum dma_data_direction dir);
	void (*unmap)(struct pd_object *obj);
	int (*prepare)(struct pd_object *obj);
	int (*mmap)(struct pd_object *obj, struct vm_area_struct *vma);
	void (*shutdown)(struct pd_object *obj);
	void (*release)(struct pd_object *obj);
};

/**
 * struct pd_object - what a handle names
 * @refs:	a handle, a VMA, a dma-buf of ours, or a call that looks at it
 * @node:	in pd_device.objects
 * @shut:	has let go of the device for good; under pd_device.objects_lock
 * @kind:	which structure this is the beginning of
 * @pd:		the device; a reference
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
struct pd_object {
	struct kref refs;
	struct list_head node;
	bool shut;
	enum pd_kind kind;
	struct pd_device *pd;
	const struct pd_object_ops *ops;
	struct dma_resv *resv;
	struct mutex lock;
	u64 size;
	atomic_t in_flight;
	struct pd_segments *segments;
	enum dma_data_direction direction;
	u64 generation;
	bool local;
};

/* A piece of the local memory; its segments never change. */
struct pd_memory {
	struct pd_object base;
	struct dma_resv resv;
};

void pd_object_init(struct pd_object *obj, struct pd_device *pd,
		    enum pd_kind kind, const struct pd_object_ops *ops,
		    u64 size);
void pd_object_get(struct pd_object *obj);
void pd_object_put(struct pd_object *obj);
int pd_object_lock(struct pd_object *obj);
void pd_object_unlock(struct pd_object *obj);
void pd_object_wait_idle(struct pd_object *obj);
void pd_objects_shutdown(struct pd_device *pd);
int pd_object_publish(struct pd_file *file, struct pd_object *obj, u32 *handle);
struct pd_object *pd_object_find(struct pd_file *file, u32 handle);
struct pd_object *pd_object_find_kind(struct pd_file *file, u32 handle,
				      enum pd_kind kind);
struct pd_object *pd_object_find_exportable(struct pd_file *file, u32 handle);
struct pd_segments *pd_segments_alloc(u32 count);
struct pd_segments *pd_segments_from_sgt(struct sg_table *sgt);
int pd_ioctl_close(struct pd_call *call, void *data);
int pd_ioctl_map(struct pd_call *call, void *data);
int pd_ioctl_unmap(struct pd_call *call, void *data);
int pd_ioctl_segments(struct pd_call *call, void *data);

static inline struct pd_memory *to_pd_memory(struct pd_object *obj)
{
	return container_of(obj, struct pd_memory, base);
}

/* ---------------------------------------------------------------- files */

/**
 * struct pd_file - one open(2) of the character device
 * @pd:		a reference
 * @file:	for zapping mappings
 * @node:	in pd_device.files
 * @objects:	by handle
 * @works:	by cookie, until the result has been taken
 * @next_cookie: where the next search begins, so that cookies come back late
 * @untaken:	elements of @works
 */
struct pd_file {
	struct pd_device *pd;
	struct file *file;
	struct list_head node;
	struct xarray objects;
	struct xarray works;
	u32 next_cookie;
	atomic_t untaken;
};

/**
 * struct pd_call - an ioctl on its way
 * @file:	whose
 * @fd:		reserved file descriptor, -1: none; given out only when the
 *		answer has reached the user
 * @out_file:	what @fd will be; or
 * @out_dmabuf:	what @fd will be
 */
struct pd_call {
	struct pd_file *file;
	int fd;
	struct file *out_file;
	struct dma_buf *out_dmabuf;
};

int pd_chardev_init(void);
void pd_chardev_exit(void);
struct pd_device *pd_chardev_create(struct pci_dev *pdev);
int pd_chardev_add(struct pd_device *pd);
void pd_chardev_remove(struct pd_device *pd);
void pd_files_zap(struct pd_device *pd);
int pd_seat_take(struct pci_dev *pdev);
void pd_seats_free(void);

/* --------------------------------------------------------- local memory */

#define PD_POOL_BASE	(1UL << 40)

/* A private, writable mapping: the CPU would copy what a device should see. */
static inline bool pd_vma_is_private(const struct vm_area_struct *vma)
{
	return (vma->vm_flags & (VM_SHARED | VM_MAYWRITE)) == VM_MAYWRITE;
}

int pd_memory_pool_create(struct pd_device *pd);
void pd_memory_pool_destroy(struct pd_device *pd);
struct pd_memory *pd_memory_create(struct pd_device *pd, u64 *size, u32 ranges);
int pd_memory_map_vma(struct pd_memory *mem, struct vm_area_struct *vma,
		      u64 offset);
void pd_bar_block(struct pd_device *pd);
void pd_bar_unblock(struct pd_device *pd);
int pd_ioctl_alloc(struct pd_call *call, void *data);

/* ------------------------------------------------------------- exporter */

/**
 * struct pd_export - a dma-buf of ours
 * @obj:	what it shows, a memory or a buffer; a reference
 * @dmabuf:	itself
 * @node:	in pd_device.exports
 * @sibling:	in pd_buffer.exports, for a buffer. Under dma_resv
 * @offset:	where it begins in @obj
 * @recall:	how often importers have been told to let go. Under dma_resv
 * @lent:	mappings made since the last time, of importers that can be told.
 *		Under dma_resv
 * @recalled:	those made before, that have not come back
 * @revoked:	nobody gets a mapping any more, under dma_resv
 * @ranges:	elements of @range
 * @range:	physical ranges, for memory
 */
struct pd_export {
	struct pd_object *obj;
	struct dma_buf *dmabuf;
	struct list_head node;
	struct list_head sibling;
	u64 offset;
	u64 recall;
	u64 lent;
	atomic64_t recalled;
	bool revoked;
	u32 ranges;
	struct phys_vec range[] __counted_by(ranges);
};

struct pd_loan;

struct pd_object *pd_export_own(struct dma_buf *dmabuf, struct pd_device *pd);
void pd_export_lent(struct pd_export *exp, struct pd_loan *loan);
void pd_export_returned(struct pd_export *exp,
			struct dma_buf_attachment *attach, u64 recall);
void pd_export_release(struct dma_buf *dmabuf);
void pd_exports_revoke(struct pd_device *pd, bool for_good);
int pd_ioctl_export(struct pd_call *call, void *data);
int pd_ioctl_invalidate(struct pd_call *call, void *data);

/* ------------------------------------------------------------- importer */

int pd_ioctl_import(struct pd_call *call, void *data);
int pd_ioctl_lab_read_page(struct pd_call *call, void *data);

/* -------------------------------------------------------- system memory */

int pd_ioctl_system_alloc(struct pd_call *call, void *data);
int pd_ioctl_system_sync(struct pd_call *call, void *data);
int pd_ioctl_lab_map_phys(struct pd_call *call, void *data);

/* pci.c */
void pd_device_sync(struct pd_device *pd);

/* buffer.c, migrate.c, kernel_copy.c */
int pd_ioctl_buffer_alloc(struct pd_call *call, void *data);
int pd_ioctl_buffer_move(struct pd_call *call, void *data);
int pd_ioctl_buffer_state(struct pd_call *call, void *data);
int pd_ioctl_kernel_copy(struct pd_call *call, void *data);

/* info.c, lab.c */
int pd_ioctl_info(struct pd_call *call, void *data);
int pd_ioctl_counters(struct pd_call *call, void *data);
int pd_ioctl_distance(struct pd_call *call, void *data);
int pd_ioctl_lab_bus_master(struct pd_call *call, void *data);
int pd_ioctl_lab_register(struct pd_call *call, void *data);

#endif /* PEERDMA_DRIVER_H */
