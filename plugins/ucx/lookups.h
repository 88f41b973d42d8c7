/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Whether this library stands before the searches of UCX's tables too. */
#ifndef REGCACHE_UCX_LOOKUPS_H
#define REGCACHE_UCX_LOOKUPS_H

int lookups_are_seen(void);

#endif
