/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* libfabric's memory monitor of this plug-in. */
#ifndef REGCACHE_FI_MONITOR_H
#define REGCACHE_FI_MONITOR_H

#include <stdio.h>

#include <rdma/fabric.h>
#include <rdma/fi_ext.h>

/* What the plug-in is called in its line of the log. */
#define PLUGIN "libfabric"

extern struct fid_mem_monitor monitor_fid;

/* Opens and tests the kernel's source of news.  0, or a negative errno and the
 * reason in `why`. */
int monitor_open(char *why, size_t size);

/* Makes it libfabric's; -FI_EBUSY if libfabric has one already. */
int monitor_import(void);

#endif
