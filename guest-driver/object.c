// SPDX-License-Identifier: GPL-2.0-only
/*
 * Objects: what all kinds have in common, and the calls that take any of them.
 */
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "driver.h"

void pd_object_init(struct pd_object *obj, struct pd_device *pd,
		    enum pd_kind kind, const struct pd_object_ops *ops,
		    u64 size)
{
	kref_init(&obj->refs);
	mutex_init(&obj->lock);
	atomic_set(&obj->in_flight, 0);
	get_device(&pd->dev);
	obj->pd = pd;
	obj->kind = kind;
	obj->ops = ops;
	obj->size = size;
	spin_lock(&pd->objects_lock);
	list_add_tail(&obj->node, &pd->objects);
	spin_unlock(&pd->objects_lock);
}

static void pd_object_shutdown(struct pd_object *obj)
{
	pd_object_wait_idle(obj);
	if (obj->ops->shutdown)
		obj->ops->shutdown(obj);
}

static void pd_object_release(struct kref *refs)
{
	struct pd_object *obj = container_of(refs, struct pd_object, refs);
	struct pd_device *pd = obj->pd;

	pd_object_shutdown(obj);
	spin_lock(&pd->objects_lock);
	list_del(&obj->node);
	spin_unlock(&pd->objects_lock);
	/* remove() may be waiting for us. */
	wake_up_all(&pd->idle);
	mutex_destroy(&obj->lock);
	obj->ops->release(obj);
	put_device(&pd->dev);
}

void pd_object_get(struct pd_object *obj)
{
	kref_get(&obj->refs);
}

/* Process context, without any lock of the object's. */
void pd_object_put(struct pd_object *obj)
{
	if (obj)
		kref_put(&obj->refs, pd_object_release);
}

/*
 * The next object that has not let go of the device: a reference, or NULL when
 * there is none. @left: some have not, but are being released.
 */
static struct pd_object *pd_objects_next(struct pd_device *pd, bool *left)
{
	struct pd_object *obj, *found = NULL;

	*left = false;
	spin_lock(&pd->objects_lock);
	list_for_each_entry(obj, &pd->objects, node) {
		if (obj->shut)
			continue;
		*left = true;
		if (kref_get_unless_zero(&obj->refs)) {
			found = obj;
			break;
		}
	}
	spin_unlock(&pd->objects_lock);
	return found;
}

static bool pd_objects_all_shut(struct pd_device *pd)
{
	struct pd_object *obj;
	bool all = true;

	spin_lock(&pd->objects_lock);
	list_for_each_entry(obj, &pd->objects, node)
		all &= obj->shut;
	spin_unlock(&pd->objects_lock);
	return all;
}

/*
 * remove(): all objects let go of the device, also those that only a VMA keeps.
 * No call is under way that could make another one.
 */
void pd_objects_shutdown(struct pd_device *pd)
{
	struct pd_object *obj;
	bool left;

	while ((obj = pd_objects_next(pd, &left))) {
		pd_object_shutdown(obj);
		spin_lock(&pd->objects_lock);
		obj->shut = true;
		spin_unlock(&pd->objects_lock);
		pd_object_put(obj);
	}
	if (left)
		wait_event(pd->idle, pd_objects_all_shut(pd));
}

/* Locks what guards the mapping. */
int pd_object_lock(struct pd_object *obj)
{
	if (obj->resv)
		return dma_resv_lock_interruptible(obj->resv, NULL);
	return mutex_lock_interruptible(&obj->lock);
}

void pd_object_unlock(struct pd_object *obj)
{
	if (obj->resv)
		dma_resv_unlock(obj->resv);
	else
		mutex_unlock(&obj->lock);
}

/*
 * Waits until no work uses the object. Work ends without any lock of ours, by
 * its time-out at the latest, so this may be called with the object locked.
 */
void pd_object_wait_idle(struct pd_object *obj)
{
	wait_event(obj->pd->idle, !atomic_read(&obj->in_flight));
}

/* Gives the object a handle, which takes over the caller's reference. */
int pd_object_publish(struct pd_file *file, struct pd_object *obj, u32 *handle)
{
	return xa_alloc(&file->objects, handle, obj,
			XA_LIMIT(1, PD_MAX_HANDLES), GFP_KERNEL);
}

/* Returns a reference, or NULL. */
struct pd_object *pd_object_find(struct pd_file *file, u32 handle)
{
	struct pd_object *obj;

	xa_lock(&file->objects);
	obj = xa_load(&file->objects, handle);
	if (obj)
		pd_object_get(obj);
	xa_unlock(&file->objects);
	return obj;
}

/* Returns a reference, or an error: ENOENT, or EINVAL for another kind. */
struct pd_object *pd_object_find_kind(struct pd_file *file, u32 handle,
				      enum pd_kind kind)
{
	struct pd_object *obj = pd_object_find(file, handle);

	if (!obj)
		return ERR_PTR(-ENOENT);
	if (obj->kind != kind) {
		pd_object_put(obj);
		return ERR_PTR(-EINVAL);
	}
	return obj;
}

/* Likewise, for what a dma-buf can be made of. */
struct pd_object *pd_object_find_exportable(struct pd_file *file, u32 handle)
{
	struct pd_object *obj = pd_object_find(file, handle);

	if (!obj)
		return ERR_PTR(-ENOENT);
	if (obj->kind != PD_MEMORY && obj->kind != PD_BUFFER) {
		pd_object_put(obj);
		return ERR_PTR(-EINVAL);
	}
	return obj;
}

struct pd_segments *pd_segments_alloc(u32 count)
{
	struct pd_segments *segments;

	segments = kvzalloc(struct_size(segments, segment, count), GFP_KERNEL);
	if (segments)
		segments->count = count;
	return segments;
}

/* The DMA side of a table, flat; NULL when there is no memory. */
struct pd_segments *pd_segments_from_sgt(struct sg_table *sgt)
{
	struct pd_segments *segments = pd_segments_alloc(sgt->nents);
	struct scatterlist *sg;
	unsigned int i;

	if (!segments)
		return NULL;
	for_each_sgtable_dma_sg(sgt, sg, i) {
		segments->segment[i].address = sg_dma_address(sg);
		segments->segment[i].length = sg_dma_len(sg);
	}
	return segments;
}

int pd_ioctl_close(struct pd_call *call, void *data)
{
	struct peerdma_handle *arg = data;
	struct pd_object *obj;
	int ret;

	if (arg->reserved)
		return -EINVAL;
	obj = pd_object_find(call->file, arg->handle);
	if (!obj)
		return -ENOENT;

	ret = wait_event_interruptible(obj->pd->idle,
				       !atomic_read(&obj->in_flight));
	/* Only one of two closers finds the handle still there. */
	if (!ret) {
		if (xa_cmpxchg(&call->file->objects, arg->handle, obj, NULL,
			       GFP_KERNEL) == obj)
			pd_object_put(obj);
		else
			ret = -ENOENT;
	}
	pd_object_put(obj);
	return ret;
}

int pd_ioctl_map(struct pd_call *call, void *data)
{
	struct peerdma_map *arg = data;
	struct pd_object *obj;
	int ret;

	if (arg->reserved || arg->direction > PEERDMA_FROM_DEVICE)
		return -EINVAL;
	obj = pd_object_find(call->file, arg->handle);
	if (!obj)
		return -ENOENT;

	ret = -EINVAL;
	if (!obj->ops->map)
		goto out_put;
	ret = pd_object_lock(obj);
	if (ret)
		goto out_put;
	if (obj->segments)
		ret = -EBUSY;
	else
		ret = obj->ops->map(obj, arg->direction);
	if (!ret)
		arg->segments = obj->segments->count;
	pd_object_unlock(obj);
out_put:
	pd_object_put(obj);
	return ret;
}

int pd_ioctl_unmap(struct pd_call *call, void *data)
{
	struct peerdma_handle *arg = data;
	struct pd_object *obj;
	int ret;

	if (arg->reserved)
		return -EINVAL;
	obj = pd_object_find(call->file, arg->handle);
	if (!obj)
		return -ENOENT;

	ret = -EINVAL;
	if (!obj->ops->unmap)
		goto out_put;
	ret = pd_object_lock(obj);
	if (ret)
		goto out_put;
	if (obj->segments) {
		/* No new work comes in while we hold the lock. */
		ret = wait_event_interruptible(obj->pd->idle,
					       !atomic_read(&obj->in_flight));
		if (!ret)
			obj->ops->unmap(obj);
	} else {
		ret = -EINVAL;
	}
	pd_object_unlock(obj);
out_put:
	pd_object_put(obj);
	return ret;
}

int pd_ioctl_segments(struct pd_call *call, void *data)
{
	struct peerdma_segments *arg = data;
	struct peerdma_segment *copy = NULL;
	struct pd_object *obj;
	u32 wanted, count = 0;
	int ret;

	if (arg->reserved)
		return -EINVAL;
	obj = pd_object_find(call->file, arg->handle);
	if (!obj)
		return -ENOENT;

	/* Sized before the lock, filled under it, copied out after it. */
	wanted = min(arg->capacity, 1U << 16);
	ret = -ENOMEM;
	copy = kvcalloc(max(wanted, 1U), sizeof(*copy), GFP_KERNEL);
	if (!copy)
		goto out_put;
	ret = pd_object_lock(obj);
	if (ret)
		goto out_put;
	arg->total = obj->segments ? obj->segments->count : 0;
	if (arg->first < arg->total) {
		count = min(wanted, arg->total - arg->first);
		memcpy(copy, &obj->segments->segment[arg->first],
		       array_size(count, sizeof(*copy)));
	}
	arg->generation = obj->generation;
	arg->direction = obj->direction;
	pd_object_unlock(obj);

	arg->capacity = count;
	if (copy_to_user(u64_to_user_ptr(arg->array), copy,
			 array_size(count, sizeof(*copy))))
		ret = -EFAULT;
out_put:
	kvfree(copy);
	pd_object_put(obj);
	return ret;
}
