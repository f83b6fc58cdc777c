// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which function is which /dev/peerdmaN.
 */
#include <linux/pci.h>
#include <linux/slab.h>

#include "driver.h"

struct peerdma_seat {
	struct list_head node;
	u32 segment;
	u32 bdf;
	unsigned int instance;
};

static LIST_HEAD(peerdma_seats);
static DEFINE_MUTEX(peerdma_seats_lock);

/* A function that is bound again gets the number it had. */
int peerdma_seat_take(struct pci_dev *pdev)
{
	u32 segment = pci_domain_nr(pdev->bus);
	u32 bdf = pci_dev_id(pdev);
	struct peerdma_seat *seat;
	unsigned int next = 0;
	int ret;

	mutex_lock(&peerdma_seats_lock);
	list_for_each_entry(seat, &peerdma_seats, node) {
		if (seat->segment == segment && seat->bdf == bdf) {
			ret = seat->instance;
			goto out;
		}
		next = max(next, seat->instance + 1);
	}
	ret = -ENOSPC;
	if (next >= PEERDMA_MAX_DEVICES)
		goto out;
	ret = -ENOMEM;
	seat = kzalloc_obj(*seat);
	if (!seat)
		goto out;
	seat->segment = segment;
	seat->bdf = bdf;
	seat->instance = next;
	list_add_tail(&seat->node, &peerdma_seats);
	ret = next;
out:
	mutex_unlock(&peerdma_seats_lock);
	return ret;
}

/* The module goes. */
void peerdma_seats_free(void)
{
	struct peerdma_seat *seat, *next;

	list_for_each_entry_safe(seat, next, &peerdma_seats, node)
		kfree(seat);
}
