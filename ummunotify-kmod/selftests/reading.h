/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests of read() have in common. */
#ifndef READING_H
#define READING_H

#include "util.h"

#define COOKIE 9

/* A bad address, which the compiler does not know. */
static void *volatile nowhere;

/* n watched areas of one page each, with their index for a cookie. */
static bool scene_init(struct dev *d, char **p, unsigned int n)
{
	unsigned int i;

	if (!dev_open(d))
		return false;
	for (i = 0; i < n; i++) {
		p[i] = area(1);
		if (!p[i] || watch(d->fd, p[i], PAGE, i))
			return false;
	}
	return true;
}

/* The same event as often as one likes. */
static void hit(char *p)
{
	EXPECT_EQ(madvise(p, PAGE, MADV_DONTNEED), 0);
}

#endif /* READING_H */
