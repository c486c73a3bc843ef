#!/usr/bin/env python3
"""Writes an image of one layer, from scratch, without any tool to build images: for what the tests run in containers.

The archive is an OCI image layout that also has Docker's manifest.json, so that `ctr images import`, `docker load`,
podman and skopeo read it alike. The same input gives the same bytes: entries are sorted, belong to 0:0 and bear one date.

usage: oci.py ARCHIVE NAME:TAG [--file PATH=SOURCE]... [--link PATH=TARGET]... [--directory PATH]... -- ENTRYPOINT...
"""

import argparse
import hashlib
import io
import json
import platform
import sys
import tarfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

# A path in the image; its content: a file to copy, the target of a symbolic link, or None for a directory; its mode.
Entry = tuple[str, Path | str | None, int]


def write_archive(
    path: Path,
    name: str,
    files: Iterable[Entry],
    entrypoint: Sequence[str],
    *,
    user: str = "",
    env: Sequence[str] = (),
    labels: dict[str, str] | None = None,
    epoch: int = 0,
) -> str:
    """Writes the image `name` ("REPOSITORY:TAG") to `path` and returns the digest of its manifest.

    Directories that lead to an entry are made with mode 0755. `epoch` is the one date in it, in seconds since 1970.
    """
    blobs: dict[str, bytes] = {}

    def blob(kind: str, content: bytes) -> dict[str, str | int]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    def blob_path(descriptor: dict[str, str | int]) -> str:
        return f"blobs/{descriptor['digest']}".replace(":", "/")

    # Not compressed: then the layer's digest is also its diff_id, and no version of zlib changes it.
    layer = blob(LAYER, tar(files, epoch))
    config = blob(
        CONFIG,
        encode(
            {
                "created": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "architecture": ARCHITECTURES[platform.machine()],
                "os": "linux",
                "config": {"Entrypoint": list(entrypoint), "Env": list(env), "User": user, "Labels": labels or {}},
                "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
            }
        ),
    )
    manifest = blob(MANIFEST, encode({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}))
    # containerd takes the whole name from its own annotation; the other one is a tag to everybody else.
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    archive = {
        "oci-layout": encode({"imageLayoutVersion": "1.0.0"}),
        "index.json": encode({"schemaVersion": 2, "manifests": [manifest | {"annotations": annotations}]}),
        "manifest.json": encode([{"Config": blob_path(config), "RepoTags": [name], "Layers": [blob_path(layer)]}]),
    }
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as target:
        for member, content in (archive | dict(sorted(blobs.items()))).items():
            add(target, member, 0o644, epoch, content=content)
    return str(manifest["digest"])


def tar(files: Iterable[Entry], epoch: int) -> bytes:
    """Returns the layer that has these entries and the directories that lead to them."""
    entries: dict[str, tuple[Path | str | None, int]] = {}
    for path, source, mode in files:
        inside = PurePosixPath(path.lstrip("/"))
        for parent in inside.parents:
            entries.setdefault(str(parent), (None, 0o755))
        entries[str(inside)] = (source, mode)
    entries.pop(".", None)
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.GNU_FORMAT) as target:
        for path, (source, mode) in sorted(entries.items()):
            match source:
                case None:
                    add(target, path, mode, epoch, kind=tarfile.DIRTYPE)
                case str():
                    add(target, path, 0o777, epoch, kind=tarfile.SYMTYPE, link=source)
                case _:
                    add(target, path, mode, epoch, content=source.read_bytes())
    return layer.getvalue()


def add(
    target: tarfile.TarFile,
    path: str,
    mode: int,
    epoch: int,
    *,
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    content: bytes = b"",
) -> None:
    """Appends one member that belongs to 0:0, without the names that these numbers have on this machine."""
    member = tarfile.TarInfo(path)
    member.type, member.mode, member.mtime, member.linkname, member.size = kind, mode, epoch, link, len(content)
    target.addfile(member, io.BytesIO(content))


def encode(value: object) -> bytes:
    """Returns JSON that is the same for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def main() -> int:
    """Writes the archive that the command line describes, and prints its name, digest and size."""

    def pair(text: str) -> tuple[str, str]:
        path, separator, value = text.partition("=")
        if not (path and separator and value):
            raise argparse.ArgumentTypeError(f"{text!r} is not PATH=VALUE")
        return path, value

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("name", help="the whole name with a tag: registry.invalid/pause:1")
    parser.add_argument("--file", type=pair, action="append", default=[], metavar="PATH=SOURCE")
    parser.add_argument("--link", type=pair, action="append", default=[], metavar="PATH=TARGET")
    parser.add_argument("--directory", action="append", default=[], metavar="PATH")
    parser.add_argument("--user", default="")
    parser.add_argument("entrypoint", nargs="+")
    options = parser.parse_args()
    files: list[Entry] = [(path, None, 0o755) for path in options.directory]
    files += [(path, Path(source), 0o755) for path, source in options.file]
    files += [(path, target, 0o777) for path, target in options.link]
    digest = write_archive(options.archive, options.name, files, options.entrypoint, user=options.user)
    print(f"{options.name} {digest} {options.archive.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
