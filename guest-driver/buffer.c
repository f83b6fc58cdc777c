// SPDX-License-Identifier: GPL-2.0-only
/*
 * Buffer objects: creating them, and letting go of the device.
 */
#include <linux/capability.h>
#include <linux/slab.h>

#include "buffer.h"
#include "work.h"

static const struct pd_storage *const pd_storages[] = {
	[PEERDMA_BUFFER_P2PMEM] = &pd_storage_p2pmem,
	[PEERDMA_BUFFER_PAGES] = &pd_storage_pages,
	[PEERDMA_BUFFER_NONCONTIGUOUS] = &pd_storage_noncontiguous,
	[PEERDMA_BUFFER_NONCOHERENT] = &pd_storage_noncoherent,
	[PEERDMA_BUFFER_COHERENT] = &pd_storage_coherent,
	[PEERDMA_BUFFER_MIGRATING] = &pd_storage_migrating,
};

static int pd_buffer_prepare(struct pd_object *obj)
{
	return to_pd_buffer(obj)->gone ? -ENODEV : 0;
}

/*
 * Importers have been told, or waited for, where the memory goes with the driver.
 * Kernel mappings cannot be taken back: they are waited for, without the lock that
 * ending one takes.
 */
static void pd_buffer_shutdown(struct pd_object *obj)
{
	struct pd_buffer *buf = to_pd_buffer(obj);

	dma_resv_lock(&buf->resv, NULL);
	while (buf->vmaps && !buf->storage->stays) {
		dma_resv_unlock(&buf->resv);
		wait_event(obj->pd->idle, !READ_ONCE(buf->vmaps));
		dma_resv_lock(&buf->resv, NULL);
	}
	if (!buf->gone)
		buf->storage->let_go(buf);
	buf->gone = true;
	dma_resv_unlock(&buf->resv);
}

static void pd_buffer_release(struct pd_object *obj)
{
	struct pd_buffer *buf = to_pd_buffer(obj);

	/* As for local memory: see pd_memory_release(). */
	dma_resv_wait_timeout(&buf->resv, DMA_RESV_USAGE_BOOKKEEP, false,
			      msecs_to_jiffies(pd_timeout_ms));
	pd_storage_free_pages(buf);
	pd_uncount(obj->pd, PD_LIVE_MEMORY);
	dma_resv_fini(&buf->resv);
	kvfree(obj->segments);
	kvfree(buf->other);
	kfree(buf);
}

static const struct pd_object_ops pd_buffer_ops = {
	.prepare = pd_buffer_prepare,
	.shutdown = pd_buffer_shutdown,
	.release = pd_buffer_release,
};

/* Under pd_device.exports_lock. */
void pd_buffer_exported(struct pd_export *exp)
{
	struct pd_buffer *buf = to_pd_buffer(exp->obj);

	dma_resv_lock(&buf->resv, NULL);
	list_add_tail(&exp->sibling, &buf->exports);
	dma_resv_unlock(&buf->resv);
}

/* Whether importers have to let go: for good, or for a reset. */
bool pd_buffer_concerned(struct pd_object *obj, bool for_good)
{
	const struct pd_storage *storage = to_pd_buffer(obj)->storage;

	return for_good ? !storage->stays : storage->in_bar;
}

bool pd_buffer_waits(struct pd_object *obj)
{
	return to_pd_buffer(obj)->storage->waits;
}

static struct pd_buffer *pd_buffer_create(struct pd_device *pd,
					  const struct peerdma_buffer_alloc *arg)
{
	struct pd_buffer *buf = kzalloc_obj(*buf);
	int ret;

	if (!buf)
		return ERR_PTR(-ENOMEM);
	buf->kind = arg->kind;
	buf->flags = arg->flags;
	buf->storage = pd_storages[arg->kind];
	buf->place = PEERDMA_PLACE_SYSTEM;
	INIT_LIST_HEAD(&buf->exports);
	INIT_LIST_HEAD(&buf->loans);
	buf->base.pd = pd;
	buf->base.size = arg->size;
	ret = buf->storage->take(buf);
	if (ret) {
		kfree(buf);
		return ERR_PTR(ret);
	}

	pd_object_init(&buf->base, pd, PD_BUFFER, &pd_buffer_ops, arg->size);
	dma_resv_init(&buf->resv);
	buf->base.resv = &buf->resv;
	buf->base.direction = DMA_BIDIRECTIONAL;
	buf->base.generation = 1;
	pd_count(pd, PD_LIVE_MEMORY);
	return buf;
}

int pd_ioctl_buffer_alloc(struct pd_call *call, void *data)
{
	const u32 all = PEERDMA_BUFFER_LAB_PHYSICAL | PEERDMA_BUFFER_LAB_SGTABLE;
	struct pd_device *pd = call->file->pd;
	struct peerdma_buffer_alloc *arg = data;
	struct pd_object *obj;
	u32 wrong;
	int ret;

	if (arg->kind > PEERDMA_BUFFER_MIGRATING || arg->flags & ~all)
		return -EINVAL;
	if (arg->flags && !capable(CAP_SYS_ADMIN))
		return -EPERM;
	/* What is wrong with coherent memory is another thing than with the rest. */
	wrong = arg->kind == PEERDMA_BUFFER_COHERENT ?
		PEERDMA_BUFFER_LAB_SGTABLE : PEERDMA_BUFFER_LAB_PHYSICAL;
	if (arg->flags && arg->flags != wrong)
		return -EINVAL;
	if (arg->kind == PEERDMA_BUFFER_LOCAL) {
		struct pd_memory *mem;

		if (arg->flags)
			return -EINVAL;
		mem = pd_memory_create(pd, &arg->size, arg->ranges);
		if (IS_ERR(mem))
			return PTR_ERR(mem);
		obj = &mem->base;
	} else {
		struct pd_buffer *buf;

		if (!arg->size || arg->size > PD_MAX_SYSTEM || arg->ranges > 1)
			return -EINVAL;
		arg->size = PAGE_ALIGN(arg->size);
		buf = pd_buffer_create(pd, arg);
		if (IS_ERR(buf))
			return PTR_ERR(buf);
		obj = &buf->base;
	}
	ret = pd_object_publish(call->file, obj, &arg->handle);
	if (ret)
		pd_object_put(obj);
	return ret;
}

int pd_ioctl_buffer_state(struct pd_call *call, void *data)
{
	struct peerdma_buffer_state *arg = data;
	struct pd_object *obj;
	struct pd_buffer *buf;
	int ret;

	if (arg->reserved)
		return -EINVAL;
	obj = pd_object_find_kind(call->file, arg->handle, PD_BUFFER);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	buf = to_pd_buffer(obj);
	ret = pd_object_lock(obj);
	if (ret)
		goto out_put;
	arg->kind = buf->kind;
	arg->place = buf->place;
	arg->pins = buf->pins;
	arg->mappings = buf->lent;
	arg->moves = buf->moves;
	pd_object_unlock(obj);
out_put:
	pd_object_put(obj);
	return ret;
}
