#!/bin/sh
# `npm run test:vm`: sets up what is missing, then runs the specs of test/vm/specs.json, or those named, in a virtual
# machine with cgroup v2. `--shell` opens a shell in that machine instead.
set -eu
cd "$(dirname "$0")/.."
. scripts/packages.sh
ensure_packages build test vm
sh scripts/setup.sh
exec node --import tsx scripts/vm/main.ts "$@"
