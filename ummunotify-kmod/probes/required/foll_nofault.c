// SPDX-License-Identifier: GPL-2.0
// Needs: FOLL_NOFAULT (Linux 5.16), to look at pages without bringing them in
#include <linux/mm.h>

unsigned int probe(void);
unsigned int probe(void)
{
	return FOLL_NOFAULT;
}
