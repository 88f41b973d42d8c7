/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Tests that report in TAP. */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>
#include <stdio.h>

static bool tap_failed, tap_any_failed;
static int tap_number;

#define EXPECT(condition)						\
	do {								\
		if (!(condition)) {					\
			tap_failed = true;				\
			printf("# %s:%d: %s\n", __FILE__, __LINE__, #condition); \
		}							\
	} while (0)

#define EXPECT_EQ(left, right)						\
	do {								\
		long long left_ = (long long)(left);			\
		long long right_ = (long long)(right);			\
									\
		if (left_ != right_) {					\
			tap_failed = true;				\
			printf("# %s:%d: %s is %lld, not %lld\n", __FILE__, \
			       __LINE__, #left, left_, right_);		\
		}							\
	} while (0)

#define RUN(test)							\
	do {								\
		tap_failed = false;					\
		test();							\
		printf("%s %d " #test "\n", tap_failed ? "not ok" : "ok", ++tap_number); \
		tap_any_failed |= tap_failed;				\
		fflush(stdout);						\
	} while (0)

#define PLAN(tests)							\
	do {								\
		setvbuf(stdout, NULL, _IOLBF, 0);			\
		printf("TAP version 13\n1..%d\n", tests);		\
	} while (0)

#endif
