// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which function is which /dev/peerdmaN.
 */
#include <linux/pci.h>
#include <linux/slab.h>

#include "driver.h"

struct peerdma_instance {
	struct list_head node;
	u32 segment;
	u32 bdf;
	unsigned int number;
};

static LIST_HEAD(peerdma_instances);
static DEFINE_MUTEX(peerdma_instances_lock);

/* A function that is bound again gets the number it had. */
int peerdma_instance_get(struct pci_dev *pdev)
{
	u32 segment = pci_domain_nr(pdev->bus);
	u32 bdf = pci_dev_id(pdev);
	struct peerdma_instance *instance;
	unsigned int next = 0;
	int ret;

	mutex_lock(&peerdma_instances_lock);
	list_for_each_entry(instance, &peerdma_instances, node) {
		if (instance->segment == segment && instance->bdf == bdf) {
			ret = instance->number;
			goto out;
		}
		next = max(next, instance->number + 1);
	}
	ret = -ENOSPC;
	if (next >= PEERDMA_MAX_DEVICES)
		goto out;
	ret = -ENOMEM;
	instance = kzalloc_obj(*instance);
	if (!instance)
		goto out;
	instance->segment = segment;
	instance->bdf = bdf;
	instance->number = next;
	list_add_tail(&instance->node, &peerdma_instances);
	ret = next;
out:
	mutex_unlock(&peerdma_instances_lock);
	return ret;
}

/* The module goes. */
void peerdma_instances_free(void)
{
	struct peerdma_instance *instance, *next;

	list_for_each_entry_safe(instance, next, &peerdma_instances, node)
		kfree(instance);
}
