"""Ports for programs that cannot be told to pick one, or that must come back at the same one."""

import random
import socket

BELOW_OUTGOING = range(20_000, 32_000)
"""The system gives none of these to outgoing connections, so a port that is free stays so until it is listened to."""


def free_port() -> int:
    for port in random.sample(BELOW_OUTGOING, 100):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("a hundred ports are taken")
