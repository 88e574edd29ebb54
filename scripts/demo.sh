#!/bin/sh
# `npm run demo`: sets up a fresh clone (Node.js, npm and a C compiler are all it needs), then runs the demo.
set -eu
cd "$(dirname "$0")/.."
command -v "${CC:-cc}" >/dev/null 2>&1 || {
    echo "A C compiler is needed and was not found (Debian: gcc and libc6-dev)." >&2
    exit 1
}
sh scripts/setup.sh
exec node --import=tsx scripts/demo/demo.ts
