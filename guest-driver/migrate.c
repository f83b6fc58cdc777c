// SPDX-License-Identifier: GPL-2.0-only
/*
 * Buffers that migrate between local memory and pages of the system.
 *
 * A buffer keeps both places as long as it lives: so moving cannot fail for want of
 * memory, and what an importer still reads and throws away until it unmaps belongs
 * to nothing else. Importers must be notified all the same: what they write
 * there is lost.
 */
#include <linux/file.h>
#include <linux/genalloc.h>
#include <linux/io.h>
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>

#include "buffer.h"
#include "ioctl.h"
#include "lab_ops.h"
#include "mapping.h"
#include "work.h"

/* ----------------------------------------------------------------- storage */

static int peerdma_migrating_take(struct peerdma_buffer *buf)
{
	struct peerdma_device *peer = buf->base.peer;
	u64 size = buf->base.size;
	unsigned long at;
	int ret;

	if (!peer->provider)
		return -EOPNOTSUPP;
	at = gen_pool_alloc(peer->pool, size);
	if (!at)
		return -ENOSPC;
	buf->local.paddr = peer->bar_phys + (at - PEERDMA_POOL_BASE);
	buf->local.len = size;
	ret = -ENOMEM;
	buf->io = ioremap_wc(buf->local.paddr, size);
	if (!buf->io)
		goto err_local;
	ret = peerdma_storage_take_pages(buf);
	if (ret)
		goto err_io;
	buf->other = buf->base.segments;
	buf->base.segments = peerdma_segment_list_alloc(1);
	if (!buf->base.segments) {
		ret = -ENOMEM;
		goto err_pages;
	}
	buf->base.segments->segment[0].address = at - PEERDMA_POOL_BASE;
	buf->base.segments->segment[0].length = size;
	buf->base.local = true;
	buf->place = PEERDMA_PLACE_LOCAL;
	return 0;

err_pages:
	peerdma_storage_unmap_pages(buf);
	peerdma_storage_free_pages(buf);
	kvfree(buf->other);
err_io:
	iounmap(buf->io);
err_local:
	gen_pool_free(peer->pool, at, size);
	return ret;
}

static void peerdma_migrating_let_go(struct peerdma_buffer *buf)
{
	struct peerdma_device *peer = buf->base.peer;

	dma_resv_assert_held(&buf->resv);
	peerdma_storage_unmap_pages(buf);
	iounmap(buf->io);
	buf->io = NULL;
	gen_pool_free(peer->pool, PEERDMA_POOL_BASE + buf->local.paddr - peer->bar_phys,
		      buf->local.len);
}

static void peerdma_migrating_sync(struct peerdma_buffer *buf, bool for_cpu)
{
	if (buf->place == PEERDMA_PLACE_SYSTEM)
		peerdma_storage_sync_pages(buf, for_cpu);
}

static struct peerdma_mapping *peerdma_migrating_map(struct peerdma_buffer *buf,
						     struct dma_buf_attachment *attach,
						     enum dma_data_direction dir)
{
	dma_resv_assert_held(&buf->resv);
	if (buf->place == PEERDMA_PLACE_SYSTEM)
		return peerdma_storage_map_pages(buf, attach, dir);
	return peerdma_mapping_of_ranges(attach, buf->base.peer->provider, &buf->local, 1, dir);
}

/* Where the kernel has it mapped it stays. */
static int peerdma_migrating_vmap(struct peerdma_buffer *buf, struct iosys_map *map)
{
	int ret = 0;

	dma_resv_assert_held(&buf->resv);
	/* Not where an attachment that there is could not have it any more. */
	if (buf->bound)
		ret = peerdma_migrate(buf, PEERDMA_PLACE_SYSTEM);
	if (ret)
		return ret;
	if (buf->place == PEERDMA_PLACE_SYSTEM)
		return peerdma_storage_vmap_pages(buf, map);
	iosys_map_set_vaddr_iomem(map, buf->io);
	return 0;
}

static void peerdma_migrating_vunmap(struct peerdma_buffer *buf, struct iosys_map *map)
{
	dma_resv_assert_held(&buf->resv);
	if (!map->is_iomem)
		peerdma_storage_vunmap_pages(buf, map);
}

const struct peerdma_storage peerdma_storage_migrating = {
	.take = peerdma_migrating_take,
	.let_go = peerdma_migrating_let_go,
	.sync = peerdma_migrating_sync,
	.map = peerdma_migrating_map,
	.vmap = peerdma_migrating_vmap,
	.vunmap = peerdma_migrating_vunmap,
	.in_bar = true,
};

/* ------------------------------------------------------------------ moving */

static void peerdma_migrate_copy(struct peerdma_buffer *buf, u32 place)
{
	u32 i;

	dma_resv_assert_held(&buf->resv);
	/* The CPU takes over what devices wrote into pages, and gives it back. */
	if (place == PEERDMA_PLACE_LOCAL)
		peerdma_storage_sync_pages(buf, true);
	for (i = 0; i < buf->count; i++) {
		void __iomem *io = buf->io + ((size_t)i << PAGE_SHIFT);
		void *page = page_address(buf->pages[i]);

		if (place == PEERDMA_PLACE_LOCAL)
			memcpy_toio(io, page, PAGE_SIZE);
		else
			memcpy_fromio(page, io, PAGE_SIZE);
	}
	if (place == PEERDMA_PLACE_SYSTEM)
		peerdma_storage_sync_pages(buf, false);
	/* Before any device is pointed there. */
	wmb();
}

/* Invalidates importers' mappings, and zaps those of CPUs. */
static void peerdma_migrate_announce(struct peerdma_buffer *buf)
{
	struct peerdma_exported *exp;

	dma_resv_assert_held(&buf->resv);
	list_for_each_entry(exp, &buf->exports, sibling) {
		struct file *file = get_file_active(&exp->dmabuf->file);

		/* Being released: it has no mappings. */
		if (!file)
			continue;
		dma_buf_invalidate_mappings(exp->dmabuf);
		unmap_mapping_range(file->f_mapping, 0, 0, 1);
		fput(file);
	}
}

/* Fences of other drivers may take longer than the caller wants to live. */
static int peerdma_migrate_wait(struct peerdma_buffer *buf)
{
	long ret;

	dma_resv_assert_held(&buf->resv);
	ret = dma_resv_wait_timeout(&buf->resv, DMA_RESV_USAGE_BOOKKEEP, true,
				    msecs_to_jiffies(peerdma_timeout_ms));
	if (ret < 0)
		return ret;
	return ret ? 0 : -ETIME;
}

/* Whether the buffer can move to @place now; if so, invalidates mappings. */
int peerdma_migrate_begin(struct peerdma_buffer *buf, u32 place)
{
	struct peerdma_device *peer = buf->base.peer;

	dma_resv_assert_held(&buf->resv);
	if (buf->pins || buf->vmaps)
		return -EBUSY;
	if (buf->bound && place == PEERDMA_PLACE_LOCAL)
		return -EBUSY;
	if (buf->gone || READ_ONCE(peer->gone))
		return -ENODEV;
	/* Set before peerdma_exports_revoke() takes the lock that we hold. */
	if (READ_ONCE(peer->bar_blocked))
		return -EAGAIN;
	peerdma_migrate_announce(buf);
	return 0;
}

/* Moves the contents; from here on the buffer is at @place. */
void peerdma_migrate_finish(struct peerdma_buffer *buf, u32 place)
{
	dma_resv_assert_held(&buf->resv);
	peerdma_migrate_copy(buf, place);
	swap(buf->base.segments, buf->other);
	buf->base.local = place == PEERDMA_PLACE_LOCAL;
	buf->base.generation++;
	buf->place = place;
	buf->moves++;
}

/*
 * Moves the buffer to @place, unless it is there. When it fails the buffer is where it
 * was, but importers may have to map it again.
 */
int peerdma_migrate(struct peerdma_buffer *buf, u32 place)
{
	int ret;

	dma_resv_assert_held(&buf->resv);
	if (buf->place == place)
		return 0;
	ret = peerdma_migrate_begin(buf, place);
	if (!ret)
		ret = peerdma_migrate_wait(buf);
	if (!ret)
		peerdma_migrate_finish(buf, place);
	return ret;
}

int peerdma_ioctl_buffer_move(struct peerdma_call *call, void *data)
{
	struct peerdma_buffer_move *arg = data;
	struct peerdma_buffer *buf;
	struct peerdma_object *obj;
	int ret;

	if (arg->place > PEERDMA_PLACE_SYSTEM || arg->reserved)
		return -EINVAL;
	obj = peerdma_object_find_kind(call->file, arg->handle, PEERDMA_KIND_BUFFER);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	buf = to_peerdma_buffer(obj);
	ret = -EINVAL;
	if (buf->kind != PEERDMA_BUFFER_MIGRATING)
		goto out_put;
	ret = peerdma_object_lock(obj);
	if (ret)
		goto out_put;
	ret = arg->flags ? peerdma_lab.move(buf, arg) : peerdma_migrate(buf, arg->place);
	peerdma_object_unlock(obj);
out_put:
	peerdma_object_put(obj);
	return ret;
}

/* ------------------------------------------------------------- attachments */

static struct peerdma_buffer *peerdma_migrate_buffer(struct dma_buf *dmabuf)
{
	struct peerdma_exported *exp = dmabuf->priv;

	return to_peerdma_buffer(exp->obj);
}

/* Such an attachment has @priv set. It finds the buffer in RAM, always. */
int peerdma_migrate_attach(struct peerdma_buffer *buf, struct dma_buf_attachment *attach)
{
	int ret = 0;

	if (attach->peer2peer && pci_p2pdma_distance(buf->base.peer->pdev, attach->dev, false) < 0)
		attach->peer2peer = false;
	if (attach->peer2peer && dma_buf_attach_revocable(attach))
		return 0;

	dma_resv_lock(&buf->resv, NULL);
	if (buf->place == PEERDMA_PLACE_LOCAL && (buf->pins || buf->vmaps)) {
		ret = -EBUSY;
	} else {
		/* By the first map or pin at the latest; nothing undoes it before. */
		buf->bound++;
		attach->priv = buf;
	}
	dma_resv_unlock(&buf->resv);
	return ret;
}

void peerdma_migrate_detach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct peerdma_buffer *buf = peerdma_migrate_buffer(dmabuf);

	if (!attach->priv)
		return;
	dma_resv_lock(&buf->resv, NULL);
	buf->bound--;
	dma_resv_unlock(&buf->resv);
}

int peerdma_migrate_pin(struct dma_buf_attachment *attach)
{
	struct peerdma_buffer *buf = peerdma_migrate_buffer(attach->dmabuf);
	int ret = 0;

	dma_resv_assert_held(&buf->resv);
	if (buf->bound)
		ret = peerdma_migrate(buf, PEERDMA_PLACE_SYSTEM);
	if (!ret)
		buf->pins++;
	return ret;
}

void peerdma_migrate_unpin(struct dma_buf_attachment *attach)
{
	struct peerdma_buffer *buf = peerdma_migrate_buffer(attach->dmabuf);

	dma_resv_assert_held(&buf->resv);
	buf->pins--;
}
