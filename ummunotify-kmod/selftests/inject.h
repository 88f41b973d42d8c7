/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Failures on request: the n-th allocation, or copy from or to user space, of
 * the calling thread fails.  Wants a kernel with CONFIG_FAULT_INJECTION; see
 * Documentation/fault-injection in its sources.
 */
#ifndef INJECT_H
#define INJECT_H

#include "feature.h"

#include <ctype.h>

#define FAIL_NTH	"/proc/thread-self/fail-nth"
#define DEBUGFS		"/sys/kernel/debug/"

static inline bool can_inject(void)
{
	return !access(FAIL_NTH, W_OK) && !access(DEBUGFS "failslab", X_OK);
}

/*
 * Everything may fail, also what could wait for memory.  With stacks, the
 * kernel's log shows who was to have the memory.
 */
static inline bool inject_init(bool stacks)
{
	static const char *const kinds[] = {
		"failslab", "fail_page_alloc", "fail_usercopy",
	};
	char path[96];
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(kinds); i++) {
		snprintf(path, sizeof(path), DEBUGFS "%s/verbose", kinds[i]);
		/* Not every kernel can make copies fail. */
		if (!file_set(path, stacks ? "2" : "0") && i < 2)
			return false;
	}
	return file_set(DEBUGFS "failslab/ignore-gfp-wait", "N") &&
		file_set(DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N") &&
		file_set(DEBUGFS "fail_page_alloc/ignore-gfp-highmem", "N") &&
		file_set(DEBUGFS "fail_page_alloc/min-order", "0");
}

/* Of this thread: /proc/thread-self is another file for each. */
static inline int inject_open(void)
{
	return open(FAIL_NTH, O_RDWR | O_CLOEXEC);
}

static inline bool inject_begin(int fd, unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	return pwrite(fd, text, len, 0) == len;
}

/* Returns whether something failed since inject_begin(). */
static inline bool inject_end(int fd)
{
	char text[16] = "";
	/* This one fails if there was no other to fail. */
	bool injected = pread(fd, text, sizeof(text) - 1, 0) > 0 &&
		text[0] == '0';

	while (pwrite(fd, "0", 1, 0) < 0 && errno == EFAULT)
		;
	return injected;
}

/* The places of the module where something failed, as the log tells. */
#define SITES	64
struct sites {
	int kmsg;
	unsigned int failures, errors, n;
	char name[SITES][80];
};

static inline bool sites_init(struct sites *s)
{
	s->failures = s->errors = s->n = 0;
	s->kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return s->kmsg >= 0 && !lseek(s->kmsg, 0, SEEK_END);
}

static inline void sites_add(struct sites *s, const char *name, int len)
{
	unsigned int i;

	if (len >= (int)sizeof(s->name[0]))
		return;
	for (i = 0; i < s->n; i++) {
		if (!strncmp(s->name[i], name, len) && !s->name[i][len])
			return;
	}
	if (s->n < SITES)
		snprintf(s->name[s->n++], sizeof(s->name[0]), "%.*s", len, name);
}

/*
 * Reads what was logged since the last call: of each trace, the innermost
 * frame of the module.
 */
static inline void sites_read(struct sites *s)
{
	bool in_trace = false;
	char record[2048];
	ssize_t n;

	for (;;) {
		char *text, *end;

		n = read(s->kmsg, record, sizeof(record) - 1);
		if (n < 0 && errno == EPIPE)
			continue;
		if (n <= 0)
			return;
		record[n] = '\0';
		text = strchr(record, ';');
		if (!text)
			continue;
		/* "FAULT_INJECTION: forcing a failure.", " f+0x1/0x2 [module]" */
		if (strstr(text, "FAULT_INJECTION"))
			in_trace = true;
		end = strstr(text, " [ummunotify]");
		if (!in_trace || !end || strchr(text, '?'))
			continue;
		while (!isalnum((unsigned char)*text) && *text != '_')
			text++;
		sites_add(s, text, end - text);
		in_trace = false;
	}
}

static inline void sites_print(const struct sites *s)
{
	unsigned int i;

	dprintf(STDOUT_FILENO, "# %u failures, %u of which failed the call; "
		"at %u places of the module\n", s->failures, s->errors, s->n);
	for (i = 0; i < s->n; i++)
		dprintf(STDOUT_FILENO, "#   %s\n", s->name[i]);
}

#endif /* INJECT_H */
