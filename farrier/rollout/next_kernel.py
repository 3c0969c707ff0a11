"""The kernel that the next boot brings: a driver that is built here has to be built for it.

Asked before a host is drained for a reboot: without the module it would come back without its GPUs.
"""

from __future__ import annotations

from farrier.rollout.errors import RefusedError
from farrier.rollout.host import Host
from farrier.rollout.one_host import OneHost

__all__ = ["check_next_kernel", "check_one", "question_of_kernels", "why_not"]

_BUILT = r"""
find /lib/modules \( -name 'nvidia.ko*' -o -name 'nvidia-current.ko*' \
    -o -name 'nvidia-current-open.ko*' -o -name 'nvidia-tesla*.ko*' \) 2>/dev/null |
    sed 's|^/lib/modules/\([^/]*\)/.*|built \1|' | sort -u
"""
SECONDS = 60.0
"""How long a host may take to say it; dkms is a slow shell script."""


def check_next_kernel(host: Host) -> None:
    """Raises RefusedError, with the line that repairs it."""
    done = host.shell.run(question_of_kernels(), timeout=SECONDS)
    if found := why_not(done.stdout):
        why, line = found
        raise RefusedError(
            f"{host.name}: {why}: after the reboot it would have no GPU; nothing was drained",
            f"farrier exec --sudo {host.name} -- {line}",
        )


def check_one(it: OneHost) -> None:
    """The same, once more for a host whose turn it is: packages may have come meanwhile."""
    it.watched(lambda: it.through_cuts(lambda: check_next_kernel(it.host)))


def question_of_kernels() -> str:
    """One command that says which kernels there are, and for which a driver's module is built."""
    # the facts need pyinfra, which takes a second to import
    from farrier.facts.kernel import Kernels  # noqa: PLC0415
    from farrier.facts.roots import Roots  # noqa: PLC0415

    return f"({Kernels().command(Roots())})\n{_BUILT}"


def why_not(answer: str) -> tuple[str, str] | None:
    """Why the next boot would bring no driver, and the line that repairs it; None: it does. Pure.

    A host for none of whose kernels a driver is built has none, or loads one in another way.
    """
    from farrier.facts.kernel import parse  # noqa: PLC0415

    lines = answer.splitlines()
    built = {line.removeprefix("built ") for line in lines if line.startswith("built ")}
    facts = parse([line for line in lines if not line.startswith("built ")])
    states = {
        one.release: {key: it for key, it in one.dkms.items() if key.startswith("nvidia")}
        for one in facts.kernels
    }
    newest = facts.newest
    if newest is None or not (built or any(states.values())):
        return None
    mine = states[newest.release]
    if newest.release in built and set(mine.values()) <= {"installed"}:
        return None
    told = ", ".join(f"{key}: {state}" for key, state in mine.items()) or "not even added"
    why = f"the next boot brings kernel {newest.release}, for which no driver is built"
    if not newest.headers:
        return (
            f"{why}: its headers are missing",
            f"apt-get install -y linux-headers-{newest.release}",
        )
    return f"{why} (DKMS: {told})", f"dkms autoinstall -k {newest.release}"
