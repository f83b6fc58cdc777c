// SPDX-License-Identifier: GPL-2.0-only
/*
 * The CPU's mappings of system memory.
 */
#include "system.h"

static void pd_system_vma_open(struct vm_area_struct *vma)
{
	pd_object_get(vma->vm_private_data);
}

static void pd_system_vma_close(struct vm_area_struct *vma)
{
	pd_object_put(vma->vm_private_data);
}

/* Everything was mapped at once; what faults has been zapped by remove(). */
static vm_fault_t pd_system_fault(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct vm_operations_struct pd_system_vm_ops = {
	.open = pd_system_vma_open,
	.close = pd_system_vma_close,
	.fault = pd_system_fault,
};

static int pd_system_mmap_coherent(struct pd_system *sys,
				   struct vm_area_struct *vma)
{
	int ret = -ENODEV;

	/* Not beside pd_system_shutdown(), which frees the memory. */
	mutex_lock(&sys->base.lock);
	if (sys->cpu)
		ret = dma_mmap_coherent(pd_system_dev(sys), vma, sys->cpu,
					sys->dma, sys->base.size);
	mutex_unlock(&sys->base.lock);
	return ret;
}

int pd_system_mmap(struct pd_object *obj, struct vm_area_struct *vma)
{
	struct pd_system *sys = to_pd_system(obj);
	unsigned long first = vma->vm_pgoff;
	unsigned long pages = obj->size >> PAGE_SHIFT;
	unsigned long left = vma_pages(vma);
	int ret;

	if (pd_vma_is_private(vma))
		return -EINVAL;
	if (first >= pages || left > pages - first)
		return -EINVAL;
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);

	switch (sys->type) {
	case PD_SYSTEM_PAGES:
		ret = vm_insert_pages(vma, vma->vm_start, sys->pages + first,
				      &left);
		break;
	case PD_SYSTEM_COHERENT:
		ret = pd_system_mmap_coherent(sys, vma);
		break;
	default:
		ret = -EINVAL;
	}
	if (ret)
		return ret;
	vma->vm_private_data = obj;
	vma->vm_ops = &pd_system_vm_ops;
	pd_object_get(obj);
	return 0;
}
