// SPDX-License-Identifier: GPL-2.0-only
/*
 * The CPU's mappings of system memory.
 */
#include "system.h"

static void peerdma_system_vma_open(struct vm_area_struct *vma)
{
	peerdma_object_get(vma->vm_private_data);
}

static void peerdma_system_vma_close(struct vm_area_struct *vma)
{
	peerdma_object_put(vma->vm_private_data);
}

/* Everything was mapped at once; what faults has been zapped by remove(). */
static vm_fault_t peerdma_system_fault(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct vm_operations_struct peerdma_system_vm_ops = {
	.open = peerdma_system_vma_open,
	.close = peerdma_system_vma_close,
	.fault = peerdma_system_fault,
};

static int peerdma_system_mmap_coherent(struct peerdma_system *sys, struct vm_area_struct *vma)
{
	int ret = -ENODEV;

	/* Not beside peerdma_system_shutdown(), which frees the memory. */
	mutex_lock(&sys->base.lock);
	if (sys->cpu)
		ret = dma_mmap_coherent(peerdma_system_dev(sys), vma, sys->cpu, sys->dma,
					sys->base.size);
	mutex_unlock(&sys->base.lock);
	return ret;
}

int peerdma_system_mmap(struct peerdma_object *obj, struct vm_area_struct *vma)
{
	struct peerdma_system *sys = to_peerdma_system(obj);
	unsigned long first = vma->vm_pgoff;
	unsigned long pages = obj->size >> PAGE_SHIFT;
	unsigned long left = vma_pages(vma);
	int ret;

	if (peerdma_vma_is_private(vma))
		return -EINVAL;
	if (first >= pages || left > pages - first)
		return -EINVAL;
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);

	switch (sys->type) {
	case PEERDMA_SYSTEM_TYPE_PAGES:
		ret = vm_insert_pages(vma, vma->vm_start, sys->pages + first, &left);
		break;
	case PEERDMA_SYSTEM_TYPE_COHERENT:
		ret = peerdma_system_mmap_coherent(sys, vma);
		break;
	default:
		ret = -EINVAL;
	}
	if (ret)
		return ret;
	vma->vm_private_data = obj;
	vma->vm_ops = &peerdma_system_vm_ops;
	peerdma_object_get(obj);
	return 0;
}
