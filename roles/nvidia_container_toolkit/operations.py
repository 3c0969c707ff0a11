"""CDI specifications, links in /dev/char, and container engines that know NVIDIA's runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyinfra import host

from farrier.converge.commands import Refuse, Script, in_words, last_lines
from farrier.converge.questions import Question, answer
from farrier.converge.report import note
from farrier.converge.typed import operation
from roles.nvidia_container_toolkit.state import (
    CONFIGURATION,
    REFRESH,
    UNLINKED,
    Devices,
    DevicesFact,
    Runtime,
    Runtimes,
    cdi_commands,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.converge.commands import Commands

__all__ = ["links", "runtimes", "specifications"]


def _devices(proc: str) -> Question:
    return Question(DevicesFact, {"proc": proc})


@operation(asks=_devices)
def links(proc: str) -> Commands:  # noqa: ARG001
    """Give every device node of NVIDIA's its link in /dev/char, with or without the toolkit.

    + proc: the host's /proc
    """
    now: Devices | None = answer()
    if now is None:
        yield Refuse("the host could not be asked for its GPUs' devices; see the line above")
    elif not now.unlinked:
        host.noop("no device node of NVIDIA's is without its link in /dev/char")
    else:
        # nvidia-ctk links also what has no node yet; it fails with some drivers (before 1.14.6
        # with 550 and newer), so what matters now is looked at once more.
        yield Script(
            f"""
command -v nvidia-ctk >/dev/null && nvidia-ctk system create-dev-char-symlinks --create-all >&2 ||:
{UNLINKED}
unlinked | while read -r node link; do ln -s -- "$node" "$link"; done
""",
            explain=in_words(f"{', '.join(now.unlinked)} not linked in /dev/char"),
        )


@operation(asks=_devices)
def specifications(proc: str) -> Commands:  # noqa: ARG001
    """Have a CDI specification, and each that there is name the loaded driver.

    + proc: the host's /proc
    """
    now: Devices | None = answer()
    if now is None:
        yield Refuse("the host could not be asked for its GPUs' devices; see the line above")
    elif now.loaded is None:
        host.noop("no NVIDIA driver is loaded: a CDI specification is made once one is")
    elif commands := cdi_commands(now):
        yield Script(
            "\n".join(commands),
            explain=lambda output: (
                f"no CDI specification of driver {now.loaded} was made:\n{last_lines(output, 4)}\n"
                f"Look at: nvidia-smi; nvidia-ctk cdi generate; journalctl -u {REFRESH} -e; then"
                " run the deploy again"
            ),
        )
    else:
        host.noop(f"the CDI specification names driver {now.loaded}")


def _names(names: Sequence[str]) -> Question:
    return Question(Runtimes, {"names": [name for name in names if name in CONFIGURATION]})


@operation(asks=_names)
def runtimes(names: Sequence[str]) -> Commands:
    """Make each container engine know NVIDIA's runtime; its daemon is not restarted.

    + names: docker, containerd, crio
    """
    now: dict[str, Runtime] | None = answer()
    unknown = sorted(set(names) - set(CONFIGURATION))
    if unknown:
        yield Refuse(
            f"nvidia_container_runtimes: {', '.join(unknown)} is none of"
            f" {', '.join(CONFIGURATION)}; podman needs no entry, it reads the CDI specification"
        )
        return
    if now is None:
        yield Refuse("the host could not be asked for its container engines; see the line above")
        return
    found = {name: now.get(name, Runtime()) for name in names}
    if absent := [name for name, engine in found.items() if not engine.installed]:
        yield Refuse(
            f"nvidia_container_runtimes names {', '.join(absent)}, which this host has not"
            " (no such systemd unit)\nInstall it, or take it out of the inventory; then run the"
            " deploy again"
        )
        return
    for name, engine in found.items():
        if not engine.configured:
            yield Script(
                f"nvidia-ctk runtime configure --runtime={name}",
                explain=lambda output, name=name: (  # type: ignore[misc]
                    f"{name} was not configured for NVIDIA's runtime:\n{last_lines(output, 4)}\n"
                    f"Look at: {CONFIGURATION[name]} (is it valid?); then run the deploy again"
                ),
            )
        if engine.unaware or not engine.configured:
            _tell(name)
    if all(engine.configured for engine in found.values()):
        host.noop(f"configured for NVIDIA's runtime: {', '.join(names)}")


def _tell(name: str) -> None:
    how = f"sudo systemctl restart {name} (look first at what it does to your containers)"
    if name == "docker":
        how = "sudo systemctl reload docker (containers run on)"
    note("yours", host.name, f"{name} does not know NVIDIA's runtime yet: {how}")
