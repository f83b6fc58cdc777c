// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the function is, what has happened, and how far others are away.
 */
#include <linux/capability.h>
#include <linux/genalloc.h>
#include <linux/iommu.h>
#include <linux/pci-p2pdma.h>

#include "driver.h"

static u32 pd_iommu(struct device *dev)
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

int pd_ioctl_info(struct pd_call *call, void *data)
{
	struct pd_device *pd = call->file->pd;
	struct peerdma_info *info = data;
	struct pci_dev *pdev = pd->pdev;

	memset(info, 0, sizeof(*info));
	info->abi = PEERDMA_ABI_VERSION;
	info->features = PEERDMA_FEATURE_COMPARE | PEERDMA_FEATURE_VERDICT;
	if (PD_HAS_SYNC_FILE)
		info->features |= PEERDMA_FEATURE_SYNC_FILE;
	if (pd->provider)
		info->features |= PEERDMA_FEATURE_P2PDMA;
	if (PD_HAS_DEAF_IMPORTERS)
		info->features |= PEERDMA_FEATURE_DEAF;
	if (pd->provider && PD_HAS_WAYS)
		info->features |= PEERDMA_FEATURE_WAYS;
	if (pd->vectors >= pd->channels)
		info->features |= PEERDMA_FEATURE_MSIX;
	info->segment = pci_domain_nr(pdev->bus);
	info->bdf = pci_dev_id(pdev);
	info->instance = pd->instance;
	info->channels = pd->channels;
	info->vectors = pd->vectors;
	info->iommu = pd_iommu(&pdev->dev);
	info->page_size = PAGE_SIZE;
	info->memory_size = pd->bar_size;
	info->memory_free = gen_pool_avail(pd->pool);
	info->descriptor_bytes = pd->max_length;
	info->registers_size = pci_resource_len(pdev, PEERDMA_BAR_REGISTERS);
	if (capable(CAP_SYS_ADMIN)) {
		info->memory_phys = pd->bar_phys;
		info->memory_bus = pci_bus_address(pdev, PEERDMA_BAR_LOCAL);
		info->registers_phys =
			pci_resource_start(pdev, PEERDMA_BAR_REGISTERS);
	}
	return 0;
}

static u64 pd_counted(struct pd_device *pd, enum pd_counter which)
{
	return atomic64_read(&pd->counter[which]);
}

int pd_ioctl_counters(struct pd_call *call, void *data)
{
	struct pd_device *pd = call->file->pd;
	struct peerdma_counters *counters = data;

	counters->interrupts = pd_counted(pd, PD_INTERRUPTS);
	counters->completions = pd_counted(pd, PD_COMPLETIONS);
	counters->submitted = pd_counted(pd, PD_SUBMITTED);
	counters->finished = pd_counted(pd, PD_FINISHED);
	counters->failed = pd_counted(pd, PD_FAILED);
	counters->timeouts = pd_counted(pd, PD_TIMEOUTS);
	counters->invalidations = pd_counted(pd, PD_INVALIDATIONS);
	counters->maps = pd_counted(pd, PD_MAPS);
	counters->unmaps = pd_counted(pd, PD_UNMAPS);
	counters->exporter_maps = pd_counted(pd, PD_EXPORTER_MAPS);
	counters->exporter_unmaps = pd_counted(pd, PD_EXPORTER_UNMAPS);
	counters->revocations = pd_counted(pd, PD_REVOCATIONS);
	counters->resets = pd_counted(pd, PD_RESETS);
	counters->errors = pd_counted(pd, PD_ERRORS);
	counters->live_memory = pd_counted(pd, PD_LIVE_MEMORY);
	counters->live_dmabufs = pd_counted(pd, PD_LIVE_DMABUFS);
	counters->live_imports = pd_counted(pd, PD_LIVE_IMPORTS);
	counters->live_systems = pd_counted(pd, PD_LIVE_SYSTEMS);
	counters->live_work = pd_counted(pd, PD_LIVE_WORK);
	return 0;
}

int pd_ioctl_distance(struct pd_call *call, void *data)
{
	struct pd_device *pd = call->file->pd;
	struct peerdma_distance *arg = data;
	struct pci_dev *client;

	if (arg->reserved || arg->bdf > U16_MAX)
		return -EINVAL;
	client = pci_get_domain_bus_and_slot(arg->segment,
					     PCI_BUS_NUM(arg->bdf),
					     arg->bdf & 0xff);
	if (!client)
		return -ENODEV;
	arg->distance = pci_p2pdma_distance(pd->pdev, &client->dev, false);
	pci_dev_put(client);
	return 0;
}
