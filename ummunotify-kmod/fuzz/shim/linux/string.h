/* SPDX-License-Identifier: GPL-2.0 */
/* Stands in for the kernel's header of this name: what core.c needs of it. */
#ifndef SHIM_STRING_H
#define SHIM_STRING_H

#include <string.h>

#endif
