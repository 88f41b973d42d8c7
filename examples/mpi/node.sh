#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# The second host's part: does what agent.sh on the first host says, for as long
# as that host is there.
#
#	node.sh HOST

reaches() {
	busybox ping -c "$2" -W 10 "$1" >/dev/null 2>&1
}

busybox nc -ll -p 514 -e /bin/sh &
server=$!
until reaches "$1" 1; do
	sleep 1
done
while reaches "$1" 3; do
	sleep 2
done
kill $server
