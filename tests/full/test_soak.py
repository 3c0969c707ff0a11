"""Converges that change something, under clients of the real vLLM; then reboots (20 min)."""

from __future__ import annotations

import threading
from collections import Counter

from tests.roles.converging import Converge
from tests.roles.fleet import Fleet, until

ROUNDS = 15
REBOOTS = 8


class Clients:
    """Three clients that stream one answer after the other through a host's nginx."""

    def __init__(self, fleet: Fleet, host: str) -> None:
        self._fleet = fleet
        self._host = host
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._stream) for _ in range(3)]
        self.seen: Counter[str] = Counter()

    def _stream(self) -> None:
        while not self._end.is_set():
            try:
                answer = self._fleet.chat(self._host, stream=True, max_tokens=64)
                whole = answer.text.rstrip().endswith("data: [DONE]")
                self.seen["whole" if whole else f"{answer.status}, cut"] += 1
            except (OSError, ValueError) as error:
                self.seen[type(error).__name__] += 1

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_converges_cut_nothing(fleet: Fleet, converge: Converge) -> None:
    pid = fleet.unit("gpu01", "engine-tiny", "MainPID")
    with Clients(fleet, "gpu01") as clients:
        for number in range(ROUNDS):
            data = {"gpu01": {"nginx_max_body": f"{32 + number}m", "agent_tick": 2.0 + number}}
            run = converge(limit=["gpu01"], data=data)
            assert run.returncode == 0, run.last_words()
            assert run.changed("gpu01"), "every round changes nginx and the agent"
    assert clients.seen["whole"] > ROUNDS
    assert set(clients.seen) == {"whole"}, clients.seen
    assert fleet.unit("gpu01", "engine-tiny", "MainPID") == pid
    print(f"{clients.seen['whole']} streams, all whole, over {ROUNDS} converges")
    back = converge()
    assert back.returncode == 0, back.last_words()


def test_reboots_end_in_service(fleet: Fleet, converge: Converge) -> None:
    for _ in range(REBOOTS):
        fleet.lab.reboot("gpu03")
        until(lambda: fleet.ready("gpu03"), 180, "gpu03 serves again by itself")
        assert fleet.chat("gpu03").status == 200
    run = converge()
    assert run.returncode == 0, run.last_words()
    assert run.changed("gpu03") == []
