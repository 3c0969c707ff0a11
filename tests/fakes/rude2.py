"""A stand-in for HTTP/2 servers that break off, in the manners that the test names.

``well`` is a short completion; ``reset`` RST_STREAM before an answer, ``cut`` after its head and a
piece; ``refused`` RST_STREAM with REFUSED_STREAM; ``goaway`` a GOAWAY that names no stream, so that
nothing of the request was done; ``leaving`` a GOAWAY for all later streams, then the whole answer;
``close`` the connection is closed; ``garbage`` bytes that are no HTTP/2.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from types import TracebackType

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded
from hyperframe.frame import GoAwayFrame

__all__ = ["Rude2"]

COMPLETION = {
    "model": "tiny",
    "choices": [{"message": {"content": "words"}, "finish_reason": "length"}],
    "usage": {"completion_tokens": 4},
}


class Rude2:
    """A server on a port of its own; the manners come in turn, the last one ever after.

    ``requests`` are the names of the requests whose bodies it read, ``connections`` how many it
    accepted.
    """

    def __init__(self, *manners: str) -> None:
        self.requests: list[str] = []
        self.connections = 0
        self._manners = manners
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Rude2:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        http.initiate_connection()
        names: dict[int, str] = {}
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                for event in http.receive_data(data):
                    if isinstance(event, RequestReceived):
                        head = {str(key): str(value) for key, value in event.headers or ()}
                        names[event.stream_id or 0] = head["x-request-id"]
                    elif isinstance(event, DataReceived):
                        size, number = event.flow_controlled_length or 0, event.stream_id or 0
                        http.acknowledge_received_data(size, number)
                    elif isinstance(event, StreamEnded):
                        number = event.stream_id or 0
                        if not self._answer(connection, http, number, names[number]):
                            # by a FIN: with bytes of the client unread it would be a RST
                            connection.shutdown(socket.SHUT_WR)
                            while connection.recv(65536):
                                pass
                            return
                connection.sendall(http.data_to_send())

    def _answer(
        self, connection: socket.socket, http: H2Connection, number: int, name: str
    ) -> bool:
        """Answer a request; whether the connection goes on."""
        with self._lock:
            manner = self._manners[min(len(self.requests), len(self._manners) - 1)]
            self.requests.append(name)
        connection.sendall(http.data_to_send())
        if manner in {"goaway", "leaving"}:
            frame = GoAwayFrame(0)
            frame.last_stream_id = 0 if manner == "goaway" else 2**31 - 1
            connection.sendall(frame.serialize())
        if manner == "garbage":
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        if manner in {"well", "leaving"}:
            http.send_headers(number, [(":status", "200"), ("content-type", "application/json")])
            http.send_data(number, json.dumps(COMPLETION).encode(), end_stream=True)
        elif manner == "cut":
            http.send_headers(number, [(":status", "200"), ("content-type", "application/json")])
            http.send_data(number, b"{")
            http.reset_stream(number, ErrorCodes.INTERNAL_ERROR)
        elif manner in {"reset", "refused"}:
            refused = manner == "refused"
            code = ErrorCodes.REFUSED_STREAM if refused else ErrorCodes.INTERNAL_ERROR
            http.reset_stream(number, code)
        connection.sendall(http.data_to_send())
        return manner in {"well", "leaving", "cut", "reset", "refused"}
