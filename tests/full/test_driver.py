"""NVIDIA's real driver from Debian's archives: exchanged, interrupted, upgraded around, removed.

The modules are really compiled, many times: about 40 minutes on two cores.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from tests.driver.conftest import bookworm, driver_lab, trixie
from tests.driver.host import NEWER, OLDER, STATE, DriverHost

__all__ = ["bookworm", "driver_lab", "trixie"]

_KILLER = """
main=
while :; do
    phase=; read -r phase 2>/dev/null < {state}/open/phase
    [ -n "$main" ] || main=$(pgrep -o -f '^/bin/sh {state}/transaction run')
    [ "$phase" = "{phase}" ] && [ -n "$main" ] && {more} && break
    sleep 0.02
done
group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$main/cgroup)
kill -9 $main $(grep -v '^0$' $group/cgroup.procs)
echo "$phase" > /var/tmp/killed-in
"""

_LOADED = "grep -qs 'status unpacked firmware-nvidia-gsp' /var/log/dpkg.log"
_COMPILES = "pgrep -x cc1 >/dev/null"


@pytest.fixture
def killed(bookworm: DriverHost) -> Callable[[str, str], str]:
    """A run to OLDER whose transaction is killed, all its processes at once, in a phase.

    The second argument is a shell command that has to succeed besides. Returns what the run said.
    """

    def kill(phase: str, more: str = "true") -> str:
        bookworm.root("rm -f /var/tmp/killed-in; : > /var/log/dpkg.log")
        killer = _watch(bookworm, phase, more)
        try:
            run = bookworm.run(nvidia_driver_version=OLDER)
            killer.wait(timeout=30)
        finally:
            killer.kill()
        assert bookworm.root("cat /var/tmp/killed-in").strip() == phase
        assert run.returncode == 1, run.last_words()
        return run.last_section("Failed:")

    return kill


def _watch(host: DriverHost, phase: str, more: str) -> subprocess.Popen[bytes]:
    script = _KILLER.format(state=STATE, phase=phase, more=more)
    argv = ["ssh", "-F", str(host.lab.ssh_config), host.name, "sudo sh -s"]
    killer = subprocess.Popen(argv, stdin=subprocess.PIPE)
    assert killer.stdin is not None
    killer.stdin.write(script.encode())
    killer.stdin.close()
    return killer


def test_killed_at_five_points_and_run_again(
    bookworm: DriverHost, killed: Callable[[str, str], str]
) -> None:
    """Each run finds what the one before left; none of them leaves the host open to upgrades."""
    bookworm.remove()

    def guarded(phase: str) -> None:
        assert bookworm.root(f"cat {STATE}/open/phase").strip() == phase
        policy = bookworm.root("apt-cache policy nvidia-kernel-dkms")
        assert f"Candidate: {OLDER}-1\n" in policy
        assert "nvidia-kernel-dkms" in bookworm.root("cat /etc/apt/apt.conf.d/60farrier-nvidia")

    told = killed("download", "true")  # after the pin
    assert "run the deploy again" in told
    guarded("download")
    assert bookworm.driver() == {}

    killed("install", _LOADED)  # while packages are unpacked
    guarded("install")
    assert bookworm.root("dpkg --audit") != ""

    killed("install", _COMPILES)  # in the DKMS build
    guarded("install")
    assert bookworm.root("dkms status | grep -c installed; true").strip() == "0"

    operator = bookworm.start(nvidia_driver_version=OLDER)  # the host's power fails
    try:
        bookworm.root(f"timeout 600 sh -c 'until {_COMPILES}; do sleep 0.2; done'")
        bookworm.lab.kill(bookworm.name)
    finally:
        os.killpg(operator.pid, signal.SIGKILL)
        operator.communicate()
    bookworm.lab.start(bookworm.name)
    guarded("repair")  # where dpkg takes up the build that the run before was killed in

    killed("holds", "true")  # all is installed, nothing is held
    guarded("holds")
    assert bookworm.driver()["nvidia-kernel-dkms"] == f"{OLDER}-1"

    run = bookworm.good(nvidia_driver_version=OLDER)
    print(f"repaired: {run.seconds:.0f} s")
    bookworm.assert_whole(OLDER)
    again = bookworm.good(nvidia_driver_version=OLDER)
    assert again.changed("gpu01") == []


def test_unattended_upgrades_really_run_and_do_not_touch_it(bookworm: DriverHost) -> None:
    bookworm.good(nvidia_driver_version=OLDER)
    bookworm.root(
        "apt-get -q update >/dev/null; DEBIAN_FRONTEND=noninteractive apt-get -q install -y"
        " --no-install-recommends unattended-upgrades >/dev/null"
    )
    try:
        before = bookworm.driver()
        said = bookworm.root("unattended-upgrade -v -d 2>&1")
        assert "Allowed origins are" in said
        assert "Debian-Security" in said
        assert bookworm.driver() == before
        # The same program would have upgraded it, were it not for us.
        bookworm.root(
            "apt-mark showhold | xargs apt-mark unhold >/dev/null; mkdir /root/away;"
            " mv /etc/apt/preferences.d/farrier-nvidia /etc/apt/apt.conf.d/60farrier-nvidia"
            " /root/away/"
        )
        would = bookworm.root("unattended-upgrade -v --dry-run 2>&1")
        assert "nvidia-kernel-dkms" in would.partition("will be upgraded")[2]
        bookworm.good(nvidia_driver_version=OLDER)
        bookworm.assert_whole(OLDER)
    finally:
        bookworm.root("rm -rf /root/away; apt-get -q purge -y unattended-upgrades >/dev/null")
        bookworm.root(
            "DEBIAN_FRONTEND=noninteractive apt-get -q autoremove --purge -y >/dev/null",
            check=False,
        )


def test_a_module_that_cannot_be_built_is_told_with_the_compilers_words(
    bookworm: DriverHost,
) -> None:
    bookworm.good(nvidia_driver_version=OLDER)
    header = "/usr/src/linux-headers-6.1.0-*-common/include/linux/module.h"
    bookworm.root(f"dkms remove nvidia-current/{OLDER} --all; dkms add nvidia-current/{OLDER}")
    bookworm.root(f"echo '#error the kernel changed' >> $(ls {header})")
    try:
        run = bookworm.run(nvidia_driver_version=OLDER)
        assert run.returncode == 1
        failed = run.last_section("Failed:")
        assert "could not be built for kernel 6.1.0-" in failed
        assert "error" in failed
        assert f"{STATE}/log" in failed
    finally:
        bookworm.root(f"sed -i '$ d' $(ls {header})")
    run = bookworm.good(nvidia_driver_version=OLDER)
    assert run.changed("gpu01") == ["NVIDIA driver | Packages and kernel modules"]
    bookworm.assert_whole(OLDER)


_INSTALLS = f"timeout 300 sh -c 'until grep -qs install {STATE}/open/phase; do sleep 0.2; done'"


def test_upgrade_while_another_run_waits(bookworm: DriverHost) -> None:
    bookworm.good(nvidia_driver_version=OLDER)
    first = bookworm.start(nvidia_driver_version=NEWER)
    try:
        bookworm.root(_INSTALLS)
        second = bookworm.good(nvidia_driver_version=NEWER)
        assert second.changed("gpu01") == []
        _, stderr = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 0, stderr
    print(f"to {NEWER}: {second.seconds:.0f} s")
    bookworm.assert_whole(NEWER)


def test_back_although_the_operator_is_cut_off(bookworm: DriverHost) -> None:
    bookworm.good(nvidia_driver_version=NEWER)
    first = bookworm.start(nvidia_driver_version=OLDER)
    try:
        bookworm.root(_INSTALLS)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    second = bookworm.good(nvidia_driver_version=OLDER)
    assert second.changed("gpu01") == []
    bookworm.assert_whole(OLDER)


def test_nothing_is_left_of_all_that(bookworm: DriverHost) -> None:
    bookworm.remove()
    assert bookworm.driver() == {}
    left = [line for line in bookworm.snapshot() if "nvidia" in line or "farrier" in line]
    assert left == []


def test_debian_13s_550(trixie: DriverHost) -> None:
    trixie.remove()
    bare = trixie.snapshot()
    run = trixie.good()
    print(f"bare to driver: {run.seconds:.0f} s")
    driver = trixie.driver()
    assert driver["nvidia-kernel-dkms"] == "550.163.01-2"
    assert {"nvidia-kernel-dkms", "libcuda1", "nvidia-smi"} <= trixie.held()
    (kernel,) = trixie.root("ls /lib/modules").split()
    assert trixie.root(f"modinfo -k {kernel} -F version nvidia-current").strip() == "550.163.01"
    assert trixie.good().changed("gpu02") == []
    trixie.remove()
    assert trixie.snapshot() == bare
