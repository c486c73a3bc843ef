#!/usr/bin/env bash
# Makes the image of what files.sh has gathered with buildah, which needs no daemon: the same files give the same digest.
#
# usage: SOURCE_DATE_EPOCH=SECONDS image.sh FILES NAME:TAG ARCHIVE
# ARCHIVE is an OCI archive: skopeo copy and ctr images import read it.
set -euo pipefail

files=$1
name=$2
archive=$3

# What buildah keeps is of use to this run only.
work=$(mktemp --directory --suffix=.flocker-csi)
trap 'rm -rf -- "$work"' EXIT
buildah() { command buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }

# No date in the image is another than that one, and no label has the version of buildah.
buildah build --isolation chroot --format oci --timestamp "$SOURCE_DATE_EPOCH" --identity-label=false \
    --file "$(dirname -- "$0")/Dockerfile" --build-arg FILES=gathered --tag "$name" -- "$files" >"$work/log" 2>&1 ||
    { cat "$work/log" >&2 && exit 1; }
rm -f -- "$archive"
buildah push --quiet --digestfile "$work/digest" "$name" "oci-archive:$archive:$name"
printf 'image: %s@%s\n' "$name" "$(cat "$work/digest")"
printf 'image: %s, %s to download, %s on disk\n' "$archive" \
    "$(du --apparent-size --human-readable "$archive" | cut -f1)" \
    "$(du --apparent-size --human-readable --summarize "$files" | cut -f1)"
