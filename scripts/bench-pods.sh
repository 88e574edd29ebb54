#!/bin/sh
# `npm run bench:pods`: sets up what is missing, then measures pods beside containerd's.
set -eu
cd "$(dirname "$0")/.."
. scripts/packages.sh
ensure_packages build test bench
sh scripts/setup.sh
exec node --import=tsx test/bench/pods.ts "$@"
