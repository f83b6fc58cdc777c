// SPDX-License-Identifier: GPL-2.0-only
/*
 * Buffers that migrate between local memory and pages of the system.
 *
 * A buffer keeps both places as long as it lives: so moving cannot fail for want of
 * memory, and what an importer still reads and throws away until it unmaps is nobody
 * else's. Importers must be told all the same: what they write there is lost.
 */
#include <linux/capability.h>
#include <linux/file.h>
#include <linux/genalloc.h>
#include <linux/io.h>
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>

#include "buffer.h"
#include "loan.h"
#include "work.h"

/* ----------------------------------------------------------------- storage */

static int pd_migrating_take(struct pd_buffer *buf)
{
	struct pd_device *pd = buf->base.pd;
	u64 size = buf->base.size;
	unsigned long at;
	int ret;

	if (!pd->provider)
		return -EOPNOTSUPP;
	at = gen_pool_alloc(pd->pool, size);
	if (!at)
		return -ENOSPC;
	buf->local.paddr = pd->bar_phys + (at - PD_POOL_BASE);
	buf->local.len = size;
	ret = -ENOMEM;
	buf->io = ioremap_wc(buf->local.paddr, size);
	if (!buf->io)
		goto err_local;
	ret = pd_storage_take_pages(buf);
	if (ret)
		goto err_io;
	buf->other = buf->base.segments;
	buf->base.segments = pd_segments_alloc(1);
	if (!buf->base.segments) {
		ret = -ENOMEM;
		goto err_pages;
	}
	buf->base.segments->segment[0].address = at - PD_POOL_BASE;
	buf->base.segments->segment[0].length = size;
	buf->base.local = true;
	buf->place = PEERDMA_PLACE_LOCAL;
	return 0;

err_pages:
	pd_storage_unmap_pages(buf);
	pd_storage_free_pages(buf);
	kvfree(buf->other);
err_io:
	iounmap(buf->io);
err_local:
	gen_pool_free(pd->pool, at, size);
	return ret;
}

static void pd_migrating_let_go(struct pd_buffer *buf)
{
	struct pd_device *pd = buf->base.pd;

	pd_storage_unmap_pages(buf);
	iounmap(buf->io);
	buf->io = NULL;
	gen_pool_free(pd->pool, PD_POOL_BASE + buf->local.paddr - pd->bar_phys,
		      buf->local.len);
}

static void pd_migrating_sync(struct pd_buffer *buf, bool for_cpu)
{
	if (buf->place == PEERDMA_PLACE_SYSTEM)
		pd_storage_sync_pages(buf, for_cpu);
}

/* Where the kernel has it mapped it stays. */
static int pd_migrating_vmap(struct pd_buffer *buf, struct iosys_map *map)
{
	int ret = 0;

	/* Not where an attachment that there is could not have it any more. */
	if (buf->bound)
		ret = pd_migrate(buf, PEERDMA_PLACE_SYSTEM, true);
	if (ret)
		return ret;
	if (buf->place == PEERDMA_PLACE_SYSTEM)
		return pd_storage_vmap_pages(buf, map);
	iosys_map_set_vaddr_iomem(map, buf->io);
	return 0;
}

static void pd_migrating_vunmap(struct pd_buffer *buf, struct iosys_map *map)
{
	if (!map->is_iomem)
		pd_storage_vunmap_pages(buf, map);
}

const struct pd_storage pd_storage_migrating = {
	.take = pd_migrating_take,
	.let_go = pd_migrating_let_go,
	.sync = pd_migrating_sync,
	.vmap = pd_migrating_vmap,
	.vunmap = pd_migrating_vunmap,
	.in_bar = true,
};

/* ------------------------------------------------------------------ moving */

static void pd_migrate_copy(struct pd_buffer *buf, u32 place)
{
	u32 i;

	/* The CPU takes over what devices wrote into pages, and gives it back. */
	if (place == PEERDMA_PLACE_LOCAL)
		pd_storage_sync_pages(buf, true);
	for (i = 0; i < buf->count; i++) {
		void __iomem *io = buf->io + ((size_t)i << PAGE_SHIFT);
		void *page = page_address(buf->pages[i]);

		if (place == PEERDMA_PLACE_LOCAL)
			memcpy_toio(io, page, PAGE_SIZE);
		else
			memcpy_fromio(page, io, PAGE_SIZE);
	}
	if (place == PEERDMA_PLACE_SYSTEM)
		pd_storage_sync_pages(buf, false);
	/* Before any device is told to look there. */
	wmb();
}

/* Tells everybody, and takes away what the CPUs have mapped. */
static void pd_migrate_announce(struct pd_buffer *buf)
{
	struct pd_export *exp;

	list_for_each_entry(exp, &buf->exports, sibling) {
		struct file *file = get_file_active(&exp->dmabuf->file);

		/* Being released: nobody has anything of it. */
		if (!file)
			continue;
		dma_buf_invalidate_mappings(exp->dmabuf);
		unmap_mapping_range(file->f_mapping, 0, 0, 1);
		fput(file);
	}
}

/* Fences are anybody's: some may take longer than the caller wants to live. */
static int pd_migrate_wait(struct pd_buffer *buf)
{
	long ret = dma_resv_wait_timeout(&buf->resv, DMA_RESV_USAGE_BOOKKEEP,
					 true, msecs_to_jiffies(pd_timeout_ms));

	if (ret < 0)
		return ret;
	return ret ? 0 : -ETIME;
}

/*
 * Moves the buffer to @place, unless it is there. Under its dma_resv. Without @wait
 * (lab only) fences do not count, and mappings end where they are. When it fails the
 * buffer is where it was, but importers may have to map it again.
 */
int pd_migrate(struct pd_buffer *buf, u32 place, bool wait)
{
	struct pd_device *pd = buf->base.pd;
	struct pd_loan *loan;
	int ret;

	dma_resv_assert_held(&buf->resv);
	if (buf->place == place)
		return 0;
	if (buf->pins || buf->vmaps)
		return -EBUSY;
	if (buf->bound && place == PEERDMA_PLACE_LOCAL)
		return -EBUSY;
	if (buf->gone || READ_ONCE(pd->gone))
		return -ENODEV;
	/* Set before pd_exports_revoke() takes the lock that we hold. */
	if (READ_ONCE(pd->bar_blocked))
		return -EAGAIN;

	pd_migrate_announce(buf);
	if (wait) {
		ret = pd_migrate_wait(buf);
		if (ret)
			return ret;
	} else {
		list_for_each_entry(loan, &buf->loans, node)
			pd_loan_tear(loan);
	}
	pd_migrate_copy(buf, place);

	swap(buf->base.segments, buf->other);
	buf->base.local = place == PEERDMA_PLACE_LOCAL;
	buf->base.generation++;
	buf->place = place;
	buf->moves++;
	return 0;
}

int pd_ioctl_buffer_move(struct pd_call *call, void *data)
{
	struct peerdma_buffer_move *arg = data;
	struct pd_object *obj;
	int ret;

	if (arg->place > PEERDMA_PLACE_SYSTEM || arg->reserved ||
	    arg->flags & ~PEERDMA_MOVE_LAB_NO_WAIT)
		return -EINVAL;
	if (arg->flags && !capable(CAP_SYS_ADMIN))
		return -EPERM;
	obj = pd_object_find_kind(call->file, arg->handle, PD_BUFFER);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	ret = -EINVAL;
	if (to_pd_buffer(obj)->kind != PEERDMA_BUFFER_MIGRATING)
		goto out_put;
	ret = pd_object_lock(obj);
	if (ret)
		goto out_put;
	ret = pd_migrate(to_pd_buffer(obj), arg->place, !arg->flags);
	pd_object_unlock(obj);
out_put:
	pd_object_put(obj);
	return ret;
}

/* ------------------------------------------------------------- attachments */

static struct pd_buffer *pd_migrate_buffer(struct dma_buf *dmabuf)
{
	struct pd_export *exp = dmabuf->priv;

	return to_pd_buffer(exp->obj);
}

/* Such an attachment has @priv set. It finds the buffer in RAM, always. */
int pd_migrate_attach(struct pd_buffer *buf, struct dma_buf_attachment *attach)
{
	int ret = 0;

	if (attach->peer2peer &&
	    pci_p2pdma_distance(buf->base.pd->pdev, attach->dev, false) < 0)
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

void pd_migrate_detach(struct dma_buf *dmabuf,
		       struct dma_buf_attachment *attach)
{
	struct pd_buffer *buf = pd_migrate_buffer(dmabuf);

	if (!attach->priv)
		return;
	dma_resv_lock(&buf->resv, NULL);
	buf->bound--;
	dma_resv_unlock(&buf->resv);
}

int pd_migrate_pin(struct dma_buf_attachment *attach)
{
	struct pd_buffer *buf = pd_migrate_buffer(attach->dmabuf);
	int ret = 0;

	dma_resv_assert_held(&buf->resv);
	if (buf->bound)
		ret = pd_migrate(buf, PEERDMA_PLACE_SYSTEM, true);
	if (!ret)
		buf->pins++;
	return ret;
}

void pd_migrate_unpin(struct dma_buf_attachment *attach)
{
	struct pd_buffer *buf = pd_migrate_buffer(attach->dmabuf);

	dma_resv_assert_held(&buf->resv);
	buf->pins--;
}
