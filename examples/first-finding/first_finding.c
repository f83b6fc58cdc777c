// SPDX-License-Identifier: GPL-2.0-only
/*
 * The shortest driver that moves data with the lab's peer device, and knows
 * nothing of the lab. Reading `copy` of a device in sysfs lets it write 64 bytes
 * of its local memory into a page of ours. Reading `copy_physical` does the same
 * with the mistake that drivers are born with: the physical address of the page
 * instead of the one that the DMA API gave for this device. Reading `copy_short`
 * maps half of what the device writes: the page is mapped, so no IOMMU objects.
 *
 * docs/peer-device.md explains the registers.
 */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>

#define BYTES		64
#define PATTERN		0x5a
#define RECORDS		2048	/* offset of the record ring in our page */

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

struct first {
	struct mutex lock;	/* one copy at a time */
	void __iomem *regs;
	void __iomem *local;
	void *rings;
	dma_addr_t rings_dma;
	void *page;
};

static void start(struct first *first, dma_addr_t destination)
{
	struct descriptor *descriptor = first->rings;
	dma_addr_t records = first->rings_dma + RECORDS;

	memset(first->rings, 0, PAGE_SIZE);
	descriptor->opcode = OP_COPY;
	descriptor->flags = cpu_to_le16(SOURCE_LOCAL);
	descriptor->length = cpu_to_le32(BYTES);
	descriptor->destination = cpu_to_le64(destination);

	writel(CTRL_RESET, first->regs + CTRL);
	writel(lower_32_bits(first->rings_dma), first->regs + RING_LO);
	writel(upper_32_bits(first->rings_dma), first->regs + RING_HI);
	writel(lower_32_bits(records), first->regs + RECORD_LO);
	writel(upper_32_bits(records), first->regs + RECORD_HI);
	writel(1, first->regs + RING_SIZE);
	writel(CTRL_ENABLE, first->regs + CTRL);
	writel(1, first->regs + TAIL);
}

static bool finished(struct first *first)
{
	struct record *record = first->rings + RECORDS;
	int tries;

	for (tries = 0; tries < 1000; tries++) {
		if (READ_ONCE(record->sequence) == cpu_to_le32(1)) {
			/* The rest of the record was written before. */
			dma_rmb();
			return record->status == 0;
		}
		usleep_range(100, 1000);
	}
	return false;
}

/* mapped: bytes that are mapped for the device; 0: it gets the physical address. */
static ssize_t copy(struct device *dev, char *buf, size_t mapped)
{
	struct first *first = dev_get_drvdata(dev);
	dma_addr_t address = virt_to_phys(first->page);
	bool done;

	guard(mutex)(&first->lock);
	memset_io(first->local, PATTERN, BYTES);
	memset(first->page, 0, BYTES);
	if (mapped) {
		address = dma_map_single(dev, first->page, mapped, DMA_FROM_DEVICE);
		if (dma_mapping_error(dev, address))
			return -ENOMEM;
	}
	start(first, address);
	done = finished(first);
	if (mapped)
		dma_unmap_single(dev, address, mapped, DMA_FROM_DEVICE);
	if (!done)
		return sysfs_emit(buf, "the device did not finish\n");
	/* Posted writes: that the device is done does not say that data arrived. */
	if (memchr_inv(first->page, PATTERN, BYTES))
		return sysfs_emit(buf, "done, but the data is not there\n");
	return sysfs_emit(buf, "ok\n");
}

static ssize_t copy_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return copy(dev, buf, BYTES);
}
static DEVICE_ATTR_RO(copy);

static ssize_t copy_physical_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return copy(dev, buf, 0);
}
static DEVICE_ATTR_RO(copy_physical);

static ssize_t copy_short_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return copy(dev, buf, BYTES / 2);
}
static DEVICE_ATTR_RO(copy_short);

static struct attribute *first_attrs[] = {
	&dev_attr_copy.attr,
	&dev_attr_copy_physical.attr,
	&dev_attr_copy_short.attr,
	NULL
};
ATTRIBUTE_GROUPS(first);

static int first_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	struct first *first;
	int ret;

	first = devm_kzalloc(dev, sizeof(*first), GFP_KERNEL);
	if (!first)
		return -ENOMEM;
	mutex_init(&first->lock);
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	first->regs = pcim_iomap_region(pdev, 0, KBUILD_MODNAME);
	if (IS_ERR(first->regs))
		return PTR_ERR(first->regs);
	first->local = pcim_iomap_region(pdev, 2, KBUILD_MODNAME);
	if (IS_ERR(first->local))
		return PTR_ERR(first->local);
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	first->rings = dmam_alloc_coherent(dev, PAGE_SIZE, &first->rings_dma, GFP_KERNEL);
	first->page = (void *)devm_get_free_pages(dev, GFP_KERNEL, 0);
	if (!first->rings || !first->page)
		return -ENOMEM;
	pci_set_drvdata(pdev, first);
	pci_set_master(pdev);
	return 0;
}

static void first_remove(struct pci_dev *pdev)
{
	struct first *first = pci_get_drvdata(pdev);

	writel(CTRL_RESET, first->regs + CTRL);
	pci_clear_master(pdev);
}

static const struct pci_device_id first_ids[] = {
	{ PCI_DEVICE(0x1af4, 0x10f0) },
	{ }
};
MODULE_DEVICE_TABLE(pci, first_ids);

static struct pci_driver first_driver = {
	.name = KBUILD_MODNAME,
	.id_table = first_ids,
	.probe = first_probe,
	.remove = first_remove,
	.dev_groups = first_groups,
};
module_pci_driver(first_driver);

MODULE_DESCRIPTION("A first driver for the lab's peer device, with a mistake to be found");
MODULE_LICENSE("GPL");
