// SPDX-License-Identifier: GPL-2.0-only
/*
 * The character device: files, ioctls, mmap.
 */
#include <linux/file.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "ioctl.h"
#include "lab_ops.h"
#include "work.h"

static dev_t peerdma_devt;

static struct class peerdma_class = {
	.name = KBUILD_MODNAME,
};

/* ------------------------------------------------------------------ ioctls */

static const struct peerdma_ioctl peerdma_ioctls[] = {
	PEERDMA_IOCTL(PEERDMA_GET_INFO, peerdma_info, peerdma_ioctl_info),
	PEERDMA_IOCTL(PEERDMA_GET_COUNTERS, peerdma_counters, peerdma_ioctl_counters),
	PEERDMA_IOCTL(PEERDMA_GET_DISTANCE, peerdma_distance, peerdma_ioctl_distance),
	PEERDMA_IOCTL(PEERDMA_ALLOC, peerdma_alloc, peerdma_ioctl_alloc),
	PEERDMA_IOCTL(PEERDMA_EXPORT, peerdma_export, peerdma_ioctl_export),
	PEERDMA_IOCTL(PEERDMA_INVALIDATE, peerdma_invalidate, peerdma_ioctl_invalidate),
	PEERDMA_IOCTL(PEERDMA_CLOSE, peerdma_handle, peerdma_ioctl_close),
	PEERDMA_IOCTL(PEERDMA_IMPORT, peerdma_import, peerdma_ioctl_import),
	PEERDMA_IOCTL(PEERDMA_MAP, peerdma_map, peerdma_ioctl_map),
	PEERDMA_IOCTL(PEERDMA_UNMAP, peerdma_handle, peerdma_ioctl_unmap),
	PEERDMA_IOCTL(PEERDMA_GET_SEGMENTS, peerdma_segments, peerdma_ioctl_segments),
	PEERDMA_IOCTL(PEERDMA_SUBMIT, peerdma_submit, peerdma_ioctl_submit),
	[_IOC_NR(PEERDMA_WAIT)] = {
		.call = peerdma_ioctl_wait,
		.size = PEERDMA_ARGUMENT_SIZE(peerdma_wait),
		.unguarded = true,
	},
	PEERDMA_IOCTL(PEERDMA_SYSTEM_ALLOC, peerdma_system_alloc, peerdma_ioctl_system_alloc),
	PEERDMA_IOCTL(PEERDMA_SYSTEM_SYNC, peerdma_system_sync, peerdma_ioctl_system_sync),
	PEERDMA_IOCTL(PEERDMA_BUFFER_ALLOC, peerdma_buffer_alloc, peerdma_ioctl_buffer_alloc),
	PEERDMA_IOCTL(PEERDMA_BUFFER_MOVE, peerdma_buffer_move, peerdma_ioctl_buffer_move),
	PEERDMA_IOCTL(PEERDMA_BUFFER_STATE, peerdma_buffer_state, peerdma_ioctl_buffer_state),
	/* It waits for fences of other drivers. */
	[_IOC_NR(PEERDMA_KERNEL_COPY)] = {
		.call = peerdma_ioctl_kernel_copy,
		.size = PEERDMA_ARGUMENT_SIZE(peerdma_kernel_copy),
		.unguarded = true,
	},
};

/* The entry for ioctl number @nr, or an error. */
static const struct peerdma_ioctl *peerdma_ioctl_find(unsigned int nr)
{
	unsigned int i;

	if (nr < ARRAY_SIZE(peerdma_ioctls)) {
		i = array_index_nospec(nr, ARRAY_SIZE(peerdma_ioctls));
		if (peerdma_ioctls[i].call)
			return &peerdma_ioctls[i];
	}
	return peerdma_lab.ioctl(nr);
}

static int peerdma_call_guarded(const struct peerdma_ioctl *ioctl, struct peerdma_call *call,
				void *data)
{
	struct peerdma_device *peer = call->file->peer;
	int idx, ret;

	idx = srcu_read_lock(&peer->srcu);
	ret = READ_ONCE(peer->gone) ? -ENODEV : ioctl->call(call, data);
	srcu_read_unlock(&peer->srcu, idx);
	return ret;
}

/* Gives out the file descriptor, or takes everything back. */
static void peerdma_call_end(struct peerdma_call *call, bool ok)
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

static long peerdma_chardev_ioctl(struct file *filp, unsigned int cmd, unsigned long user)
{
	struct peerdma_call call = { .file = filp->private_data, .fd = -1 };
	void __user *at = (void __user *)user;
	unsigned int size = _IOC_SIZE(cmd);
	const struct peerdma_ioctl *ioctl;
	union peerdma_argument arg = {};
	int ret;

	if (_IOC_TYPE(cmd) != PEERDMA_IOCTL_BASE || _IOC_DIR(cmd) != (_IOC_READ | _IOC_WRITE))
		return -ENOTTY;
	ioctl = peerdma_ioctl_find(_IOC_NR(cmd));
	if (IS_ERR(ioctl))
		return PTR_ERR(ioctl);

	ret = copy_struct_from_user(&arg, ioctl->size, at, size);
	if (ret)
		return ret;
	if (ioctl->unguarded)
		ret = ioctl->call(&call, &arg);
	else
		ret = peerdma_call_guarded(ioctl, &call, &arg);
	if (!ret && copy_to_user(at, &arg, min(size, ioctl->size)))
		ret = -EFAULT;
	peerdma_call_end(&call, !ret);
	return ret;
}

/* ------------------------------------------------------------------- files */

static int peerdma_chardev_open(struct inode *inode, struct file *filp)
{
	struct peerdma_device *peer = container_of(inode->i_cdev, struct peerdma_device, cdev);
	struct peerdma_file *file;
	int idx, ret = 0;

	file = kzalloc_obj(*file);
	if (!file)
		return -ENOMEM;
	file->peer = peer;
	file->file = filp;
	xa_init_flags(&file->objects, XA_FLAGS_ALLOC1);
	xa_init_flags(&file->works, XA_FLAGS_ALLOC1);

	idx = srcu_read_lock(&peer->srcu);
	if (READ_ONCE(peer->gone)) {
		ret = -ENODEV;
	} else {
		get_device(&peer->dev);
		mutex_lock(&peer->files_lock);
		list_add_tail(&file->node, &peer->files);
		mutex_unlock(&peer->files_lock);
		filp->private_data = file;
	}
	srcu_read_unlock(&peer->srcu, idx);
	if (ret)
		kfree(file);
	return ret ?: nonseekable_open(inode, filp);
}

static int peerdma_chardev_release(struct inode *inode, struct file *filp)
{
	struct peerdma_file *file = filp->private_data;
	struct peerdma_device *peer = file->peer;
	struct peerdma_object *obj;
	unsigned long handle;

	mutex_lock(&peer->files_lock);
	list_del(&file->node);
	mutex_unlock(&peer->files_lock);

	peerdma_works_release(file);
	xa_for_each(&file->objects, handle, obj) {
		xa_erase(&file->objects, handle);
		peerdma_object_put(obj);
	}
	xa_destroy(&file->objects);
	kfree(file);
	put_device(&peer->dev);
	return 0;
}

static int peerdma_chardev_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct peerdma_file *file = filp->private_data;
	struct peerdma_device *peer = file->peer;
	u64 handle = vma->vm_pgoff >> (PEERDMA_MMAP_SHIFT - PAGE_SHIFT);
	struct peerdma_object *obj;
	int idx, ret = -ENODEV;

	if (handle > PEERDMA_MAX_HANDLES)
		return -EINVAL;
	obj = peerdma_object_find(file, handle);
	if (!obj)
		return -ENOENT;
	idx = srcu_read_lock(&peer->srcu);
	if (!READ_ONCE(peer->gone)) {
		/* From here on relative to the object; zapping goes by files. */
		vma->vm_pgoff -= handle << (PEERDMA_MMAP_SHIFT - PAGE_SHIFT);
		ret = obj->ops->mmap ? obj->ops->mmap(obj, vma) : -EINVAL;
	}
	srcu_read_unlock(&peer->srcu, idx);
	peerdma_object_put(obj);
	return ret;
}

static const struct file_operations peerdma_chardev_fops = {
	.owner = THIS_MODULE,
	.open = peerdma_chardev_open,
	.release = peerdma_chardev_release,
	.unlocked_ioctl = peerdma_chardev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = peerdma_chardev_mmap,
};

/* Takes the CPUs' mappings away, of all files. */
void peerdma_files_zap(struct peerdma_device *peer)
{
	struct peerdma_file *file;

	mutex_lock(&peer->files_lock);
	list_for_each_entry(file, &peer->files, node)
		unmap_mapping_range(file->file->f_mapping, 0, 0, 1);
	mutex_unlock(&peer->files_lock);
}

/* ------------------------------------------------------------------ device */

static void peerdma_device_release(struct device *dev)
{
	struct peerdma_device *peer = container_of(dev, struct peerdma_device, dev);

	peerdma_memory_pool_destroy(peer);
	cleanup_srcu_struct(&peer->srcu);
	kfree(peer->channel);
	kfree(peer);
}

/* Undone by put_device(). */
struct peerdma_device *peerdma_chardev_create(struct pci_dev *pdev)
{
	struct peerdma_device *peer;
	int ret;

	ret = peerdma_instance_get(pdev);
	if (ret < 0)
		return ERR_PTR(ret);
	peer = kzalloc_obj(*peer);
	if (!peer)
		return ERR_PTR(-ENOMEM);
	peer->instance = ret;
	ret = init_srcu_struct(&peer->srcu);
	if (ret) {
		kfree(peer);
		return ERR_PTR(ret);
	}
	peer->pdev = pdev;
	init_rwsem(&peer->bar_lock);
	mutex_init(&peer->files_lock);
	INIT_LIST_HEAD(&peer->files);
	mutex_init(&peer->revoke_lock);
	mutex_init(&peer->exports_lock);
	INIT_LIST_HEAD(&peer->exports);
	spin_lock_init(&peer->objects_lock);
	INIT_LIST_HEAD(&peer->objects);
	init_waitqueue_head(&peer->idle);

	device_initialize(&peer->dev);
	peer->dev.class = &peerdma_class;
	peer->dev.parent = &pdev->dev;
	peer->dev.devt = MKDEV(MAJOR(peerdma_devt), peer->instance);
	peer->dev.release = peerdma_device_release;
	cdev_init(&peer->cdev, &peerdma_chardev_fops);
	peer->cdev.owner = THIS_MODULE;
	ret = dev_set_name(&peer->dev, "peerdma%u", peer->instance);
	if (ret) {
		put_device(&peer->dev);
		return ERR_PTR(ret);
	}
	return peer;
}

int peerdma_chardev_add(struct peerdma_device *peer)
{
	return cdev_device_add(&peer->cdev, &peer->dev);
}

/* No more opens. */
void peerdma_chardev_remove(struct peerdma_device *peer)
{
	cdev_device_del(&peer->cdev, &peer->dev);
}

int peerdma_chardev_init(void)
{
	int ret;

	ret = alloc_chrdev_region(&peerdma_devt, 0, PEERDMA_MAX_DEVICES, KBUILD_MODNAME);
	if (ret)
		return ret;
	ret = class_register(&peerdma_class);
	if (ret)
		unregister_chrdev_region(peerdma_devt, PEERDMA_MAX_DEVICES);
	return ret;
}

void peerdma_chardev_exit(void)
{
	class_unregister(&peerdma_class);
	unregister_chrdev_region(peerdma_devt, PEERDMA_MAX_DEVICES);
	peerdma_instances_free();
}
