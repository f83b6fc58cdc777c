// SPDX-License-Identifier: GPL-2.0-only
/* Which driver has a function: from its Bind on, all that it maps is seen. */
#include <linux/device/bus.h>
#include <linux/notifier.h>
#include <linux/pci.h>
#include <linux/string.h>

#include "witness.h"

/* Drivers that hand the device to another owner without telling the driver core. */
static const char *const unseen[] = { "vfio", "uio", "pci-stub", "pciback" };

static bool is_unseen(const struct device_driver *driver)
{
	unsigned int i;

	/* "Device driver doesn't use kernel DMA API for DMA", says the driver core. */
	if (to_pci_driver(driver)->driver_managed_dma)
		return true;
	for (i = 0; i < ARRAY_SIZE(unseen); i++) {
		if (strstr(driver->name, unseen[i]))
			return true;
	}
	return false;
}

static int notify(struct notifier_block *nb, unsigned long action, void *data)
{
	struct device *dev = data;
	struct witness_event event = {
		.direction = DMA_NONE,
		.function = witness_function(dev),
	};

	switch (action) {
	case BUS_NOTIFY_BIND_DRIVER:
		/* Before its probe(), with nothing mapped yet. */
		event.kind = WITNESS_BIND;
		event.text = dev->driver->name;
		event.flags = is_unseen(dev->driver) ? WITNESS_F_UNSEEN : 0;
		break;
	case BUS_NOTIFY_UNBOUND_DRIVER:
	case BUS_NOTIFY_DRIVER_NOT_BOUND:
		event.kind = WITNESS_UNBIND;
		break;
	case BUS_NOTIFY_REMOVED_DEVICE:
		event.kind = WITNESS_GONE;
		break;
	default:
		return NOTIFY_DONE;
	}
	witness_report(&event);
	return NOTIFY_DONE;
}

static struct notifier_block notifier = { .notifier_call = notify };

int witness_bind_attach(void)
{
	return bus_register_notifier(&pci_bus_type, &notifier);
}

void witness_bind_detach(void)
{
	bus_unregister_notifier(&pci_bus_type, &notifier);
}
