/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * System objects: what system.c and system_mmap.c share.
 */
#ifndef PEERDMA_SYSTEM_H
#define PEERDMA_SYSTEM_H

#include "driver.h"

enum peerdma_system_type {
	PEERDMA_SYSTEM_TYPE_PAGES,
	PEERDMA_SYSTEM_TYPE_COHERENT,
	PEERDMA_SYSTEM_TYPE_OTHER,
};

/**
 * struct peerdma_system - a system object
 * @base:	its segments are DMA addresses
 * @type:	what it is
 * @pages:	PAGES: the pages
 * @count:	PAGES: how many
 * @sgt:	PAGES: their table, mapped when @base.segments is there
 * @cpu:	COHERENT: kernel address
 * @dma:	COHERENT, OTHER: DMA address
 */
struct peerdma_system {
	struct peerdma_object base;
	enum peerdma_system_type type;
	struct page **pages;
	u32 count;
	struct sg_table sgt;
	void *cpu;
	dma_addr_t dma;
};

static inline struct peerdma_system *to_peerdma_system(struct peerdma_object *obj)
{
	return container_of(obj, struct peerdma_system, base);
}

static inline struct device *peerdma_system_dev(struct peerdma_system *sys)
{
	return &sys->base.peer->pdev->dev;
}

void peerdma_system_init(struct peerdma_system *sys, struct peerdma_device *peer,
			 enum peerdma_system_type type, u64 size,
			 const struct peerdma_object_ops *ops);
int peerdma_system_prepare(struct peerdma_object *obj);
struct peerdma_segment_list *peerdma_system_one_segment(struct peerdma_system *sys);
int peerdma_system_mmap(struct peerdma_object *obj, struct vm_area_struct *vma);

#endif /* PEERDMA_SYSTEM_H */
