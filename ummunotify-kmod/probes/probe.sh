#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Asks the kernel's headers what they have: probe.sh HEADER PROBES COMPILER...
#
# The version number does not tell: distributions bring newer interfaces to older
# kernels.  So each probe is compiled twice, with and without -DPROBE_HAS: as for
# headers that have what its name says, and as for those that do not.  HEADER says
# which of the two compiled.  What is in PROBES/required must compile, or the
# module is not for this kernel.  Where there is no answer, the build ends with
# what the compiler said.
set -e
header="$1"
probes="$2"
shift 2
answers="$header.answers"
mkdir -p "$(dirname "$header")"
: >"$answers"
: >"$header.new"

compiles() {
	echo "# $*" >>"$answers"
	"$@" >>"$answers" 2>&1
}

end() {
	cat "$answers" >&2
	echo "ummunotify: $*. The compiler's answers are above, and in $answers" >&2
	exit 1
}

compiles "$@" -fsyntax-only -include linux/mm.h -x c /dev/null ||
	end "nothing compiles with these headers"
for probe in "$probes"/required/*.c; do
	compiles "$@" -fsyntax-only "$probe" ||
		end "not for this kernel, which has no $(sed -n 's,^// Needs: ,,p' "$probe")"
done
for probe in "$probes"/*.c; do
	name=$(basename "$probe" .c | tr '[:lower:]' '[:upper:]')
	if compiles "$@" -DPROBE_HAS -fsyntax-only "$probe"; then
		has=1
	elif compiles "$@" -fsyntax-only "$probe"; then
		has=0
	else
		end "$probe compiles neither with nor without -DPROBE_HAS: the interface has changed again"
	fi
	echo "#define HAS_$name $has" >>"$header.new"
done
mv "$header.new" "$header"
