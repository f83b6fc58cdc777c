// SPDX-License-Identifier: GPL-2.0-only
/*
 * A client of the kernel's DMA engines: copies between dma-bufs, or raw DMA
 * addresses, by a channel of whatever engine has a driver. With it a device
 * that knows nothing of the lab becomes the third party of a transfer between
 * two others.
 *
 * Locks: a file's mutex, then the dma_resv of the one buffer or of both.
 */
#include <linux/completion.h>
#include <linux/dma-buf.h>
#include <linux/dma-resv.h>
#include <linux/dmaengine.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "uapi/peerdma_dma.h"

/**
 * struct peerdma_dma_client - an open file
 * @lock:	one copy at a time
 * @channel:	the channel; NULL before the first copy
 */
struct peerdma_dma_client {
	struct mutex lock;
	struct dma_chan *channel;
};

/**
 * struct peerdma_dma_end - one end of a copy
 * @attach:	the dma-buf's attachment; NULL for a DMA address
 * @sgt:	its mapping
 * @address:	DMA address, or offset into the dma-buf
 * @moved:	the exporter has called the mapping back
 */
struct peerdma_dma_end {
	struct dma_buf_attachment *attach;
	struct sg_table *sgt;
	u64 address;
	bool moved;
};

/**
 * struct peerdma_dma_answer - what a callback leaves
 * @done:	it was called
 * @result:	what it reported
 */
struct peerdma_dma_answer {
	struct completion done;
	enum dmaengine_tx_result result;
};

/* How often an exporter may move a buffer while it is mapped. */
#define PEERDMA_DMA_TRIES 3

/* How many jiffies there are until then; not none, which would not even look. */
static unsigned long peerdma_dma_left(unsigned long deadline)
{
	return max_t(long, deadline - jiffies, 1);
}

static bool peerdma_dma_is_named(struct dma_chan *channel, void *name)
{
	return !strcmp(dma_chan_name(channel), name);
}

static int peerdma_dma_take_channel(struct peerdma_dma_client *client, const char *name)
{
	dma_cap_mask_t mask;

	if (client->channel)
		return peerdma_dma_is_named(client->channel, (void *)name) ? 0 : -EBUSY;
	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	client->channel = dma_request_channel(mask, peerdma_dma_is_named, (void *)name);
	return client->channel ? 0 : -ENODEV;
}

static void peerdma_dma_give_channel(struct peerdma_dma_client *client)
{
	if (client->channel)
		dma_release_channel(client->channel);
	client->channel = NULL;
}

/*
 * A mapping lives while the dma_resv is held, and only then: the exporter,
 * which needs it for moving or revoking, waits. But where both ends are in one
 * buffer, the exporter holds it as well when it is asked for the second
 * mapping.
 */
static void peerdma_dma_invalidate(struct dma_buf_attachment *attach)
{
	struct peerdma_dma_end *end = attach->importer_priv;

	end->moved = true;
}

static const struct dma_buf_attach_ops peerdma_dma_attach_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = peerdma_dma_invalidate,
};

static int peerdma_dma_attach(struct peerdma_dma_client *client, struct peerdma_dma_end *end,
			      int fd, u64 address, u32 length)
{
	struct device *dev = dmaengine_get_dma_device(client->channel);
	struct dma_buf *dmabuf;

	end->address = address;
	if (fd == -1)
		return capable(CAP_SYS_RAWIO) ? 0 : -EPERM;
	dmabuf = dma_buf_get(fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	if (address > dmabuf->size || length > dmabuf->size - address) {
		dma_buf_put(dmabuf);
		return -ERANGE;
	}
	end->attach = dma_buf_dynamic_attach(dmabuf, dev, &peerdma_dma_attach_ops, end);
	if (IS_ERR(end->attach)) {
		int ret = PTR_ERR(end->attach);

		end->attach = NULL;
		dma_buf_put(dmabuf);
		return ret;
	}
	return 0;
}

static void peerdma_dma_detach(struct peerdma_dma_end *end)
{
	struct dma_buf *dmabuf;

	if (!end->attach)
		return;
	dmabuf = end->attach->dmabuf;
	dma_buf_detach(dmabuf, end->attach);
	dma_buf_put(dmabuf);
	end->attach = NULL;
}

static int peerdma_dma_map(struct peerdma_dma_end *end, enum dma_data_direction dir)
{
	struct sg_table *sgt;

	if (!end->attach)
		return 0;
	sgt = dma_buf_map_attachment(end->attach, dir);
	if (IS_ERR(sgt))
		return PTR_ERR(sgt);
	end->sgt = sgt;
	/* What was moved for this mapping was moved before it was made. */
	end->moved = false;
	return 0;
}

static void peerdma_dma_unmap(struct peerdma_dma_end *end, enum dma_data_direction dir)
{
	if (end->sgt)
		dma_buf_unmap_attachment(end->attach, end->sgt, dir);
	end->sgt = NULL;
}

static void peerdma_dma_unmap_both(struct peerdma_dma_end *ends)
{
	peerdma_dma_unmap(&ends[1], DMA_FROM_DEVICE);
	peerdma_dma_unmap(&ends[0], DMA_TO_DEVICE);
}

/* Whatever the result, peerdma_dma_unmap_both() follows. */
static int peerdma_dma_map_both(struct peerdma_dma_end *ends)
{
	int tries, ret;

	for (tries = 0; tries < PEERDMA_DMA_TRIES; tries++) {
		ret = peerdma_dma_map(&ends[0], DMA_TO_DEVICE);
		if (!ret)
			ret = peerdma_dma_map(&ends[1], DMA_FROM_DEVICE);
		if (ret || !ends[0].moved)
			return ret;
		peerdma_dma_unmap_both(ends);
	}
	return -EAGAIN;
}

/*
 * After both ends have been mapped, not before: an exporter may begin to move the
 * buffer when it is asked for a mapping, and leaves a fence for that.
 */
static int peerdma_dma_wait(struct peerdma_dma_end *end, enum dma_data_direction dir,
			    unsigned long deadline)
{
	enum dma_resv_usage usage = dir == DMA_TO_DEVICE ? DMA_RESV_USAGE_WRITE :
							   DMA_RESV_USAGE_READ;
	long ret;

	if (!end->attach)
		return 0;
	ret = dma_resv_wait_timeout(end->attach->dmabuf->resv, usage, true,
				    peerdma_dma_left(deadline));
	if (!ret)
		return -ETIMEDOUT;
	return ret < 0 ? ret : 0;
}

/* The DMA address @done bytes into the copy, and how many bytes follow it. */
static int peerdma_dma_locate(struct peerdma_dma_end *end, u32 done, dma_addr_t *address,
			      u32 *length)
{
	u64 offset = end->address + done;
	struct scatterlist *sg;
	int i;

	if (!end->attach) {
		*address = offset;
		return 0;
	}
	for_each_sgtable_dma_sg(end->sgt, sg, i) {
		if (offset < sg_dma_len(sg)) {
			*address = sg_dma_address(sg) + offset;
			*length = min_t(u64, *length, sg_dma_len(sg) - offset);
			return 0;
		}
		offset -= sg_dma_len(sg);
	}
	return -ERANGE;
}

static void peerdma_dma_callback(void *param, const struct dmaengine_result *result)
{
	struct peerdma_dma_answer *answer = param;

	answer->result = result ? result->result : DMA_TRANS_NOERROR;
	complete(&answer->done);
}

static int peerdma_dma_piece(struct peerdma_dma_client *client, dma_addr_t target,
			     dma_addr_t source, u32 length, unsigned long timeout, u32 *result)
{
	struct dma_async_tx_descriptor *tx;
	struct peerdma_dma_answer answer;
	int ret;

	init_completion(&answer.done);
	tx = dmaengine_prep_dma_memcpy(client->channel, target, source, length,
				       DMA_CTRL_ACK | DMA_PREP_INTERRUPT);
	if (!tx)
		return -ENOMEM;
	tx->callback_result = peerdma_dma_callback;
	tx->callback_param = &answer;
	ret = dma_submit_error(dmaengine_submit(tx));
	if (ret)
		return ret;
	dma_async_issue_pending(client->channel);
	if (!wait_for_completion_timeout(&answer.done, timeout)) {
		/*
		 * Afterwards there are no callbacks any more: by the engine's own
		 * means where it has any, and ioatdma with its channel.
		 */
		dmaengine_terminate_sync(client->channel);
		peerdma_dma_give_channel(client);
		return -ETIMEDOUT;
	}
	*result = answer.result;
	return 0;
}

static int peerdma_dma_pieces(struct peerdma_dma_client *client, struct peerdma_dma_copy *arg,
			      struct peerdma_dma_end *source, struct peerdma_dma_end *target,
			      unsigned long deadline)
{
	u32 done = 0;
	int ret = 0;

	while (!ret && done < arg->length && !arg->result) {
		/* What every engine takes at once. */
		u32 length = min_t(u32, arg->length - done, SZ_64K);
		dma_addr_t from, to;

		/* Others wait for the buffers of a task that is killed. */
		if (fatal_signal_pending(current))
			return -EINTR;
		/* Nothing is begun that is not likely to end: that costs the channel. */
		if (time_after_eq(jiffies, deadline))
			return -ETIMEDOUT;
		ret = peerdma_dma_locate(source, done, &from, &length);
		if (!ret)
			ret = peerdma_dma_locate(target, done, &to, &length);
		if (!ret)
			ret = peerdma_dma_piece(client, to, from, length,
						peerdma_dma_left(deadline), &arg->result);
		done += length;
	}
	return ret;
}

static int peerdma_dma_lock(struct peerdma_dma_end *ends, struct ww_acquire_ctx *ctx)
{
	struct dma_resv *one = ends[0].attach ? ends[0].attach->dmabuf->resv : NULL;
	struct dma_resv *two = ends[1].attach ? ends[1].attach->dmabuf->resv : NULL;
	int ret = 0;

	if (one == two)
		two = NULL;
	if (one)
		ret = dma_resv_lock_interruptible(one, ctx);
	if (!ret && two) {
		ret = dma_resv_lock_interruptible(two, ctx);
		while (ret == -EDEADLK) {
			/* The older context goes first; then again from the other end. */
			dma_resv_unlock(one);
			ret = dma_resv_lock_slow_interruptible(two, ctx);
			if (ret)
				return ret;
			swap(one, two);
			ret = dma_resv_lock_interruptible(two, ctx);
		}
		if (ret && one)
			dma_resv_unlock(one);
	}
	return ret;
}

static void peerdma_dma_unlock(struct peerdma_dma_end *ends)
{
	struct dma_resv *one = ends[0].attach ? ends[0].attach->dmabuf->resv : NULL;
	struct dma_resv *two = ends[1].attach ? ends[1].attach->dmabuf->resv : NULL;

	if (one)
		dma_resv_unlock(one);
	if (two && two != one)
		dma_resv_unlock(two);
}

static int peerdma_dma_copy(struct peerdma_dma_client *client, struct peerdma_dma_copy *arg)
{
	/* The source, the target */
	struct peerdma_dma_end ends[2] = {};
	struct ww_acquire_ctx ctx;
	unsigned long deadline;
	int ret;

	ret = peerdma_dma_take_channel(client, arg->channel);
	if (ret)
		return ret;
	/* An engine may make a ring of descriptors first: not the copy's time. */
	deadline = jiffies + msecs_to_jiffies(arg->timeout_ms);
	ret = peerdma_dma_attach(client, &ends[0], arg->source_fd, arg->source, arg->length);
	if (!ret)
		ret = peerdma_dma_attach(client, &ends[1], arg->target_fd, arg->target,
					 arg->length);
	if (ret)
		goto out_detach;

	ww_acquire_init(&ctx, &reservation_ww_class);
	ret = peerdma_dma_lock(ends, &ctx);
	if (ret)
		goto out_fini;
	ww_acquire_done(&ctx);
	ret = peerdma_dma_map_both(ends);
	if (!ret)
		ret = peerdma_dma_wait(&ends[0], DMA_TO_DEVICE, deadline);
	if (!ret)
		ret = peerdma_dma_wait(&ends[1], DMA_FROM_DEVICE, deadline);
	if (!ret)
		ret = peerdma_dma_pieces(client, arg, &ends[0], &ends[1], deadline);
	peerdma_dma_unmap_both(ends);
	peerdma_dma_unlock(ends);
out_fini:
	ww_acquire_fini(&ctx);
out_detach:
	peerdma_dma_detach(&ends[1]);
	peerdma_dma_detach(&ends[0]);
	return ret;
}

static int peerdma_dma_address(struct peerdma_dma_client *client, struct peerdma_dma_address *arg)
{
	/* What is locked like two ends; the second is nowhere. */
	struct peerdma_dma_end ends[2] = {};
	u32 length = U32_MAX;
	dma_addr_t address;
	int ret;

	ret = peerdma_dma_take_channel(client, arg->channel);
	if (!ret)
		ret = peerdma_dma_attach(client, &ends[0], arg->fd, arg->offset, 1);
	if (ret)
		return ret;
	ret = peerdma_dma_lock(ends, NULL);
	if (ret)
		goto out_detach;
	ret = peerdma_dma_map(&ends[0], DMA_BIDIRECTIONAL);
	if (!ret)
		ret = peerdma_dma_locate(&ends[0], 0, &address, &length);
	if (!ret) {
		arg->address = address;
		arg->length = length;
		arg->segments = ends[0].sgt->nents;
	}
	peerdma_dma_unmap(&ends[0], DMA_BIDIRECTIONAL);
	peerdma_dma_unlock(ends);
out_detach:
	peerdma_dma_detach(&ends[0]);
	return ret;
}

/* A name with its end. */
static bool peerdma_dma_is_name(const char *channel)
{
	return strnlen(channel, PEERDMA_DMA_NAME) < PEERDMA_DMA_NAME;
}

static long peerdma_dma_ioctl_address(struct peerdma_dma_client *client, void __user *user)
{
	struct peerdma_dma_address arg;
	int ret;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (!peerdma_dma_is_name(arg.channel) || arg.fd < 0 || arg.reserved)
		return -EINVAL;

	ret = mutex_lock_interruptible(&client->lock);
	if (ret)
		return ret;
	ret = peerdma_dma_address(client, &arg);
	mutex_unlock(&client->lock);
	if (ret)
		return ret;
	return copy_to_user(user, &arg, sizeof(arg)) ? -EFAULT : 0;
}

static long peerdma_dma_ioctl_copy(struct peerdma_dma_client *client, void __user *user)
{
	struct peerdma_dma_copy arg;
	int ret;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (!peerdma_dma_is_name(arg.channel) || !arg.length || arg.length > SZ_64M ||
	    !arg.timeout_ms || arg.timeout_ms > 60000 || arg.reserved)
		return -EINVAL;
	arg.result = DMA_TRANS_NOERROR;

	ret = mutex_lock_interruptible(&client->lock);
	if (ret)
		return ret;
	ret = peerdma_dma_copy(client, &arg);
	mutex_unlock(&client->lock);
	if (ret)
		return ret;
	return copy_to_user(user, &arg, sizeof(arg)) ? -EFAULT : 0;
}

static long peerdma_dma_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct peerdma_dma_client *client = file->private_data;
	void __user *user = (void __user *)argument;

	switch (command) {
	case PEERDMA_DMA_COPY:
		return peerdma_dma_ioctl_copy(client, user);
	case PEERDMA_DMA_ADDRESS:
		return peerdma_dma_ioctl_address(client, user);
	default:
		return -ENOTTY;
	}
}

static int peerdma_dma_open(struct inode *inode, struct file *file)
{
	struct peerdma_dma_client *client = kzalloc_obj(*client);

	if (!client)
		return -ENOMEM;
	mutex_init(&client->lock);
	file->private_data = client;
	return 0;
}

static int peerdma_dma_release(struct inode *inode, struct file *file)
{
	struct peerdma_dma_client *client = file->private_data;

	peerdma_dma_give_channel(client);
	kfree(client);
	return 0;
}

static const struct file_operations peerdma_dma_fops = {
	.owner = THIS_MODULE,
	.open = peerdma_dma_open,
	.release = peerdma_dma_release,
	.unlocked_ioctl = peerdma_dma_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice peerdma_dma_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "peerdma-dma",
	.fops = &peerdma_dma_fops,
};
module_misc_device(peerdma_dma_device);

MODULE_DESCRIPTION("Copies between dma-bufs by the kernel's DMA engines");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS(PEERDMA_NS_DMA_BUF);
