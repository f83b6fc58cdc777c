// SPDX-License-Identifier: GPL-2.0-only
/*
 * The PCI side: binding, unbinding, resets, errors.
 */
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/module.h>
#include <linux/pci-p2pdma.h>
#include <linux/pm.h>
#include <linux/rcupdate.h>

#include "work.h"

static unsigned int peerdma_p2pmem_percent = 12;
module_param_named(p2pmem_percent, peerdma_p2pmem_percent, uint, 0444);
MODULE_PARM_DESC(p2pmem_percent, "Part of the local memory that gets struct pages, percent (0-90)");

/* What the kernel can give pages to: a subsection of its memory map, bytes */
#define PEERDMA_P2PMEM_UNIT (2UL << 20)

/* How often to look whether the device has written everything, and how long */
#define PEERDMA_SYNC_POLL_US 20
#define PEERDMA_SYNC_TIMEOUT_US (5 * USEC_PER_SEC)

/* Registers of the whole device that the driver needs to know once. */
static int peerdma_identify(struct peerdma_device *peer)
{
	struct device *dev = &peer->pdev->dev;
	u32 magic = readl(peer->regs + PEERDMA_REG_MAGIC);
	u32 version = readl(peer->regs + PEERDMA_REG_VERSION);
	u64 size;

	if (magic != PEERDMA_MAGIC_VALUE)
		return dev_err_probe(dev, -ENODEV, "not a peer device: magic %#x\n", magic);
	if (version >> 16 != PEERDMA_VERSION_VALUE >> 16)
		return dev_err_probe(dev, -ENODEV, "register layout %#x is not known\n", version);

	peer->channels = readl(peer->regs + PEERDMA_REG_CHANNELS);
	peer->max_length = readl(peer->regs + PEERDMA_REG_LENGTH_MAX);
	size = readl(peer->regs + PEERDMA_REG_LOCAL_SIZE_LO);
	size |= (u64)readl(peer->regs + PEERDMA_REG_LOCAL_SIZE_HI) << 32;
	peer->bar_phys = pci_resource_start(peer->pdev, PEERDMA_BAR_LOCAL);
	peer->bar_size = pci_resource_len(peer->pdev, PEERDMA_BAR_LOCAL);

	if (!peer->channels || peer->channels > PEERDMA_MAX_CHANNELS ||
	    peer->max_length < PAGE_SIZE ||
	    readl(peer->regs + PEERDMA_REG_RING_MAX) < PEERDMA_RING_ORDER)
		return dev_err_probe(dev, -ENODEV, "unusable: %u channels, %u bytes each\n",
				     peer->channels, peer->max_length);
	/* A resizable BAR may show less than all. */
	peer->bar_size = min(peer->bar_size, size) & PAGE_MASK;
	if (!peer->bar_size)
		return dev_err_probe(dev, -ENODEV, "no local memory\n");
	return 0;
}

/*
 * Everything that the device has written is where it belongs after this. Its work has
 * ended; in a reset, or pulled, it does not answer, and has forgotten what it held.
 */
void peerdma_device_sync(struct peerdma_device *peer)
{
	void __iomem *control = peer->regs + PEERDMA_REG_CTRL;
	u32 value;

	writel(PEERDMA_CTRL_SYNC, control);
	if (readl_poll_timeout(control, value,
			       PCI_POSSIBLE_ERROR(value) || !(value & PEERDMA_CTRL_SYNC),
			       PEERDMA_SYNC_POLL_US, PEERDMA_SYNC_TIMEOUT_US))
		dev_warn(&peer->pdev->dev, "writes are still under way\n");
}

static int peerdma_interrupts(struct peerdma_device *peer)
{
	struct device *dev = &peer->pdev->dev;
	int i, ret;

	ret = pci_alloc_irq_vectors(peer->pdev, 1, peer->channels, PCI_IRQ_MSIX);
	if (ret < 0)
		return dev_err_probe(dev, ret, "no interrupts\n");
	peer->vectors = ret;
	for (i = 0; i < peer->vectors; i++) {
		ret = devm_request_irq(dev, pci_irq_vector(peer->pdev, i),
				       peerdma_channel_interrupt, 0, dev_name(&peer->dev),
				       &peer->channel[i]);
		if (ret)
			return dev_err_probe(dev, ret, "no interrupt for channel %d\n", i);
	}
	return 0;
}

/*
 * Gives the end of the local memory struct pages and publishes it. Whatever is in the
 * way (too small a BAR, no room for pages): then all of it has none.
 */
static void peerdma_p2pmem(struct peerdma_device *peer)
{
	u64 size = peer->bar_size / 100 * min(peerdma_p2pmem_percent, 90U);

	size = ALIGN_DOWN(size, PEERDMA_P2PMEM_UNIT);
	if (!size ||
	    pci_p2pdma_add_resource(peer->pdev, PEERDMA_BAR_LOCAL, size, peer->bar_size - size))
		return;
	peer->p2pmem_size = size;
	pci_p2pmem_publish(peer->pdev, true);
}

static int peerdma_p2pdma(struct peerdma_device *peer)
{
	int ret;

	ret = pcim_p2pdma_init(peer->pdev);
	if (ret == -EOPNOTSUPP)
		return 0; /* a kernel without: nothing can be exported */
	if (ret)
		return ret;
	peer->provider = pcim_p2pdma_provider(peer->pdev, PEERDMA_BAR_LOCAL);
	peerdma_p2pmem(peer);
	return 0;
}

static void peerdma_wq_destroy(void *data)
{
	destroy_workqueue(data);
}

static void peerdma_put(void *data)
{
	struct peerdma_device *peer = data;

	put_device(&peer->dev);
}

static int peerdma_setup(struct peerdma_device *peer)
{
	struct pci_dev *pdev = peer->pdev;
	struct device *dev = &pdev->dev;
	int ret;

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	peer->regs = pcim_iomap_region(pdev, PEERDMA_BAR_REGISTERS, dev_name(&peer->dev));
	if (IS_ERR(peer->regs))
		return PTR_ERR(peer->regs);
	ret = pcim_request_region(pdev, PEERDMA_BAR_LOCAL, dev_name(&peer->dev));
	if (ret)
		return ret;
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	/* The engine knows no segments; longer ones are cut. */
	dma_set_max_seg_size(dev, UINT_MAX);

	ret = peerdma_identify(peer);
	if (ret)
		return ret;
	ret = peerdma_p2pdma(peer);
	if (ret)
		return ret;
	ret = peerdma_memory_pool_create(peer);
	if (ret)
		return ret;
	/* Fences depend on it, and reclaim may depend on fences. */
	peer->wq = alloc_workqueue("%s", WQ_MEM_RECLAIM | WQ_UNBOUND, 0, dev_name(&peer->dev));
	if (!peer->wq)
		return -ENOMEM;
	ret = devm_add_action_or_reset(dev, peerdma_wq_destroy, peer->wq);
	if (ret)
		return ret;
	ret = peerdma_channels_create(peer);
	if (ret)
		return ret;
	return peerdma_interrupts(peer);
}

static int peerdma_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct peerdma_device *peer;
	int ret;

	peer = peerdma_chardev_create(pdev);
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	/* First of all, so that it is undone after interrupts and mappings. */
	ret = devm_add_action_or_reset(&pdev->dev, peerdma_put, peer);
	if (ret)
		return ret;
	ret = peerdma_setup(peer);
	if (ret)
		return ret;
	pci_set_drvdata(pdev, peer);
	pci_set_master(pdev);
	/* What slot_reset() brings back. */
	pci_save_state(pdev);
	peerdma_channels_start(peer);
	ret = peerdma_chardev_add(peer);
	if (ret) {
		peerdma_channels_stop(peer);
		pci_clear_master(pdev);
	}
	return ret;
}

static void peerdma_remove(struct pci_dev *pdev)
{
	struct peerdma_device *peer = pci_get_drvdata(pdev);

	peerdma_chardev_remove(peer);
	WRITE_ONCE(peer->gone, true);
	/* All waits for work of ours, in an ioctl or elsewhere, end. */
	peerdma_channels_stop(peer);
	synchronize_srcu(&peer->srcu);

	/* No ioctl any more. First the mappings that importers have of our memory... */
	peerdma_bar_block(peer);
	peerdma_files_zap(peer);
	peerdma_exports_revoke(peer, true);
	/* ... then the mappings that we have of others'. */
	peerdma_objects_shutdown(peer);
	pci_clear_master(pdev);
}

/* ------------------------------------------------------- resets and errors */

/* Work ends as cancelled, mappings are taken back; objects and files stay. */
static void peerdma_suspend(struct peerdma_device *peer)
{
	device_lock_assert(&peer->pdev->dev);
	peerdma_channels_stop(peer);
	peerdma_bar_block(peer);
	peerdma_files_zap(peer);
	peerdma_exports_revoke(peer, false);
}

static void peerdma_resume(struct peerdma_device *peer)
{
	device_lock_assert(&peer->pdev->dev);
	pci_set_master(peer->pdev);
	peerdma_channels_start(peer);
	peerdma_bar_unblock(peer);
}

static void peerdma_reset_prepare(struct pci_dev *pdev)
{
	peerdma_suspend(pci_get_drvdata(pdev));
}

static void peerdma_reset_done(struct pci_dev *pdev)
{
	struct peerdma_device *peer = pci_get_drvdata(pdev);

	peerdma_resume(peer);
	peerdma_count(peer, PEERDMA_COUNT_RESETS);
}

static pci_ers_result_t peerdma_error_detected(struct pci_dev *pdev, pci_channel_state_t state)
{
	struct peerdma_device *peer = pci_get_drvdata(pdev);

	peerdma_count(peer, PEERDMA_COUNT_ERRORS);
	switch (state) {
	case pci_channel_io_normal:
		/*
		 * Not fatal: one transaction was lost, the link is fine. Whose it
		 * was, its completion record says so if it can.
		 */
		return PCI_ERS_RESULT_CAN_RECOVER;
	case pci_channel_io_frozen:
		peerdma_suspend(peer);
		return PCI_ERS_RESULT_NEED_RESET;
	default:
		peerdma_suspend(peer);
		return PCI_ERS_RESULT_DISCONNECT;
	}
}

static pci_ers_result_t peerdma_mmio_enabled(struct pci_dev *pdev)
{
	return PCI_ERS_RESULT_RECOVERED;
}

static pci_ers_result_t peerdma_slot_reset(struct pci_dev *pdev)
{
	struct peerdma_device *peer = pci_get_drvdata(pdev);

	pci_restore_state(pdev);
	pci_save_state(pdev);
	/*
	 * Another function below the port may have wanted the reset for an error that
	 * needed none here: importers have not been notified yet.
	 */
	if (!peer->bar_blocked)
		peerdma_suspend(peer);
	return PCI_ERS_RESULT_RECOVERED;
}

static void peerdma_error_resume(struct pci_dev *pdev)
{
	struct peerdma_device *peer = pci_get_drvdata(pdev);

	/* Stopped only if there was a reset. */
	if (peer->bar_blocked)
		peerdma_resume(peer);
}

static const struct pci_error_handlers peerdma_error_handlers = {
	.error_detected = peerdma_error_detected,
	.mmio_enabled = peerdma_mmio_enabled,
	.slot_reset = peerdma_slot_reset,
	.resume = peerdma_error_resume,
	.reset_prepare = peerdma_reset_prepare,
	.reset_done = peerdma_reset_done,
};

static int peerdma_pm_suspend(struct device *dev)
{
	peerdma_suspend(dev_get_drvdata(dev));
	return 0;
}

static int peerdma_pm_resume(struct device *dev)
{
	peerdma_resume(dev_get_drvdata(dev));
	return 0;
}

static DEFINE_SIMPLE_DEV_PM_OPS(peerdma_pm_ops, peerdma_pm_suspend, peerdma_pm_resume);

static const struct pci_device_id peerdma_ids[] = { { PCI_DEVICE(PEERDMA_PCI_VENDOR_ID,
								 PEERDMA_PCI_DEVICE_ID) },
						    {} };
MODULE_DEVICE_TABLE(pci, peerdma_ids);

static struct pci_driver peerdma_driver = {
	.name = KBUILD_MODNAME,
	.id_table = peerdma_ids,
	.probe = peerdma_probe,
	.remove = peerdma_remove,
	.err_handler = &peerdma_error_handlers,
	.driver.pm = pm_sleep_ptr(&peerdma_pm_ops),
};

static int __init peerdma_init(void)
{
	int ret;

	ret = peerdma_chardev_init();
	if (ret)
		return ret;
	ret = pci_register_driver(&peerdma_driver);
	if (ret)
		peerdma_chardev_exit();
	return ret;
}

static void __exit peerdma_exit(void)
{
	pci_unregister_driver(&peerdma_driver);
	peerdma_chardev_exit();
	/* A fence of ours may still be asked for its name, under RCU. */
	synchronize_rcu();
}

module_init(peerdma_init);
module_exit(peerdma_exit);

MODULE_DESCRIPTION("Peer device of the peerdma lab: dma-buf exporter and importer");
MODULE_AUTHOR("The peerdma authors");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS(PEERDMA_NS_DMA_BUF);
