// SPDX-License-Identifier: GPL-2.0-only
/*
 * One peer-to-peer copy by the calls of the lab's driver, as <peerdma.h> has
 * them: peer1's local memory becomes a dma-buf, peer0 imports it and copies its
 * own local memory there, and the CPU compares the bytes. `peerdmactl transfer
 * peer0 peer1` does the same in a guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "peerdma.h"

#define BYTES	65536
#define PATTERN	0x0123456789abcdefULL

/* Says what failed; the caller gives up. */
static int failed(const char *what)
{
	fprintf(stderr, "p2p_copy: %s: %s\n", what, strerror(errno));
	return -1;
}

/* Runs one piece of work to its end. */
static int run(int device, struct peerdma_submit *work)
{
	struct peerdma_wait wait = { .timeout_ms = 30000 };

	if (ioctl(device, PEERDMA_SUBMIT, work) < 0)
		return failed("PEERDMA_SUBMIT");
	wait.cookie = work->cookie;
	if (ioctl(device, PEERDMA_WAIT, &wait) < 0)
		return failed("PEERDMA_WAIT");
	if (wait.error) {
		fprintf(stderr, "p2p_copy: error %d, status %u, at DMA address %#llx\n", wait.error,
			wait.status, (unsigned long long)wait.error_address);
		return -1;
	}
	return 0;
}

static int copy(int client, int owner)
{
	struct peerdma_alloc target = { .size = BYTES }, source = { .size = BYTES };
	struct peerdma_export export = { .flags = PEERDMA_EXPORT_CLOEXEC };
	struct peerdma_import import = { .flags = PEERDMA_IMPORT_PEER2PEER };
	struct peerdma_submit work = { .operation = PEERDMA_WORK_FILL, .length = BYTES };
	const __u64 *bytes;
	size_t i;

	if (ioctl(owner, PEERDMA_ALLOC, &target) < 0 || ioctl(client, PEERDMA_ALLOC, &source) < 0)
		return failed("PEERDMA_ALLOC");
	export.handle = target.handle;
	if (ioctl(owner, PEERDMA_EXPORT, &export) < 0)
		return failed("PEERDMA_EXPORT");
	import.fd = export.fd;
	if (ioctl(client, PEERDMA_IMPORT, &import) < 0)
		return failed("PEERDMA_IMPORT");

	work.destination.kind = PEERDMA_AT_OBJECT;
	work.destination.handle = source.handle;
	work.pattern = PATTERN;
	if (run(client, &work) < 0)
		return -1;
	work.operation = PEERDMA_WORK_COPY;
	work.source = work.destination;
	work.destination.handle = import.handle;
	work.pattern = 0;
	if (run(client, &work) < 0)
		return -1;

	bytes = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, owner, target.mmap_offset);
	if (bytes == MAP_FAILED)
		return failed("mmap");
	for (i = 0; i < BYTES / sizeof(*bytes); i++) {
		if (bytes[i] != PATTERN) {
			fprintf(stderr, "p2p_copy: offset %#zx holds %#llx\n", i * sizeof(*bytes),
				(unsigned long long)bytes[i]);
			return -1;
		}
	}
	close(export.fd);
	return 0;
}

int main(void)
{
	int client = open("/dev/peerdma0", O_RDWR | O_CLOEXEC);
	int owner = open("/dev/peerdma1", O_RDWR | O_CLOEXEC);

	if (client < 0 || owner < 0) {
		failed("/dev/peerdma0 and /dev/peerdma1");
		return 3;
	}
	if (copy(client, owner) < 0)
		return 1;
	printf("%d bytes from peer0 to peer1: ok\n", BYTES);
	return 0;
}
