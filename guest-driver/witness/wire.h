/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the witness and the VMM share: see guest-driver/protocol/src/witness.rs, which a test
 * compares with this file.
 */
#ifndef DMA_WITNESS_WIRE_H
#define DMA_WITNESS_WIRE_H

#include <linux/build_bug.h>
#include <linux/types.h>

#define WITNESS_ATTACH_PORT	0x0d18
#define WITNESS_DRAIN_PORT	0x0d1c
#define WITNESS_MAGIC		0x54574450
#define WITNESS_VERSION		1
#define WITNESS_MAX_RINGS	256
#define WITNESS_MAX_ENTRIES	65536
#define WITNESS_NO_FUNCTION	0xffffffff

struct witness_header {
	__le32 magic;
	__le32 version;
	__le32 rings;
	__le32 entries;
	__le64 now;
	__u8 reserved[104];
};

static_assert(sizeof(struct witness_header) == 0x80);

struct witness_slot {
	__le64 ring;
	__u32 head;
	__u32 lost;
	__u8 reserved1[48];
	__u32 tail;
	__u8 reserved2[60];
};

static_assert(sizeof(struct witness_slot) == 0x80);

struct witness_record {
	__le64 ticket;
	__le64 time;
	__le64 address;
	__le64 length;
	__le16 kind;
	__u8 direction;
	__u8 flags;
	__le32 function;
	__le64 group;
	__le64 buffer;
	__le64 caller;
	__le32 pid;
	__le32 cpu;
	char task[16];
	char text[40];
};

static_assert(sizeof(struct witness_record) == 128);

enum witness_kind {
	WITNESS_LOADED = 1,
	WITNESS_MAP = 2,
	WITNESS_UNMAP = 3,
	WITNESS_SYNC_FOR_CPU = 4,
	WITNESS_SYNC_FOR_DEVICE = 5,
	WITNESS_BIND = 8,
	WITNESS_UNBIND = 9,
	WITNESS_GONE = 10,
	WITNESS_MISSED = 11,
	WITNESS_EXPORT = 16,
	WITNESS_ATTACH = 17,
	WITNESS_DETACH = 18,
	WITNESS_BUFFER_MAP = 19,
	WITNESS_BUFFER_UNMAP = 20,
	WITNESS_INVALIDATE = 21,
	WITNESS_PIN = 22,
	WITNESS_UNPIN = 23,
	WITNESS_RELEASE = 24,
	WITNESS_FENCE_ADD = 25,
	WITNESS_FENCE_SIGNALED = 26,
};

#define WITNESS_F_MMIO		(1 << 0)
#define WITNESS_F_BUS_ADDRESS	(1 << 1)
#define WITNESS_F_COHERENT	(1 << 2)
#define WITNESS_F_PEER2PEER	(1 << 3)
#define WITNESS_F_DYNAMIC	(1 << 4)
#define WITNESS_F_UNSEEN	(1 << 5)
#define WITNESS_F_MORE		(1 << 6)

enum witness_hook {
	WITNESS_HOOK_MAP_PHYS,
	WITNESS_HOOK_UNMAP_PHYS,
	WITNESS_HOOK_MAP_SG,
	WITNESS_HOOK_UNMAP_SG,
	WITNESS_HOOK_ALLOC,
	WITNESS_HOOK_FREE,
	WITNESS_HOOK_SYNC,
	WITNESS_HOOK_IOVA_LINK,
	WITNESS_HOOK_IOVA_UNLINK,
	WITNESS_HOOK_BUF,
	WITNESS_HOOK_BUF_MAP,
	WITNESS_HOOK_BUF_UNMAP,
	WITNESS_HOOK_BUF_INVALIDATE,
	WITNESS_HOOK_BUF_PIN,
	WITNESS_HOOK_BUF_UNPIN,
	WITNESS_HOOK_FENCE_ADD,
	WITNESS_HOOK_FENCE_SIGNALED,
	WITNESS_HOOK_BIND,
};

#endif
