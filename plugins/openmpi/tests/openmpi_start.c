/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Which cache a process gets, by name, path, version and kernel, and what the
 * log says of it.  Each process is this program again, which reports
 *
 *	none			there is no cache of that name
 *	regcache|grdma, good|stale|worse
 *				whose it is, and whether a message arrives
 *				after its buffer was mapped anew
 */
#include "btl.h"

static const char *program;

static int report(const char *directory, const char *name)
{
	char *from, *to;
	struct btl btl, another;
	bool before, after;

	if (!start(program, directory))
		return 1;
	if (!btl_open(&btl, name)) {
		printf("none\n");
		return 0;
	}
	from = map_at(NULL);
	to = map_at(NULL);
	before = delivers(&btl, from, to);
	remap(to);
	after = delivers(&btl, from, to);
	/* Only the real one has Open MPI's hooks call it. */
	printf("%s, %s\n", btl.rcache->rcache_invalidate_range ? "grdma" : "regcache",
	       before && after ? "good" : before ? "stale" : "worse");
	/* Of the same kind, and the log has nothing new. */
	EXPECT(btl_open(&another, name));
	EXPECT(another.rcache->rcache_invalidate_range ==
	       btl.rcache->rcache_invalidate_range);
	btl_close(&another);
	btl_close(&btl);
	mca_base_framework_close(&opal_rcache_base_framework);
	return check_failed;
}

/* What a process says, which is begun by `how`, and asks for a component. */
static const char *say(const char *how, const char *directory, const char *name)
{
	static char output[4096];
	char command[PATH_MAX];
	FILE *process;
	size_t length;

	snprintf(command, sizeof(command), "%s %s %s %s 2>&1", how, program,
		 directory, name);
	fflush(stdout);
	process = popen(command, "r");
	if (!process)
		exit(1);
	length = fread(output, 1, sizeof(output) - 1, process);
	output[length] = '\0';
	EXPECT_EQ(pclose(process), 0);
	return output;
}

#define EXPECT_SAYS(output, part)					\
	do {								\
		EXPECT(strstr(output, part));				\
		if (!strstr(output, part))				\
			printf("# it says: %s\n", output);		\
	} while (0)

static int lines(const char *output)
{
	int count = 0;

	for (; (output = strchr(output, '\n')); output++)
		count++;
	return count;
}

#define ACTIVE		"regcache: openmpi: active, "
#define INACTIVE	"regcache: openmpi: INACTIVE, nothing is changed: "

/* The judge itself. */
static void open_mpis_own_is_found_out(void)
{
	const char *output = say("", ".", "grdma");

	EXPECT_SAYS(output, "grdma, stale\n");
	EXPECT_EQ(lines(output), 1);
}

static void by_its_name_it_is_active(void)
{
	const char *output = say("", ".", "regcache");

	EXPECT_SAYS(output, ACTIVE);
	EXPECT_SAYS(output, "regcache, good\n");
	EXPECT_EQ(lines(output), 2);
}

static void by_the_name_of_another_too(void)
{
	const char *output = say("", "shadow", "grdma");

	EXPECT_SAYS(output, ACTIVE);
	EXPECT_SAYS(output, "regcache, good\n");
	EXPECT_EQ(lines(output), 2);
}

static void it_can_be_silent(void)
{
	const char *output = say("REGCACHE_PLUGIN_LOG=0", ".", "regcache");

	EXPECT_SAYS(output, "regcache, good\n");
	EXPECT_EQ(lines(output), 1);
}

/* Another file lies over the device, for this process alone. */
#define NO_DEVICE	"unshare -m sh -c " \
			"'mount --bind /dev/null /dev/ummunotify && exec \"$@\"' sh"

static void without_the_kernel_there_is_none(void)
{
	const char *output = say(NO_DEVICE, ".", "regcache");

	EXPECT_SAYS(output, INACTIVE);
	EXPECT_SAYS(output, "the ummunotify device");
	EXPECT_SAYS(output, "does not start");
	EXPECT_SAYS(output, "none\n");
	EXPECT_EQ(lines(output), 2);
}

static void without_the_kernel_the_other_is_itself(void)
{
	const char *output = say(NO_DEVICE, "shadow", "grdma");

	EXPECT_SAYS(output, INACTIVE);
	EXPECT_SAYS(output, "Open MPI's own grdma is used");
	EXPECT_SAYS(output, "grdma, stale\n");
	EXPECT_EQ(lines(output), 2);
}

static void another_release_is_refused(void)
{
	char how[PATH_MAX];
	const char *output;

	snprintf(how, sizeof(how), "LD_PRELOAD=%.*s/other_release.so",
		 (int)(strrchr(program, '/') - program), program);
	output = say(how, ".", "regcache");
	EXPECT_SAYS(output, INACTIVE "this is Open MPI 4.1.99, and the plug-in was built for ");
	EXPECT_SAYS(output, "none\n");
	output = say(how, "shadow", "grdma");
	EXPECT_SAYS(output, INACTIVE "this is Open MPI 4.1.99, and the plug-in was built for ");
	EXPECT_SAYS(output, "grdma, stale\n");
}

int main(int argc, char **argv)
{
	static char path[PATH_MAX];

	program = realpath(argv[0], path);
	if (argc == 3)
		return report(argv[1], argv[2]);
	PLAN(7);
	RUN(open_mpis_own_is_found_out);
	RUN(by_its_name_it_is_active);
	RUN(by_the_name_of_another_too);
	RUN(it_can_be_silent);
	RUN(without_the_kernel_there_is_none);
	RUN(without_the_kernel_the_other_is_itself);
	RUN(another_release_is_refused);
	DONE();
}
