// SPDX-License-Identifier: GPL-2.0-only
/*
 * Exporter: dma-bufs over the local memory, for devices that can reach it.
 *
 * The memory has no struct pages. Its addresses for another device come from
 * the provider that p2pdma keeps for the BAR, which is good as long as the driver
 * is bound: so remove() and a reset take all mappings back first (revoke).
 *
 * All dma-bufs of one memory object share the object's dma_resv.
 */
#include <linux/fcntl.h>
#include <linux/io.h>
#include <linux/iosys-map.h>
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>

#include "driver.h"

static int pd_export_attach(struct dma_buf *dmabuf,
			    struct dma_buf_attachment *attach)
{
	struct pd_export *exp = dmabuf->priv;
	struct pd_device *pd = exp->mem->base.pd;
	int ret = 0;
	int idx;

	/* Device memory cannot be had in any other way than from the device... */
	if (!attach->peer2peer)
		return -EOPNOTSUPP;
	/* ... and it goes away with the driver, whoever has pinned it. */
	if (!dma_buf_attach_revocable(attach))
		return -EOPNOTSUPP;

	idx = srcu_read_lock(&pd->srcu);
	if (READ_ONCE(pd->gone))
		ret = -ENODEV;
	else if (pci_p2pdma_distance(pd->pdev, attach->dev, false) < 0)
		ret = -EREMOTEIO;
	srcu_read_unlock(&pd->srcu, idx);
	return ret;
}

/*
 * What an importer gets for one mapping: the DMA addresses of all ranges, one
 * after the other. Each range is mapped by a call of its own, because
 * dma_buf_phys_vec_to_sgt() of 7.3 links all ranges of a call to the same place of
 * the IOVA range that it has taken for them (behind an IOMMU).
 */
struct pd_loan {
	struct sg_table sgt;
	u32 parts;
	struct sg_table *part[] __counted_by(parts);
};

static void pd_loan_end_part(struct dma_buf_attachment *attach,
			     struct sg_table *part, enum dma_data_direction dir)
{
	/*
	 * The helper says by orig_nents that there are no pages, and 7.3 then
	 * frees that many entries: none. It may have all of them back.
	 */
	part->orig_nents = part->nents;
	dma_buf_free_sgt(attach, part, dir);
}

static void pd_loan_end(struct dma_buf_attachment *attach, struct pd_loan *loan,
			enum dma_data_direction dir)
{
	u32 i;

	for (i = 0; i < loan->parts; i++)
		if (loan->part[i])
			pd_loan_end_part(attach, loan->part[i], dir);
	loan->sgt.orig_nents = loan->sgt.nents;
	sg_free_table(&loan->sgt);
	kfree(loan);
}

/* Joins the parts. There are no pages: importers see that by orig_nents. */
static int pd_loan_join(struct pd_loan *loan)
{
	struct scatterlist *sg, *part_sg;
	unsigned int j, nents = 0;
	u32 i;
	int ret;

	for (i = 0; i < loan->parts; i++)
		nents += loan->part[i]->nents;
	ret = sg_alloc_table(&loan->sgt, nents, GFP_KERNEL);
	if (ret)
		return ret;
	sg = loan->sgt.sgl;
	for (i = 0; i < loan->parts; i++) {
		for_each_sgtable_dma_sg(loan->part[i], part_sg, j) {
			sg_set_page(sg, NULL, 0, 0);
			sg_dma_address(sg) = sg_dma_address(part_sg);
			sg_dma_len(sg) = sg_dma_len(part_sg);
			sg = sg_next(sg);
		}
	}
	loan->sgt.orig_nents = 0;
	return 0;
}

static struct sg_table *pd_export_map(struct dma_buf_attachment *attach,
				      enum dma_data_direction dir)
{
	struct pd_export *exp = attach->dmabuf->priv;
	struct pd_device *pd = exp->mem->base.pd;
	struct sg_table *part;
	struct pd_loan *loan;
	u32 i;
	int ret;

	dma_resv_assert_held(attach->dmabuf->resv);

	if (exp->revoked)
		return ERR_PTR(-ENODEV);
	/* Set before pd_exports_revoke() takes the lock that we hold. */
	if (READ_ONCE(pd->bar_blocked))
		return ERR_PTR(-EAGAIN);

	loan = kzalloc_flex(*loan, part, exp->ranges);
	if (!loan)
		return ERR_PTR(-ENOMEM);
	loan->parts = exp->ranges;
	for (i = 0; i < exp->ranges; i++) {
		part = dma_buf_phys_vec_to_sgt(attach, pd->provider,
					       &exp->range[i], 1,
					       exp->range[i].len, dir);
		if (IS_ERR(part)) {
			ret = PTR_ERR(part);
			goto err_loan;
		}
		loan->part[i] = part;
	}
	ret = pd_loan_join(loan);
	if (ret)
		goto err_loan;
	exp->maps++;
	pd_count(pd, PD_EXPORTER_MAPS);
	return &loan->sgt;

err_loan:
	pd_loan_end(attach, loan, dir);
	return ERR_PTR(ret);
}

static void pd_export_unmap(struct dma_buf_attachment *attach,
			    struct sg_table *sgt, enum dma_data_direction dir)
{
	struct pd_export *exp = attach->dmabuf->priv;
	struct pd_device *pd = exp->mem->base.pd;

	dma_resv_assert_held(attach->dmabuf->resv);

	pd_loan_end(attach, container_of(sgt, struct pd_loan, sgt), dir);
	pd_count(pd, PD_EXPORTER_UNMAPS);
	atomic64_inc(&exp->unmaps);
	wake_up_all(&pd->idle);
}

static void pd_export_release(struct dma_buf *dmabuf)
{
	struct pd_export *exp = dmabuf->priv;
	struct pd_device *pd = exp->mem->base.pd;

	mutex_lock(&pd->exports_lock);
	list_del(&exp->node);
	mutex_unlock(&pd->exports_lock);
	pd_uncount(pd, PD_LIVE_DMABUFS);
	/* The last reference to the device may go with it. */
	pd_object_put(&exp->mem->base);
	kfree(exp);
}

static int pd_export_end_cpu_access(struct dma_buf *dmabuf,
				    enum dma_data_direction dir)
{
	if (dir != DMA_FROM_DEVICE) {
		/* The CPU's mappings combine writes; devices must find them. */
		wmb();
	}
	return 0;
}

static int pd_export_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	struct pd_export *exp = dmabuf->priv;

	return pd_memory_map_vma(exp->mem, vma, exp->offset);
}

static int pd_export_vmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct pd_export *exp = dmabuf->priv;
	void __iomem *at;

	dma_resv_assert_held(dmabuf->resv);
	if (exp->revoked)
		return -ENODEV;
	at = ioremap_wc(exp->range[0].paddr, exp->range[0].len);
	if (!at)
		return -ENOMEM;
	iosys_map_set_vaddr_iomem(map, at);
	return 0;
}

static void pd_export_vunmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	iounmap(map->vaddr_iomem);
}

static const struct dma_buf_ops pd_export_ops = {
	.attach = pd_export_attach,
	.map_dma_buf = pd_export_map,
	.unmap_dma_buf = pd_export_unmap,
	.release = pd_export_release,
	PD_EXPORT_OPS_COMPAT
	.end_cpu_access = pd_export_end_cpu_access,
	.mmap = pd_export_mmap,
	.vmap = pd_export_vmap,
	.vunmap = pd_export_vunmap,
};

/* Several ranges cannot be one piece of kernel address space. */
static const struct dma_buf_ops pd_export_scattered_ops = {
	.attach = pd_export_attach,
	.map_dma_buf = pd_export_map,
	.unmap_dma_buf = pd_export_unmap,
	.release = pd_export_release,
	PD_EXPORT_OPS_COMPAT
	.end_cpu_access = pd_export_end_cpu_access,
	.mmap = pd_export_mmap,
};

static bool pd_export_is_any(struct dma_buf *dmabuf)
{
	return dmabuf->ops == &pd_export_ops ||
	       dmabuf->ops == &pd_export_scattered_ops;
}

/* Whether the buffer is the device's own local memory. */
bool pd_export_is_ours(struct dma_buf *dmabuf, struct pd_device *pd)
{
	struct pd_export *exp = dmabuf->priv;

	return pd_export_is_any(dmabuf) && exp->mem->base.pd == pd;
}

/*
 * The memory object behind a dma-buf of ours, if the dma-buf shows all of it;
 * else NULL. Returns a reference.
 */
struct pd_memory *pd_export_memory(struct dma_buf *dmabuf)
{
	struct pd_export *exp = dmabuf->priv;

	if (dmabuf->size != exp->mem->base.size)
		return NULL;
	pd_object_get(&exp->mem->base);
	return exp->mem;
}

/* ------------------------------------------------------------- exporting */

/* The physical ranges of @size bytes from @offset on; returns how many. */
static u32 pd_export_fill(struct pd_memory *mem, u64 offset, u64 size,
			  struct phys_vec *range)
{
	struct pd_segments *ranges = mem->base.segments;
	u32 i, count = 0;

	for (i = 0; i < ranges->count && size; i++) {
		u64 length = ranges->segment[i].length;

		if (offset >= length) {
			offset -= length;
			continue;
		}
		length = min(length - offset, size);
		if (range) {
			range[count].paddr = mem->base.pd->bar_phys +
				ranges->segment[i].address + offset;
			range[count].len = length;
		}
		count++;
		size -= length;
		offset = 0;
	}
	return count;
}

static struct dma_buf *pd_export_create(struct pd_device *pd,
					struct pd_memory *mem, u64 offset,
					u64 size, int open_flags)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	u32 ranges = pd_export_fill(mem, offset, size, NULL);
	struct dma_buf *dmabuf;
	struct pd_export *exp;

	exp = kzalloc_flex(*exp, range, ranges);
	if (!exp)
		return ERR_PTR(-ENOMEM);
	exp->ranges = ranges;
	pd_export_fill(mem, offset, size, exp->range);
	exp->offset = offset;
	exp->mem = mem;

	info.ops = ranges == 1 ? &pd_export_ops : &pd_export_scattered_ops;
	info.size = size;
	info.flags = open_flags;
	info.resv = mem->base.resv;
	info.priv = exp;

	/*
	 * Nobody else knows the dma-buf before it is in the list and the list is
	 * unlocked, so a revocation cannot miss it.
	 */
	mutex_lock(&pd->exports_lock);
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf)) {
		mutex_unlock(&pd->exports_lock);
		kfree(exp);
		return dmabuf;
	}
	exp->dmabuf = dmabuf;
	pd_object_get(&mem->base);
	pd_count(pd, PD_LIVE_DMABUFS);
	list_add_tail(&exp->node, &pd->exports);
	mutex_unlock(&pd->exports_lock);
	return dmabuf;
}

int pd_ioctl_export(struct pd_call *call, void *data)
{
	struct pd_device *pd = call->file->pd;
	struct peerdma_export *arg = data;
	struct dma_buf *dmabuf;
	struct pd_object *obj;
	int flags, ret = 0;

	if (arg->flags & ~(PEERDMA_EXPORT_CLOEXEC | PEERDMA_EXPORT_RDWR) ||
	    arg->reserved)
		return -EINVAL;
	if (!pd->provider)
		return -EOPNOTSUPP;
	obj = pd_object_find_kind(call->file, arg->handle, PD_MEMORY);
	if (IS_ERR(obj))
		return PTR_ERR(obj);

	ret = -EINVAL;
	if (!PAGE_ALIGNED(arg->offset) || !PAGE_ALIGNED(arg->size) ||
	    arg->offset >= obj->size)
		goto out_put;
	if (!arg->size)
		arg->size = obj->size - arg->offset;
	if (arg->size > obj->size - arg->offset)
		goto out_put;

	flags = arg->flags & PEERDMA_EXPORT_CLOEXEC ? O_CLOEXEC : 0;
	ret = get_unused_fd_flags(flags);
	if (ret < 0)
		goto out_put;
	call->fd = ret;
	flags |= arg->flags & PEERDMA_EXPORT_RDWR ? O_RDWR : O_RDONLY;
	dmabuf = pd_export_create(pd, to_pd_memory(obj), arg->offset, arg->size,
				  flags);
	if (IS_ERR(dmabuf)) {
		ret = PTR_ERR(dmabuf);
		goto out_put;
	}
	call->out_dmabuf = dmabuf;
	arg->fd = call->fd;
	ret = 0;
out_put:
	pd_object_put(obj);
	return ret;
}
