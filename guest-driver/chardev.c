// SPDX-License-Identifier: GPL-2.0-only
/*
 * The character device: files, ioctls, mmap.
 */
#include <linux/capability.h>
#include <linux/build_bug.h>
#include <linux/file.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "work.h"

static dev_t pd_devt;

static struct class pd_class = {
	.name = KBUILD_MODNAME,
};

/* ------------------------------------------------------------------ ioctls */

struct pd_ioctl {
	int (*call)(struct pd_call *call, void *data);
	unsigned int size;
	bool lab;
	bool unguarded; /* not under srcu: it sleeps as long as the user says */
};

/* All arguments fit in here; on the stack. */
union pd_argument {
	struct peerdma_info info;
	struct peerdma_counters counters;
	u8 bytes[192];
};

#define PD_SIZE(type) \
	(sizeof(struct type) + \
	 BUILD_BUG_ON_ZERO(sizeof(struct type) > sizeof(union pd_argument)))
#define PD_IOCTL(cmd, type, function) \
	[_IOC_NR(cmd)] = { .call = function, .size = PD_SIZE(type) }
#define PD_LAB_IOCTL(cmd, type, function) \
	[_IOC_NR(cmd)] = { .call = function, .size = PD_SIZE(type), .lab = true }

static const struct pd_ioctl pd_ioctls[] = {
	PD_IOCTL(PEERDMA_GET_INFO, peerdma_info, pd_ioctl_info),
	PD_IOCTL(PEERDMA_GET_COUNTERS, peerdma_counters, pd_ioctl_counters),
	PD_IOCTL(PEERDMA_GET_DISTANCE, peerdma_distance, pd_ioctl_distance),
	PD_IOCTL(PEERDMA_ALLOC, peerdma_alloc, pd_ioctl_alloc),
	PD_IOCTL(PEERDMA_EXPORT, peerdma_export, pd_ioctl_export),
	PD_IOCTL(PEERDMA_INVALIDATE, peerdma_invalidate, pd_ioctl_invalidate),
	PD_IOCTL(PEERDMA_CLOSE, peerdma_handle, pd_ioctl_close),
	PD_IOCTL(PEERDMA_IMPORT, peerdma_import, pd_ioctl_import),
	PD_IOCTL(PEERDMA_MAP, peerdma_map, pd_ioctl_map),
	PD_IOCTL(PEERDMA_UNMAP, peerdma_handle, pd_ioctl_unmap),
	PD_IOCTL(PEERDMA_GET_SEGMENTS, peerdma_segments, pd_ioctl_segments),
	PD_IOCTL(PEERDMA_SUBMIT, peerdma_submit, pd_ioctl_submit),
	[_IOC_NR(PEERDMA_WAIT)] = {
		.call = pd_ioctl_wait,
		.size = PD_SIZE(peerdma_wait),
		.unguarded = true,
	},
	PD_IOCTL(PEERDMA_SYSTEM_ALLOC, peerdma_system_alloc,
		 pd_ioctl_system_alloc),
	PD_IOCTL(PEERDMA_SYSTEM_SYNC, peerdma_system_sync,
		 pd_ioctl_system_sync),
	PD_LAB_IOCTL(PEERDMA_LAB_BUS_MASTER, peerdma_lab_bus_master,
		     pd_ioctl_lab_bus_master),
	PD_LAB_IOCTL(PEERDMA_LAB_MAP_PHYS, peerdma_lab_map_phys,
		     pd_ioctl_lab_map_phys),
	PD_LAB_IOCTL(PEERDMA_LAB_REGISTER, peerdma_lab_register,
		     pd_ioctl_lab_register),
	PD_IOCTL(PEERDMA_BUFFER_ALLOC, peerdma_buffer_alloc,
		 pd_ioctl_buffer_alloc),
	PD_IOCTL(PEERDMA_BUFFER_MOVE, peerdma_buffer_move,
		 pd_ioctl_buffer_move),
	PD_IOCTL(PEERDMA_BUFFER_STATE, peerdma_buffer_state,
		 pd_ioctl_buffer_state),
	PD_IOCTL(PEERDMA_KERNEL_COPY, peerdma_kernel_copy,
		 pd_ioctl_kernel_copy),
	PD_LAB_IOCTL(PEERDMA_LAB_READ_PAGE, peerdma_lab_read_page,
		     pd_ioctl_lab_read_page),
};

static int pd_call_guarded(const struct pd_ioctl *ioctl, struct pd_call *call,
			   void *data)
{
	struct pd_device *pd = call->file->pd;
	int idx, ret;

	idx = srcu_read_lock(&pd->srcu);
	ret = READ_ONCE(pd->gone) ? -ENODEV : ioctl->call(call, data);
	srcu_read_unlock(&pd->srcu, idx);
	return ret;
}

/* Gives out the file descriptor, or takes everything back. */
static void pd_call_end(struct pd_call *call, bool ok)
{
	if (call->fd >= 0 && !ok)
		put_unused_fd(call->fd);
	if (call->out_dmabuf) {
		if (ok)
			dma_buf_fd_install(call->out_dmabuf, call->fd);
		else
			dma_buf_put(call->out_dmabuf);
	}
	if (call->out_file) {
		if (ok)
			fd_install(call->fd, call->out_file);
		else
			fput(call->out_file);
	}
}

static long pd_chardev_ioctl(struct file *filp, unsigned int cmd,
			     unsigned long user)
{
	struct pd_call call = { .file = filp->private_data, .fd = -1 };
	void __user *at = (void __user *)user;
	unsigned int size = _IOC_SIZE(cmd);
	unsigned int nr = _IOC_NR(cmd);
	const struct pd_ioctl *ioctl;
	union pd_argument arg = {};
	int ret;

	if (_IOC_TYPE(cmd) != PEERDMA_IOCTL_BASE ||
	    _IOC_DIR(cmd) != (_IOC_READ | _IOC_WRITE) ||
	    nr >= ARRAY_SIZE(pd_ioctls))
		return -ENOTTY;
	nr = array_index_nospec(nr, ARRAY_SIZE(pd_ioctls));
	ioctl = &pd_ioctls[nr];
	if (!ioctl->call)
		return -ENOTTY;
	if (ioctl->lab && !capable(CAP_SYS_ADMIN))
		return -EPERM;

	ret = copy_struct_from_user(&arg, ioctl->size, at, size);
	if (ret)
		return ret;
	if (ioctl->unguarded)
		ret = ioctl->call(&call, &arg);
	else
		ret = pd_call_guarded(ioctl, &call, &arg);
	if (!ret && copy_to_user(at, &arg, min(size, ioctl->size)))
		ret = -EFAULT;
	pd_call_end(&call, !ret);
	return ret;
}

/* ------------------------------------------------------------------- files */

static int pd_chardev_open(struct inode *inode, struct file *filp)
{
	struct pd_device *pd = container_of(inode->i_cdev, struct pd_device,
					    cdev);
	struct pd_file *file;
	int idx, ret = 0;

	file = kzalloc_obj(*file);
	if (!file)
		return -ENOMEM;
	file->pd = pd;
	file->file = filp;
	xa_init_flags(&file->objects, XA_FLAGS_ALLOC1);
	xa_init_flags(&file->works, XA_FLAGS_ALLOC1);

	idx = srcu_read_lock(&pd->srcu);
	if (READ_ONCE(pd->gone)) {
		ret = -ENODEV;
	} else {
		get_device(&pd->dev);
		mutex_lock(&pd->files_lock);
		list_add_tail(&file->node, &pd->files);
		mutex_unlock(&pd->files_lock);
		filp->private_data = file;
	}
	srcu_read_unlock(&pd->srcu, idx);
	if (ret)
		kfree(file);
	return ret ?: nonseekable_open(inode, filp);
}

static int pd_chardev_release(struct inode *inode, struct file *filp)
{
	struct pd_file *file = filp->private_data;
	struct pd_device *pd = file->pd;
	struct pd_object *obj;
	unsigned long handle;

	mutex_lock(&pd->files_lock);
	list_del(&file->node);
	mutex_unlock(&pd->files_lock);

	pd_works_release(file);
	xa_for_each(&file->objects, handle, obj) {
		xa_erase(&file->objects, handle);
		pd_object_put(obj);
	}
	xa_destroy(&file->objects);
	kfree(file);
	put_device(&pd->dev);
	return 0;
}

static int pd_chardev_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct pd_file *file = filp->private_data;
	struct pd_device *pd = file->pd;
	u64 handle = vma->vm_pgoff >> (PD_MMAP_SHIFT - PAGE_SHIFT);
	struct pd_object *obj;
	int idx, ret = -ENODEV;

	if (handle > PD_MAX_HANDLES)
		return -EINVAL;
	obj = pd_object_find(file, handle);
	if (!obj)
		return -ENOENT;
	idx = srcu_read_lock(&pd->srcu);
	if (!READ_ONCE(pd->gone)) {
		/* From here on relative to the object; zapping goes by files. */
		vma->vm_pgoff -= handle << (PD_MMAP_SHIFT - PAGE_SHIFT);
		ret = obj->ops->mmap ? obj->ops->mmap(obj, vma) : -EINVAL;
	}
	srcu_read_unlock(&pd->srcu, idx);
	pd_object_put(obj);
	return ret;
}

static const struct file_operations pd_chardev_fops = {
	.owner = THIS_MODULE,
	.open = pd_chardev_open,
	.release = pd_chardev_release,
	.unlocked_ioctl = pd_chardev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = pd_chardev_mmap,
};

/* Takes the CPUs' mappings away, of all files. */
void pd_files_zap(struct pd_device *pd)
{
	struct pd_file *file;

	mutex_lock(&pd->files_lock);
	list_for_each_entry(file, &pd->files, node)
		unmap_mapping_range(file->file->f_mapping, 0, 0, 1);
	mutex_unlock(&pd->files_lock);
}

/* ------------------------------------------------------------------ device */

static void pd_device_release(struct device *dev)
{
	struct pd_device *pd = container_of(dev, struct pd_device, dev);

	pd_memory_pool_destroy(pd);
	cleanup_srcu_struct(&pd->srcu);
	kfree(pd->channel);
	kfree(pd);
}

/* Undone by put_device(). */
struct pd_device *pd_chardev_create(struct pci_dev *pdev)
{
	struct pd_device *pd;
	int ret;

	ret = pd_seat_take(pdev);
	if (ret < 0)
		return ERR_PTR(ret);
	pd = kzalloc_obj(*pd);
	if (!pd)
		return ERR_PTR(-ENOMEM);
	pd->instance = ret;
	ret = init_srcu_struct(&pd->srcu);
	if (ret) {
		kfree(pd);
		return ERR_PTR(ret);
	}
	pd->pdev = pdev;
	init_rwsem(&pd->bar_lock);
	mutex_init(&pd->files_lock);
	INIT_LIST_HEAD(&pd->files);
	mutex_init(&pd->exports_lock);
	INIT_LIST_HEAD(&pd->exports);
	spin_lock_init(&pd->objects_lock);
	INIT_LIST_HEAD(&pd->objects);
	init_waitqueue_head(&pd->idle);

	device_initialize(&pd->dev);
	pd->dev.class = &pd_class;
	pd->dev.parent = &pdev->dev;
	pd->dev.devt = MKDEV(MAJOR(pd_devt), pd->instance);
	pd->dev.release = pd_device_release;
	cdev_init(&pd->cdev, &pd_chardev_fops);
	pd->cdev.owner = THIS_MODULE;
	ret = dev_set_name(&pd->dev, "peerdma%u", pd->instance);
	if (ret) {
		put_device(&pd->dev);
		return ERR_PTR(ret);
	}
	return pd;
}

int pd_chardev_add(struct pd_device *pd)
{
	return cdev_device_add(&pd->cdev, &pd->dev);
}

/* No more opens. */
void pd_chardev_remove(struct pd_device *pd)
{
	cdev_device_del(&pd->cdev, &pd->dev);
}

int pd_chardev_init(void)
{
	int ret;

	ret = alloc_chrdev_region(&pd_devt, 0, PD_MAX_DEVICES, KBUILD_MODNAME);
	if (ret)
		return ret;
	ret = class_register(&pd_class);
	if (ret)
		unregister_chrdev_region(pd_devt, PD_MAX_DEVICES);
	return ret;
}

void pd_chardev_exit(void)
{
	class_unregister(&pd_class);
	unregister_chrdev_region(pd_devt, PD_MAX_DEVICES);
	pd_seats_free();
}
