#!/bin/sh
# `npm test`: sets up whatever is missing, then runs every suite, or only those named: unit, integration, e2e.
# Prints one table of counts and `N passed, N failed, N skipped`; exits 1 when anything failed.
set -u
cd "$(dirname "$0")/.." || exit 1
. scripts/packages.sh

if [ "$(id -u)" != 0 ]; then
    echo "The tests make namespaces, mounts and cgroups: run them as root." >&2
    exit 1
fi
ensure_packages build test || exit 1
sh scripts/setup.sh || exit 1

[ $# -gt 0 ] || set -- unit integration e2e
summary=$(mktemp)
trap 'rm -f "$summary"' EXIT
status=0
for suite in "$@"; do
    echo
    echo "== $suite"
    before=$(wc -l <"$summary")
    BERTH_TEST_SUITE=$suite BERTH_TEST_SUMMARY=$summary sh scripts/mocha.sh "$suite" || status=1
    # A suite that died before its end left no counts: it failed.
    [ "$(wc -l <"$summary")" -gt "$before" ] ||
        echo "{\"suite\":\"$suite\",\"passed\":0,\"failed\":1,\"skipped\":0}" >>"$summary"
done
echo
# A caller that sums up several runs gets our lines instead of our closing line.
[ -z "${BERTH_TEST_TOTALS:-}" ] || cat "$summary" >>"$BERTH_TEST_TOTALS"
node scripts/sum-tests.mjs "$summary" ${BERTH_TEST_TOTALS:+tests} || status=1
exit $status
