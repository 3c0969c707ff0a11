"""What changes packages, or restarts services, while nobody looks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

from farrier.facts.packages import LISTING, parse_packages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.facts.roots import Roots

__all__ = ["UpdateFacts", "Updates", "parse", "spared_by"]

SPARED = ("engine-a.service", "nginx.service", "farrier-agent.service")
"""Units that needrestart has to leave alone; the first stands for every engine."""


@dataclass(frozen=True, slots=True)
class UpdateFacts:
    """unattended-upgrades, needrestart, and whether a restart of the host is asked for.

    *touchable* are installed packages of the driver that are neither held nor in
    unattended-upgrades' Package-Blacklist, whether or not it is enabled. *needrestart* is its mode
    (``l`` lists, ``i`` asks, ``a`` restarts by itself), None if it is not installed;
    *needrestart_spares* says whether its configuration keeps it from engines, nginx and the agent
    (True where it is not installed). *reboot_because* are the packages that asked for a reboot.
    """

    unattended_enabled: bool = False
    touchable: tuple[str, ...] = ()
    needrestart: str | None = None
    needrestart_spares: bool = True
    reboot_required: bool = False
    reboot_because: tuple[str, ...] = ()


_SCRIPT = (
    LISTING
    + r"""
has unattended-upgrade && echo unattended-upgrades
has apt-config && apt-config dump 2>/dev/null |
    grep -E '^(APT::Periodic::(Enable|Unattended-Upgrade)|Unattended-Upgrade::Package-Blacklist:)' |
    sed 's/^/apt /'
has systemctl && echo "timer $(systemctl is-enabled apt-daily-upgrade.timer 2>/dev/null)"
if has needrestart; then
    echo needrestart
    grep -qs 'apt-pinvoke -m u' "$ETC"/apt/apt.conf.d/* && echo needrestart-ubuntu
    cat "$ETC/needrestart/needrestart.conf" "$ETC"/needrestart/conf.d/*.conf 2>/dev/null |
        grep -vE '^[[:space:]]*(#|$)' | sed 's/^/perl /'
fi
if [ -e "$RUN/reboot-required" ]; then
    echo reboot-required
    sort -u "$RUN/reboot-required.pkgs" 2>/dev/null | sed 's/^/because /'
fi; true
"""
)


class Updates(FactBase[UpdateFacts | None]):
    """:class:`UpdateFacts`; None when the host did not answer."""

    def command(self, roots: Roots) -> str:
        """dpkg-query, apt-config, systemctl and some text tools."""
        return roots.shell() + _SCRIPT

    @staticmethod
    def default() -> UpdateFacts | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> UpdateFacts:
        """Parse what the script printed."""
        return parse(output)


def parse(output: Sequence[str]) -> UpdateFacts:
    """Parse the script's lines; each begins with the word for what it tells."""
    words = {line.strip() for line in output if " " not in line.strip()}
    settings: list[tuple[str, str]] = []
    perl, because, timer = [], [], ""
    for line in output:
        kind, _, rest = line.partition(" ")
        match kind:
            case "apt" if found := re.fullmatch(r'(\S+) "(.*)";', rest.strip()):
                settings.append((found[1], found[2]))
            case "perl":
                perl.append(rest)
            case "because" if rest.strip():
                because.append(rest.strip())
            case "timer":
                timer = rest.strip()
    last = dict(settings)
    blacklist = [value for name, value in settings if "Package-Blacklist::" in name and value]
    config = "\n".join(perl)
    installed = "needrestart" in words
    return UpdateFacts(
        "unattended-upgrades" in words
        and timer not in {"masked", "disabled"}
        and _is_on(last.get("APT::Periodic::Enable", "1"))
        and _is_on(last.get("APT::Periodic::Unattended-Upgrade", "0")),
        tuple(
            package.name
            for package in parse_packages(output)
            if package.state == "installed"
            and not package.held
            and not any(_matches(pattern, package.name) for pattern in blacklist)
        ),
        _mode(config, ubuntu="needrestart-ubuntu" in words) if installed else None,
        not installed or all(spared_by(config, unit) for unit in SPARED),
        "reboot-required" in words,
        tuple(because),
    )


def _is_on(days: str) -> bool:
    """APT::Periodic's intervals: days, or "always"; 0 is never (apt.systemd.daily)."""
    return days.strip() not in {"", "0"}


def _matches(pattern: str, name: str) -> bool:
    """As unattended-upgrades does: a regular expression at the name's beginning."""
    try:
        return re.match(pattern, name) is not None
    except re.error:
        return False


_RESTART = re.compile(r"\$nrconf\{['\"]?restart['\"]?\}\s*=\s*['\"]([lia])['\"]")


def _mode(config: str, *, ubuntu: bool) -> str:
    """The mode that the configuration names last.

    Without any it asks, which without a terminal is to list. Ubuntu since 24.04 calls it from apt
    in a mode of its own (``-m u``), which restarts by itself.
    """
    said = [match[1] for match in _RESTART.finditer(config)]
    return said[-1] if said else "a" if ubuntu else "i"


# Both ways to write it: an entry of the hash, as in $nrconf{override_rc}{qr(^engine-)} = 0; and
# lines of the whole hash, as in qr(^dbus) => 0, which needrestart.conf itself has.
_OVERRIDE = re.compile(
    r"(?:qr(?:\((?P<round>.*?)\)|\{(?P<curly>.*?)\}|/(?P<slash>.*?)/)|['\"](?P<word>[^'\"]+)['\"])"
    r"[ \t]*(?:\}[ \t]*=|=>)[ \t]*(?P<value>[01])[ \t]*[;,]"
)


def spared_by(config: str, unit: str) -> bool:
    """Whether needrestart's *config* (Perl) has an override for *unit* that says 0."""
    for match in _OVERRIDE.finditer(config):
        pattern = match["round"] or match["curly"] or match["slash"] or ""
        try:
            hit = re.search(pattern, unit) if pattern else match["word"] == unit
        except re.error:
            continue
        if hit and match["value"] == "0":
            return True
    return False
