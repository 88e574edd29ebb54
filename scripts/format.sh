#!/bin/sh
# Rewrites every source file in the project's layout.
set -eu
cd "$(dirname "$0")/.."
node_modules/.bin/prettier --write --log-level warn .
files=$(git ls-files '*.c' '*.h')
[ -z "$files" ] || clang-format -i $files
