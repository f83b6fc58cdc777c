// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lab's ioctls, and those of them that go to the function itself: Bus Master Enable
 * and the registers, behind the driver's back.
 */
#include <linux/err.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/nospec.h>

#include "lab.h"

static int peerdma_ioctl_lab_bus_master(struct peerdma_call *call, void *data)
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

static int peerdma_ioctl_lab_register(struct peerdma_call *call, void *data)
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

static const struct peerdma_ioctl peerdma_lab_ioctls[] = {
	PEERDMA_IOCTL(PEERDMA_LAB_BUS_MASTER, peerdma_lab_bus_master, peerdma_ioctl_lab_bus_master),
	PEERDMA_IOCTL(PEERDMA_LAB_MAP_PHYS, peerdma_lab_map_phys, peerdma_ioctl_lab_map_phys),
	PEERDMA_IOCTL(PEERDMA_LAB_REGISTER, peerdma_lab_register, peerdma_ioctl_lab_register),
	PEERDMA_IOCTL(PEERDMA_LAB_READ_PAGE, peerdma_lab_read_page, peerdma_ioctl_lab_read_page),
	PEERDMA_IOCTL(PEERDMA_LAB_FORGET, peerdma_handle, peerdma_ioctl_lab_forget),
};

static const struct peerdma_ioctl *peerdma_lab_ioctl(unsigned int nr)
{
	if (nr >= ARRAY_SIZE(peerdma_lab_ioctls))
		return ERR_PTR(-ENOTTY);
	nr = array_index_nospec(nr, ARRAY_SIZE(peerdma_lab_ioctls));
	if (!peerdma_lab_ioctls[nr].call)
		return ERR_PTR(-ENOTTY);
	if (!capable(CAP_SYS_ADMIN))
		return ERR_PTR(-EPERM);
	return &peerdma_lab_ioctls[nr];
}

const struct peerdma_lab_ops peerdma_lab = {
	.ioctl = peerdma_lab_ioctl,
	.submit = peerdma_lab_submit,
	.locate = peerdma_lab_locate,
	.record = peerdma_lab_record,
	.buffer = peerdma_lab_buffer,
	.move = peerdma_lab_move,
	.import = peerdma_lab_import,
};
