/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the long-term series 6.12 calls otherwise, or does not have, in terms of
 * 7.3, which the driver is written for. Included last by driver.h.
 *
 * Names of 7.3 are defined here under their own names. What cannot be had is
 * shown by PEERDMA_HAS_*, and the driver then refuses with EOPNOTSUPP.
 *
 * Also here: what a kernel of any version may be built without.
 */
#ifndef PEERDMA_COMPAT_H
#define PEERDMA_COMPAT_H

#include <linux/dma-buf.h>
#include <linux/dma-fence.h>
#include <linux/dma-mapping.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/pci-p2pdma.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/sync_file.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)
#error "peerdma needs Linux 6.12 or newer"
#endif

/* ------------------------------------------------------------- sync_file */

#if IS_ENABLED(CONFIG_SYNC_FILE)
#define PEERDMA_HAS_SYNC_FILE 1
#else
#define PEERDMA_HAS_SYNC_FILE 0
/* Never called: the compiler sees that, but wants to see a function too. */
static inline struct sync_file *peerdma_no_sync_file(struct dma_fence *fence)
{
	return NULL;
}

static inline struct dma_fence *peerdma_no_sync_file_fence(int fd)
{
	return NULL;
}

#define sync_file_create peerdma_no_sync_file
#define sync_file_get_fence peerdma_no_sync_file_fence
#endif

/* ------------------------------------------------------ namespaces, fences */

/* Since 6.13 the namespace is a string. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define PEERDMA_NS_DMA_BUF DMA_BUF
#else
#define PEERDMA_NS_DMA_BUF "DMA_BUF"
#endif

/*
 * Since 7.3 a fence may have its lock within, and one that has signalled needs
 * nothing of the module that made it. Before that it needs its lock, and its
 * operations as long as it lives: it holds the module.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 3, 0)
#define PEERDMA_FENCE_HOLDS_MODULE 1
struct peerdma_fence_lock {
	spinlock_t lock;
};

static inline void peerdma_fence_init(struct dma_fence *fence, const struct dma_fence_ops *ops,
				      struct peerdma_fence_lock *lock, u64 context, u64 seqno)
{
	spin_lock_init(&lock->lock);
	/* Called for an open file of ours. */
	__module_get(THIS_MODULE);
	dma_fence_init(fence, ops, &lock->lock, context, seqno);
}
#else
#define PEERDMA_FENCE_HOLDS_MODULE 0
struct peerdma_fence_lock {};

static inline void peerdma_fence_init(struct dma_fence *fence, const struct dma_fence_ops *ops,
				      struct peerdma_fence_lock *lock, u64 context, u64 seqno)
{
	dma_fence_init64(fence, ops, NULL, context, seqno);
}
#endif

/* ------------------------------------------------ dma-buf, peer-to-peer DMA */

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)

/* Every dynamic importer has the callback. */
#define PEERDMA_HAS_OPTIONAL_INVALIDATE 0
#define invalidate_mappings move_notify
#define dma_buf_invalidate_mappings dma_buf_move_notify

static inline bool dma_buf_attach_revocable(struct dma_buf_attachment *attach)
{
	return attach->importer_ops && attach->importer_ops->move_notify;
}

static inline void dma_buf_fd_install(struct dma_buf *dmabuf, int fd)
{
	fd_install(fd, dmabuf->file);
}

#define DMA_ATTR_MMIO (1UL << 10)

static inline dma_addr_t dma_map_phys(struct device *dev, phys_addr_t phys, size_t size,
				      enum dma_data_direction dir, unsigned long attrs)
{
	if (attrs & DMA_ATTR_MMIO)
		return dma_map_resource(dev, phys, size, dir, attrs & ~DMA_ATTR_MMIO);
	return dma_map_page_attrs(dev, pfn_to_page(PHYS_PFN(phys)), offset_in_page(phys), size, dir,
				  attrs);
}

static inline void dma_unmap_phys(struct device *dev, dma_addr_t addr, size_t size,
				  enum dma_data_direction dir, unsigned long attrs)
{
	if (attrs & DMA_ATTR_MMIO)
		dma_unmap_resource(dev, addr, size, dir, attrs & ~DMA_ATTR_MMIO);
	else
		dma_unmap_page_attrs(dev, addr, size, dir, attrs);
}

/*
 * Device memory without struct pages is mapped as a resource. That knows nothing
 * of the way between the two devices: it always goes through the host bridge.
 * Whether there is a way at all was asked when the importer attached.
 */
#define PEERDMA_HAS_WAYS 0

struct p2pdma_provider {
	struct device *owner;
};

struct phys_vec {
	phys_addr_t paddr;
	size_t len;
};

static inline int pcim_p2pdma_init(struct pci_dev *pdev)
{
	return IS_ENABLED(CONFIG_PCI_P2PDMA) ? 0 : -EOPNOTSUPP;
}

static inline struct p2pdma_provider *pcim_p2pdma_provider(struct pci_dev *pdev, int bar)
{
	struct p2pdma_provider *provider;

	provider = devm_kzalloc(&pdev->dev, sizeof(*provider), GFP_KERNEL);
	if (provider)
		provider->owner = &pdev->dev;
	return provider;
}

static inline struct sg_table *dma_buf_phys_vec_to_sgt(struct dma_buf_attachment *attach,
						       struct p2pdma_provider *provider,
						       struct phys_vec *vec, size_t ranges,
						       size_t size, enum dma_data_direction dir)
{
	struct sg_table *sgt = kzalloc_obj(*sgt);
	dma_addr_t addr;
	int ret;

	if (!sgt)
		return ERR_PTR(-ENOMEM);
	/* One range, and less than an entry of a table can say: so it is called. */
	ret = ranges == 1 && size <= UINT_MAX ? sg_alloc_table(sgt, 1, GFP_KERNEL) : -EINVAL;
	if (ret)
		goto err_free;
	addr = dma_map_resource(attach->dev, vec->paddr, size, dir, DMA_ATTR_SKIP_CPU_SYNC);
	ret = dma_mapping_error(attach->dev, addr);
	if (ret)
		goto err_table;
	sg_dma_address(sgt->sgl) = addr;
	sg_dma_len(sgt->sgl) = size;
	/* There are no pages. */
	sgt->orig_nents = 0;
	return sgt;

err_table:
	sg_free_table(sgt);
err_free:
	kfree(sgt);
	return ERR_PTR(ret);
}

static inline void dma_buf_free_sgt(struct dma_buf_attachment *attach, struct sg_table *sgt,
				    enum dma_data_direction dir)
{
	dma_unmap_resource(attach->dev, sg_dma_address(sgt->sgl), sg_dma_len(sgt->sgl), dir,
			   DMA_ATTR_SKIP_CPU_SYNC);
	sgt->orig_nents = sgt->nents;
	sg_free_table(sgt);
	kfree(sgt);
}

#else
#include <linux/dma-buf-mapping.h>

#define PEERDMA_HAS_OPTIONAL_INVALIDATE 1
#define PEERDMA_HAS_WAYS 1
#endif

#endif /* PEERDMA_COMPAT_H */
