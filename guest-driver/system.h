/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * System objects: what system.c and system_mmap.c share.
 */
#ifndef PEERDMA_SYSTEM_H
#define PEERDMA_SYSTEM_H

#include "driver.h"

enum pd_system_type {
	PD_SYSTEM_PAGES,
	PD_SYSTEM_COHERENT,
	PD_SYSTEM_PHYS,
};

/**
 * struct pd_system - a system object
 * @base:	its segments are DMA addresses
 * @type:	what it is
 * @pages:	PAGES: the pages
 * @count:	PAGES: how many
 * @sgt:	PAGES: their table, mapped when @base.segments is there
 * @cpu:	COHERENT: kernel address
 * @dma:	COHERENT, PHYS: DMA address
 * @phys:	PHYS: physical address
 * @attrs:	PHYS: DMA_ATTR_*
 */
struct pd_system {
	struct pd_object base;
	enum pd_system_type type;
	struct page **pages;
	u32 count;
	struct sg_table sgt;
	void *cpu;
	dma_addr_t dma;
	phys_addr_t phys;
	unsigned long attrs;
};

static inline struct pd_system *to_pd_system(struct pd_object *obj)
{
	return container_of(obj, struct pd_system, base);
}

static inline struct device *pd_system_dev(struct pd_system *sys)
{
	return &sys->base.pd->pdev->dev;
}

int pd_system_mmap(struct pd_object *obj, struct vm_area_struct *vma);

#endif /* PEERDMA_SYSTEM_H */
