// SPDX-License-Identifier: GPL-2.0
/* IDENTIFY and CALL: a call reaches the file that was meant, or none. */
#include "feature.h"

#define COOKIE	9
#define ID	0x1234567887654321ull

_Static_assert(UMMUNOTIFY_IDENTIFY == 0x4008550a, "ioctl 10");
_Static_assert(UMMUNOTIFY_CALL == 0x550b, "ioctl 11");
_Static_assert(UMMUNOTIFY_READ == 0x550c, "ioctl 12");
_Static_assert(sizeof(struct ummunotify_call) == 40, "call");

static long identify(int fd, __u64 identity)
{
	return ret_errno(ioctl(fd, UMMUNOTIFY_IDENTIFY, &identity));
}

static struct ummunotify_call a_call(__u32 call, const void *arg, __u64 len)
{
	return (struct ummunotify_call){
		.size = sizeof(struct ummunotify_call), .call = call,
		.identity = ID, .arg = addr(arg), .len = len,
	};
}

/* The call's own result; -EILSEQ if it succeeded without an answer. */
static long call_by(int fd, __u64 identity, __u32 call, const void *arg,
		    __u64 len)
{
	struct ummunotify_call c = a_call(call, arg, len);
	long ret;

	c.identity = identity;
	ret = ret_errno(ioctl(fd, UMMUNOTIFY_CALL, &c));
	return ret >= 0 && c.answer != ~identity ? -EILSEQ : ret;
}

static bool dev_open_identified(struct dev *d, __u64 identity)
{
	return dev_open_with(d, ALL_FEATURES & ~FEATURE(DELIVERED), 1) &&
	       !identify(d->fd, identity);
}

TEST(each_call_does_what_it_does)
{
	struct ummunotify_register_ioctl r;
	struct ummunotify_event ev[4];
	char *p = area(2);
	__u64 cookie = COOKIE;
	struct dev d;

	ASSERT(dev_open_identified(&d, ID));
	r = (struct ummunotify_register_ioctl){
		.start = addr(p), .end = addr(p) + PAGE, .user_cookie = COOKIE,
	};
	EXPECT_EQ(call_by(d.fd, ID, 0, NULL, 0), 0);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_READ, ev, sizeof(ev)), -EAGAIN);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_REGISTER_REGION, &r, 0), 0);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_REGISTER_REGION, &r, 0), -EINVAL);
	p[0] = 1;
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_NOTE, &cookie, 0), 0);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_VERIFY, &cookie, 0), 1);
	ASSERT_EQ(munmap(p, PAGE), 0);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_READ, ev, 0), 0);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_READ, ev, 31), -EINVAL);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_READ, ev, sizeof(ev)),
		  2 * sizeof(*ev));
	EXPECT_EQ(ev[0].user_cookie_counter, COOKIE);
	EXPECT_EQ(ev[1].type, UMMUNOTIFY_EVENT_TYPE_LAST);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_UNREGISTER_REGION, &cookie, 0), 0);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_UNREGISTER_REGION, &cookie, 0),
		  -EINVAL);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_UNREGISTER_ALL, NULL, 0), 0);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_UNREGISTER_ALL, NULL, 1), -EINVAL);
	/* Not itself, and nothing that nobody knows. */
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_CALL, NULL, 0), -ENOTTY);
	EXPECT_EQ(call_by(d.fd, ID, 0x5555, NULL, 0), -ENOTTY);
}

/* The number of another file: nothing is taken from it, nothing is left in it. */
TEST(another_file_is_not_touched)
{
	struct ummunotify_register_ioctl r;
	struct ummunotify_event ev[4];
	char *p = area(1), byte = 7;
	__u64 cookie = COOKIE;
	struct dev mine, other;
	int pipe_fd[2];

	ASSERT(dev_open_identified(&mine, ID));
	ASSERT(dev_open_identified(&other, ID + 1));
	ASSERT_EQ(watch(other.fd, p, PAGE, COOKIE), 0);
	ASSERT_EQ(mprotect(p, PAGE, PROT_READ), 0);
	ASSERT_EQ(mprotect(p, PAGE, PROT_READ | PROT_WRITE), 0);
	r = (struct ummunotify_register_ioctl){
		.start = addr(p), .end = addr(p) + PAGE, .user_cookie = 1,
	};
	EXPECT_EQ(call_by(other.fd, ID, 0, NULL, 0), -ESTALE);
	EXPECT_EQ(call_by(other.fd, ID, UMMUNOTIFY_READ, ev, sizeof(ev)), -ESTALE);
	EXPECT_EQ(call_by(other.fd, ID, UMMUNOTIFY_REGISTER_REGION, &r, 0),
		  -ESTALE);
	EXPECT_EQ(call_by(other.fd, ID, UMMUNOTIFY_UNREGISTER_REGION, &cookie, 0),
		  -ESTALE);
	EXPECT_EQ(call_by(other.fd, ID, UMMUNOTIFY_UNREGISTER_ALL, NULL, 0),
		  -ESTALE);
	EXPECT_EQ(unwatch(other.fd, 1), -EINVAL);
	EXPECT_EQ(drain(other.fd), 1);
	EXPECT_EQ(unwatch(other.fd, COOKIE), 0);

	ASSERT_EQ(pipe(pipe_fd), 0);
	ASSERT_EQ(write(pipe_fd[1], &byte, 1), 1);
	EXPECT_EQ(call_by(pipe_fd[0], ID, UMMUNOTIFY_READ, ev, sizeof(ev)),
		  -ENOTTY);
	EXPECT_EQ(read(pipe_fd[0], ev, 1), 1);
}

TEST(an_identity_is_given_once)
{
	struct dev d;

	ASSERT(dev_open_with(&d, FEATURE(IDENTITY), 0));
	/* A file without one knows none, and zero is none. */
	EXPECT_EQ(call_by(d.fd, ID, 0, NULL, 0), -ESTALE);
	EXPECT_EQ(call_by(d.fd, 0, 0, NULL, 0), -ESTALE);
	EXPECT_EQ(identify(d.fd, 0), -EINVAL);
	EXPECT_EQ(ret_errno(ioctl(d.fd, UMMUNOTIFY_IDENTIFY, NULL)), -EFAULT);
	EXPECT_EQ(identify(d.fd, ID), 0);
	EXPECT_EQ(identify(d.fd, ID), -EBUSY);
	EXPECT_EQ(identify(d.fd, ID + 1), -EBUSY);
	EXPECT_EQ(call_by(d.fd, ID, 0, NULL, 0), 0);
	EXPECT_EQ(call_by(d.fd, ID + 1, 0, NULL, 0), -ESTALE);
}

/* As of 2009, where it was not granted. */
TEST(it_is_granted_or_absent)
{
	struct dev d;

	ASSERT(dev_open(&d));
	EXPECT_EQ(identify(d.fd, ID), -ENOTTY);
	EXPECT_EQ(call_by(d.fd, ID, 0, NULL, 0), -ENOTTY);
	ASSERT(dev_open_with(&d, ALL_FEATURES & ~FEATURE(IDENTITY), 1));
	EXPECT_EQ(identify(d.fd, ID), -ENOTTY);
	EXPECT_EQ(call_by(d.fd, ID, 0, NULL, 0), -ENOTTY);
	/* What was not granted is not granted by way of a call. */
	ASSERT(dev_open_with(&d, FEATURE(IDENTITY), 0));
	EXPECT_EQ(identify(d.fd, ID), 0);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_UNREGISTER_ALL, NULL, 0), -ENOTTY);
}

TEST(sizes_and_pointers)
{
	struct {
		struct ummunotify_call c;
		__u64 more;
	} l = { .c = a_call(0, NULL, 0) };
	struct ummunotify_event ev[2];
	char *p = area(2);
	struct dev d;
	__u32 size;

	ASSERT(dev_open_identified(&d, ID));
	for (size = 0; size < sizeof(l.c); size++) {
		l.c.size = size;
		EXPECT_EQ(ret_errno(ioctl(d.fd, UMMUNOTIFY_CALL, &l)), -EINVAL);
	}
	l.c.size = sizeof(l);
	EXPECT_EQ(ret_errno(ioctl(d.fd, UMMUNOTIFY_CALL, &l)), 0);
	EXPECT_EQ(l.c.answer, ~ID);
	l.more = 1;
	EXPECT_EQ(ret_errno(ioctl(d.fd, UMMUNOTIFY_CALL, &l)), -E2BIG);
	EXPECT_EQ(ret_errno(ioctl(d.fd, UMMUNOTIFY_CALL, NULL)), -EFAULT);

	/* Whoever cannot be answered loses no event. */
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	ASSERT_EQ(munmap(p, PAGE), 0);
	*(struct ummunotify_call *)(p + PAGE) =
		a_call(UMMUNOTIFY_READ, ev, sizeof(ev));
	ASSERT_EQ(mprotect(p + PAGE, PAGE, PROT_READ), 0);
	EXPECT_EQ(ret_errno(ioctl(d.fd, UMMUNOTIFY_CALL, p + PAGE)), -EFAULT);
	EXPECT_EQ(call_by(d.fd, ID, UMMUNOTIFY_READ, NULL, sizeof(ev)), -EFAULT);
	EXPECT_EQ(drain(d.fd), 1);
}

/* The child has the number and not the address space. */
TEST(another_process_is_refused)
{
	struct dev d;
	int status;
	pid_t pid;

	ASSERT(dev_open_identified(&d, ID));
	pid = fork();
	if (!pid)
		_exit(call_by(d.fd, ID, 0, NULL, 0) != -EPERM);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
}
