#!/bin/sh
# Builds the native programs into build/: the shim, the helpers for layers, and the demo's hello. With make where it is
# there; a machine that has only a C compiler gets the same sources compiled in one go.
set -eu
cd "$(dirname "$0")/.."
CC=${CC:-cc}
version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' package.json)

# compile OUTPUT SOURCE_DIR...: only when a source is newer than the output.
compile() {
    output=$1
    shift
    [ -n "$(find "$@" -maxdepth 1 -name '*.[ch]' -newer "$output" 2>/dev/null || echo new)" ] || return 0
    mkdir -p "$(dirname "$output")"
    echo "Compiling $output"
    for dir in "$@"; do
        set -- "$@" "-I$dir" "$dir"/*.c
        shift
    done
    "$CC" -O2 -std=gnu11 -D_GNU_SOURCE "-DBERTH_VERSION=\"$version\"" -static -s -w -o "$output.new" "$@"
    mv "$output.new" "$output"
}

if command -v make >/dev/null 2>&1 && command -v gcc >/dev/null 2>&1; then
    make --silent -C src/native/shim
    make --silent -C src/native/unpack
    make --silent -C src/native/remap
else
    compile build/shim/berth-shim src/native/shim
    compile build/unpack/berth-unpack src/native/unpack src/native/layers
    compile build/remap/berth-remap src/native/remap src/native/layers
fi
compile build/demo/hello scripts/demo
