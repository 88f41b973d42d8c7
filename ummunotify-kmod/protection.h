/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Changes of protection in flight, which split huge pages on their way.
 */
#ifndef _UMMUNOTIFY_PROTECTION_H
#define _UMMUNOTIFY_PROTECTION_H

#include <linux/mmu_notifier.h>

/* As many are known at a time; what others split is as real as any CLEAR. */
#define UMN_PROTECTIONS		16

/**
 * struct umn_protection - a change of protection between its start and its end
 * @range: tells it from others; start and end pass the same
 * @task: who makes it
 * @start: first byte
 * @end: the byte after the last
 */
struct umn_protection {
	const struct mmu_notifier_range	*range;
	const struct task_struct	*task;
	unsigned long			start;
	unsigned long			end;
};

/**
 * struct umn_protections - those of one address space
 * @inflight: dense
 * @nr: how many
 */
struct umn_protections {
	struct umn_protection	inflight[UMN_PROTECTIONS];
	unsigned int		nr;
};

void umn_protection_begin(struct umn_protections *protections,
			  const struct mmu_notifier_range *range);
void umn_protection_end(struct umn_protections *protections,
			const struct mmu_notifier_range *range);
bool umn_protection_splits(const struct umn_protections *protections,
			   const struct mmu_notifier_range *range);

#endif /* _UMMUNOTIFY_PROTECTION_H */
