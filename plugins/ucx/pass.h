/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* To stand before a function of UCX's. */
#ifndef REGCACHE_UCX_PASS_H
#define REGCACHE_UCX_PASS_H

#define EXPORT	__attribute__((visibility("default")))

/* Passes calls on as they came, by a jump: an argument on the stack stays where
 * it is, so that UCX's later versions are served as well, if not with news. */
#if defined(__clang__)
#define BY_JUMP
#define JUMP __attribute__((musttail)) return
#else
#define BY_JUMP __attribute__((optimize("O2")))
#define JUMP return
#endif

#endif
