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

# Memory is reported if it was lost five seconds ago. Of memory that no scan has
# seen before, only a second one is sure.
leaks() {
	for _ in $(seq "$1"); do
		sleep 6
		echo scan >"$LEAKS" || return 1
	done
	sed 's/^/# /' "$LEAKS"
	! grep -q . "$LEAKS"
}

echo "TAP version 13"
echo "1..5"

echo scan=off >"$LEAKS"
result $? "kmemleak works"
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
