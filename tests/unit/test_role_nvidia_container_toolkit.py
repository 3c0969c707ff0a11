"""CDI specifications against the loaded driver; which container engine knows what."""

from __future__ import annotations

import pytest

from roles.nvidia_container_toolkit.state import (
    Devices,
    Runtime,
    cdi_commands,
    parse_devices,
    parse_runtimes,
)

OWN, AUTOMATIC = "/etc/cdi/nvidia.yaml", "/run/cdi/nvidia.yaml"
GENERATE = "nvidia-ctk cdi generate --output="
REFRESH = "systemctl restart nvidia-cdi-refresh.service"
OLD, NEW = ("580.82.07",), ("580.95.05",)


def test_a_host_is_read() -> None:
    lines = [
        "asked",
        "loaded 580.95.05",
        f"spec {OWN} 580.82.07 580.95.05",
        f"spec {AUTOMATIC}",
        "refresh",
        "unlinked /dev/nvidia0 /dev/char/195:0",
    ]
    assert parse_devices(lines) == Devices(
        "580.95.05",
        ((OWN, ("580.82.07", "580.95.05")), (AUTOMATIC, ())),
        refresh=True,
        unlinked=("/dev/nvidia0",),
    )
    assert parse_devices(["asked"]) == Devices()


@pytest.mark.parametrize(
    ("specs", "refresh", "commands"),
    [
        # toolkits before 1.18 make none by themselves
        ((), False, [f"mkdir -p /etc/cdi\n{GENERATE}{OWN}"]),
        (((OWN, OLD),), False, [GENERATE + OWN]),
        (((OWN, NEW),), False, []),
        (((OWN, ()),), False, [GENERATE + OWN]),
        (((OWN, OLD + NEW),), False, [GENERATE + OWN]),
        (((AUTOMATIC, OLD),), False, [GENERATE + AUTOMATIC]),  # the site's own doing
        # later ones do
        ((), True, [REFRESH]),
        (((AUTOMATIC, OLD),), True, [REFRESH]),
        (((AUTOMATIC, NEW),), True, []),
        (((OWN, OLD), (AUTOMATIC, NEW)), True, [GENERATE + OWN]),
        (((OWN, OLD), (AUTOMATIC, OLD)), True, [GENERATE + OWN, REFRESH]),
    ],
)
def test_every_specification_comes_to_name_the_loaded_driver(
    specs: tuple[tuple[str, tuple[str, ...]], ...], refresh: bool, commands: list[str]
) -> None:
    assert cdi_commands(Devices("580.95.05", specs, refresh)) == commands
    assert cdi_commands(Devices(None, specs, refresh)) == [], "no driver is loaded"


def test_container_engines_are_read() -> None:
    lines = ["asked", "docker installed", "docker configured", "docker unaware", "crio installed"]
    assert parse_runtimes(lines) == {
        "docker": Runtime(installed=True, configured=True, unaware=True),
        "crio": Runtime(installed=True),
    }
