#!/usr/bin/env bash
# Installs the Debian packages that building, running and testing need. It checks for the programs and files that are
# used, not for the packages, so it does nothing on a machine that has them from another source.
#
# usage: setup.sh build|fuzz|image|kubernetes|test
set -euo pipefail

say() { printf '%s\n' "$@"; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# A package is missing when the command that uses it fails.
missing=()
wants() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

command_for() { PATH=$PATH:/usr/sbin:/sbin command -v "$1"; }

# wants_rust COMPONENT COMMAND...
wants_rust() {
    local component=$1
    shift
    "$@" >/dev/null 2>&1 || die "$component is missing: rustup component add $component"
}

# OpenSSL is built from its sources, whose configuration is written in Perl.
for_build() {
    wants ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
    wants gcc command_for cc
    wants libc6-dev test -e /usr/include/stdlib.h
    wants make command_for make
    wants perl perl -MFindBin -MIPC::Cmd -MTime::Piece -MFile::Compare -e 1
    wants e2fsprogs command_for mkfs.ext4
    wants mount command_for mount
    wants mount command_for losetup
    command_for cargo >/dev/null || die "Rust is missing; see https://rustup.rs"
}

# The engine is written in C++.
for_fuzz() {
    for_build
    wants g++ command_for c++
}

for_image() {
    for_build
    wants git command_for git
    wants buildah command_for buildah
}

for_test() {
    for_build
    wants iproute2 command_for ip
    wants util-linux command_for unshare
    wants procps command_for ps
    wants diffutils command_for diff
    wants curl command_for curl
    wants jq command_for jq
    wants groff-base command_for groff
    wants git command_for git
    wants python3 command_for python3
    wants python3-venv python3 -c 'import venv, ensurepip'
    wants shellcheck command_for shellcheck
    # Scores the units of deploy/; it does not have to be what runs this machine.
    wants systemd command_for systemd-analyze
    wants_rust clippy cargo clippy --version
    wants_rust rustfmt cargo fmt --version
    command_for go >/dev/null || die "Go is missing (1.26 or newer); see https://go.dev/doc/install"
}

# The run starts containerd and etcd itself. Where systemd runs, Debian starts services of both with their packages.
for_kubernetes() {
    for_image
    wants etcd-server command_for etcd
    wants containerd command_for containerd
    wants runc command_for runc
    wants busybox-static command_for busybox
    wants openssl command_for openssl
    wants iproute2 command_for ip
    wants util-linux command_for nsenter
    wants python3 command_for python3
    command_for go >/dev/null || die "Go is missing (1.26); see https://go.dev/doc/install"
}

install() {
    local as_root=()
    command_for apt-get >/dev/null ||
        die "these are missing and there is no apt-get to install them: ${missing[*]}"
    if [[ $(id -u) != 0 ]]; then
        command_for sudo >/dev/null || die "these are missing; install them as root: ${missing[*]}"
        as_root=(sudo)
    fi
    say "setup: installing ${missing[*]}"
    "${as_root[@]}" apt-get update --quiet=2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" >/dev/null
}

case ${1:-} in
build) for_build ;;
fuzz) for_fuzz ;;
image) for_image ;;
kubernetes) for_kubernetes ;;
test) for_test ;;
*) die "usage: $(basename -- "$0") build|fuzz|image|kubernetes|test" ;;
esac
if ((${#missing[@]} == 0)); then
    say "setup: all system packages are installed"
else
    install
fi
