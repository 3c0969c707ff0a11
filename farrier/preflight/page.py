"""docs/preflight.md: every code, what it means and its repair, made from the code.

``python -m farrier.preflight.page`` writes it; with ``--check`` nothing is written, and the exit
code is 1 unless the page is right.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from farrier.generated import row, writing
from farrier.preflight.judge import AREAS
from farrier.preflight.rules.disks import MINIMUM_MB
from farrier.preflight.rules.machine import SKEW_SECONDS
from farrier.preflight.rules.system import SUPPORTED

if TYPE_CHECKING:
    from farrier.preflight.verdict import Code, Where

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "preflight.md"

_TYPED: dict[Where, str] = {
    "host": "host",
    "operator": "your machine",
    "inventory": "inventory",
}

_HEAD = """\
<!-- Written by `make docs` from farrier/preflight: change it there. -->
# Preflight

Before anything is changed on a host, the host is looked at: what it is, against what the inventory
wants it to be. The outcome is a verdict with its reasons, and for each reason the line that repairs
it.

    farrier preflight                  # every host of the inventory (FARRIER_ENV, as for pyinfra)
    farrier preflight gpu01 'gpu1*'    # names, patterns, groups
    farrier preflight --json           # one object per host and line

It connects to all hosts side by side, with the inventory's own SSH settings, asks each of them
everything with one command as root, and changes nothing.

| verdict | meaning |
|---|---|
| `ready` | nothing to say |
| `attention` | works, and will bite |
| `refused` | no deploy changes anything on this host until it is repaired |
| `unreachable` | could not be looked at |

| exit code | meaning |
|---|---|
| 0 | every host is ready, or needs attention |
| 3 | a host is refused |
| 1 | a host could not be looked at, or the inventory has mistakes |
| 2 | wrong usage |

## In a deploy

Every deploy does the same before its first change, with what can be asked quickly: hosts without a
GPU are asked about system, disks, ports and models only, and nobody waits for apt's sources. What
the deploy's own roles put right is no reason then: a missing driver is none where the role
`nvidia_driver` brings it. Warnings are told in the run's last lines. A refused host drops out, the
others go on. A run in which hosts were refused, and nothing else failed, ends with exit code 3
instead of 1.

## As JSON

    {{"host": "gpu01", "verdict": "refused", "reasons": [
      {{"code": "port-taken", "severity": "refuse", "message": "port 8080, meant for …",
       "repair": "systemctl disable --now caddy.service", "where": "host", "deploys": []}}]}}

`severity` is `refuse` or `warn`. `where` says where the repair is typed: `host` (as root),
`operator` (your machine, in the project's directory), or `inventory` (written there). `deploys` are
the deploys whose roles repair it.

## Limits

Systems: {systems}. Free space for packages and logs: {minimum} MB in `/` and `/var`. Clocks may
differ by {skew:.0f} seconds. The oldest driver for an engine follows from the CUDA that its lock is
built with; for `custom` engines none is known. `roots` in a host's data, such as
`{{"sys": "/srv/tree/sys"}}`, makes it read `/sys`, `/proc`, `/dev`, `/etc`, `/lib/modules`,
`/boot`, `/run`, `/usr` or `/var` elsewhere: for tests, and for a look at a mounted image.

What an engine knows (architectures, quantisations) is kept for vLLM 0.31.0 and 0.32.0; other
versions are asked about heads and context only. Of a GGUF the whole head is read where the host has
a Python 3, else its first 64 KiB, in which a file that is cut short is not noticed.

What is unknown gives no reason: a GPU whose memory the driver does not tell, a size that could not
be read, a tool that is not installed.

## Codes
"""


def page() -> str:
    """The page, from what the rules say about themselves."""
    (minimum,) = set(MINIMUM_MB.values())
    systems = ", ".join(name.title() for name in sorted(SUPPORTED))
    lines = [_HEAD.format(systems=systems, minimum=minimum, skew=SKEW_SECONDS)]
    for area, codes in AREAS.items():
        lines += [f"### {area}\n", "| code | | meaning | repair | typed |", "|---|---|---|---|---|"]
        lines += [*map(_row, codes), ""]
    return "\n".join(lines).rstrip() + "\n"


class _Capitals(dict[str, str]):
    """What stands for a value in the table."""

    def __missing__(self, name: str) -> str:
        return "/etc" if name == "etc" else name.upper()


def _row(code: Code) -> str:
    severity = {"refuse": "refused", "warn": "attention"}[code.severity]
    repair = code.shown or code.repair.format_map(_Capitals())
    cells = (f"`{code.name}`", severity, code.meaning, f"`{repair}`", _TYPED[code.where])
    return row(cells)


main = writing(PAGE, page, "the rules")

if __name__ == "__main__":
    main()
