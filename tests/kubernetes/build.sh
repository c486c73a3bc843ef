#!/usr/bin/env bash
# Builds what the cluster of run.sh is made of: Kubernetes and the sidecars, from their Go modules at pinned versions.
# A module is built again only when its go.mod has changed. The first build takes half an hour and 8 GB of Go's cache.
#
# usage: build.sh DIRECTORY
# shellcheck source=tests/tools/lib.sh
. "$(dirname -- "$0")/../tools/lib.sh"

# The programs are built from within their modules.
directory=$(realpath --canonicalize-missing -- "$1")
modules=$ROOT/tests/kubernetes/modules

# version MODULE REQUIREMENT: the version that a go.mod requires.
version() { (cd "$modules/$1" && GOWORK=off go list -m -f '{{.Version}}' "$2"); }

# build MODULE FLAGS PROGRAM...: builds the programs one by one, so that the output shows progress.
build() {
    local module=$1 flags=$2 program began
    shift 2
    for program in "$@"; do
        local name=${program##*/}
        local stamp=$directory/.$name
        if [[ -x $directory/$name ]] && cmp --quiet "$modules/$module/go.mod" "$stamp"; then
            say "kubernetes: $name exists"
            continue
        fi
        began=$SECONDS
        say "kubernetes: building $name"
        # Static, so that the images need nothing else.
        (cd "$modules/$module" && GOWORK=off GOFLAGS=-buildvcs=false CGO_ENABLED=0 \
            go build -trimpath -ldflags "-s -w $flags" -o "$directory/$name" "$program")
        cp "$modules/$module/go.mod" "$stamp"
        say "kubernetes: built $name in $((SECONDS - began)) s"
    done
}

command -v go >/dev/null || die "Go is missing (1.26); see https://go.dev/doc/install"
mkdir -p "$directory"
kubernetes=$(version cluster k8s.io/kubernetes)
# Without it the server has no version that a client could read.
build cluster "-X k8s.io/component-base/version.gitVersion=$kubernetes" \
    k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kubectl}
build external-attacher "-X main.version=$(version external-attacher github.com/kubernetes-csi/external-attacher/v4)" \
    github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher
build external-provisioner "-X main.version=$(version external-provisioner github.com/kubernetes-csi/external-provisioner/v6)" \
    github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner
