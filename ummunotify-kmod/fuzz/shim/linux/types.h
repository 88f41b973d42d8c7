/* SPDX-License-Identifier: GPL-2.0 */
/* Stands in for the kernel's header of this name: what core.c needs of it. */
#ifndef SHIM_TYPES_H
#define SHIM_TYPES_H

#include_next <linux/types.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t		u8;
typedef uint16_t	u16;
typedef uint32_t	u32;
typedef __u64		u64;
typedef __s64		s64;

#endif
