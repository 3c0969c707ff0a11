"""The host lets go of its GPUs, and takes them up again: what root does under a rollout's lease.

To let go: engines, then NVIDIA's services are stopped, the agent has no NVIDIA device open any
more, and for another driver the kernel's modules are unloaded if nobody has a GPU. What ran before
is noted first, durably and until the rollout is done here, so that taking up starts it again, also
after a reboot or a takeover, and what started and did not stay. Both can be done again after they
were killed at any line.

Modules that stay are no failure: a reboot exchanges them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from farrier_agent.control.again import Agent, ask_again
from farrier_agent.control.errors import ControlError
from farrier_agent.control.protocol import (
    Act,
    Entry,
    Failed,
    Final,
    LetGo,
    Nvml,
    TakenUp,
    encode,
)
from farrier_agent.control.running import agent_of
from farrier_agent.draining.leftovers import describe
from farrier_agent.rollout.deed import perform
from farrier_agent.rollout.gpu_holders import ended, holders, states, sys_root, systemctl
from farrier_agent.rollout.let_go_note import ENGINE, SERVICES, NoteFile
from farrier_agent.wording import printable

__all__ = ["let_go", "take_up"]

_STARTED = (*SERVICES[:3], *reversed(SERVICES[3:]))
"""The order in which they are started: persistenced makes the device nodes."""
_FABRIC = frozenset({"nvidia-fabricmanager.service", "nvlsm.service"})
_STOPPED: dict[str, frozenset[str]] = {
    "driver": frozenset(SERVICES),
    # the fabric has to stand while a GPU of it is reset, or diagnosed, which DCGM does
    "gpu-reset": frozenset(SERVICES) - _FABRIC,
    "gpu-diag": frozenset({"dcgm-exporter.service", "nvidia-dcgm-exporter.service"}),
}
_MODULES = ("nvidia_peermem", "nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia")
"""As they depend on each other."""
_UP = frozenset({"active", "activating", "reloading", "deactivating"})
_PATIENCE = 600.0
"""Seconds to wait for a deed under way: the same one, whose asker was cut off, as a rule."""
_RELEASED = 4 * 3600.0
"""Seconds after which the agent takes NVML up by itself, if nobody says so before."""
_UNLOADED = 60.0
"""Seconds that the kernel may take to unload modules."""
_LINE = 180


def let_go(arguments: argparse.Namespace) -> int:
    """Have nobody use the GPUs, if the token counts. Returns the exit code."""
    replicas = tuple(dict.fromkeys(arguments.replicas))

    def deed(final: Final, _: int) -> Final:
        it = _Work(arguments, getattr(final, "rollout", None))
        with it.told("let-go", replicas) as words:
            done = it.let_go(replicas)
            words.text = _in_words(done)
        return done

    act = Act(action="let-go", token=arguments.token, replicas=replicas, deed=arguments.deed)
    return perform(arguments, act, deed, patience=_PATIENCE)


def take_up(arguments: argparse.Namespace) -> int:
    """Start again what was stopped to let go, if the token counts. Returns the exit code."""
    replicas = tuple(dict.fromkeys(arguments.replicas))

    def deed(final: Final, _: int) -> Final:
        it = _Work(arguments, getattr(final, "rollout", None))
        with it.told("take-up", replicas) as words:
            done = it.take_up(replicas)
            failed = [f"{unit}: {why}" for unit, why in done.failed.items()]
            words.text = "; ".join([f"started {', '.join(done.started) or 'nothing'}", *failed])
            words.code = 1 if failed else 0
        return done

    act = Act(action="take-up", token=arguments.token, replicas=replicas)
    return perform(arguments, act, deed, patience=_PATIENCE)


@dataclass
class _Words:
    text: str = ""
    code: int = 0


class _Telling:
    """Tells the agent's audit how a deed ended."""

    def __init__(self, work: _Work, what: str, replicas: tuple[str, ...]) -> None:
        self._work, self._what, self._replicas = work, what, replicas
        self._words = _Words()

    def __enter__(self) -> _Words:
        return self._words

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        words = self._words
        if isinstance(error, ControlError):
            words.text, words.code = str(error), error.code
        elif error is not None:
            return
        with suppress(ControlError):  # it is in the reply, too
            told = Act(
                action="ended",
                token=self._work.token,
                replicas=self._replicas,
                command=printable(f"{self._what}: {words.text}")[:_LINE],
                code=words.code,
            )
            ask_again(self._work.agent, told)


class _Work:
    """What is done on this host, for *rollout*."""

    def __init__(self, arguments: argparse.Namespace, rollout: str | None) -> None:
        self.agent: Agent = agent_of(arguments)
        self.token: int = arguments.token
        self._rollout = rollout
        self._deed: str = getattr(arguments, "deed", "") or ""
        self._as_json: bool = arguments.json
        self._noted = NoteFile(arguments.note_dir)
        self._proc: Path = arguments.proc_dir
        self._dev: Path = arguments.dev_dir
        self._sys: Path = arguments.sys_dir or sys_root()

    def told(self, what: str, replicas: tuple[str, ...]) -> _Telling:
        """How *what* ends is told to the agent."""
        return _Telling(self, what, replicas)

    # -- letting go ------------------------------------------------------------------------------

    def let_go(self, replicas: Sequence[str]) -> LetGo:
        """Stop what has the GPUs. Raises ControlError."""
        engines = [f"engine-{name}.service" for name in replicas]
        services = [one for one in SERVICES if one in _STOPPED[self._deed]]
        active = states([*engines, *services])
        running = [one for one in (*engines, *services) if active.get(one) in _UP]
        noted = self._noted.units()
        stopped = tuple(dict.fromkeys((*noted, *running)))
        self._noted.keep(stopped, self._deed, self._rollout)
        if due := [one for one in engines if one in running]:
            self._stop(due)  # at the same time
        for one in services:
            if one in running:
                self._stop([one])
        self._release()
        left = holders(self._proc, self._dev)
        who = tuple(describe(pid, proc=self._proc) for pid in left[:20])
        if self._deed != "driver":
            return LetGo(stopped=stopped, holders=who)
        unloaded, why = self._unloaded(stopped, who)
        self._say(f"modules unloaded: {'yes' if unloaded else f'no: {why}'}")
        return LetGo(stopped=stopped, unloaded=unloaded, why=why, holders=who)

    def _stop(self, units: Sequence[str]) -> None:
        self._say(f"stopping {', '.join(units)}")
        if why := systemctl("stop", *units):
            raise ControlError(
                f"{', '.join(units)} could not be stopped: {why}",
                f"systemctl status {' '.join(units)}",
            )

    def _release(self) -> None:
        final = ask_again(self.agent, Nvml(action="release", seconds=_RELEASED))
        # 2: it does not read NVML
        if isinstance(final, Failed) and final.code != 2:
            raise ControlError(f"the agent does not let go of NVML: {final.error}", final.next)

    def _unloaded(self, noted: tuple[str, ...], holding: Sequence[str]) -> tuple[bool, str]:
        version = self._proc / "driver/nvidia/version"
        loaded = self._loaded()
        if not loaded and not version.exists():
            return False, "no driver is in this host's kernel"
        if holding:
            return False, f"{'; '.join(holding[:3])} has an NVIDIA device open"
        self._noted.keep(noted, self._deed, self._rollout, unloads=True)
        why = ended(["modprobe", "-r", *loaded], _UNLOADED) if loaded else ""
        if not version.exists() and not self._loaded():
            return True, ""
        return False, why or "they are still in the kernel"

    def _loaded(self) -> list[str]:
        # a container sees the modules of a kernel that is not its own
        if not (self._proc / "driver/nvidia").exists():
            return []
        return [one for one in _MODULES if (self._sys / "module" / one).is_dir()]

    # -- taking up -------------------------------------------------------------------------------

    def take_up(self, replicas: Sequence[str]) -> TakenUp:
        """Start what is noted, and the engines of *replicas*. Raises ControlError."""
        noted = self._noted.units()
        named = [f"engine-{name}.service" for name in replicas]
        engines = list(dict.fromkeys([*(one for one in noted if ENGINE.fullmatch(one)), *named]))
        services = [one for one in _STARTED if one in noted]
        started: list[str] = []
        failed: dict[str, str] = {}
        self._load(failed)
        active = states([*engines, *services])
        due = [one for one in services if active.get(one) != "active"]
        for one in due:
            self._start([one], started, failed)
        final = ask_again(self.agent, Nvml(action="acquire"))
        if isinstance(final, Failed) and final.code != 2:
            failed["NVML"] = final.error
        if late := [one for one in engines if active.get(one) != "active"]:
            self._start(late, started, failed)
        return TakenUp(started=tuple(started), failed=failed)

    def _load(self, failed: dict[str, str]) -> None:
        """Load the modules that were unloaded, where nobody did since."""
        noted = self._noted.load()
        if noted is None or not noted.unloads or (self._proc / "driver/nvidia/version").exists():
            return
        self._say("loading the driver's modules")
        if why := ended(["modprobe", "nvidia"], _UNLOADED):
            failed["modules"] = why
        else:
            ended(["modprobe", "nvidia-uvm"], _UNLOADED)

    def _start(self, units: Sequence[str], started: list[str], failed: dict[str, str]) -> None:
        self._say(f"starting {', '.join(units)}")
        systemctl("reset-failed", *units)
        why = systemctl("start", *units)
        if not why:
            started.extend(units)
            return
        for one, state in states(units).items():
            if state == "active":
                started.append(one)
            else:
                failed[one] = f"{state}: {why}"

    # -- the note, and words ---------------------------------------------------------------------

    def _say(self, what: str) -> None:
        entry = Entry(at=time.time(), message=what, cause="rollout")
        with suppress(OSError):  # nobody listens any more
            if self._as_json:
                sys.stdout.write(encode(entry).decode())
            else:
                sys.stdout.write(f"{what}\n")
            sys.stdout.flush()


def _in_words(done: LetGo) -> str:
    said = [f"stopped {', '.join(done.stopped) or 'nothing'}"]
    if done.unloaded is not None:
        said.append("modules unloaded" if done.unloaded else f"modules stay: {done.why}")
    return "; ".join(said)
