/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A connection of libfabric's verbs provider to itself, with a registration
 * cache of its own, and what that cache asks of verbs. */
#ifndef LINK_H
#define LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct link;

/* The plug-in is loaded, or not, when the first one is opened. */
struct link *link_open(void);
void link_close(struct link *link);

/* Registers the memory, or finds that the cache has it, and leaves it there. */
void link_register(struct link *link, const void *addr, size_t len);

/* What the peer holds after the bytes went there by RDMA from a registration
 * that the cache has, or makes. */
const void *link_send(struct link *link, const void *addr, size_t len);

/* Fills the memory with bytes that it never had, sends it, and compares. */
bool link_delivers(struct link *link, void *addr, size_t len);

/* How often memory was registered and deregistered, in the whole process. */
extern unsigned long link_registered, link_deregistered;

/* Called when memory has been registered, before libfabric knows. */
extern void (*link_after_registering)(void *addr, size_t len);

#endif
