#!/usr/bin/env bash
# `npm run test:conformance`: runs critest, the CRI's own conformance tests, against an agent, with stand-in images from
# a local registry. Arguments are passed on to critest (for instance --ginkgo.focus=REGEX). Specs of
# test/conformance/later.txt are left out unless BERTH_CONFORMANCE_ALL=1.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/packages.sh
. scripts/packages.sh
release=v1.36.0
out=$PWD/build/conformance
mkdir -p "$out"

ensure_packages build test conformance
sh scripts/setup.sh

# go_is_new_enough GOMOD: the module says which Go it needs.
go_is_new_enough() {
    local need have
    need=$(sed -n 's/^go //p' "$1")
    have=$(go env GOVERSION | sed 's/^go//')
    [ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -1)" = "$need" ] && return
    echo "critest $release needs Go $need, this is $have: the conformance tests are skipped."
    return 1
}

# Built in the module itself: "go install path@version" would ask for a list of versions that nobody needs.
build_tools() {
    [ "$(cat "$out/release" 2>/dev/null)" != "$release" ] || return 0
    local module
    module=$(cd "$out" && go mod download -json "sigs.k8s.io/cri-tools@$release" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
    go_is_new_enough "$module/go.mod" || return 1
    echo "Building crictl and critest $release"
    (cd "$module" && go build -trimpath -o "$out/crictl" ./cmd/crictl && go test -c -trimpath -o "$out/critest" ./cmd/critest)
    echo "$release" >"$out/release"
}

free_port() {
    node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })'
}

skip_conformance() {
    [ -z "${BERTH_TEST_TOTALS:-}" ] ||
        echo '{"suite":"conformance","passed":0,"failed":0,"skipped":1}' >>"$BERTH_TEST_TOTALS"
    echo '0 passed, 0 failed, 1 skipped'
    exit 0
}
build_tools || skip_conformance

# Short: the shims' sockets lie below it.
dir=$(mktemp -d "${TMPDIR:-/tmp}/bt-XXXXXX")
registry_pid= agent_pid=
stop() {
    local status=$?
    trap - EXIT
    if [ -n "$agent_pid" ]; then
        "$out/crictl" -r "unix://$dir/s/berth.sock" rmp -fa >/dev/null 2>&1 || true
        kill "$agent_pid" 2>/dev/null || true
        wait "$agent_pid" 2>/dev/null || true
    fi
    [ -z "$registry_pid" ] || kill "$registry_pid" 2>/dev/null || true
    for group in /sys/fs/cgroup/*/berth-conf-$$ /sys/fs/cgroup/berth-conf-$$; do
        [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} +
    done
    rm -rf "$dir"
    exit "$status"
}
trap stop EXIT
trap 'exit 143' INT TERM

port=$(free_port)
printf 'version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: 127.0.0.1:%s\nlog:\n  level: error\n' \
    "$dir/registry" "$port" >"$dir/registry.yml"
docker-registry serve "$dir/registry.yml" >"$dir/registry.log" 2>&1 &
registry_pid=$!
node --import=tsx test/conformance/images.ts "127.0.0.1:$port" "$dir/images" >"$out/images.log" 2>&1 || {
    tail -20 "$out/images.log"
    exit 1
}
for host in registry.k8s.io k8s.gcr.io gcr.io docker.io public.ecr.aws; do
    mkdir -p "$dir/certs.d/$host"
    echo "server = \"http://127.0.0.1:$port\"" >"$dir/certs.d/$host/hosts.toml"
done

mkdir "$dir/cni"
: >"$dir/config.toml"
export BERTH_CONFIG=$dir/config.toml BERTH_ROOT=$dir/root BERTH_STATE=$dir/s BERTH_NETWORK_CNI_CONF_DIR=$dir/cni \
    BERTH_NETWORK_NETNS_DIR=$dir/netns BERTH_NETWORK_BRIDGE=btconf0 BERTH_NETWORK_SUBNETS=10.251.0.0/24 \
    BERTH_CGROUP_PARENT=/berth-conf-$$ BERTH_IMAGES_CERTS_DIR=$dir/certs.d BERTH_LOG_FORMAT=text \
    BERTH_NRI_SOCKET_PATH=$dir/nri/nri.sock BERTH_NRI_PLUGIN_PATH=$dir/nri/plugins
bin/berth serve >"$out/agent.log" 2>&1 &
agent_pid=$!
for _ in $(seq 100); do [ -S "$dir/s/berth.sock" ] && break || sleep 0.1; done

skip=()
if [ "${BERTH_CONFORMANCE_ALL:-}" != 1 ]; then
    skip=("--ginkgo.skip=$(grep -v -e '^#' -e '^$' test/conformance/later.txt | paste -sd '|')")
fi
# Releases after 1.36 have cases of their own for node plugins.
nri=()
if "$out/critest" -help 2>&1 | grep -q nri-socket; then nri=(-nri-socket "$dir/nri/nri.sock"); fi
status=0
"$out/critest" --runtime-endpoint "unix://$dir/s/berth.sock" --image-endpoint "unix://$dir/s/berth.sock" \
    --ginkgo.no-color --ginkgo.succinct --ginkgo.json-report "$out/report.json" "${skip[@]}" "${nri[@]}" "$@" >"$out/critest.log" 2>&1 || status=$?
node scripts/conformance-report.mjs "$out/report.json" || status=$?
[ "$status" = 0 ] || echo "The whole output is in $out/critest.log, the agent's in $out/agent.log."
exit "$status"
