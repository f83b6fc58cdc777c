// SPDX-License-Identifier: GPL-2.0-only
/*
 * Keeps QEMU's TCG from delivering an interrupt to a guest twice.
 *
 * When VMRUN injects an external interrupt, TCG's helper delivers it, but
 * leaves its vector behind as if it were an exception yet to be raised. The
 * next event that goes through the guest's exit or exception path clears that.
 * If the emulated CPU is asked to leave its loop first, which happens in the
 * moment between its look at pending interrupts and its look at exit requests,
 * it raises the vector once more: wherever the guest is, whether it accepts
 * interrupts or not. A guest that has just entered its kernel then works with
 * the user's GS base; one that holds a lock takes it again.
 *
 * So each entry that injects an interrupt is left at once: an interrupt of the
 * host's own is pending at VMRUN. The event is injected before it is looked
 * at, and leaving the guest clears what was left behind. This costs one exit
 * for each interrupt injected.
 *
 * That exit comes before the guest has ended its interrupt, and KVM takes back
 * at each exit its offer to do so without one (paravirtual EOI). It renews the
 * offer when it looks at the guest's interrupts; the request makes it look
 * before the next entry. This only saves exits.
 */
#include <linux/irq_work.h>
#include <linux/kvm_host.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/tracepoint.h>

/* KVM defines and exports it; its header is not for others. */
extern struct tracepoint __tracepoint_kvm_entry;

static void leave_guest(struct irq_work *work)
{
}

static DEFINE_PER_CPU(struct irq_work, leave) =
	IRQ_WORK_INIT_HARD(leave_guest);

/* The last stop before VMRUN; interrupts are off. */
static void on_entry(void *data, struct kvm_vcpu *vcpu,
		     bool force_immediate_exit)
{
	if (!vcpu->arch.interrupt.injected || force_immediate_exit)
		return;
	irq_work_queue(this_cpu_ptr(&leave));
	kvm_make_request(KVM_REQ_EVENT, vcpu);
}

static int __init svm_under_tcg_init(void)
{
	return tracepoint_probe_register(&__tracepoint_kvm_entry, on_entry,
					 NULL);
}
module_init(svm_under_tcg_init);

MODULE_DESCRIPTION("Leaves a guest at once after an interrupt was injected");
MODULE_LICENSE("GPL");
