#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Runs the programs over an RDMA device, by each of Open MPI's paths to it,
# stock and with the plug-in.
#
#	run.sh RESULTS PROGRAMS PLUGINS [HOST HOST]
#
# PROGRAMS and PLUGINS are the directories of what was built, RESULTS is one
# that gets what each run wrote to standard output (NAME.out) and to standard
# error (NAME.log).  Without hosts, both ranks are on this machine; with them,
# one on each, and mpirun reaches the second by agent.sh.  The exit status is 0
# if every run came to its end.
#
# From the environment: MESSAGES and SPEED_SECONDS are what the programs are
# told (10 and 0.8 if not given); LIMIT is how many seconds a run may take (300).

here=$(dirname "$(readlink -f "$0")")
results=$1 programs=$2 plugins=$3
shift 3
failed=0

# Where Open MPI's own components are, and a btl/openib that speaks RoCE, if one
# was built: Debian's does not.
components=$(ompi_info --path pkglibdir --parsable | cut -d: -f3)
openib=$plugins/openmpi/openib

paths="mtl-ofi pml-ucx"
if [ -e "$openib/mca_btl_openib.so" ]; then
	paths="$paths btl-openib"
fi

# What makes mpirun take a path.
path() {
	case $1 in
	mtl-ofi)
		echo "--mca pml cm --mca mtl ofi --mca mtl_ofi_provider_include verbs
		      -x FI_UNIVERSE_SIZE=4" ;;
	pml-ucx)
		echo "--mca pml ucx -x UCX_TLS=rc_v,ud_v,self -x UCX_IB_GID_INDEX=0" ;;
	btl-openib)
		echo "--mca pml ob1 --mca btl openib,self
		      --mca btl_openib_allow_ib 1 --mca btl_openib_cpc_include rdmacm
		      --mca btl_openib_receive_queues P,65536,64,48,32
		      --mca btl_openib_warn_no_device_params_found 0" ;;
	esac
}

# What a rank's command begins with, stock or with the plug-in.
prefix() {
	case $1,$2 in
	mtl-ofi,plugin)
		echo "env FI_PROVIDER_PATH=$plugins" ;;
	pml-ucx,plugin)
		echo "env LD_PRELOAD=$plugins/libregcache-ucx.so" ;;
	btl-openib,stock)
		echo "env OMPI_MCA_mca_base_component_path=$openib:$components" ;;
	btl-openib,plugin)
		echo "env OMPI_MCA_mca_base_component_path=$plugins/openmpi:$openib:$components
		      OMPI_MCA_btl_openib_rcache=regcache" ;;
	esac
}

# What a run is called on the screen.
label() {
	case $2 in
	plugin) kind=plug-in ;;
	*) kind=$2 ;;
	esac
	printf '%-10s  %-7s ' "$(echo "$1" | tr - /)" "$kind"
}

# run NAME WHAT WORDS...: mpirun with these words.  It is called by Debian's name for
# Open MPI's, whichever MPI is the machine's default.
run() {
	name=$1
	printf '  %-46s' "$2"
	shift 2
	start=$(date +%s)
	timeout -k 5 "${LIMIT:-300}" $pinned \
		mpirun.openmpi --oversubscribe --bind-to none $launch "$@" \
		</dev/null >"$results/$name.out" 2>"$results/$name.log"
	status=$?
	took=$(($(date +%s) - start))
	if [ $status = 0 ]; then
		printf '%4d s\n' $took
		return
	fi
	failed=1
	if [ $status = 124 ]; then
		printf 'killed after %d s' $took
	else
		printf 'mpirun ended with status %d' $status
	fi
	echo "; its log ends with:"
	grep -v '^ *$' "$results/$name.log" | tail -n 12 | sed 's/^/  | /'
}

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
pair="-np 2"
launch=
if [ $# = 2 ]; then
	launch="--mca plm_rsh_agent $here/agent.sh --map-by node"
	pair="-np 2 --host $1:2,$2:2"
	# The other may take longer to come up.
	for _ in $(seq 60); do
		"$here/agent.sh" "$2" true 2>/dev/null && break
		sleep 1
	done
fi

# What do messages hold, if memory changes in between?
stale() {
	for path in $paths; do
		how="$pair $(path $path)"
		for which in stock plugin; do
			run $path-stale-$which "$(label $path $which) while memory changes" \
				$how $(prefix $path $which) "$programs/stale" "${MESSAGES:-10}"
		done
	done
}

# What does it cost?  Where both ranks are on one machine they share a processor:
# then a message takes what it costs, and not how long another processor takes to
# wake up.
speed() {
	if [ -z "$launch" ]; then
		pinned="taskset -c 0"
	fi
	seconds=${SPEED_SECONDS:-0.8}
	for path in $paths; do
		# What mpirun is told before the colon does not hold after it.
		how="$pair $(path $path)"
		run $path-speed "$(label $path both) latency and bandwidth" \
			$how $(prefix $path stock) "$programs/speed" "$seconds" : \
			$how $(prefix $path plugin) "$programs/speed" "$seconds"
		# The other way round, in case that one pair is the slower for its place.
		run $path-speed-crossed "$(label $path both) the same, crossed" \
			$how $(prefix $path plugin) "$programs/speed" "$seconds" : \
			$how $(prefix $path stock) "$programs/speed" "$seconds"
	done
}

stale
speed
exit $failed
