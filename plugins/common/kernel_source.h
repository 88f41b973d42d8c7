/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the plug-ins share: the kernel's news, tested before it is trusted, and
 * one line in the log that says what came of it. */
#ifndef REGCACHE_KERNEL_SOURCE_H
#define REGCACHE_KERNEL_SOURCE_H

#include <stddef.h>

#include "regcache.h"

/*
 * Opens /dev/ummunotify and changes a page of its own behind every hook's back
 * to see that the kernel tells of it.  NULL if it does not, and the reason in
 * `why`: the plug-in must then leave its host as it was.
 */
struct regcache_monitor *kernel_source_open(char *why, size_t size);

/*
 * Writes "regcache: PLUGIN: active ..." or the like to standard error, once a
 * process of whatever job.  REGCACHE_PLUGIN_LOG=0 keeps it silent if active.
 */
void kernel_source_active(const char *plugin, const char *detail);
void kernel_source_inactive(const char *plugin, const char *why);

#endif
