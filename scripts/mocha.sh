#!/bin/sh
# Runs one mocha suite: unit (beside the code), integration or e2e (real kernel, root), or the files given after it.
set -eu
cd "$(dirname "$0")/.."
suite=$1
shift
case $suite in
unit) files="src/**/*.test.ts" ;;
integration) files="test/integration/**/*.test.ts" ;;
e2e) files="test/e2e/**/*.test.ts" ;;
*)
    echo "unknown suite \"$suite\": unit, integration or e2e" >&2
    exit 2
    ;;
esac
[ $# -gt 0 ] || set -- "$files"
exec node node_modules/mocha/bin/mocha.js "$@"
