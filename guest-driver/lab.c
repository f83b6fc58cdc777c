// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lab-only calls on the function itself. The dispatcher has checked the
 * capability. What they do to the driver's own state is the caller's problem.
 */
#include <linux/io-64-nonatomic-lo-hi.h>

#include "driver.h"

int peerdma_ioctl_lab_bus_master(struct peerdma_call *call, void *data)
{
	struct pci_dev *pdev = call->file->peer->pdev;
	struct peerdma_lab_bus_master *arg = data;
	u16 command;

	if (arg->enable > 2)
		return -EINVAL;
	pci_read_config_word(pdev, PCI_COMMAND, &command);
	arg->was = !!(command & PCI_COMMAND_MASTER);
	if (arg->enable == 1)
		pci_set_master(pdev);
	else if (!arg->enable)
		pci_clear_master(pdev);
	return 0;
}

int peerdma_ioctl_lab_register(struct peerdma_call *call, void *data)
{
	struct peerdma_device *peer = call->file->peer;
	struct peerdma_lab_register *arg = data;
	u64 size = pci_resource_len(peer->pdev, PEERDMA_BAR_REGISTERS);
	void __iomem *at;

	if ((arg->width != 4 && arg->width != 8) || arg->write > 1)
		return -EINVAL;
	if (arg->offset % arg->width || arg->offset > size - arg->width)
		return -EINVAL;
	at = peer->regs + arg->offset;

	if (arg->write && arg->width == 4)
		writel(arg->value, at);
	else if (arg->write)
		writeq(arg->value, at);
	else if (arg->width == 4)
		arg->value = readl(at);
	else
		arg->value = readq(at);
	return 0;
}
