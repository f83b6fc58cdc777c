// SPDX-License-Identifier: GPL-2.0-only
/*
 * Asks p2pdma, verbosely, how far the first peer device is from each of the others: the kernel
 * then lists the functions that redirect between the two.
 */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>

#define VENDOR	0x1af4
#define DEVICE	0x10f0

static int __init redirect_list_init(void)
{
	struct pci_dev *provider = pci_get_device(VENDOR, DEVICE, NULL);
	struct pci_dev *client = NULL;
	int pairs = 0;

	if (!provider)
		return -ENODEV;
	while ((client = pci_get_device(VENDOR, DEVICE, client))) {
		if (client == provider)
			continue;
		pci_info(client, "distance to %s: %d\n", pci_name(provider),
			 pci_p2pdma_distance(provider, &client->dev, true));
		pairs++;
	}
	pci_dev_put(provider);
	return pairs ? 0 : -ENODEV;
}
module_init(redirect_list_init);

static void __exit redirect_list_exit(void)
{
}
module_exit(redirect_list_exit);

MODULE_DESCRIPTION("Has p2pdma list what redirects between two devices");
MODULE_LICENSE("GPL");
