// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the function is, what has happened, and how far others are away.
 */
#include <linux/capability.h>
#include <linux/genalloc.h>
#include <linux/iommu.h>
#include <linux/pci-p2pdma.h>

#include "ioctl.h"

static u32 peerdma_iommu(struct device *dev)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dev);

	if (!domain)
		return PEERDMA_IOMMU_NONE;
	switch (domain->type) {
	case IOMMU_DOMAIN_IDENTITY:
		return PEERDMA_IOMMU_IDENTITY;
	case IOMMU_DOMAIN_DMA:
		return PEERDMA_IOMMU_STRICT;
	case IOMMU_DOMAIN_DMA_FQ:
		return PEERDMA_IOMMU_LAZY;
	default:
		return PEERDMA_IOMMU_OTHER;
	}
}

int peerdma_ioctl_info(struct peerdma_call *call, void *data)
{
	struct peerdma_device *peer = call->file->peer;
	struct peerdma_info *info = data;
	struct pci_dev *pdev = peer->pdev;

	memset(info, 0, sizeof(*info));
	info->abi = PEERDMA_ABI_VERSION;
	info->features = PEERDMA_FEATURE_COMPARE | PEERDMA_FEATURE_VERDICT;
	if (PEERDMA_HAS_SYNC_FILE)
		info->features |= PEERDMA_FEATURE_SYNC_FILE;
	if (peer->provider)
		info->features |= PEERDMA_FEATURE_P2PDMA;
	if (PEERDMA_HAS_OPTIONAL_INVALIDATE)
		info->features |= PEERDMA_FEATURE_NO_INVALIDATE;
	if (peer->provider && PEERDMA_HAS_WAYS)
		info->features |= PEERDMA_FEATURE_WAYS;
	if (peer->vectors >= peer->channels)
		info->features |= PEERDMA_FEATURE_MSIX;
	info->segment = pci_domain_nr(pdev->bus);
	info->bdf = pci_dev_id(pdev);
	info->instance = peer->instance;
	info->channels = peer->channels;
	info->vectors = peer->vectors;
	info->iommu = peerdma_iommu(&pdev->dev);
	info->page_size = PAGE_SIZE;
	info->memory_size = peer->bar_size;
	info->memory_free = gen_pool_avail(peer->pool);
	info->descriptor_bytes = peer->max_length;
	info->registers_size = pci_resource_len(pdev, PEERDMA_BAR_REGISTERS);
	if (capable(CAP_SYS_ADMIN)) {
		info->memory_phys = peer->bar_phys;
		info->memory_bus = pci_bus_address(pdev, PEERDMA_BAR_LOCAL);
		info->registers_phys = pci_resource_start(pdev, PEERDMA_BAR_REGISTERS);
	}
	return 0;
}

static u64 peerdma_counted(struct peerdma_device *peer, enum peerdma_counter which)
{
	return atomic64_read(&peer->counter[which]);
}

int peerdma_ioctl_counters(struct peerdma_call *call, void *data)
{
	struct peerdma_device *peer = call->file->peer;
	struct peerdma_counters *counters = data;

	counters->interrupts = peerdma_counted(peer, PEERDMA_COUNT_INTERRUPTS);
	counters->completions = peerdma_counted(peer, PEERDMA_COUNT_COMPLETIONS);
	counters->submitted = peerdma_counted(peer, PEERDMA_COUNT_SUBMITTED);
	counters->finished = peerdma_counted(peer, PEERDMA_COUNT_FINISHED);
	counters->failed = peerdma_counted(peer, PEERDMA_COUNT_FAILED);
	counters->timeouts = peerdma_counted(peer, PEERDMA_COUNT_TIMEOUTS);
	counters->invalidations = peerdma_counted(peer, PEERDMA_COUNT_INVALIDATIONS);
	counters->maps = peerdma_counted(peer, PEERDMA_COUNT_MAPS);
	counters->unmaps = peerdma_counted(peer, PEERDMA_COUNT_UNMAPS);
	counters->exporter_maps = peerdma_counted(peer, PEERDMA_COUNT_EXPORTER_MAPS);
	counters->exporter_unmaps = peerdma_counted(peer, PEERDMA_COUNT_EXPORTER_UNMAPS);
	counters->revocations = peerdma_counted(peer, PEERDMA_COUNT_REVOCATIONS);
	counters->resets = peerdma_counted(peer, PEERDMA_COUNT_RESETS);
	counters->errors = peerdma_counted(peer, PEERDMA_COUNT_ERRORS);
	counters->live_memory = peerdma_counted(peer, PEERDMA_COUNT_LIVE_MEMORY);
	counters->live_dmabufs = peerdma_counted(peer, PEERDMA_COUNT_LIVE_DMABUFS);
	counters->live_imports = peerdma_counted(peer, PEERDMA_COUNT_LIVE_IMPORTS);
	counters->live_systems = peerdma_counted(peer, PEERDMA_COUNT_LIVE_SYSTEMS);
	counters->live_work = peerdma_counted(peer, PEERDMA_COUNT_LIVE_WORK);
	return 0;
}

int peerdma_ioctl_distance(struct peerdma_call *call, void *data)
{
	struct peerdma_device *peer = call->file->peer;
	struct peerdma_distance *arg = data;
	struct pci_dev *client;

	if (arg->reserved || arg->bdf > U16_MAX)
		return -EINVAL;
	client = pci_get_domain_bus_and_slot(arg->segment, PCI_BUS_NUM(arg->bdf), arg->bdf & 0xff);
	if (!client)
		return -ENODEV;
	arg->distance = pci_p2pdma_distance(peer->pdev, &client->dev, false);
	pci_dev_put(client);
	return 0;
}
