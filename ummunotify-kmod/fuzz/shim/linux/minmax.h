/* SPDX-License-Identifier: GPL-2.0 */
/* Stands in for the kernel's header of this name: what core.c needs of it. */
#ifndef SHIM_MINMAX_H
#define SHIM_MINMAX_H

#define min(a, b)		((a) < (b) ? (a) : (b))
#define max(a, b)		((a) > (b) ? (a) : (b))
#define min_t(type, a, b)	((type)(a) < (type)(b) ? (type)(a) : (type)(b))
#define max_t(type, a, b)	((type)(a) > (type)(b) ? (type)(a) : (type)(b))

#endif
