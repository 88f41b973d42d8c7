# SPDX-License-Identifier: MIT OR Apache-2.0
# What the plug-ins' Makefiles share.  Each is one file that needs no other of
# the project: the C library is linked into it, with its names hidden.

CFLAGS	?= -O2 -g
TOP	:= $(abspath $(dir $(lastword $(MAKEFILE_LIST)))..)
OUT	?= $(TOP)/target/plugins
# The C library, if it is not to be built.
STATIC	?= $(TOP)/target/ffi/libregcache.a

PLUGIN_CFLAGS	:= -std=gnu11 -fPIC -fvisibility=hidden -Wall -Wextra -Werror \
		   -I$(TOP)/regcache-ffi/include -I$(TOP)/plugins/common
PLUGIN_LIBS	:= $(STATIC) -Wl,--exclude-libs,ALL -Wl,--gc-sections \
		   -Wl,-z,now,-z,relro,-z,nodelete -lgcc_s -lm -lpthread -ldl
COMMON		:= $(TOP)/plugins/common/kernel_source.c
HEADERS		:= $(TOP)/plugins/common/kernel_source.h \
		   $(TOP)/regcache-ffi/include/regcache.h

all:
.DEFAULT_GOAL := all

# Why the installed middleware cannot be served; empty if it can.
unserved:
	@echo '$(UNSERVED)'

# cargo knows whether it is up to date.
$(TOP)/target/ffi/libregcache.a: FORCE
	$(MAKE) -C $(TOP)/regcache-ffi OUT=$(@D) STATIC= $@
FORCE:

$(OUT):
	mkdir -p $@

.PHONY: all unserved FORCE
