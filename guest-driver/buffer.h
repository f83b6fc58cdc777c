/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Buffers: memory of any kind, to be exported.
 */
#ifndef PEERDMA_BUFFER_H
#define PEERDMA_BUFFER_H

#include <linux/iosys-map.h>

#include "driver.h"

struct peerdma_buffer;
struct peerdma_mapping;

/**
 * struct peerdma_storage - what differs between the kinds
 * @take:	gets the memory and makes the segments of the own device; cleans up
 *		by itself when it fails
 * @let_go:	gives back what needs the device or its driver
 * @sync:	hands the own device's mapping over to the CPU or the device. NULL:
 *		nothing to do
 * @map:	makes the mapping of an importer. NULL: no other device can have the
 *		memory
 * @vmap:	as in struct dma_buf_ops, with the buffer
 * @vunmap:	likewise; NULL: nothing to do
 * @in_bar:	is, or may be, the device's local memory
 * @waits:	unbinding waits for importers without invalidate_mappings
 * @stays:	outlives the driver
 *
 * All but @take are called under the buffer's dma_resv.
 */
struct peerdma_storage {
	int (*take)(struct peerdma_buffer *buf);
	void (*let_go)(struct peerdma_buffer *buf);
	void (*sync)(struct peerdma_buffer *buf, bool for_cpu);
	struct peerdma_mapping *(*map)(struct peerdma_buffer *buf,
				       struct dma_buf_attachment *attach,
				       enum dma_data_direction dir);
	int (*vmap)(struct peerdma_buffer *buf, struct iosys_map *map);
	void (*vunmap)(struct peerdma_buffer *buf, struct iosys_map *map);
	bool in_bar;
	bool waits;
	bool stays;
};

/**
 * struct peerdma_buffer - a buffer object
 * @base:	its segments are where the own device finds it
 * @resv:	of it and of all its dma-bufs; guards all that follows
 * @kind:	PEERDMA_BUFFER_*
 * @storage:	by kind
 * @map:	as in @storage
 * @any_importer: P2PMEM: importers without peer2peer may attach. Lab only
 * @exports:	its dma-bufs
 * @mappings:	what importers have
 * @mapped:	how many of them
 * @gone:	let_go() has been called
 * @pages:	struct pages, where the kind has them
 * @count:	how many
 * @sgt:	PAGES, MIGRATING: the own device's mapping of @pages
 * @dma_sgt:	NONCONTIGUOUS: what the DMA API gave us
 * @cpu:	P2PMEM, NONCOHERENT, COHERENT: kernel address
 * @dma:	NONCOHERENT, COHERENT: DMA address for the own device
 * @place:	PEERDMA_PLACE_*
 * @other:	MIGRATING: segments of the place where it is not
 * @local:	MIGRATING: its range of the local memory
 * @io:		MIGRATING: the kernel's mapping of that
 * @pins:	MIGRATING: by importers
 * @vmaps:	kernel mappings, at most one for each dma-buf
 * @bound:	MIGRATING: attachments that need it in RAM
 * @moves:	MIGRATING: how often it has moved
 */
struct peerdma_buffer {
	struct peerdma_object base;
	struct dma_resv resv;
	u32 kind;
	const struct peerdma_storage *storage;
	struct peerdma_mapping *(*map)(struct peerdma_buffer *buf,
				       struct dma_buf_attachment *attach,
				       enum dma_data_direction dir);
	bool any_importer;
	struct list_head exports;
	struct list_head mappings;
	u32 mapped;
	bool gone;

	struct page **pages;
	u32 count;
	struct sg_table sgt;
	struct sg_table *dma_sgt;
	void *cpu;
	dma_addr_t dma;

	u32 place;
	struct peerdma_segment_list *other;
	struct phys_vec local;
	void __iomem *io;
	u32 pins;
	u32 vmaps;
	u32 bound;
	u64 moves;
};

static inline struct peerdma_buffer *to_peerdma_buffer(struct peerdma_object *obj)
{
	return container_of(obj, struct peerdma_buffer, base);
}

static inline struct device *peerdma_buffer_dev(struct peerdma_buffer *buf)
{
	return &buf->base.peer->pdev->dev;
}

/*
 * The memory has gone with the driver, or is about to. remove() sets peerdma_device.gone
 * before it takes the buffer's dma_resv to take back what others have: so
 * what holds that and sees false is found by remove().
 */
static inline bool peerdma_buffer_is_lost(struct peerdma_buffer *buf)
{
	dma_resv_assert_held(&buf->resv);
	return !buf->storage->stays && (buf->gone || READ_ONCE(buf->base.peer->gone));
}

/* buffer.c */
void peerdma_buffer_exported(struct peerdma_exported *exp);
bool peerdma_buffer_concerned(struct peerdma_object *obj, bool for_good);
bool peerdma_buffer_waits(struct peerdma_object *obj);

/* storage.c, migrate.c */
extern const struct peerdma_storage peerdma_storage_p2pmem;
extern const struct peerdma_storage peerdma_storage_pages;
extern const struct peerdma_storage peerdma_storage_noncontiguous;
extern const struct peerdma_storage peerdma_storage_noncoherent;
extern const struct peerdma_storage peerdma_storage_coherent;
extern const struct peerdma_storage peerdma_storage_migrating;

int peerdma_storage_take_pages(struct peerdma_buffer *buf);
void peerdma_storage_unmap_pages(struct peerdma_buffer *buf);
void peerdma_storage_sync_pages(struct peerdma_buffer *buf, bool for_cpu);
struct peerdma_mapping *peerdma_storage_map_pages(struct peerdma_buffer *buf,
						  struct dma_buf_attachment *attach,
						  enum dma_data_direction dir);
int peerdma_storage_vmap_pages(struct peerdma_buffer *buf, struct iosys_map *map);
void peerdma_storage_vunmap_pages(struct peerdma_buffer *buf, struct iosys_map *map);
void peerdma_storage_free_pages(struct peerdma_buffer *buf);

int peerdma_migrate(struct peerdma_buffer *buf, u32 place);
int peerdma_migrate_begin(struct peerdma_buffer *buf, u32 place);
void peerdma_migrate_finish(struct peerdma_buffer *buf, u32 place);
int peerdma_migrate_attach(struct peerdma_buffer *buf, struct dma_buf_attachment *attach);
void peerdma_migrate_detach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach);
int peerdma_migrate_pin(struct dma_buf_attachment *attach);
void peerdma_migrate_unpin(struct dma_buf_attachment *attach);

/* buffer_export.c, buffer_mmap.c */
bool peerdma_buffer_is_any(struct dma_buf *dmabuf);
const struct dma_buf_ops *peerdma_buffer_export_ops(struct peerdma_object *obj);
int peerdma_buffer_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma);

#endif /* PEERDMA_BUFFER_H */
