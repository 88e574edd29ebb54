# Sourced by scripts that need system packages. One table: group, Debian package, a command that succeeds when it is
# there, and what it is for. Installing is always said out loud; where it may not be done, the missing ones are listed
# with their reasons and the script ends.

packages_table() {
    cat <<'TABLE'
build|gcc|command -v cc|compiles the native shim
build|libc6-dev|test -e /usr/include/linux/mount.h|C library and kernel headers for the shim
test|make|command -v make|builds the native shim and its tests
test|musl-tools|command -v musl-gcc|links the shim against musl, so that it stays small
test|busybox-static|test -x /bin/busybox|the program inside test images
test|iproute2|command -v ip|tests look at links, addresses and routes with it
test|iptables|command -v iptables|CNI's bridge and portmap plugins call it
test|containernetworking-plugins|test -x /usr/lib/cni/bridge|the CNI suite runs the real plugins
test|docker-registry|command -v docker-registry|pulls are tested against a real registry
test|ca-certificates|test -d /etc/ssl/certs|TLS to registries
test|openssl|command -v openssl|makes the registry's test certificates
test|criu|command -v criu|checkpoints are made with it, where it works on the kernel
test|libseccomp2|ls /usr/lib/*/libseccomp.so.2|seccomp programs are compared with its output
test|skopeo|command -v skopeo|writes archives that imports are tried with
test|uidmap|command -v newuidmap|tests run the agent as an ordinary user with subordinate ids
test|passt|command -v pasta|pods of an ordinary user reach other hosts by it
test|slirp4netns|command -v slirp4netns|the same, where pasta is not to be had
test|umoci|command -v umoci|unpacks images beside our unpacker
check|clang-format|command -v clang-format|checks the layout of the C sources
vm|qemu-system-x86|command -v qemu-system-x86_64|boots the cgroup v2 test machine
vm|cpio|command -v cpio|packs the test machine's first file system
vm|e2fsprogs|command -v mke2fs|writes the test machine's disk
conformance|golang-go|command -v go|builds crictl and critest
bench|containerd|command -v containerd|the peer that pods are measured against
bench|runc|command -v runc|the peer's runtime
TABLE
}

# ensure_packages GROUP...: installs what is missing, or lists it and returns 1.
ensure_packages() {
    missing=
    for group in "$@"; do
        while IFS='|' read -r of package probe _; do
            [ "$of" = "$group" ] || continue
            sh -c "$probe" >/dev/null 2>&1 || missing="$missing $package"
        done <<TABLE
$(packages_table)
TABLE
    done
    [ -n "$missing" ] || return 0
    if [ "${BERTH_NO_INSTALL:-}" = 1 ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "These system packages are missing and may not be installed from here" >&2
        echo "(needs root, apt-get, and BERTH_NO_INSTALL not set to 1):" >&2
        list_packages $missing >&2
        return 1
    fi
    echo "Installing system packages:"
    list_packages $missing
    export DEBIAN_FRONTEND=noninteractive
    # An old package list names files that are gone, so a failure is tried once more with a fresh one.
    apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 && return 0
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

list_packages() {
    for wanted in "$@"; do
        packages_table | while IFS='|' read -r _ package _ reason; do
            [ "$package" = "$wanted" ] && printf '  %-28s %s\n' "$package" "$reason"
        done
    done
    return 0
}
