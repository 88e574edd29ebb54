#!/bin/sh
# Makes a fresh clone ready: npm dependencies when they are not those of package-lock.json, then the build.
set -eu
cd "$(dirname "$0")/.."

need() {
    command -v "$1" >/dev/null 2>&1 && return
    echo "$1 is needed and was not found: $2" >&2
    exit 1
}
need node "install Node.js 20.11 or newer"
need npm "it comes with Node.js, or as Debian's package npm"

mark=node_modules/.berth-lock
if [ ! -d node_modules ]; then
    echo "Installing npm dependencies (npm ci)"
    npm ci --silent --no-audit --no-fund
    cp package-lock.json "$mark"
elif ! cmp -s package-lock.json "$mark"; then
    # In place, so that programs that run from here meanwhile keep their modules.
    echo "Bringing npm dependencies up to date (npm install)"
    npm install --silent --no-save --no-audit --no-fund
    cp package-lock.json "$mark"
fi
sh scripts/build.sh
