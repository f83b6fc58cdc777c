// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mistakes that drivers make with DMA, each on its own and made with the lab's
 * peer devices, and what looks like one and is none. The name of one, written
 * to `make` of a device in sysfs, makes it; `said` shows how it went for the
 * driver, which knows nothing of the lab. What the lab says is for
 * ci/mistakes.sh to check.
 *
 * docs/peer-device.md explains the registers.
 */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>

#define VENDOR		0x1af4
#define DEVICE		0x10f0
#define RECORDS		1024	/* offset of the record ring in our page */
#define ENTRIES_ORDER	3
#define ENTRIES		BIT(ENTRIES_ORDER)
#define BUFFER_ORDER	4
#define WINDOW		SZ_64M
#define SECOND		1000

/* Channel 0 */
#define CTRL		0x1000
#define RING_LO		0x1008
#define RING_HI		0x100c
#define RING_SIZE	0x1010
#define TAIL		0x1018
#define RECORD_LO	0x1020
#define RECORD_HI	0x1024
#define CTRL_ENABLE	1
#define CTRL_RESET	4

#define OP_COPY		1
#define SOURCE_LOCAL	2

struct descriptor {
	u8 opcode;
	u8 reserved;
	__le16 flags;
	__le32 length;
	__le64 source;
	__le64 destination;
	__le64 unused[5];
};

struct record {
	__le64 cookie;
	__le64 bytes;
	__le64 result;
	__le16 status;
	__le16 reserved;
	__le32 sequence;
};

struct maker {
	struct pci_dev *pdev;
	void __iomem *regs;
	void *rings;
	dma_addr_t rings_dma;
	/* The ring's tail, and the last descriptor's number. */
	u32 tail;
	/* Physically contiguous, so that an IOMMU maps it in one go. */
	struct page *buffer;
	char said[80];
};

static DEFINE_MUTEX(lock);

static void begin(struct maker *m)
{
	dma_addr_t records = m->rings_dma + RECORDS;

	memset(m->rings, 0, PAGE_SIZE);
	m->tail = 0;
	writel(CTRL_RESET, m->regs + CTRL);
	writel(lower_32_bits(m->rings_dma), m->regs + RING_LO);
	writel(upper_32_bits(m->rings_dma), m->regs + RING_HI);
	writel(lower_32_bits(records), m->regs + RECORD_LO);
	writel(upper_32_bits(records), m->regs + RECORD_HI);
	writel(ENTRIES_ORDER, m->regs + RING_SIZE);
	writel(CTRL_ENABLE, m->regs + CTRL);
}

/* The device writes @length bytes of its own memory to @to. */
static void post(struct maker *m, dma_addr_t to, u32 length)
{
	struct descriptor *descriptor = m->rings;

	descriptor += m->tail % ENTRIES;
	memset(descriptor, 0, sizeof(*descriptor));
	descriptor->opcode = OP_COPY;
	descriptor->flags = cpu_to_le16(SOURCE_LOCAL);
	descriptor->length = cpu_to_le32(length);
	descriptor->destination = cpu_to_le64(to);
	m->tail++;
	dma_wmb();
	writel(m->tail % ENTRIES, m->regs + TAIL);
}

/* The status of the last descriptor; -ETIMEDOUT if it is not done in time. */
static int outcome(struct maker *m, int ms)
{
	struct record *record = m->rings + RECORDS;

	record += (m->tail - 1) % ENTRIES;
	while (READ_ONCE(record->sequence) != cpu_to_le32(m->tail)) {
		if (ms-- <= 0)
			return -ETIMEDOUT;
		usleep_range(1000, 1200);
	}
	dma_rmb();
	return le16_to_cpu(record->status);
}

static int copy(struct maker *m, dma_addr_t to, u32 length)
{
	begin(m);
	post(m, to, length);
	return outcome(m, 5 * SECOND);
}

static struct pci_dev *other_of(struct pci_dev *pdev)
{
	struct pci_dev *other = NULL;

	do {
		other = pci_get_device(VENDOR, DEVICE, other);
	} while (other == pdev);
	return other;
}

/* Maps the first @mapped bytes of the buffer, and lets @copied be written. */
static int with_mapping(struct maker *m, struct device *dev, size_t mapped,
			u32 copied, enum dma_data_direction dir)
{
	void *buffer = page_address(m->buffer);
	dma_addr_t to = dma_map_single(dev, buffer, mapped, dir);
	int status;

	if (dma_mapping_error(dev, to))
		return -ENOMEM;
	status = copy(m, to, copied);
	dma_unmap_single(dev, to, mapped, dir);
	return status;
}

/* Every second page of the buffer, in one descriptor if @whole. */
static int scattered(struct maker *m, bool whole)
{
	struct device *dev = &m->pdev->dev;
	struct scatterlist list[6], *entry;
	int i, mapped, status = 0;

	sg_init_table(list, ARRAY_SIZE(list));
	for_each_sg(list, entry, ARRAY_SIZE(list), i)
		sg_set_page(entry, m->buffer + 2 * i, PAGE_SIZE, 0);
	mapped = dma_map_sg(dev, list, ARRAY_SIZE(list), DMA_FROM_DEVICE);
	if (!mapped)
		return -ENOMEM;
	/* What was mapped, or the mistake: what was asked for. */
	begin(m);
	for_each_sg(list, entry, whole ? mapped : (int)ARRAY_SIZE(list), i) {
		post(m, sg_dma_address(entry), whole ? sg_dma_len(entry) : entry->length);
		status = outcome(m, SECOND);
	}
	dma_unmap_sg(dev, list, ARRAY_SIZE(list), DMA_FROM_DEVICE);
	return status;
}

/*
 * Posts writes into the peer's memory that take far longer than whatever the
 * caller does meanwhile: 448 MiB. Returns where that is mapped, or an error.
 */
static dma_addr_t begin_long(struct maker *m, struct pci_dev *peer)
{
	struct device *dev = &m->pdev->dev;
	dma_addr_t to;
	int i;

	to = dma_map_resource(dev, pci_resource_start(peer, 2), WINDOW, DMA_FROM_DEVICE, 0);
	if (dma_mapping_error(dev, to))
		return DMA_MAPPING_ERROR;
	begin(m);
	for (i = 0; i < ENTRIES - 1; i++)
		post(m, to, WINDOW);
	return to;
}

static void unmap_long(struct maker *m, dma_addr_t to)
{
	dma_unmap_resource(&m->pdev->dev, to, WINDOW, DMA_FROM_DEVICE, 0);
}

/* The mapping goes while the device still writes. */
static int unmapped_early(struct maker *m, struct pci_dev *peer)
{
	dma_addr_t to = begin_long(m, peer);

	if (to == DMA_MAPPING_ERROR)
		return -ENOMEM;
	unmap_long(m, to);
	return outcome(m, 20 * SECOND);
}

/* The peer's memory is written for a long time, and @reset meanwhile. */
static int into_peer(struct maker *m, struct pci_dev *peer, bool reset)
{
	dma_addr_t to = begin_long(m, peer);
	int status;

	if (to == DMA_MAPPING_ERROR)
		return -ENOMEM;
	status = reset ? pci_reset_function(peer) : 0;
	if (!status)
		status = outcome(m, 20 * SECOND);
	unmap_long(m, to);
	return status;
}

/* The function is reset with work left, which is not a mistake. */
static int reset_self(struct maker *m, struct pci_dev *peer)
{
	dma_addr_t to = begin_long(m, peer);
	int status;

	if (to == DMA_MAPPING_ERROR)
		return -ENOMEM;
	status = pci_reset_function(m->pdev);
	unmap_long(m, to);
	return status ?: with_mapping(m, &m->pdev->dev, PAGE_SIZE, PAGE_SIZE, DMA_FROM_DEVICE);
}

/* Work is asked for with bus mastering off. */
static int without_mastering(struct maker *m)
{
	int status;

	pci_clear_master(m->pdev);
	begin(m);
	post(m, m->rings_dma, 64);
	status = outcome(m, 50);
	pci_set_master(m->pdev);
	return status;
}

static int make(struct maker *m, const char *name)
{
	struct device *dev = &m->pdev->dev;
	struct pci_dev *peer __free(pci_dev_put) = other_of(m->pdev);
	resource_size_t memory;

	if (!peer)
		return -ENODEV;
	memory = pci_resource_start(peer, 2);
	if (!strcmp(name, "good"))
		return with_mapping(m, dev, 12288, 12288, DMA_FROM_DEVICE);
	if (!strcmp(name, "good-list"))
		return scattered(m, true);
	if (!strcmp(name, "direction"))
		return with_mapping(m, dev, 8192, 8192, DMA_TO_DEVICE);
	if (!strcmp(name, "other-device"))
		return with_mapping(m, &peer->dev, 8192, 8192, DMA_FROM_DEVICE);
	/* The rings are mapped above one page, and nothing above two. */
	if (!strcmp(name, "edge-mapped"))
		return with_mapping(m, dev, PAGE_SIZE, PAGE_SIZE + 192, DMA_FROM_DEVICE);
	if (!strcmp(name, "edge-free"))
		return with_mapping(m, dev, 2 * PAGE_SIZE, 2 * PAGE_SIZE + 192, DMA_FROM_DEVICE);
	if (!strcmp(name, "unmapped-early"))
		return unmapped_early(m, peer);
	if (!strcmp(name, "merged-entries"))
		return scattered(m, false);
	if (!strcmp(name, "physical-bar"))
		return copy(m, memory + 0x24000, 2048);
	if (!strcmp(name, "half-bar"))
		return copy(m, lower_32_bits(memory) + 0x3000, 512);
	if (!strcmp(name, "reset-peer"))
		return into_peer(m, peer, true);
	if (!strcmp(name, "into-peer"))
		return into_peer(m, peer, false);
	if (!strcmp(name, "reset-self"))
		return reset_self(m, peer);
	if (!strcmp(name, "without-mastering"))
		return without_mastering(m);
	return -EINVAL;
}

static ssize_t make_store(struct device *dev, struct device_attribute *attr,
			  const char *text, size_t count)
{
	struct maker *m = dev_get_drvdata(dev);
	char name[32];
	int status;

	if (strscpy(name, text, sizeof(name)) < 0)
		return -EINVAL;
	strim(name);
	guard(mutex)(&lock);
	status = make(m, name);
	scnprintf(m->said, sizeof(m->said), "%s: %d", name, status);
	return status == -EINVAL ? status : count;
}
static DEVICE_ATTR_WO(make);

static ssize_t said_show(struct device *dev, struct device_attribute *attr, char *out)
{
	struct maker *m = dev_get_drvdata(dev);

	guard(mutex)(&lock);
	return sysfs_emit(out, "%s\n", m->said);
}
static DEVICE_ATTR_RO(said);

static struct attribute *maker_attrs[] = {
	&dev_attr_make.attr,
	&dev_attr_said.attr,
	NULL
};
ATTRIBUTE_GROUPS(maker);

static int maker_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	struct maker *m;
	int ret;

	m = devm_kzalloc(dev, sizeof(*m), GFP_KERNEL);
	if (!m)
		return -ENOMEM;
	m->pdev = pdev;
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	m->regs = pcim_iomap_region(pdev, 0, KBUILD_MODNAME);
	if (IS_ERR(m->regs))
		return PTR_ERR(m->regs);
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	m->rings = dmam_alloc_coherent(dev, PAGE_SIZE, &m->rings_dma, GFP_KERNEL);
	if (!m->rings)
		return -ENOMEM;
	m->buffer = alloc_pages(GFP_KERNEL | __GFP_ZERO, BUFFER_ORDER);
	if (!m->buffer)
		return -ENOMEM;
	pci_set_drvdata(pdev, m);
	pci_set_master(pdev);
	return 0;
}

static void maker_remove(struct pci_dev *pdev)
{
	struct maker *m = pci_get_drvdata(pdev);

	writel(CTRL_RESET, m->regs + CTRL);
	pci_clear_master(pdev);
	__free_pages(m->buffer, BUFFER_ORDER);
}

static const struct pci_device_id maker_ids[] = {
	{ PCI_DEVICE(VENDOR, DEVICE) },
	{ }
};
MODULE_DEVICE_TABLE(pci, maker_ids);

static struct pci_driver maker_driver = {
	.name = KBUILD_MODNAME,
	.id_table = maker_ids,
	.probe = maker_probe,
	.remove = maker_remove,
	.dev_groups = maker_groups,
};
module_pci_driver(maker_driver);

MODULE_DESCRIPTION("Mistakes that the lab must find, and what looks like one");
MODULE_LICENSE("GPL");
