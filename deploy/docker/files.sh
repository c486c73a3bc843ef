#!/usr/bin/env bash
# Gathers what is in the image below a new directory: the program, the libraries that the dynamic linker loads for it
# with that linker itself, and the licences of all of them. Name service needs no more: since glibc 2.34 what reads
# /etc/hosts and what asks DNS are in libc itself. Nor are there directories to mount upon: a runtime makes them.
#
# usage: files.sh PROGRAM DIRECTORY
set -euo pipefail

program=$1
directory=$2

die() {
    printf 'files: %s\n' "$*" >&2
    exit 1
}

# put MODE FILE PATH: copies FILE to PATH in the image.
put() { install -D --mode "$1" -- "$2" "$directory$3"; }

# The Debian package that a file came with; its list may have it without the /usr that /lib is a link to.
package_of() { { dpkg-query --search "$1" "/usr$1" 2>/dev/null || true; } | sed -n '1s/:.*//p'; }

[[ ! -e $directory ]] || die "$directory exists already, and its content would be in the image"
# Every shared object by its path, the linker included; linux-vdso.so.1 is the kernel's and has none.
libraries=$(ldd -- "$program" | grep --only-matching --extended-regexp '/[^ ]+') || die "$program has no libraries"

put 755 "$program" /flocker-csi
put 644 "$(dirname -- "$0")/../../LICENSE" /usr/share/doc/flocker-csi/copyright
while read -r library; do
    put 755 "$library" "$library"
    package=$(package_of "$library")
    [[ $package != "" ]] || die "$library is of no Debian package, so that its licence cannot be found"
    copyright=/usr/share/doc/$package/copyright
    put 644 "$copyright" "$copyright"
    # The package's file says where the texts of licences are.
    grep --only-matching --extended-regexp '/usr/share/common-licenses/[A-Za-z]+-[0-9.]*[0-9]' "$copyright" || true
done <<<"$libraries" | sort --unique | while read -r licence; do
    put 644 "$licence" "$licence"
done
