"""A name server for one name: says that it is at 127.0.0.1, and that there is no other name.

Each question is printed, so that a test can check which questions were asked.

usage: dns.py ADDRESS:PORT NAME
"""

import socketserver
import sys

A, IN = 1, 1
ANSWER, NO_SUCH_NAME = 0x8180, 0x8183  # a response, recursion desired and available
# The name of the question, type, class, a minute to live, four bytes of address.
RECORD = b"\xc0\x0c" + bytes([0, A, 0, IN]) + (60).to_bytes(4, "big") + b"\x00\x04" + bytes([127, 0, 0, 1])


def answer(query: bytes, name: str) -> tuple[str, bytes]:
    """Returns the question as text, and the answer to it."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    kind = int.from_bytes(query[at + 1 : at + 3], "big")
    asked = ".".join(labels).lower()
    records = [RECORD] if asked == name and kind == A else []
    flags = ANSWER if asked == name else NO_SUCH_NAME
    counts = [1, len(records), 0, 0]
    header = query[:2] + b"".join(number.to_bytes(2, "big") for number in [flags, *counts])
    return f"{asked} {kind}", header + query[12 : at + 5] + b"".join(records)


class Question(socketserver.BaseRequestHandler):
    """One datagram."""

    def handle(self) -> None:
        query, client = self.request
        asked, reply = answer(query, sys.argv[2])
        print("asked:", asked, flush=True)
        client.sendto(reply, self.client_address)


def main() -> int:
    """Answers queries until the process is stopped."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    host, _, port = sys.argv[1].rpartition(":")
    with socketserver.UDPServer((host, int(port)), Question) as server:
        print("ready", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
