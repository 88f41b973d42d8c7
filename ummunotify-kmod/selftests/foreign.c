// SPDX-License-Identifier: GPL-2.0
/*
 * A file belongs to the address space that opened it: what others see who
 * have inherited, received or kept it, and that they do no harm.
 */
#include "util.h"

#include <sched.h>
#include <sys/file.h>
#include <sys/socket.h>

#define COOKIE 11

/* A watched page, with the counter's page in the page table. */
static bool scene_init(struct dev *d, char **p)
{
	*p = area(2);
	return *p && dev_open_flags(d, O_NONBLOCK) &&
	       !watch(d->fd, *p, 2 * PAGE, COOKIE) && !*d->gen;
}

static void hit(char *p)
{
	EXPECT_EQ(madvise(p, PAGE, MADV_DONTNEED), 0);
}

/* To be called in an address space that is not the file's. */
static void refused_everything(int fd)
{
	struct ummunotify_event ev[2];
	__u32 mask = 0;

	EXPECT_EQ(watch_range(fd, 0, PAGE, 1), -EPERM);
	EXPECT_EQ(watch_range(fd, 0, PAGE, COOKIE), -EPERM);
	EXPECT_EQ(unwatch(fd, COOKIE), -EPERM);
	EXPECT_EQ(unwatch(fd, COOKIE + 1), -EPERM);
	EXPECT_EQ(exchange(fd, &mask), -EPERM);
	EXPECT_EQ(read_events(fd, ev, 2), -EPERM);
	EXPECT(poll_now(fd) & POLLERR);
	EXPECT(!map_gen(fd));
	EXPECT_EQ(errno, EPERM);
}

TEST(a_forked_child_is_refused)
{
	struct dev d;
	pid_t pid;
	char *p;

	ASSERT(scene_init(&d, &p));
	pid = fork();
	if (!pid) {
		refused_everything(d.fd);
		child_exit();
	}
	EXPECT_CHILD_OK(pid);

	/* The fork was an event; it and the region are still here. */
	EXPECT_ONLY(&d, COOKIE);
	hit(p);
	EXPECT_ONLY_HINT(&d, COOKIE, p, p + PAGE);
	EXPECT_EQ(unwatch(d.fd, COOKIE), 0);
}

/*
 * Never the parent's counter: to the child it would say "unchanged" for ever.
 * The page is in the parent's page table at the time of the fork, so a driver
 * whose entries fork copies is caught.
 */
static void child_sees_ones(int flags)
{
	const volatile __u64 *gen;
	unsigned int i;
	struct dev d;
	pid_t pid;
	char *p;

	ASSERT(scene_init(&d, &p));
	gen = mmap(NULL, PAGE, PROT_READ, flags, d.fd, 0);
	ASSERT(gen != MAP_FAILED);
	EXPECT_EQ(*gen, 0);
	pid = fork();
	if (!pid) {
		EXPECT_EQ(*gen, ALL_ONES);
		EXPECT_EQ(*d.gen, ALL_ONES);
		for (i = 0; i < PAGE / sizeof(*gen); i++)
			EXPECT_EQ(gen[i], ALL_ONES);
		EXPECT_NE(mprotect((void *)gen, PAGE,
				   PROT_READ | PROT_WRITE), 0);
		pid = fork();
		if (!pid) {
			EXPECT_EQ(*gen, ALL_ONES);
			child_exit();
		}
		EXPECT_CHILD_OK(pid);
		child_exit();
	}
	EXPECT_CHILD_OK(pid);
	EXPECT_NE(*gen, ALL_ONES);
	EXPECT_EQ(drain(d.fd), 1);
	EXPECT_EQ(*gen, *d.gen);
}

TEST(a_forked_child_sees_all_ones)
{
	child_sees_ones(MAP_SHARED);
}

TEST(a_forked_child_sees_all_ones_in_a_private_mapping)
{
	child_sees_ones(MAP_PRIVATE);
}

/* A driver that looks at addresses only takes these for the parent's. */
TEST(what_a_child_does_to_its_memory_is_no_event)
{
	struct gate go;
	struct dev d;
	pid_t pid;
	__u64 gen;
	char *p;

	ASSERT(gate_init(&go));
	ASSERT(scene_init(&d, &p));
	pid = fork();
	if (!pid) {
		gate_wait(&go);
		EXPECT_EQ(madvise(p, PAGE, MADV_DONTNEED), 0);
		EXPECT_EQ(munmap(p, 2 * PAGE), 0);
		EXPECT_EQ(munmap((void *)d.gen, PAGE), 0);
		EXPECT_EQ(close(d.fd), 0);
		child_exit();
	}
	EXPECT_EQ(drain(d.fd), 1);
	gen = *d.gen;
	gate_open(&go);
	EXPECT_CHILD_OK(pid);
	EXPECT_EQ(*d.gen, gen);
	EXPECT_QUIET(&d);
	munmap(p, 2 * PAGE);
	EXPECT_EQ(*d.gen, gen + 1);
	EXPECT_ONLY_HINT(&d, COOKIE, p, p + 2 * PAGE);
}

TEST(a_child_has_a_file_of_its_own)
{
	struct dev d, own;
	pid_t pid;
	char *p;

	ASSERT(scene_init(&d, &p));
	pid = fork();
	if (!pid) {
		ASSERT(dev_open(&own));
		EXPECT_EQ(*own.gen, 0);
		EXPECT_EQ(watch(own.fd, p, PAGE, COOKIE), 0);
		hit(p);
		EXPECT_EQ(*own.gen, 1);
		EXPECT_ONLY_HINT(&own, COOKIE, p, p + PAGE);
		refused_everything(d.fd);
		child_exit();
	}
	EXPECT_EQ(drain(d.fd), 1);
	EXPECT_CHILD_OK(pid);
	EXPECT_QUIET(&d);
}

/* The opener goes first: its address space is gone while the file is not. */
TEST(the_file_outlives_the_opener)
{
	struct gate dead;
	struct dev d;
	int status, link[2];
	pid_t pid, heir;
	char *p;

	ASSERT(gate_init(&dead));
	ASSERT_EQ(pipe2(link, O_CLOEXEC), 0);
	pid = fork();
	if (!pid) {
		ASSERT(scene_init(&d, &p));
		hit(p);
		heir = fork();
		if (!heir) {
			gate_wait(&dead);
			refused_everything(d.fd);
			EXPECT_EQ(*d.gen, ALL_ONES);
			munmap((void *)d.gen, PAGE);
			refused_everything(d.fd);
			EXPECT_EQ(close(d.fd), 0);
			EXPECT_EQ(write(link[1], &harness_failed,
					sizeof(harness_failed)),
				  sizeof(harness_failed));
			child_exit();
		}
		child_exit();
	}
	EXPECT_CHILD_OK(pid);
	gate_open(&dead);
	status = -1;
	EXPECT_EQ(read(link[0], &status, sizeof(status)), sizeof(status));
	EXPECT_EQ(status, 0);
}

static bool send_fd(int sock, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return sendmsg(sock, &msg, 0) == 1;
}

static int receive_fd(int sock)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	int fd = -1;

	if (recvmsg(sock, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

TEST(a_receiver_is_refused)
{
	int sock[2], fd;
	struct dev d;
	pid_t pid;
	char *p;

	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);
	pid = fork();
	if (!pid) {
		fd = receive_fd(sock[1]);
		EXPECT_GE(fd, 0);
		refused_everything(fd);
		close(fd);
		child_exit();
	}
	ASSERT(scene_init(&d, &p));
	hit(p);
	ASSERT(send_fd(sock[0], d.fd));
	EXPECT_CHILD_OK(pid);
	EXPECT_ONLY_HINT(&d, COOKIE, p, p + PAGE);
	/* And back: it is still one's own. */
	ASSERT(send_fd(sock[0], d.fd));
	fd = receive_fd(sock[1]);
	ASSERT_GE(fd, 0);
	hit(p);
	EXPECT_EQ(drain(fd), 1);
}

/*
 * A leaked descriptor must not keep the opener's memory.  The opener maps a
 * file that it has locked and closed: the lock lasts as long as the mapping.
 */
TEST(a_leaked_file_keeps_no_memory)
{
	int sock[2], m, fd, mine;
	char path[64], *p;
	struct dev d;
	pid_t pid;

	m = memfd_create("locked", 0);
	ASSERT_GE(m, 0);
	ASSERT_EQ(ftruncate(m, PAGE), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", m);
	mine = open(path, O_RDWR);
	ASSERT_GE(mine, 0);
	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);

	pid = fork();
	if (!pid) {
		fd = open(path, O_RDWR | O_CLOEXEC);
		EXPECT_EQ(flock(fd, LOCK_EX), 0);
		EXPECT(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0) !=
		       MAP_FAILED);
		close(fd);
		ASSERT(scene_init(&d, &p));
		ASSERT(send_fd(sock[1], d.fd));
		/* Wait for the other end: the lock is seen to be taken. */
		EXPECT_EQ(read(sock[1], path, 1), 1);
		child_exit();
	}
	fd = receive_fd(sock[0]);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(flock(mine, LOCK_EX | LOCK_NB), -1);
	ASSERT_EQ(write(sock[0], "", 1), 1);
	EXPECT_CHILD_OK(pid);
	EXPECT(WAIT_FOR(!flock(mine, LOCK_EX | LOCK_NB), 5000));
	refused_everything(fd);
}

/* Called in the new program: argv is --refused FD. */
static int helper(int argc, char **argv)
{
	if (argc != 3 || strcmp(argv[1], "--refused"))
		return HARNESS_FAIL;
	refused_everything(atoi(argv[2]));
	close(atoi(argv[2]));
	return harness_failed ? HARNESS_FAIL : HARNESS_PASS;
}

static void __attribute__((constructor)) helper_set(void)
{
	harness_helper = helper;
}

/* Same process, new address space. */
TEST(after_exec_the_file_is_refused)
{
	char number[16];
	struct dev d;
	pid_t pid;
	char *p;

	pid = fork();
	if (!pid) {
		ASSERT(scene_init(&d, &p));
		hit(p);
		snprintf(number, sizeof(number), "%d", d.fd);
		execl("/proc/self/exe", "foreign", "--refused", number, NULL);
		_exit(HARNESS_FAIL);
	}
	EXPECT_CHILD_OK(pid);
}

struct vfork_arg {
	struct dev *d;
	char *p;
};

static int vfork_child(void *arg)
{
	struct vfork_arg *a = arg;
	struct ummunotify_event ev[2];

	EXPECT_EQ(*a->d->gen, 0);
	EXPECT_EQ(watch(a->d->fd, a->p, PAGE, COOKIE + 1), 0);
	EXPECT_EQ(read_events(a->d->fd, ev, 2), -EAGAIN);
	munmap(a->p, PAGE);
	EXPECT_EQ(*a->d->gen, 1);
	return harness_failed ? HARNESS_FAIL : HARNESS_PASS;
}

/* Shares the address space, so the file is its own as well. */
TEST(a_vforked_child_is_at_home)
{
	struct vfork_arg arg;
	struct dev d;
	char *stack, *p;
	pid_t pid;

	ASSERT(scene_init(&d, &p));
	stack = area(16);
	arg.d = &d;
	arg.p = p;
	pid = clone(vfork_child, stack + 16 * PAGE,
		    CLONE_VM | CLONE_VFORK | SIGCHLD, &arg);
	ASSERT_GT(pid, 0);
	EXPECT_CHILD_OK(pid);
	EXPECT_EQ(drain(d.fd), 2);
	EXPECT_EQ(unwatch(d.fd, COOKIE + 1), 0);
}

/* Children come and go in every order, with the file open and events due. */
TEST(many_children)
{
	struct dev d;
	pid_t pid[8];
	int round, i;
	char *p;

	ASSERT(scene_init(&d, &p));
	for (round = 0; round < 10; round++) {
		for (i = 0; i < 8; i++) {
			pid[i] = fork();
			if (!pid[i]) {
				if (i & 1)
					munmap(p, 2 * PAGE);
				if (i & 2)
					close(d.fd);
				else
					refused_everything(d.fd);
				child_exit();
			}
			hit(p);
		}
		for (i = 0; i < 8; i++)
			EXPECT_CHILD_OK(pid[i]);
		EXPECT_EQ(drain(d.fd), 1);
	}
	hit(p + PAGE);
	EXPECT_ONLY_HINT(&d, COOKIE, p + PAGE, p + 2 * PAGE);
}
