// SPDX-License-Identifier: GPL-2.0-only
/*
 * Buffer objects: creating them, and letting go of the device.
 */
#include <linux/slab.h>

#include "buffer.h"
#include "ioctl.h"
#include "lab_ops.h"
#include "work.h"

static const struct peerdma_storage *const peerdma_storages[] = {
	[PEERDMA_BUFFER_P2PMEM] = &peerdma_storage_p2pmem,
	[PEERDMA_BUFFER_PAGES] = &peerdma_storage_pages,
	[PEERDMA_BUFFER_NONCONTIGUOUS] = &peerdma_storage_noncontiguous,
	[PEERDMA_BUFFER_NONCOHERENT] = &peerdma_storage_noncoherent,
	[PEERDMA_BUFFER_COHERENT] = &peerdma_storage_coherent,
	[PEERDMA_BUFFER_MIGRATING] = &peerdma_storage_migrating,
};

static int peerdma_buffer_prepare(struct peerdma_object *obj)
{
	dma_resv_assert_held(obj->resv);
	return to_peerdma_buffer(obj)->gone ? -ENODEV : 0;
}

/*
 * Importers have been notified, or waited for, where the memory goes with the
 * driver. Kernel mappings cannot be taken back: they are waited for, without
 * the lock that ending one takes.
 */
static void peerdma_buffer_shutdown(struct peerdma_object *obj)
{
	struct peerdma_buffer *buf = to_peerdma_buffer(obj);

	dma_resv_lock(&buf->resv, NULL);
	while (buf->vmaps && !buf->storage->stays) {
		dma_resv_unlock(&buf->resv);
		wait_event(obj->peer->idle, !READ_ONCE(buf->vmaps));
		dma_resv_lock(&buf->resv, NULL);
	}
	if (!buf->gone)
		buf->storage->let_go(buf);
	buf->gone = true;
	dma_resv_unlock(&buf->resv);
}

static void peerdma_buffer_release(struct peerdma_object *obj)
{
	struct peerdma_buffer *buf = to_peerdma_buffer(obj);

	/* As for local memory: see peerdma_memory_release(). */
	dma_resv_wait_timeout(&buf->resv, DMA_RESV_USAGE_BOOKKEEP, false,
			      msecs_to_jiffies(peerdma_timeout_ms));
	peerdma_storage_free_pages(buf);
	peerdma_uncount(obj->peer, PEERDMA_COUNT_LIVE_MEMORY);
	dma_resv_fini(&buf->resv);
	kvfree(obj->segments);
	kvfree(buf->other);
	kfree(buf);
}

static const struct peerdma_object_ops peerdma_buffer_ops = {
	.prepare = peerdma_buffer_prepare,
	.shutdown = peerdma_buffer_shutdown,
	.release = peerdma_buffer_release,
};

void peerdma_buffer_exported(struct peerdma_exported *exp)
{
	struct peerdma_buffer *buf = to_peerdma_buffer(exp->obj);

	dma_resv_lock(&buf->resv, NULL);
	list_add_tail(&exp->sibling, &buf->exports);
	dma_resv_unlock(&buf->resv);
}

/* Whether importers have to let go: for good, or for a reset. */
bool peerdma_buffer_concerned(struct peerdma_object *obj, bool for_good)
{
	const struct peerdma_storage *storage = to_peerdma_buffer(obj)->storage;

	return for_good ? !storage->stays : storage->in_bar;
}

bool peerdma_buffer_waits(struct peerdma_object *obj)
{
	return to_peerdma_buffer(obj)->storage->waits;
}

static struct peerdma_buffer *peerdma_buffer_create(struct peerdma_device *peer,
						    const struct peerdma_buffer_alloc *arg)
{
	struct peerdma_buffer *buf = kzalloc_obj(*buf);
	int ret;

	if (!buf)
		return ERR_PTR(-ENOMEM);
	buf->kind = arg->kind;
	buf->storage = peerdma_storages[arg->kind];
	buf->map = buf->storage->map;
	buf->place = PEERDMA_PLACE_SYSTEM;
	INIT_LIST_HEAD(&buf->exports);
	INIT_LIST_HEAD(&buf->mappings);
	buf->base.peer = peer;
	buf->base.size = arg->size;
	if (arg->flags) {
		ret = peerdma_lab.buffer(buf, arg->flags);
		if (ret)
			goto err_free;
	}
	ret = buf->storage->take(buf);
	if (ret)
		goto err_free;

	peerdma_object_init(&buf->base, peer, PEERDMA_KIND_BUFFER, &peerdma_buffer_ops, arg->size);
	dma_resv_init(&buf->resv);
	buf->base.resv = &buf->resv;
	buf->base.direction = DMA_BIDIRECTIONAL;
	buf->base.generation = 1;
	peerdma_count(peer, PEERDMA_COUNT_LIVE_MEMORY);
	return buf;

err_free:
	kfree(buf);
	return ERR_PTR(ret);
}

int peerdma_ioctl_buffer_alloc(struct peerdma_call *call, void *data)
{
	struct peerdma_device *peer = call->file->peer;
	struct peerdma_buffer_alloc *arg = data;
	struct peerdma_object *obj;
	int ret;

	if (arg->kind > PEERDMA_BUFFER_MIGRATING)
		return -EINVAL;
	if (arg->kind == PEERDMA_BUFFER_LOCAL) {
		struct peerdma_memory *mem;

		if (arg->flags)
			return -EINVAL;
		mem = peerdma_memory_create(peer, &arg->size, arg->ranges);
		if (IS_ERR(mem))
			return PTR_ERR(mem);
		obj = &mem->base;
	} else {
		struct peerdma_buffer *buf;

		if (!arg->size || arg->size > PEERDMA_MAX_SYSTEM || arg->ranges > 1)
			return -EINVAL;
		arg->size = PAGE_ALIGN(arg->size);
		buf = peerdma_buffer_create(peer, arg);
		if (IS_ERR(buf))
			return PTR_ERR(buf);
		obj = &buf->base;
	}
	ret = peerdma_object_publish(call->file, obj, &arg->handle);
	if (ret)
		peerdma_object_put(obj);
	return ret;
}

int peerdma_ioctl_buffer_state(struct peerdma_call *call, void *data)
{
	struct peerdma_buffer_state *arg = data;
	struct peerdma_object *obj;
	struct peerdma_buffer *buf;
	int ret;

	if (arg->reserved)
		return -EINVAL;
	obj = peerdma_object_find_kind(call->file, arg->handle, PEERDMA_KIND_BUFFER);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	buf = to_peerdma_buffer(obj);
	ret = peerdma_object_lock(obj);
	if (ret)
		goto out_put;
	arg->kind = buf->kind;
	arg->place = buf->place;
	arg->pins = buf->pins;
	arg->mappings = buf->mapped;
	arg->moves = buf->moves;
	peerdma_object_unlock(obj);
out_put:
	peerdma_object_put(obj);
	return ret;
}
