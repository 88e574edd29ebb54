# How the programs that read or write image layers are built; their Makefiles give PROGRAM and SOURCES. Static, so that
# they run inside the directory they have confined themselves to. musl keeps them small (kernel headers come after its
# own); glibc is the fallback. ASAN=1 builds with sanitizers into a folder of its own.
ROOT := ../../..
LAYERS := ../layers
NAME := berth-$(PROGRAM)
MUSL := $(shell command -v musl-gcc 2>/dev/null)
ARCH_INCLUDE := /usr/include/$(shell gcc -print-multiarch 2>/dev/null)
CFLAGS ?= -O2 -g0
WARN := -std=c11 -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror
ifeq ($(ASAN),1)
OUT ?= $(ROOT)/build/$(PROGRAM)-asan
CC := gcc
CFLAGS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
LINK := -static-libasan -static-libubsan -pthread
else
OUT ?= $(ROOT)/build/$(PROGRAM)
CC := $(if $(MUSL),musl-gcc -idirafter /usr/include -idirafter $(ARCH_INCLUDE),gcc)
HARDEN := -fstack-protector-strong -fno-strict-aliasing -D_FORTIFY_SOURCE=$(if $(MUSL),0,2)
LINK := -static -s -pthread
endif
ALL := $(SOURCES) $(wildcard $(LAYERS)/*.c)

$(OUT)/$(NAME): $(ALL) $(wildcard *.h $(LAYERS)/*.h) Makefile $(LAYERS)/program.mk
	@mkdir -p $(OUT)
	$(CC) $(CFLAGS) $(WARN) $(HARDEN) -I$(LAYERS) $(LINK) -o $@.tmp $(ALL)
	mv $@.tmp $@

.PHONY: clean
clean:
	rm -f $(OUT)/$(NAME)
