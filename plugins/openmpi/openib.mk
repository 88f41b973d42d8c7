# SPDX-License-Identifier: MIT OR Apache-2.0
# Open MPI's btl/openib with the connection manager "rdmacm", the only one that
# works over RoCE and iWARP.  Debian's own is without it, since Debian built it
# where librdmacm's header was not.
#
#	make -f openib.mk SOURCE=directory
#		builds OUT/openmpi/openib/mca_btl_openib.so from an unpacked
#		source package of the same release; `cargo xtask openib` fetches
#		and unpacks it first
#
# Nothing is configured: the installed opal_config.h is what Debian's build was
# configured to, but for what is said here about librdmacm.

MPI_PREFIX	?= /usr/lib/$(shell $(CC) -print-multiarch)/openmpi
MPI_INCLUDE	?= $(MPI_PREFIX)/include
MPI_LIB		?= $(MPI_PREFIX)/lib
OUT		?= ../../target/plugins
CFLAGS		?= -O2 -g
# Other compilers than x86-64's do not know it.
CX16		:= $(if $(filter x86_64-%,$(shell $(CC) -dumpmachine)),-mcx16)

ifndef SOURCE
$(error SOURCE must be the directory of Open MPI's source, as "apt-get source openmpi" unpacks it)
endif

HERE	:= $(OUT)/openmpi/openib
BTL	:= $(SOURCE)/opal/mca/btl/openib
# connect_sl is for InfiniBand's subnet managers.
SOURCES	:= $(filter-out %_sl.c,$(wildcard $(BTL)/*.c $(BTL)/connect/*.c))
OBJECTS	:= $(patsubst %.c,$(HERE)/objects/%.o,$(notdir $(SOURCES)))
CONFIG	:= $(HERE)/objects/opal_config.h

vpath %.c $(BTL) $(BTL)/connect

$(HERE)/mca_btl_openib.so: $(OBJECTS)
	$(CC) -shared -o $@ $^ -Wl,-z,defs,-z,now,-z,relro -L$(MPI_LIB) \
		-lopen-pal -lmca_common_verbs -lhwloc -levent_core \
		-levent_pthreads -lrdmacm -libverbs

$(HERE)/objects/%.o: %.c $(CONFIG)
	$(CC) $(CFLAGS) -w -fPIC $(CX16) -pthread -I$(HERE)/objects \
		-I$(MPI_INCLUDE)/openmpi -I$(BTL) -I$(SOURCE) -c -o $@ $<

$(CONFIG): $(MPI_INCLUDE)/openmpi/opal_config.h
	mkdir -p $(@D)
	sed -e 's|^#define OPAL_HAVE_RDMACM 0|#define OPAL_HAVE_RDMACM 1|' \
		-e 's|^/\* #undef HAVE_RDMA_RDMA_CMA_H \*/|#define HAVE_RDMA_RDMA_CMA_H 1|' \
		-e 's|^/\* #undef BTL_OPENIB_RDMACM_IB_ADDR \*/|#define BTL_OPENIB_RDMACM_IB_ADDR 0|' \
		$< > $@
	grep -q '^#define OPAL_HAVE_RDMACM 1' $@

.DELETE_ON_ERROR:
