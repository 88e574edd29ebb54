#!/bin/sh
# Every check that needs no kernel. All of them run; the names of those that failed come last.
set -u
cd "$(dirname "$0")/.." || exit 1
bin=node_modules/.bin
failed=

run() {
    name=$1
    shift
    echo "== $name"
    "$@" || failed="$failed, $name"
}

check_c_format() {
    command -v clang-format >/dev/null 2>&1 || {
        echo "clang-format is missing (Debian: clang-format); the C sources were not checked" >&2
        [ -z "${CI:-}" ]
        return
    }
    files=$(git ls-files '*.c' '*.h')
    [ -z "$files" ] || clang-format --dry-run --Werror $files
}

run types $bin/tsc --noEmit -p .
run lint $bin/eslint .
run format $bin/prettier --check --log-level warn .
run 'C format' check_c_format
run layers $bin/tsx scripts/check-layers.ts
run 'generated API code' $bin/tsx scripts/generate-api.ts --check
run 'generated configuration schema' $bin/tsx scripts/generate-schema.ts --check
[ -z "$failed" ] || {
    echo "failed: ${failed#, }" >&2
    exit 1
}
echo "all checks passed"
