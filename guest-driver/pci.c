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

static unsigned int pd_p2pmem_percent = 12;
module_param_named(p2pmem_percent, pd_p2pmem_percent, uint, 0444);
MODULE_PARM_DESC(p2pmem_percent,
		 "Part of the local memory that gets struct pages, percent (0-90)");

/* What the kernel can give pages to: a subsection of its memory map, bytes */
#define PD_P2PMEM_UNIT	(2UL << 20)

/* How often to look whether the device has written everything, and how long */
#define PD_SYNC_POLL_US		20
#define PD_SYNC_TIMEOUT_US	(5 * USEC_PER_SEC)

/* Registers of the whole device that the driver needs to know once. */
static int pd_identify(struct pd_device *pd)
{
	struct device *dev = &pd->pdev->dev;
	u32 magic = readl(pd->regs + PEERDMA_REG_MAGIC);
	u32 version = readl(pd->regs + PEERDMA_REG_VERSION);
	u64 size;

	if (magic != PEERDMA_MAGIC_VALUE)
		return dev_err_probe(dev, -ENODEV,
				     "not a peer device: magic %#x\n", magic);
	if (version >> 16 != PEERDMA_VERSION_VALUE >> 16)
		return dev_err_probe(dev, -ENODEV,
				     "register layout %#x is not known\n",
				     version);

	pd->channels = readl(pd->regs + PEERDMA_REG_CHANNELS);
	pd->max_length = readl(pd->regs + PEERDMA_REG_LENGTH_MAX);
	size = readl(pd->regs + PEERDMA_REG_LOCAL_SIZE_LO);
	size |= (u64)readl(pd->regs + PEERDMA_REG_LOCAL_SIZE_HI) << 32;
	pd->bar_phys = pci_resource_start(pd->pdev, PEERDMA_BAR_LOCAL);
	pd->bar_size = pci_resource_len(pd->pdev, PEERDMA_BAR_LOCAL);

	if (!pd->channels || pd->channels > PEERDMA_MAX_CHANNELS ||
	    pd->max_length < PAGE_SIZE ||
	    readl(pd->regs + PEERDMA_REG_RING_MAX) < PD_RING_ORDER)
		return dev_err_probe(dev, -ENODEV,
				     "unusable: %u channels, %u bytes each\n",
				     pd->channels, pd->max_length);
	/* A resizable BAR may show less than all. */
	pd->bar_size = min(pd->bar_size, size) & PAGE_MASK;
	if (!pd->bar_size)
		return dev_err_probe(dev, -ENODEV, "no local memory\n");
	return 0;
}

/*
 * Everything that the device has written is where it belongs after this. Its work has
 * ended; in a reset, or pulled, it does not answer, and has forgotten what it held.
 */
void pd_device_sync(struct pd_device *pd)
{
	void __iomem *control = pd->regs + PEERDMA_REG_CTRL;
	u32 value;

	writel(PEERDMA_CTRL_SYNC, control);
	if (readl_poll_timeout(control, value,
			       PCI_POSSIBLE_ERROR(value) ||
				       !(value & PEERDMA_CTRL_SYNC),
			       PD_SYNC_POLL_US, PD_SYNC_TIMEOUT_US))
		dev_warn(&pd->pdev->dev, "writes are still under way\n");
}

static int pd_interrupts(struct pd_device *pd)
{
	struct device *dev = &pd->pdev->dev;
	int i, ret;

	ret = pci_alloc_irq_vectors(pd->pdev, 1, pd->channels, PCI_IRQ_MSIX);
	if (ret < 0)
		return dev_err_probe(dev, ret, "no interrupts\n");
	pd->vectors = ret;
	for (i = 0; i < pd->vectors; i++) {
		ret = devm_request_irq(dev, pci_irq_vector(pd->pdev, i),
				       pd_channel_interrupt, 0,
				       dev_name(&pd->dev), &pd->channel[i]);
		if (ret)
			return dev_err_probe(dev, ret,
					     "no interrupt for channel %d\n", i);
	}
	return 0;
}

/*
 * Gives the end of the local memory struct pages and publishes it. Whatever is in the
 * way (too small a BAR, no room for pages): then all of it has none.
 */
static void pd_p2pmem(struct pd_device *pd)
{
	u64 size = pd->bar_size / 100 * min(pd_p2pmem_percent, 90U);

	size = ALIGN_DOWN(size, PD_P2PMEM_UNIT);
	if (!size || pci_p2pdma_add_resource(pd->pdev, PEERDMA_BAR_LOCAL, size,
					     pd->bar_size - size))
		return;
	pd->p2pmem_size = size;
	pci_p2pmem_publish(pd->pdev, true);
}

static int pd_p2pdma(struct pd_device *pd)
{
	int ret;

	ret = pcim_p2pdma_init(pd->pdev);
	if (ret == -EOPNOTSUPP)
		return 0; /* a kernel without: nothing can be exported */
	if (ret)
		return ret;
	pd->provider = pcim_p2pdma_provider(pd->pdev, PEERDMA_BAR_LOCAL);
	pd_p2pmem(pd);
	return 0;
}

static void pd_wq_destroy(void *data)
{
	destroy_workqueue(data);
}

static void pd_put(void *data)
{
	struct pd_device *pd = data;

	put_device(&pd->dev);
}

static int pd_setup(struct pd_device *pd)
{
	struct pci_dev *pdev = pd->pdev;
	struct device *dev = &pdev->dev;
	int ret;

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	pd->regs = pcim_iomap_region(pdev, PEERDMA_BAR_REGISTERS,
				     dev_name(&pd->dev));
	if (IS_ERR(pd->regs))
		return PTR_ERR(pd->regs);
	ret = pcim_request_region(pdev, PEERDMA_BAR_LOCAL, dev_name(&pd->dev));
	if (ret)
		return ret;
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	/* The engine knows no segments; longer ones are cut. */
	dma_set_max_seg_size(dev, UINT_MAX);

	ret = pd_identify(pd);
	if (ret)
		return ret;
	ret = pd_p2pdma(pd);
	if (ret)
		return ret;
	ret = pd_memory_pool_create(pd);
	if (ret)
		return ret;
	/* Fences depend on it, and reclaim may depend on fences. */
	pd->wq = alloc_workqueue("%s", WQ_MEM_RECLAIM | WQ_UNBOUND, 0,
				 dev_name(&pd->dev));
	if (!pd->wq)
		return -ENOMEM;
	ret = devm_add_action_or_reset(dev, pd_wq_destroy, pd->wq);
	if (ret)
		return ret;
	ret = pd_channels_create(pd);
	if (ret)
		return ret;
	return pd_interrupts(pd);
}

static int pd_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct pd_device *pd;
	int ret;

	pd = pd_chardev_create(pdev);
	if (IS_ERR(pd))
		return PTR_ERR(pd);
	/* First of all, so that it is undone after interrupts and mappings. */
	ret = devm_add_action_or_reset(&pdev->dev, pd_put, pd);
	if (ret)
		return ret;
	ret = pd_setup(pd);
	if (ret)
		return ret;
	pci_set_drvdata(pdev, pd);
	pci_set_master(pdev);
	/* What slot_reset() brings back. */
	pci_save_state(pdev);
	pd_channels_start(pd);
	ret = pd_chardev_add(pd);
	if (ret) {
		pd_channels_stop(pd);
		pci_clear_master(pdev);
	}
	return ret;
}

static void pd_remove(struct pci_dev *pdev)
{
	struct pd_device *pd = pci_get_drvdata(pdev);

	pd_chardev_remove(pd);
	WRITE_ONCE(pd->gone, true);
	/* Whoever waits for work of ours, in an ioctl or elsewhere, goes on. */
	pd_channels_stop(pd);
	synchronize_srcu(&pd->srcu);

	/* No ioctl any more. What we have lent comes back... */
	pd_bar_block(pd);
	pd_files_zap(pd);
	pd_exports_revoke(pd, true);
	/* ... and what we have borrowed goes back. */
	pd_objects_shutdown(pd);
	pci_clear_master(pdev);
}

/* ------------------------------------------------------- resets and errors */

/* Work ends as cancelled, mappings are taken back; objects and files stay. */
static void pd_suspend(struct pd_device *pd)
{
	pd_channels_stop(pd);
	pd_bar_block(pd);
	pd_files_zap(pd);
	pd_exports_revoke(pd, false);
}

static void pd_resume(struct pd_device *pd)
{
	pci_set_master(pd->pdev);
	pd_channels_start(pd);
	pd_bar_unblock(pd);
}

static void pd_reset_prepare(struct pci_dev *pdev)
{
	pd_suspend(pci_get_drvdata(pdev));
}

static void pd_reset_done(struct pci_dev *pdev)
{
	struct pd_device *pd = pci_get_drvdata(pdev);

	pd_resume(pd);
	pd_count(pd, PD_RESETS);
}

static pci_ers_result_t pd_error_detected(struct pci_dev *pdev,
					  pci_channel_state_t state)
{
	struct pd_device *pd = pci_get_drvdata(pdev);

	pd_count(pd, PD_ERRORS);
	switch (state) {
	case pci_channel_io_normal:
		/*
		 * Not fatal: one transaction was lost, the link is fine. Whose it
		 * was, its completion record tells if it can.
		 */
		return PCI_ERS_RESULT_CAN_RECOVER;
	case pci_channel_io_frozen:
		pd_suspend(pd);
		return PCI_ERS_RESULT_NEED_RESET;
	default:
		pd_suspend(pd);
		return PCI_ERS_RESULT_DISCONNECT;
	}
}

static pci_ers_result_t pd_mmio_enabled(struct pci_dev *pdev)
{
	return PCI_ERS_RESULT_RECOVERED;
}

static pci_ers_result_t pd_slot_reset(struct pci_dev *pdev)
{
	struct pd_device *pd = pci_get_drvdata(pdev);

	pci_restore_state(pdev);
	pci_save_state(pdev);
	/*
	 * Another function below the port may have wanted the reset for an error that
	 * needed none here: nobody has been told yet that it happened.
	 */
	if (!pd->bar_blocked)
		pd_suspend(pd);
	return PCI_ERS_RESULT_RECOVERED;
}

static void pd_error_resume(struct pci_dev *pdev)
{
	struct pd_device *pd = pci_get_drvdata(pdev);

	/* Stopped only if there was a reset. */
	if (pd->bar_blocked)
		pd_resume(pd);
}

static const struct pci_error_handlers pd_error_handlers = {
	.error_detected = pd_error_detected,
	.mmio_enabled = pd_mmio_enabled,
	.slot_reset = pd_slot_reset,
	.resume = pd_error_resume,
	.reset_prepare = pd_reset_prepare,
	.reset_done = pd_reset_done,
};

static int pd_pm_suspend(struct device *dev)
{
	pd_suspend(dev_get_drvdata(dev));
	return 0;
}

static int pd_pm_resume(struct device *dev)
{
	pd_resume(dev_get_drvdata(dev));
	return 0;
}

static DEFINE_SIMPLE_DEV_PM_OPS(pd_pm_ops, pd_pm_suspend, pd_pm_resume);

static const struct pci_device_id pd_ids[] = {
	{ PCI_DEVICE(PEERDMA_PCI_VENDOR_ID, PEERDMA_PCI_DEVICE_ID) },
	{}
};
MODULE_DEVICE_TABLE(pci, pd_ids);

static struct pci_driver pd_driver = {
	.name = KBUILD_MODNAME,
	.id_table = pd_ids,
	.probe = pd_probe,
	.remove = pd_remove,
	.err_handler = &pd_error_handlers,
	.driver.pm = pm_sleep_ptr(&pd_pm_ops),
};

static int __init pd_init(void)
{
	int ret;

	ret = pd_chardev_init();
	if (ret)
		return ret;
	ret = pci_register_driver(&pd_driver);
	if (ret)
		pd_chardev_exit();
	return ret;
}

static void __exit pd_exit(void)
{
	pci_unregister_driver(&pd_driver);
	pd_chardev_exit();
	/* Whoever still asks a fence of ours for its name does so under RCU. */
	synchronize_rcu();
}

module_init(pd_init);
module_exit(pd_exit);

MODULE_DESCRIPTION("Peer device of the peerdma lab: dma-buf exporter and importer");
MODULE_AUTHOR("The peerdma authors");
MODULE_LICENSE("GPL");
PD_IMPORT_DMA_BUF;
