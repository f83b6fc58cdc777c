// SPDX-License-Identifier: GPL-2.0-only
/*
 * PEERDMA_KERNEL_COPY: the kernel's own CPU access to a dma-buf, by vmap.
 */
#include <linux/iosys-map.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "ioctl.h"

#define PEERDMA_MAX_KERNEL_COPY SZ_64K

static int peerdma_kernel_copy(struct dma_buf *dmabuf, void *bounce,
			       const struct peerdma_kernel_copy *arg)
{
	enum dma_data_direction dir = arg->write ? DMA_TO_DEVICE : DMA_FROM_DEVICE;
	struct iosys_map map;
	int ret, end;

	ret = dma_buf_begin_cpu_access(dmabuf, dir);
	if (ret)
		return ret;
	ret = dma_buf_vmap_unlocked(dmabuf, &map);
	if (!ret) {
		if (arg->write)
			iosys_map_memcpy_to(&map, arg->offset, bounce, arg->length);
		else
			iosys_map_memcpy_from(bounce, &map, arg->offset, arg->length);
		dma_buf_vunmap_unlocked(dmabuf, &map);
	}
	end = dma_buf_end_cpu_access(dmabuf, dir);
	return ret ?: end;
}

/*
 * Not under srcu: remove() must not wait for fences of other drivers. A dma-buf of this
 * device looks after itself when the device goes.
 */
int peerdma_ioctl_kernel_copy(struct peerdma_call *call, void *data)
{
	struct peerdma_kernel_copy *arg = data;
	void __user *user = u64_to_user_ptr(arg->data);
	struct dma_buf *dmabuf;
	void *bounce;
	int ret;

	if (READ_ONCE(call->file->peer->gone))
		return -ENODEV;
	if (arg->write > 1 || !arg->length || arg->length > PEERDMA_MAX_KERNEL_COPY)
		return -EINVAL;
	dmabuf = dma_buf_get(arg->fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	ret = -ERANGE;
	if (arg->offset > dmabuf->size || arg->length > dmabuf->size - arg->offset)
		goto out_put;
	ret = -ENOMEM;
	bounce = kvmalloc(arg->length, GFP_KERNEL);
	if (!bounce)
		goto out_put;
	ret = -EFAULT;
	if (arg->write && copy_from_user(bounce, user, arg->length))
		goto out_free;
	ret = peerdma_kernel_copy(dmabuf, bounce, arg);
	if (!ret && !arg->write && copy_to_user(user, bounce, arg->length))
		ret = -EFAULT;
out_free:
	kvfree(bounce);
out_put:
	dma_buf_put(dmabuf);
	return ret;
}
