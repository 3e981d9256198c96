#!/bin/sh
# Installs what this machine lacks for one purpose, with apt-get (Debian, Ubuntu).
#
#   scripts/setup.sh [build|deb|lint|demo|bench|test|kernels|programs]
#
# build   compile Beeline: clang, libelf and zlib headers, a C compiler for the vendored libbpf, Rust
# deb     build, and what makes a Debian package
# lint    build, and the formatters and checkers
# demo    build, and what makes the demo's networks
# bench   demo, and the programs that make loads
# test    bench, and more programs whose traffic the tests shorten
# kernels demo, and what boots other kernels with tests in them
# programs test, and the larger programs of `make test-programs`: databases, languages, OpenSSH
#
# It looks at programs, not at packages, and does nothing when all are there. It never calls sudo. Services that come
# with the packages are not started.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
policy=/usr/sbin/policy-rc.d
policy_mark="Made by Beeline's scripts/setup.sh for one installation; remove it if that is over."

die() {
    echo "setup: $*" >&2
    exit 1
}

# PROGRAM PACKAGE: the package is missing if the program is.
need() {
    command -v "$1" >/dev/null || missing="$missing $2"
}

# The package of CPython's own tests for the distribution's python3.
python_tests() {
    apt-cache show python3 2>/dev/null | sed -n 's/^Version: \([0-9]*\.[0-9]*\).*/libpython\1-testsuite/p' | head -1
}

known_to_apt() {
    [ -n "$(apt-cache search --names-only "^$1\$" 2>/dev/null)" ]
}

# The release of clang to install: 19, else the newest from 16 on.
clang_release() {
    releases=$(apt-cache search --names-only '^clang-[0-9]+$' 2>/dev/null | sed 's/^clang-\([0-9]*\).*/\1/')
    [ -n "$releases" ] || releases=19 # no package lists yet
    if echo "$releases" | grep -qx 19; then
        echo 19
        return
    fi
    newest=$(echo "$releases" | sort -n | tail -1)
    [ "$newest" -ge 16 ] ||
        die "the newest clang here is $newest, and BPF needs 16: install clang 16 to 19 (apt.llvm.org has it for
older releases) and set CLANG to its path"
    echo "$newest"
}

# Sets `missing`.
find_missing() {
    missing=

    if clang=$("$root/scripts/find-tool" clang 2>/dev/null); then
        release=$("$clang" -dumpversion | cut -d. -f1)
    elif [ -n "${CLANG:-}" ]; then
        die "CLANG=$CLANG is not a program"
    else
        release=$(clang_release)
        missing="$missing clang-$release"
    fi
    need gcc gcc
    need make make
    need pkg-config pkg-config
    printf '#include <stdio.h>\n' | gcc -E - >/dev/null 2>&1 || missing="$missing libc6-dev"
    pkg-config --exists libelf 2>/dev/null || missing="$missing libelf-dev"
    pkg-config --exists zlib 2>/dev/null || missing="$missing zlib1g-dev"
    if ! "$root/scripts/find-tool" cargo >/dev/null 2>&1 && known_to_apt rustup; then
        missing="$missing rustup"
    fi

    if [ "$purpose" = deb ]; then
        need dpkg-shlibdeps dpkg-dev
        need strip binutils
    fi

    if [ "$purpose" = lint ]; then
        "$root/scripts/find-tool" clang-format >/dev/null 2>&1 || missing="$missing clang-format-$release"
        need shellcheck shellcheck
        need python3 python3
    fi

    case "$purpose" in
        demo | bench | test | kernels | programs)
            need ip iproute2
            need nft nftables
            ;;
    esac

    if [ "$purpose" = kernels ]; then
        need qemu-system-x86_64 qemu-system-x86
        need cpio cpio
        need depmod kmod
        need xz xz-utils
        need zstd zstd
        need python3 python3
        busybox --list 2>/dev/null | grep -qx poweroff || missing="$missing busybox-static"
        [ -e /etc/protocols ] || missing="$missing netbase"
        [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
    fi

    if [ "$purpose" = programs ]; then
        need haproxy haproxy
        need memcached memcached
        need sshd openssh-server
        need ssh openssh-client
        need go golang-go
        need java default-jdk-headless
        need node nodejs
        /usr/bin/python3 -c 'import test.test_socket, test.test_asyncio' 2>/dev/null ||
            missing="$missing python3 $(python_tests)"
    fi

    case "$purpose" in
        bench | test | programs)
            need qperf qperf
            need iperf3 iperf3
            need redis-server redis-server
            need redis-cli redis-tools
            if ! command -v nginx >/dev/null; then
                if known_to_apt nginx-light; then missing="$missing nginx-light"; else missing="$missing nginx"; fi
            fi
            need wrk wrk
            # Debian keeps it out of the PATH.
            [ -n "$(find /usr/lib/postgresql -name postgres 2>/dev/null)" ] || missing="$missing postgresql"
            ;;
    esac

    if [ "$purpose" = test ] || [ "$purpose" = programs ]; then
        need iptables iptables
        need curl curl
        need pgrep procps
        need python3 python3
        need promtool prometheus
        need tcpdump tcpdump
        need podman podman
        command -v crun >/dev/null || need runc crun # podman has no runtime of its own
        command -v chromium-headless-shell >/dev/null || need chromium chromium-headless-shell
    fi
}

# Packages start their services when installed unless a policy forbids it; an administrator's own policy stays.
forbid_service_start() {
    if [ -e "$policy" ] && ! grep -qF "$policy_mark" "$policy"; then
        "$policy" nginx start >/dev/null 2>&1 && echo "setup: $policy lets services start; it decides, not this script"
        return 0
    fi
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\n# %s\nexit 101\n' "$policy_mark" >"$policy"
    chmod 755 "$policy"
}

install_missing() {
    command -v apt-get >/dev/null ||
        die "this script knows apt-get only; install what these Debian packages hold:$missing"
    if [ "$(id -u)" != 0 ]; then
        die "missing:$missing
Installing needs root:
    sudo apt-get update && sudo apt-get install --no-install-recommends$missing
or, without starting the services that come along:
    sudo scripts/setup.sh $purpose"
    fi
    apt-get update -q
    find_missing # names depend on the package lists
    echo "setup: installing$missing"
    forbid_service_start
    # shellcheck disable=SC2086 # a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
    find_missing
    [ -z "$missing" ] || die "installed, and still not found:$missing"
}

# cargo of rustup reads rust-toolchain.toml; any other must be new enough.
check_rust() {
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    advice="install rustup (https://rustup.rs, or your distribution's package); it reads rust-toolchain.toml"
    cargo=$("$root/scripts/find-tool" cargo 2>/dev/null) || die "no cargo: $advice"
    [ -x "$(dirname "$cargo")/rustup" ] && return
    found=$("$cargo" --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -1)" = "$wanted" ] ||
        die "$cargo is $found and Beeline needs $wanted: $advice"
}

purpose=${1:-build}
case "$purpose" in
    build | deb | lint | demo | bench | test | kernels | programs) ;;
    *) die "usage: setup.sh [build|deb|lint|demo|bench|test|kernels|programs]" ;;
esac
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where a user does not look, and nft and nginx are

find_missing
[ -z "$missing" ] || install_missing
check_rust
