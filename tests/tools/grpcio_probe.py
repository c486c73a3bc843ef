"""Calls Probe and GetPluginInfo at a CSI endpoint through grpcio with no channel options.

The messages go as raw bytes, so that nothing needs to be generated: the requests are empty, and of the replies only
the fields that a person would read are checked.

usage: grpcio_probe.py unix:///abs/path
"""

import sys

import grpc

READY = b"\x0a\x02\x08\x01"  # field 1, a BoolValue of two bytes: field 1 = true
NAME = b"\x0a"  # field 1, a string


def call(channel: grpc.Channel, method: str) -> bytes:
    """Sends an empty message and returns the reply as it came."""
    rpc = channel.unary_unary(
        f"/csi.v1.Identity/{method}",
        request_serializer=lambda message: message,
        response_deserializer=lambda message: message,
    )
    return rpc(b"", timeout=10)


def plugin_name(reply: bytes) -> str:
    """Returns the name at the head of a GetPluginInfoResponse; it is shorter than 128 bytes."""
    if not reply.startswith(NAME):
        raise ValueError(f"GetPluginInfo answered {reply!r}, which does not begin with a name")
    return reply[2 : 2 + reply[1]].decode()


def main() -> int:
    """Prints a line per call and returns the exit code."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with grpc.insecure_channel(sys.argv[1]) as channel:
        try:
            reply = call(channel, "Probe")
            if reply != READY:
                raise ValueError(f"Probe answered {reply!r}, which is not ready = true")
            print(f"  ok      Probe: ready (grpcio {grpc.__version__})")
            print(f"  ok      GetPluginInfo: {plugin_name(call(channel, 'GetPluginInfo'))}")
        except (grpc.RpcError, ValueError) as error:
            print(f"  FAILED  {error}")
            print("0 passed, 1 failed")
            return 1
    print("2 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
