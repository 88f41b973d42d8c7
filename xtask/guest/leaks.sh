#!/bin/sh
# The last program on a debug kernel: what its checks have found by now, in TAP.
# Their reports are in the console's log as well, all but those of kmemleak.

LEAKS=/sys/kernel/debug/kmemleak
number=0
failed=0

result() {
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number $2"
	else
		echo "not ok $number $2"
		failed=1
	fi
}

# Of kmemleak's reports, those that count. One does not: where sysfs_slab_add()
# fails, Linux forgets the name that it gave the cache's kobject, and the walk
# of failslab makes it fail while it loads the module.
reports() {
	awk '
		function finish() {
			if (record != "" && !(walk && slab && name))
				printf "%s", record
			record = ""
			walk = slab = name = 0
		}
		/^unreferenced object/ { finish() }
		{ record = record $0 "\n" }
		/^ *comm "failslab"/ { walk = 1 }
		/ kobject_init_and_add\+/ { name = 1 }
		name && / sysfs_slab_add\+/ { slab = 1 }
		END { finish() }
	'
}

# Memory is reported if it was lost five seconds ago. Of memory that no scan has
# seen before, only a second one is sure.
leaks() {
	for _ in $(seq "$1"); do
		sleep 6
		echo scan >"$LEAKS" || return 1
	done
	all=$(grep -c '^unreferenced' "$LEAKS")
	found=$(reports <"$LEAKS") || return 1
	printf '%s' "$found" | sed 's/^/# /'
	counted=$(printf '%s\n' "$found" | grep -c '^unreferenced')
	echo "# $counted objects lost, besides $((all - counted)) by the kernel itself"
	test -z "$found"
}

echo "TAP version 13"
echo "1..5"

echo scan=off >"$LEAKS"
result $? "kmemleak works"
# Of what a scan has found, the console's log has the number only, as information.
echo 6 >/proc/sys/kernel/printk
# It turns itself off with its first report, and when it runs out of memory.
grep -q '^ *debug_locks: *1$' /proc/lockdep_stats
result $? "lockdep works"

leaks 2
result $? "no memory is lost while the module is loaded"
rmmod ummunotify_hold ummunotify
result $? "the module can be unloaded"
leaks 1
result $? "no memory is lost after that"
exit $failed
