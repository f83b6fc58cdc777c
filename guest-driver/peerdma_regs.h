/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Registers, descriptors and completion records of the peer device.
 *
 * Generated from device-models/src/endpoint/peer/regs: edit there, then run
 *   PEERDMA_WRITE_HEADER=1 cargo test -p device-models c_header
 */
#ifndef PEERDMA_REGS_H
#define PEERDMA_REGS_H

#include <linux/build_bug.h>
#include <linux/types.h>

/*
 * PCI identity. 1af4:10f0 to 1af4:10ff are documented by QEMU (docs/specs/pci-ids) as free
 * for experiments without registration; virtio drivers leave device IDs above 107f alone.
 */
/* Vendor ID, also as subsystem vendor ID. */
#define PEERDMA_PCI_VENDOR_ID		0x1af4
/* Device ID, also as subsystem ID. */
#define PEERDMA_PCI_DEVICE_ID		0x10f0
/* Class code: processing accelerator, no programming interface. */
#define PEERDMA_PCI_CLASS		0x120000

/* Sizes and places of the device. */
/* BAR of the registers: 32-bit memory, not prefetchable. */
#define PEERDMA_BAR_REGISTERS		0x0
/* Bytes of the register BAR. */
#define PEERDMA_BAR_REGISTERS_SIZE	0x10000
/* BAR of the local memory: 64-bit memory, prefetchable (BAR 3 holds its upper half). */
#define PEERDMA_BAR_LOCAL		0x2
/* BAR of the MSI-X table and pending bits: 32-bit memory, not prefetchable. */
#define PEERDMA_BAR_MSIX		0x4
/* Offset in the register BAR of channel 0's block. */
#define PEERDMA_CHANNEL_BASE		0x1000
/* Bytes from one channel's block to the next. */
#define PEERDMA_CHANNEL_STRIDE		0x1000
/* Most channels a device can have. */
#define PEERDMA_MAX_CHANNELS		0xf
/* Value of MAGIC: the characters PDMA. */
#define PEERDMA_MAGIC_VALUE		0x414d4450
/* Value of VERSION: major in the upper half, minor in the lower. */
#define PEERDMA_VERSION_VALUE		0x10000
/* Most bytes a descriptor may ask for. */
#define PEERDMA_MAX_LENGTH		0x4000000
/* Largest RING_SIZE: 4096 descriptors. The smallest is 1: 2 descriptors. */
#define PEERDMA_RING_SIZE_MAX		0xc

/* Offset of channel n's block in the register BAR. */
#define PEERDMA_CHANNEL(n)	(PEERDMA_CHANNEL_BASE + (n) * PEERDMA_CHANNEL_STRIDE)

/* Registers of the whole device; offsets in the register BAR. */
/*
 * MAGIC_VALUE.
 * Read only.
 */
#define PEERDMA_REG_MAGIC		0x0
/*
 * VERSION_VALUE; drivers refuse another major version.
 * Read only.
 */
#define PEERDMA_REG_VERSION		0x4
/*
 * Number of DMA channels, 1 to MAX_CHANNELS.
 * Read only.
 */
#define PEERDMA_REG_CHANNELS		0x8
/*
 * Number of MSI-X vectors; one per channel and one spare.
 * Read only.
 */
#define PEERDMA_REG_VECTORS		0xc
/*
 * Bytes of local memory, low half.
 * Read only.
 */
#define PEERDMA_REG_LOCAL_SIZE_LO	0x10
/*
 * Bytes of local memory, high half.
 * Read only.
 */
#define PEERDMA_REG_LOCAL_SIZE_HI	0x14
/*
 * Most bytes a descriptor may ask for.
 * Read only.
 */
#define PEERDMA_REG_LENGTH_MAX		0x18
/*
 * Largest RING_SIZE of a channel.
 * Read only.
 */
#define PEERDMA_REG_RING_MAX		0x1c
/*
 * Device control, see CTRL.
 * Read and write.
 */
#define PEERDMA_REG_CTRL		0x20
/*
 * Bit n: channel n is busy.
 * Read only.
 */
#define PEERDMA_REG_BUSY		0x24
/*
 * Holds what is written, for tests of register access.
 * Read and write.
 */
#define PEERDMA_REG_SCRATCH_LO		0x28
/*
 * Holds what is written, for tests of register access.
 * Read and write.
 */
#define PEERDMA_REG_SCRATCH_HI		0x2c

/* Bits of REG_CTRL. */
/* Resets every channel as CH_CTRL_RESET does; reads as 0. Local memory and scratch stay. */
#define PEERDMA_CTRL_RESET		0x1
/*
 * Brings everything that channels have written to where it belongs, as a read of it would.
 * Reads as 1 while something is still under way.
 */
#define PEERDMA_CTRL_SYNC		0x2

/* Registers of a channel; offsets in the channel's block. */
/*
 * Channel control, see CH_CTRL bits.
 * Read and write.
 */
#define PEERDMA_CH_CTRL			0x0
/*
 * Channel state and error, see CH_STATUS.
 * Read only.
 */
#define PEERDMA_CH_STATUS		0x4
/*
 * DMA address of the descriptor ring, low half; 64-byte aligned.
 * Read and write; writes are ignored while the channel is enabled or busy.
 */
#define PEERDMA_CH_RING_LO		0x8
/*
 * DMA address of the descriptor ring, high half.
 * Read and write; writes are ignored while the channel is enabled or busy.
 */
#define PEERDMA_CH_RING_HI		0xc
/*
 * Binary logarithm of the number of descriptors, 1 to RING_MAX. Both rings have this size.
 * Read and write; writes are ignored while the channel is enabled or busy.
 */
#define PEERDMA_CH_RING_SIZE		0x10
/*
 * Index of the descriptor the device takes next.
 * Read only.
 */
#define PEERDMA_CH_HEAD			0x14
/*
 * Doorbell: index after the last descriptor the device may take. Bits above the ring size
 * are ignored. Ring empty when HEAD equals TAIL, so one descriptor always stays unused.
 * Read and write.
 */
#define PEERDMA_CH_TAIL			0x18
/*
 * Sequence number of the last completion record, 0 before the first.
 * Read only.
 */
#define PEERDMA_CH_COMPLETED		0x1c
/*
 * DMA address of the ring of completion records, low half; 32-byte aligned.
 * Read and write; writes are ignored while the channel is enabled or busy.
 */
#define PEERDMA_CH_RECORD_LO		0x20
/*
 * DMA address of the ring of completion records, high half.
 * Read and write; writes are ignored while the channel is enabled or busy.
 */
#define PEERDMA_CH_RECORD_HI		0x24
/*
 * MSI-X vector of this channel.
 * Read and write; writes are ignored while the channel is enabled or busy.
 */
#define PEERDMA_CH_VECTOR		0x28
/*
 * DMA address of the access that failed last, low half. Kept until reset.
 * Read only.
 */
#define PEERDMA_CH_ERROR_LO		0x2c
/*
 * DMA address of the access that failed last, high half. Kept until reset.
 * Read only.
 */
#define PEERDMA_CH_ERROR_HI		0x30
/*
 * Lab only, no hardware has this: the checker's class for the first fault of the last
 * descriptor's transactions (a VERDICT code), 0 when there was none. It covers posted writes,
 * whose failure the device itself never learns of.
 * Read only.
 */
#define PEERDMA_CH_VERDICT		0x80
/*
 * Lab only: number of faulty accesses of the last descriptor.
 * Read only.
 */
#define PEERDMA_CH_VERDICT_COUNT	0x84
/*
 * Lab only: DMA address of the burst that VERDICT is about, low half.
 * Read only.
 */
#define PEERDMA_CH_VERDICT_LO		0x88
/*
 * Lab only: DMA address of the burst that VERDICT is about, high half.
 * Read only.
 */
#define PEERDMA_CH_VERDICT_HI		0x8c
/*
 * Lab only: misbehaviour asked for, a FAULT code; armed by the write, taken by the next
 * descriptor, then 0 again.
 * Read and write.
 */
#define PEERDMA_CH_FAULT		0xa0
/*
 * Lab only: argument of the fault.
 * Read and write.
 */
#define PEERDMA_CH_FAULT_ARG		0xa4
/*
 * Lab only: DMA address of FAULT_STRAY_WRITE, low half.
 * Read and write.
 */
#define PEERDMA_CH_FAULT_LO		0xa8
/*
 * Lab only: DMA address of FAULT_STRAY_WRITE, high half.
 * Read and write.
 */
#define PEERDMA_CH_FAULT_HI		0xac

/* Bits of CH_CTRL. */
/* The channel takes descriptors. Cleared: it finishes the one it has and takes no more. */
#define PEERDMA_CH_CTRL_ENABLE		0x1
/* Ends the descriptor in progress with STATUS_ABORTED and clears ENABLE; reads as 0. */
#define PEERDMA_CH_CTRL_ABORT		0x2
/*
 * Forgets everything without a record or an interrupt, all registers of the channel are as
 * after a function level reset; reads as 0. The only way out of CH_STATE_HALTED.
 */
#define PEERDMA_CH_CTRL_RESET		0x4

/* Fields of CH_STATUS. */
/* The state, a CH_STATE code. */
#define PEERDMA_CH_STATUS_STATE_MASK	0xff
/* Why the channel halted, a HALT code. */
#define PEERDMA_CH_STATUS_HALT_MASK	0xff00
/* Position of the HALT code. */
#define PEERDMA_CH_STATUS_HALT_SHIFT	0x8

/* States of a channel. */
/* Not enabled. */
#define PEERDMA_CH_STATE_DISABLED	0x0
/* Enabled, ring empty. */
#define PEERDMA_CH_STATE_IDLE		0x1
/* Working on a descriptor. */
#define PEERDMA_CH_STATE_BUSY		0x2
/* Stopped by an error that no completion record can report; reset the channel. */
#define PEERDMA_CH_STATE_HALTED		0x3

/* Why a channel halted. ERROR holds the DMA address. */
/* It did not. */
#define PEERDMA_HALT_NONE		0x0
/* A ring is not aligned, or RING_SIZE is out of range. */
#define PEERDMA_HALT_BAD_RING		0x1
/* Bus mastering is off: nothing was emitted. */
#define PEERDMA_HALT_BUS_MASTER		0x2
/* The descriptor could not be read: unsupported request. */
#define PEERDMA_HALT_FETCH_UNSUPPORTED	0x3
/* The descriptor could not be read: completer abort. */
#define PEERDMA_HALT_FETCH_ABORT	0x4
/* The descriptor could not be read: completion timeout. */
#define PEERDMA_HALT_FETCH_TIMEOUT	0x5

/* Operations of a descriptor. */
/* Does nothing; completes. */
#define PEERDMA_OP_NOP			0x0
/* Copies length bytes from source to destination. */
#define PEERDMA_OP_COPY			0x1
/* Repeats the 8 bytes of pattern over length bytes of destination. */
#define PEERDMA_OP_FILL			0x2
/*
 * CRC-32C (Castagnoli, as in iSCSI and NVMe) of length bytes of source. The low half of
 * pattern is the CRC of what comes before, 0 to begin. In the kernel: ~crc32c(~pattern, ...).
 */
#define PEERDMA_OP_CHECKSUM		0x3
/* Compares length bytes of source with destination; both are read. */
#define PEERDMA_OP_COMPARE		0x4

/* Flags of a descriptor. */
/* Raise the channel's interrupt after the completion record. */
#define PEERDMA_DESC_INTERRUPT		0x1
/* source is an offset in the device's own local memory, not a DMA address. */
#define PEERDMA_DESC_SOURCE_LOCAL	0x2
/* destination is an offset in the device's own local memory, not a DMA address. */
#define PEERDMA_DESC_DESTINATION_LOCAL	0x4
/*
 * Read the last byte of destination back before completing. A read does not pass a posted
 * write, so the data has arrived when the record is written; and when it cannot be read
 * the status says so, where a write alone never would.
 */
#define PEERDMA_DESC_FLUSH		0x8

/* Status of a completion record. */
/* Everything that the device can know of went well. */
#define PEERDMA_STATUS_SUCCESS		0x0
/* A read ended as an unsupported request. */
#define PEERDMA_STATUS_UNSUPPORTED_REQUEST	0x1
/* A read ended as a completer abort. */
#define PEERDMA_STATUS_COMPLETER_ABORT	0x2
/* A read was never answered. */
#define PEERDMA_STATUS_TIMEOUT		0x3
/*
 * Unknown opcode or flag, reserved bits set, length above LENGTH_MAX, or a range that leaves
 * the local memory or the address space. Nothing was moved.
 */
#define PEERDMA_STATUS_BAD_DESCRIPTOR	0x4
/* CH_CTRL_ABORT while the descriptor was in progress. */
#define PEERDMA_STATUS_ABORTED		0x5
/* Source and destination of OP_COMPARE differ; result is the offset of the first difference. */
#define PEERDMA_STATUS_MISMATCH		0x6

/* Lab only: misbehaviour for CH_FAULT. */
/* None. */
#define PEERDMA_FAULT_NONE		0x0
/* No completion record and no interrupt, although the work is done and HEAD moves on. */
#define PEERDMA_FAULT_REFUSE_COMPLETION	0x1
/* The record and the interrupt come FAULT_ARG (at most 65535) steps of the engine late. */
#define PEERDMA_FAULT_DELAY_COMPLETION	0x2
/* The cookie of the record is inverted. */
#define PEERDMA_FAULT_CORRUPT_COOKIE	0x3
/* The first byte that OP_COPY moves is xored with the low byte of FAULT_ARG. */
#define PEERDMA_FAULT_CORRUPT_DATA	0x4
/*
 * Before the record 64 bytes of FAULT_ARG's low byte are written to the DMA address
 * CH_FAULT_LO/HI, which no descriptor named.
 */
#define PEERDMA_FAULT_STRAY_WRITE	0x5
/*
 * The last bytes written to a DMA address (at most 64 KiB) stay in the device, as in a cache
 * that writes back, while record and interrupt are sent: until the channel reads (DESC_FLUSH,
 * the next descriptor), CTRL_SYNC, or FAULT_ARG (at most 65535) steps of the engine have
 * passed. FAULT_ARG 0: no steps count.
 */
#define PEERDMA_FAULT_WRITE_BACK	0x6

/* Lab only: classes of findings, in CH_VERDICT; docs/findings.md says more. */
#define PEERDMA_VERDICT_PCI_BUS_MASTER_OFF	0x1
#define PEERDMA_VERDICT_PCI_NOT_IN_D0	0x2
#define PEERDMA_VERDICT_PCI_NO_TARGET	0x3
#define PEERDMA_VERDICT_PCI_BAR_EDGE	0x4
#define PEERDMA_VERDICT_PCI_MEMORY_DECODE_OFF	0x5
#define PEERDMA_VERDICT_PCI_ACS_VIOLATION	0x6
#define PEERDMA_VERDICT_PCI_TURNED_BACK	0x7
#define PEERDMA_VERDICT_PCI_PEER_TO_PEER_REFUSED	0x8
#define PEERDMA_VERDICT_PCI_LINK_DOWN	0x9
#define PEERDMA_VERDICT_IOMMU_NO_DOMAIN	0x10
#define PEERDMA_VERDICT_IOMMU_UNMAPPED	0x11
#define PEERDMA_VERDICT_IOMMU_STALE	0x12
#define PEERDMA_VERDICT_IOMMU_PERMISSION	0x13
#define PEERDMA_VERDICT_IOMMU_MMIO_FLAG_ON_RAM	0x14
#define PEERDMA_VERDICT_IOMMU_REQUEST_FAILED	0x15
#define PEERDMA_VERDICT_IOMMU_MAPPING_EDGE	0x16
#define PEERDMA_VERDICT_MSI_NOT_A_VECTOR	0x20
#define PEERDMA_VERDICT_MSI_MALFORMED	0x21
#define PEERDMA_VERDICT_FABRIC_HOP_LIMIT	0x30
#define PEERDMA_VERDICT_FABRIC_COMPLETION_TIMEOUT	0x31
#define PEERDMA_VERDICT_ORDER_RECORD_BEFORE_DATA	0x32
#define PEERDMA_VERDICT_ORDER_INTERRUPT_BEFORE_DATA	0x33
#define PEERDMA_VERDICT_ORDER_FENCE_BEFORE_DATA	0x34
#define PEERDMA_VERDICT_WITNESS_UNMAPPED	0x50
#define PEERDMA_VERDICT_WITNESS_STALE	0x51
#define PEERDMA_VERDICT_WITNESS_DIRECTION	0x52
#define PEERDMA_VERDICT_WITNESS_PAST_END	0x53
#define PEERDMA_VERDICT_WITNESS_LEAKED	0x54
#define PEERDMA_VERDICT_BUFFER_WRITE_AFTER_INVALIDATE	0x60
#define PEERDMA_VERDICT_BUFFER_PEER2PEER_NOT_ALLOWED	0x61
#define PEERDMA_VERDICT_BUFFER_FREED	0x62
#define PEERDMA_VERDICT_BUFFER_FELL_BACK	0x63
#define PEERDMA_VERDICT_DEVICE_BAD_DESCRIPTOR	0x40
#define PEERDMA_VERDICT_VIRTIO_BAD_QUEUE	0x41

/* A descriptor, 64-byte aligned. The device reads it once. */
struct peerdma_desc {
	/* An OP code. */
	__u8 opcode;
	/* Must be 0. */
	__u8 reserved0;
	/* DESC flags; others must be 0. */
	__le16 flags;
	/* Bytes, 0 to LENGTH_MAX. 0 is valid and moves nothing. */
	__le32 length;
	/* DMA address or local offset. */
	__le64 source;
	/* DMA address or local offset. */
	__le64 destination;
	/* OP_FILL: pattern. OP_CHECKSUM: initial CRC. */
	__le64 pattern;
	/* Given back in the completion record. */
	__le64 cookie;
	/* Must be 0. */
	__le64 reserved1[3];
};

static_assert(sizeof(struct peerdma_desc) == 64);

/*
 * A completion record, 32-byte aligned, at the same index as its descriptor. Written as two
 * TLPs, the first 24 bytes and then the last 8: software that sees the sequence number sees
 * all of it.
 */
struct peerdma_record {
	/* The descriptor's. */
	__le64 cookie;
	/* Bytes done; after an error the bytes before the request that failed. */
	__le64 bytes;
	/* OP_CHECKSUM: CRC. OP_COMPARE: offset of the first difference. Else 0. */
	__le64 result;
	/* A STATUS code. */
	__le16 status;
	/* 0. */
	__le16 reserved;
	/* 1 for the first record after a channel reset, then one more each; wraps to 0. */
	__le32 sequence;
};

static_assert(sizeof(struct peerdma_record) == 32);

#endif /* PEERDMA_REGS_H */
