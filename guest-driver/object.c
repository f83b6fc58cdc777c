// SPDX-License-Identifier: GPL-2.0-only
/*
 * Objects: what all kinds have in common, and the calls that take any of them.
 */
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "ioctl.h"

void peerdma_object_init(struct peerdma_object *obj, struct peerdma_device *peer,
			 enum peerdma_kind kind, const struct peerdma_object_ops *ops, u64 size)
{
	kref_init(&obj->refs);
	mutex_init(&obj->lock);
	atomic_set(&obj->in_flight, 0);
	get_device(&peer->dev);
	obj->peer = peer;
	obj->kind = kind;
	obj->ops = ops;
	obj->size = size;
	spin_lock(&peer->objects_lock);
	list_add_tail(&obj->node, &peer->objects);
	spin_unlock(&peer->objects_lock);
}

static void peerdma_object_shutdown(struct peerdma_object *obj)
{
	peerdma_object_wait_idle(obj);
	if (obj->ops->shutdown)
		obj->ops->shutdown(obj);
}

static void peerdma_object_release(struct kref *refs)
{
	struct peerdma_object *obj = container_of(refs, struct peerdma_object, refs);
	struct peerdma_device *peer = obj->peer;

	peerdma_object_shutdown(obj);
	spin_lock(&peer->objects_lock);
	list_del(&obj->node);
	spin_unlock(&peer->objects_lock);
	/* remove() may be waiting for us. */
	wake_up_all(&peer->idle);
	mutex_destroy(&obj->lock);
	obj->ops->release(obj);
	put_device(&peer->dev);
}

void peerdma_object_get(struct peerdma_object *obj)
{
	kref_get(&obj->refs);
}

/* Process context, without any lock of the object's. */
void peerdma_object_put(struct peerdma_object *obj)
{
	if (obj)
		kref_put(&obj->refs, peerdma_object_release);
}

/*
 * The next object that has not let go of the device: a reference, or NULL when
 * there is none. @left: some have not, but are being released.
 */
static struct peerdma_object *peerdma_objects_next(struct peerdma_device *peer, bool *left)
{
	struct peerdma_object *obj, *found = NULL;

	*left = false;
	spin_lock(&peer->objects_lock);
	list_for_each_entry(obj, &peer->objects, node) {
		if (obj->shut)
			continue;
		*left = true;
		if (kref_get_unless_zero(&obj->refs)) {
			found = obj;
			break;
		}
	}
	spin_unlock(&peer->objects_lock);
	return found;
}

static bool peerdma_objects_all_shut(struct peerdma_device *peer)
{
	struct peerdma_object *obj;
	bool all = true;

	spin_lock(&peer->objects_lock);
	list_for_each_entry(obj, &peer->objects, node)
		all &= obj->shut;
	spin_unlock(&peer->objects_lock);
	return all;
}

/*
 * remove(): all objects let go of the device, also those that only a VMA keeps.
 * No call is under way that could make another one.
 */
void peerdma_objects_shutdown(struct peerdma_device *peer)
{
	struct peerdma_object *obj;
	bool left;

	while ((obj = peerdma_objects_next(peer, &left))) {
		peerdma_object_shutdown(obj);
		spin_lock(&peer->objects_lock);
		obj->shut = true;
		spin_unlock(&peer->objects_lock);
		peerdma_object_put(obj);
	}
	if (left)
		wait_event(peer->idle, peerdma_objects_all_shut(peer));
}

/* Locks what guards the mapping. */
int peerdma_object_lock(struct peerdma_object *obj)
{
	if (obj->resv)
		return dma_resv_lock_interruptible(obj->resv, NULL);
	return mutex_lock_interruptible(&obj->lock);
}

void peerdma_object_unlock(struct peerdma_object *obj)
{
	if (obj->resv)
		dma_resv_unlock(obj->resv);
	else
		mutex_unlock(&obj->lock);
}

void peerdma_object_assert_locked(struct peerdma_object *obj)
{
	if (obj->resv)
		dma_resv_assert_held(obj->resv);
	else
		lockdep_assert_held(&obj->lock);
}

/*
 * Waits until no work uses the object. Work ends without any lock of ours, by
 * its time-out at the latest, so this may be called with the object locked.
 */
void peerdma_object_wait_idle(struct peerdma_object *obj)
{
	wait_event(obj->peer->idle, !atomic_read(&obj->in_flight));
}

/* Gives the object a handle, which takes over the caller's reference. */
int peerdma_object_publish(struct peerdma_file *file, struct peerdma_object *obj, u32 *handle)
{
	return xa_alloc(&file->objects, handle, obj, XA_LIMIT(1, PEERDMA_MAX_HANDLES), GFP_KERNEL);
}

/* Returns a reference, or NULL. */
struct peerdma_object *peerdma_object_find(struct peerdma_file *file, u32 handle)
{
	struct peerdma_object *obj;

	xa_lock(&file->objects);
	obj = xa_load(&file->objects, handle);
	if (obj)
		peerdma_object_get(obj);
	xa_unlock(&file->objects);
	return obj;
}

/* Returns a reference, or an error: ENOENT, or EINVAL for another kind. */
struct peerdma_object *peerdma_object_find_kind(struct peerdma_file *file, u32 handle,
						enum peerdma_kind kind)
{
	struct peerdma_object *obj = peerdma_object_find(file, handle);

	if (!obj)
		return ERR_PTR(-ENOENT);
	if (obj->kind != kind) {
		peerdma_object_put(obj);
		return ERR_PTR(-EINVAL);
	}
	return obj;
}

/* Likewise, for what a dma-buf can be made of. */
struct peerdma_object *peerdma_object_find_exportable(struct peerdma_file *file, u32 handle)
{
	struct peerdma_object *obj = peerdma_object_find(file, handle);

	if (!obj)
		return ERR_PTR(-ENOENT);
	if (obj->kind != PEERDMA_KIND_MEMORY && obj->kind != PEERDMA_KIND_BUFFER) {
		peerdma_object_put(obj);
		return ERR_PTR(-EINVAL);
	}
	return obj;
}

struct peerdma_segment_list *peerdma_segment_list_alloc(u32 count)
{
	struct peerdma_segment_list *segments;

	segments = kvzalloc(struct_size(segments, segment, count), GFP_KERNEL);
	if (segments)
		segments->count = count;
	return segments;
}

/* The DMA side of a table, flat; NULL when there is no memory. */
struct peerdma_segment_list *peerdma_segment_list_from_sgt(struct sg_table *sgt)
{
	struct peerdma_segment_list *segments = peerdma_segment_list_alloc(sgt->nents);
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

int peerdma_ioctl_close(struct peerdma_call *call, void *data)
{
	struct peerdma_handle *arg = data;
	struct peerdma_object *obj;
	int ret;

	if (arg->reserved)
		return -EINVAL;
	obj = peerdma_object_find(call->file, arg->handle);
	if (!obj)
		return -ENOENT;

	ret = wait_event_interruptible(obj->peer->idle, !atomic_read(&obj->in_flight));
	/* Only one of two closers finds the handle still there. */
	if (!ret) {
		if (xa_cmpxchg(&call->file->objects, arg->handle, obj, NULL, GFP_KERNEL) == obj)
			peerdma_object_put(obj);
		else
			ret = -ENOENT;
	}
	peerdma_object_put(obj);
	return ret;
}

int peerdma_ioctl_map(struct peerdma_call *call, void *data)
{
	struct peerdma_map *arg = data;
	struct peerdma_object *obj;
	int ret;

	if (arg->reserved || arg->direction > PEERDMA_FROM_DEVICE)
		return -EINVAL;
	obj = peerdma_object_find(call->file, arg->handle);
	if (!obj)
		return -ENOENT;

	ret = -EINVAL;
	if (!obj->ops->map)
		goto out_put;
	ret = peerdma_object_lock(obj);
	if (ret)
		goto out_put;
	if (obj->segments)
		ret = -EBUSY;
	else
		ret = obj->ops->map(obj, arg->direction);
	if (!ret)
		arg->segments = obj->segments->count;
	peerdma_object_unlock(obj);
out_put:
	peerdma_object_put(obj);
	return ret;
}

int peerdma_ioctl_unmap(struct peerdma_call *call, void *data)
{
	struct peerdma_handle *arg = data;
	struct peerdma_object *obj;
	int ret;

	if (arg->reserved)
		return -EINVAL;
	obj = peerdma_object_find(call->file, arg->handle);
	if (!obj)
		return -ENOENT;

	ret = -EINVAL;
	if (!obj->ops->unmap)
		goto out_put;
	ret = peerdma_object_lock(obj);
	if (ret)
		goto out_put;
	if (obj->segments) {
		/* No new work comes in while we hold the lock. */
		ret = wait_event_interruptible(obj->peer->idle, !atomic_read(&obj->in_flight));
		if (!ret)
			obj->ops->unmap(obj);
	} else {
		ret = -EINVAL;
	}
	peerdma_object_unlock(obj);
out_put:
	peerdma_object_put(obj);
	return ret;
}

int peerdma_ioctl_segments(struct peerdma_call *call, void *data)
{
	struct peerdma_segments *arg = data;
	struct peerdma_segment *copy = NULL;
	struct peerdma_object *obj;
	u32 wanted, count = 0;
	int ret;

	if (arg->reserved)
		return -EINVAL;
	obj = peerdma_object_find(call->file, arg->handle);
	if (!obj)
		return -ENOENT;

	/* Sized before the lock, filled under it, copied out after it. */
	wanted = min(arg->capacity, 1U << 16);
	ret = -ENOMEM;
	copy = kvcalloc(max(wanted, 1U), sizeof(*copy), GFP_KERNEL);
	if (!copy)
		goto out_put;
	ret = peerdma_object_lock(obj);
	if (ret)
		goto out_put;
	arg->total = obj->segments ? obj->segments->count : 0;
	if (arg->first < arg->total) {
		count = min(wanted, arg->total - arg->first);
		memcpy(copy, &obj->segments->segment[arg->first], array_size(count, sizeof(*copy)));
	}
	arg->generation = obj->generation;
	arg->direction = obj->direction;
	peerdma_object_unlock(obj);

	arg->capacity = count;
	if (copy_to_user(u64_to_user_ptr(arg->array), copy, array_size(count, sizeof(*copy))))
		ret = -EFAULT;
out_put:
	kvfree(copy);
	peerdma_object_put(obj);
	return ret;
}
