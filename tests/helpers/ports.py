"""Ports for the servers that tests start."""

from __future__ import annotations

import os
import random
import socket

_FIRST, _SHARE = 20_000, 4_000
"""Below the ports that the kernel gives to clients (32768 and up), and a share for each process of the tests: nobody
else takes the port between the look and the server's start."""


def free_port(address: str = "127.0.0.1") -> int:
    """A port at which nobody listens by TCP or UDP. Raises OSError where there is none."""
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 3
    first = _FIRST + share * _SHARE
    for port in random.sample(range(first, first + _SHARE), 200):
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind((address, port))
        except OSError:
            continue
        return port
    raise OSError(f"no free port at {address} from {first} on")
