// SPDX-License-Identifier: GPL-2.0-only
/*
 * The CPUs' mappings of buffers, by their dma-bufs. Page by page as they are touched,
 * because a buffer may be elsewhere tomorrow.
 */
#include <linux/delay.h>

#include "buffer.h"

/* Pages that one fault maps at most: a megabyte */
#define PEERDMA_FAULT_PAGES 256

static unsigned long peerdma_buffer_pfn(struct peerdma_buffer *buf, u32 page)
{
	dma_resv_assert_held(&buf->resv);
	if (buf->kind == PEERDMA_BUFFER_MIGRATING && buf->place == PEERDMA_PLACE_LOCAL)
		return PHYS_PFN(buf->local.paddr) + page;
	return page_to_pfn(buf->pages[page]);
}

static vm_fault_t peerdma_buffer_insert(struct peerdma_buffer *buf, struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	unsigned long at = vmf->address & PAGE_MASK;
	pgprot_t prot = vma->vm_page_prot;
	vm_fault_t ret = VM_FAULT_SIGBUS;
	u32 i;

	if (buf->place == PEERDMA_PLACE_LOCAL)
		prot = pgprot_writecombine(prot);
	for (i = 0; i < PEERDMA_FAULT_PAGES && at < vma->vm_end; i++) {
		unsigned long page = vmf->pgoff + i;
		vm_fault_t one;

		if (page >= buf->count)
			break;
		one = vmf_insert_pfn_prot(vma, at, peerdma_buffer_pfn(buf, page), prot);
		if (!i)
			ret = one;
		if (one != VM_FAULT_NOPAGE)
			break;
		at += PAGE_SIZE;
	}
	return ret;
}

static vm_fault_t peerdma_buffer_fault(struct vm_fault *vmf)
{
	struct peerdma_buffer *buf = vmf->vma->vm_private_data;
	struct peerdma_device *peer = buf->base.peer;
	vm_fault_t ret = VM_FAULT_SIGBUS;
	bool later = false;

	down_read(&peer->bar_lock);
	/* A move holds the lock: on a signal come back, without mmap_lock meanwhile. */
	if (dma_resv_lock_interruptible(&buf->resv, NULL)) {
		up_read(&peer->bar_lock);
		return VM_FAULT_NOPAGE;
	}
	if (peerdma_buffer_is_lost(buf))
		goto out;
	later = buf->place == PEERDMA_PLACE_LOCAL && peer->bar_blocked;
	ret = later ? VM_FAULT_NOPAGE : peerdma_buffer_insert(buf, vmf);
out:
	dma_resv_unlock(&buf->resv);
	up_read(&peer->bar_lock);
	/* A reset is going on. */
	if (later)
		usleep_range(1000, 2000);
	return ret;
}

/* The dma-buf, which the VMA's file is, keeps the buffer. */
static const struct vm_operations_struct peerdma_buffer_vm_ops = {
	.fault = peerdma_buffer_fault,
};

/* Everything was mapped at once; what faults has been zapped by remove(). */
static vm_fault_t peerdma_buffer_coherent_fault(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct vm_operations_struct peerdma_buffer_coherent_vm_ops = {
	.fault = peerdma_buffer_coherent_fault,
};

static int peerdma_buffer_mmap_coherent(struct peerdma_buffer *buf, struct vm_area_struct *vma)
{
	int ret = -ENODEV;

	dma_resv_lock(&buf->resv, NULL);
	if (!peerdma_buffer_is_lost(buf))
		ret = dma_mmap_coherent(peerdma_buffer_dev(buf), vma, buf->cpu, buf->dma,
					buf->base.size);
	dma_resv_unlock(&buf->resv);
	if (!ret)
		vma->vm_ops = &peerdma_buffer_coherent_vm_ops;
	return ret;
}

/* The core has looked at the range. */
int peerdma_buffer_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	struct peerdma_exported *exp = dmabuf->priv;
	struct peerdma_buffer *buf = to_peerdma_buffer(exp->obj);

	if (peerdma_vma_is_private(vma))
		return -EINVAL;
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	if (buf->kind == PEERDMA_BUFFER_COHERENT)
		return peerdma_buffer_mmap_coherent(buf, vma);
	vm_flags_set(vma, VM_IO | VM_PFNMAP);
	vma->vm_private_data = buf;
	vma->vm_ops = &peerdma_buffer_vm_ops;
	return 0;
}
