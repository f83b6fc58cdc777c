// SPDX-License-Identifier: GPL-2.0-only
/* Which PCI function a mapping is for. */
#include <linux/pci.h>

#include "witness.h"

/**
 * witness_function() - The function that does the DMA of a device
 * @dev: what the mapping was made for; a virtio device, say
 *
 * Return: segment and BDF of its nearest PCI ancestor, or WITNESS_NO_FUNCTION.
 */
u32 witness_function(const struct device *dev)
{
	for (; dev; dev = dev->parent) {
		const struct pci_dev *pdev;
		int segment;

		if (!dev_is_pci(dev))
			continue;
		pdev = to_pci_dev(dev);
		segment = pci_domain_nr(pdev->bus);
		/* Segments beyond are made up by the kernel (VMD), no VMM knows them. */
		if (segment > U16_MAX)
			break;
		return (u32)segment << 16 | PCI_DEVID(pdev->bus->number, pdev->devfn);
	}
	return WITNESS_NO_FUNCTION;
}
