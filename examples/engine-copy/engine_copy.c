// SPDX-License-Identifier: GPL-2.0-only
/*
 * A short driver for a device that is not the lab's own: Intel's I/OAT engine.
 * Reading `copy` of one in sysfs lets its first channel copy 1 MiB from
 * one buffer to another. Reading `copy_early` does the same with a mistake that
 * survives every test without an IOMMU: the buffers are unmapped when the copy
 * has been started, not when it is over.
 */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/sizes.h>

#define PATTERN		0x5a
#define BYTES		SZ_1M	/* the longest transfer of the engine */

/* Registers of channel 0 */
#define CHANCTRL	0x80
#define CHANCMD		0x84
#define DMACOUNT	0x86
#define CHANSTS		0x88
#define CHAINADDR	0x90
#define CHANERR		0xa8
#define CTRL_ABORT	0x0008	/* stop at any error */
#define CMD_RESET	0x20
#define STS_MASK	7
#define STS_DONE	1
#define STS_HALTED	3

struct descriptor {
	__le32 size;
	__le32 control;		/* 0: copy, and report nothing */
	__le64 source;
	__le64 destination;
	__le64 next;
	__le64 unused[4];
};

struct engine {
	struct mutex lock;	/* one copy at a time */
	void __iomem *regs;
	struct descriptor *descriptor;
	dma_addr_t descriptor_dma;
	void *source;
	void *destination;
};

static void reset(struct engine *engine)
{
	writel(readl(engine->regs + CHANERR), engine->regs + CHANERR);
	writeb(CMD_RESET, engine->regs + CHANCMD);
}

static void start(struct engine *engine, dma_addr_t source, dma_addr_t destination)
{
	struct descriptor *descriptor = engine->descriptor;

	memset(descriptor, 0, sizeof(*descriptor));
	descriptor->size = cpu_to_le32(BYTES);
	descriptor->source = cpu_to_le64(source);
	descriptor->destination = cpu_to_le64(destination);
	descriptor->next = cpu_to_le64(engine->descriptor_dma);

	reset(engine);
	writew(CTRL_ABORT, engine->regs + CHANCTRL);
	writeq(engine->descriptor_dma, engine->regs + CHAINADDR);
	writew(1, engine->regs + DMACOUNT);
}

static u64 finished(struct engine *engine)
{
	int tries;
	u64 status = 0;

	for (tries = 0; tries < 1000; tries++) {
		status = readq(engine->regs + CHANSTS) & STS_MASK;
		if (status == STS_DONE || status == STS_HALTED)
			break;
		usleep_range(100, 1000);
	}
	return status;
}

static ssize_t copy(struct device *dev, char *buf, bool early)
{
	struct engine *engine = dev_get_drvdata(dev);
	dma_addr_t source, destination;
	u64 status = 0;

	guard(mutex)(&engine->lock);
	memset(engine->source, PATTERN, BYTES);
	memset(engine->destination, 0, BYTES);
	source = dma_map_single(dev, engine->source, BYTES, DMA_TO_DEVICE);
	if (dma_mapping_error(dev, source))
		return -ENOMEM;
	destination = dma_map_single(dev, engine->destination, BYTES, DMA_FROM_DEVICE);
	if (dma_mapping_error(dev, destination)) {
		dma_unmap_single(dev, source, BYTES, DMA_TO_DEVICE);
		return -ENOMEM;
	}
	start(engine, source, destination);
	if (!early)
		status = finished(engine);
	dma_unmap_single(dev, destination, BYTES, DMA_FROM_DEVICE);
	dma_unmap_single(dev, source, BYTES, DMA_TO_DEVICE);
	if (early)
		status = finished(engine);
	if (status != STS_DONE)
		return sysfs_emit(buf, "status %llu, error %#x\n", status,
				  readl(engine->regs + CHANERR));
	if (memchr_inv(engine->destination, PATTERN, BYTES))
		return sysfs_emit(buf, "done, but the data is not there\n");
	return sysfs_emit(buf, "ok\n");
}

static ssize_t copy_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return copy(dev, buf, false);
}
static DEVICE_ATTR_RO(copy);

static ssize_t copy_early_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return copy(dev, buf, true);
}
static DEVICE_ATTR_RO(copy_early);

static struct attribute *engine_attrs[] = {
	&dev_attr_copy.attr,
	&dev_attr_copy_early.attr,
	NULL
};
ATTRIBUTE_GROUPS(engine);

static int engine_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	struct engine *engine;
	int ret;

	engine = devm_kzalloc(dev, sizeof(*engine), GFP_KERNEL);
	if (!engine)
		return -ENOMEM;
	mutex_init(&engine->lock);
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	engine->regs = pcim_iomap_region(pdev, 0, KBUILD_MODNAME);
	if (IS_ERR(engine->regs))
		return PTR_ERR(engine->regs);
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	engine->descriptor = dmam_alloc_coherent(dev, sizeof(*engine->descriptor),
						 &engine->descriptor_dma, GFP_KERNEL);
	engine->source = (void *)devm_get_free_pages(dev, GFP_KERNEL, get_order(BYTES));
	engine->destination = (void *)devm_get_free_pages(dev, GFP_KERNEL, get_order(BYTES));
	if (!engine->descriptor || !engine->source || !engine->destination)
		return -ENOMEM;
	pci_set_drvdata(pdev, engine);
	pci_set_master(pdev);
	return 0;
}

static void engine_remove(struct pci_dev *pdev)
{
	reset(pci_get_drvdata(pdev));
	pci_clear_master(pdev);
}

static const struct pci_device_id engine_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_INTEL, 0x2021) },
	{ }
};
MODULE_DEVICE_TABLE(pci, engine_ids);

static struct pci_driver engine_driver = {
	.name = KBUILD_MODNAME,
	.id_table = engine_ids,
	.probe = engine_probe,
	.remove = engine_remove,
	.dev_groups = engine_groups,
};
module_pci_driver(engine_driver);

MODULE_DESCRIPTION("A driver for Intel's I/OAT engine, with a mistake to be found");
MODULE_LICENSE("GPL");
