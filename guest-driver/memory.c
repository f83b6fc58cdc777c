// SPDX-License-Identifier: GPL-2.0-only
/*
 * Local memory: the device's memory BAR, handed out in pages, and the CPU's
 * mappings of it.
 */
#include <linux/delay.h>
#include <linux/genalloc.h>
#include <linux/slab.h>

#include "ioctl.h"
#include "work.h"

#define PEERDMA_MAX_RANGES 64
/* Pages that one fault maps at most: a megabyte */
#define PEERDMA_FAULT_PAGES 256

int peerdma_memory_pool_create(struct peerdma_device *peer)
{
	int ret;

	peer->pool = gen_pool_create(PAGE_SHIFT, NUMA_NO_NODE);
	if (!peer->pool)
		return -ENOMEM;
	/* The allocator says 0 for "none", so offset 0 must not be 0 to it. */
	ret = gen_pool_add(peer->pool, PEERDMA_POOL_BASE, peer->bar_size - peer->p2pmem_size,
			   NUMA_NO_NODE);
	if (ret)
		peerdma_memory_pool_destroy(peer);
	return ret;
}

void peerdma_memory_pool_destroy(struct peerdma_device *peer)
{
	if (peer->pool)
		gen_pool_destroy(peer->pool);
	peer->pool = NULL;
}

static void peerdma_memory_free_ranges(struct peerdma_object *obj)
{
	u32 i;

	for (i = 0; i < obj->segments->count; i++) {
		struct peerdma_segment *range = &obj->segments->segment[i];

		if (range->length)
			gen_pool_free(obj->peer->pool, PEERDMA_POOL_BASE + range->address,
				      range->length);
	}
}

static void peerdma_memory_release(struct peerdma_object *obj)
{
	struct peerdma_memory *mem = to_peerdma_memory(obj);

	/*
	 * Ours have signalled, importers have waited for theirs before they went.
	 * Other drivers may have left fences that never signal: not for ever.
	 */
	dma_resv_wait_timeout(&mem->resv, DMA_RESV_USAGE_BOOKKEEP, false,
			      msecs_to_jiffies(peerdma_timeout_ms));
	peerdma_memory_free_ranges(obj);
	peerdma_uncount(obj->peer, PEERDMA_COUNT_LIVE_MEMORY);
	dma_resv_fini(&mem->resv);
	kvfree(obj->segments);
	kfree(mem);
}

static int peerdma_memory_prepare(struct peerdma_object *obj)
{
	dma_resv_assert_held(obj->resv);
	return 0;
}

static int peerdma_memory_mmap(struct peerdma_object *obj, struct vm_area_struct *vma)
{
	return peerdma_memory_map_vma(to_peerdma_memory(obj), vma, 0);
}

static const struct peerdma_object_ops peerdma_memory_ops = {
	.prepare = peerdma_memory_prepare,
	.mmap = peerdma_memory_mmap,
	.release = peerdma_memory_release,
};

/*
 * Takes @count ranges of about the same size from the pool, with a page between
 * each two that goes back in the end, so that they do not touch.
 */
static int peerdma_memory_take_ranges(struct peerdma_device *peer,
				      struct peerdma_segment_list *ranges, u64 size)
{
	unsigned long gap[PEERDMA_MAX_RANGES] = {};
	u32 count = ranges->count;
	u64 pages = size >> PAGE_SHIFT;
	u32 i, done = 0;
	int ret = 0;

	for (i = 0; i < count; i++) {
		/* Spreads the remainder over the first ranges. */
		u64 n = pages / count + (i < pages % count);
		unsigned long at = gen_pool_alloc(peer->pool, n << PAGE_SHIFT);

		if (!at) {
			ret = -ENOSPC;
			break;
		}
		ranges->segment[i].address = at - PEERDMA_POOL_BASE;
		ranges->segment[i].length = n << PAGE_SHIFT;
		done++;
		if (i + 1 < count)
			gap[i] = gen_pool_alloc(peer->pool, PAGE_SIZE);
	}
	for (i = 0; i < count; i++)
		if (gap[i])
			gen_pool_free(peer->pool, gap[i], PAGE_SIZE);
	if (ret)
		while (done--)
			gen_pool_free(peer->pool, PEERDMA_POOL_BASE + ranges->segment[done].address,
				      ranges->segment[done].length);
	return ret;
}

static struct peerdma_memory *peerdma_memory_alloc(struct peerdma_device *peer, u64 size,
						   u32 ranges)
{
	struct peerdma_memory *mem;
	int ret = -ENOMEM;

	mem = kzalloc_obj(*mem);
	if (!mem)
		return ERR_PTR(-ENOMEM);
	mem->base.segments = peerdma_segment_list_alloc(ranges);
	if (!mem->base.segments)
		goto err_mem;
	ret = peerdma_memory_take_ranges(peer, mem->base.segments, size);
	if (ret)
		goto err_segments;

	peerdma_object_init(&mem->base, peer, PEERDMA_KIND_MEMORY, &peerdma_memory_ops, size);
	dma_resv_init(&mem->resv);
	mem->base.resv = &mem->resv;
	mem->base.local = true;
	mem->base.direction = DMA_BIDIRECTIONAL;
	mem->base.generation = 1;
	peerdma_count(peer, PEERDMA_COUNT_LIVE_MEMORY);
	return mem;

err_segments:
	kvfree(mem->base.segments);
err_mem:
	kfree(mem);
	return ERR_PTR(ret);
}

/* @size is rounded up to pages. */
struct peerdma_memory *peerdma_memory_create(struct peerdma_device *peer, u64 *size, u32 ranges)
{
	ranges = max(ranges, 1U);
	if (!*size || ranges > PEERDMA_MAX_RANGES)
		return ERR_PTR(-EINVAL);
	if (*size > peer->bar_size)
		return ERR_PTR(-ENOSPC);
	*size = PAGE_ALIGN(*size);
	if (ranges > *size >> PAGE_SHIFT)
		return ERR_PTR(-EINVAL);
	return peerdma_memory_alloc(peer, *size, ranges);
}

int peerdma_ioctl_alloc(struct peerdma_call *call, void *data)
{
	struct peerdma_alloc *arg = data;
	struct peerdma_memory *mem;
	int ret;

	if (arg->flags || arg->reserved)
		return -EINVAL;
	mem = peerdma_memory_create(call->file->peer, &arg->size, arg->ranges);
	if (IS_ERR(mem))
		return PTR_ERR(mem);
	/* Once it has a handle, another thread may close it. */
	arg->offset = mem->base.segments->segment[0].address;
	ret = peerdma_object_publish(call->file, &mem->base, &arg->handle);
	if (ret) {
		peerdma_object_put(&mem->base);
		return ret;
	}
	arg->mmap_offset = (u64)arg->handle << PEERDMA_MMAP_SHIFT;
	return 0;
}

/* ------------------------------------------------------- the CPU's view */

/* The local offset of byte @at of the object; @left: bytes to its range's end */
static u64 peerdma_memory_offset(struct peerdma_memory *mem, u64 at, u64 *left)
{
	struct peerdma_segment_list *ranges = mem->base.segments;
	u32 i;

	for (i = 0; i < ranges->count; i++) {
		if (at < ranges->segment[i].length) {
			*left = ranges->segment[i].length - at;
			return ranges->segment[i].address + at;
		}
		at -= ranges->segment[i].length;
	}
	*left = 0;
	return 0;
}

static vm_fault_t peerdma_memory_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct peerdma_memory *mem = vma->vm_private_data;
	struct peerdma_device *peer = mem->base.peer;
	vm_fault_t ret = VM_FAULT_SIGBUS;
	unsigned long at = vmf->address & PAGE_MASK;
	u64 local, left;
	unsigned int i;

	down_read(&peer->bar_lock);
	if (READ_ONCE(peer->gone))
		goto out;
	if (peer->bar_blocked) {
		/* A reset is going on: come back, without mmap_lock meanwhile. */
		up_read(&peer->bar_lock);
		usleep_range(1000, 2000);
		return VM_FAULT_NOPAGE;
	}
	local = peerdma_memory_offset(mem, (u64)vmf->pgoff << PAGE_SHIFT, &left);
	for (i = 0; i < PEERDMA_FAULT_PAGES && left && at < vma->vm_end; i++) {
		vm_fault_t one;

		one = vmf_insert_pfn(vma, at, PHYS_PFN(peer->bar_phys + local));
		if (!i)
			ret = one;
		if (one != VM_FAULT_NOPAGE)
			break;
		at += PAGE_SIZE;
		local += PAGE_SIZE;
		left -= PAGE_SIZE;
	}
out:
	up_read(&peer->bar_lock);
	return ret;
}

static void peerdma_memory_vma_open(struct vm_area_struct *vma)
{
	struct peerdma_memory *mem = vma->vm_private_data;

	peerdma_object_get(&mem->base);
}

static void peerdma_memory_vma_close(struct vm_area_struct *vma)
{
	struct peerdma_memory *mem = vma->vm_private_data;

	peerdma_object_put(&mem->base);
}

static const struct vm_operations_struct peerdma_memory_vm_ops = {
	.open = peerdma_memory_vma_open,
	.close = peerdma_memory_vma_close,
	.fault = peerdma_memory_fault,
};

/*
 * Prepares a VMA over the object, from byte @offset of it on. The VMA's page
 * offset is made relative to the object; zapping goes by whole files.
 */
int peerdma_memory_map_vma(struct peerdma_memory *mem, struct vm_area_struct *vma, u64 offset)
{
	u64 pages = mem->base.size >> PAGE_SHIFT;
	u64 first = (offset >> PAGE_SHIFT) + vma->vm_pgoff;

	if (peerdma_vma_is_private(vma))
		return -EINVAL;
	if (first >= pages || vma_pages(vma) > pages - first)
		return -EINVAL;

	vma->vm_pgoff = first;
	vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_page_prot = pgprot_writecombine(vma->vm_page_prot);
	vma->vm_private_data = mem;
	vma->vm_ops = &peerdma_memory_vm_ops;
	peerdma_object_get(&mem->base);
	return 0;
}

/*
 * From here until peerdma_bar_unblock() there are no new mappings of the local memory.
 * The caller still has to zap those of the CPUs and to revoke those of devices.
 */
void peerdma_bar_block(struct peerdma_device *peer)
{
	down_write(&peer->bar_lock);
	WRITE_ONCE(peer->bar_blocked, true);
	up_write(&peer->bar_lock);
}

void peerdma_bar_unblock(struct peerdma_device *peer)
{
	down_write(&peer->bar_lock);
	WRITE_ONCE(peer->bar_blocked, false);
	up_write(&peer->bar_lock);
}
