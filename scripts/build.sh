#!/bin/sh
# Builds everything that runs: dist/ from TypeScript, and the native programs.
set -eu
cd "$(dirname "$0")/.."
node node_modules/typescript/bin/tsc -p tsconfig.build.json
sh scripts/build-native.sh
