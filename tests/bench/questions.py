"""What the agent asks engines in a minute, over plain sockets, answers thrown away. On the host.

    questions.py TICKS PORT…

Prints the CPU seconds that it took: nobody who asks as much in Python takes less.
"""

from __future__ import annotations

import socket
import sys
import time

PATHS = ("/health", "/v1/models", "/metrics")


def ask(port: int, path: str) -> int:
    """The bytes of one answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        size = 0
        while data := one.recv(65536):
            size += len(data)
        return size


def main() -> None:
    """Ask, and print."""
    ticks, *ports = map(int, sys.argv[1:])
    began = time.process_time()
    for _ in range(ticks):
        for port in ports:
            for path in PATHS:
                ask(port, path)
    print(time.process_time() - began)


if __name__ == "__main__":
    main()
