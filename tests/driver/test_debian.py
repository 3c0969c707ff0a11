"""Debian 12's real driver on a real host: from bare, built, held, told about, and gone again.

The tests are one story, in this order. The module is really compiled, once.
"""

from __future__ import annotations

import pytest

from tests.driver.host import NEWER, OLDER, PLAIN, DriverHost
from tests.roles.fleet import STAND_IN

_SITE_PACKAGE = """
rm -rf /tmp/site && mkdir -p /tmp/site/DEBIAN
cat > /tmp/site/DEBIAN/control <<'END'
Package: site-render
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.com>
Conflicts: libcuda1
Description: stands for something of the site's that must not go
END
dpkg-deb -b /tmp/site /tmp/site.deb >/dev/null && dpkg -i /tmp/site.deb >/dev/null
rm -r /tmp/site /tmp/site.deb
"""


@pytest.fixture(scope="module")
def bare(bookworm: DriverHost) -> list[str]:
    """The host without any driver, and what it is made of then."""
    bookworm.remove()
    assert bookworm.driver() == {}
    return bookworm.snapshot()


def test_a_version_that_is_not_on_offer_is_refused_with_those_that_are(
    bookworm: DriverHost, bare: list[str]
) -> None:
    run = bookworm.run(nvidia_driver_version="535.999.99")
    assert run.returncode == 1
    failed = run.last_section("Failed:")
    assert "nvidia-kernel-dkms 535.999.99 is not on offer from source debian" in failed
    assert OLDER in failed
    assert NEWER in failed
    # apt was taught where to look, which is why it could be asked; that is all.
    source = ("/etc/apt/sources.list.d/farrier-nvidia", "/etc/apt/preferences.d/farrier-nvidia-")
    after = [line for line in bookworm.snapshot() if not any(name in line for name in source)]
    assert after == bare


def test_what_cannot_be_satisfied_is_refused_with_apts_reason_before_any_change(
    bookworm: DriverHost,
) -> None:
    site = "/etc/apt/preferences.d/00site"  # this site wants no DKMS
    bookworm.root(f"printf 'Package: dkms\nPin: release *\nPin-Priority: -1\n' > {site}")
    before = bookworm.snapshot()
    try:
        run = bookworm.run()
        after = bookworm.snapshot()
    finally:
        bookworm.root(f"rm {site}")
    assert run.returncode == 1
    failed = run.last_section("Failed:")
    assert "nothing of the driver was changed" in failed
    assert "nvidia-kernel-dkms : Depends: dkms (>= 3.0.3-4~)" in failed
    assert after == before


def test_what_would_take_something_else_away_is_refused(bookworm: DriverHost) -> None:
    # A package of the site's that NVIDIA's alternative conflicts with by way of its version.
    bookworm.root(_SITE_PACKAGE)
    before = bookworm.snapshot()
    try:
        run = bookworm.run()
        after = bookworm.snapshot()
    finally:
        bookworm.root("dpkg --purge site-render >/dev/null")
    assert run.returncode == 1
    assert "would remove site-render, which is not the driver's" in run.last_section("Failed:")
    assert after == before


def test_a_bare_host_gets_the_driver_built_and_held(bookworm: DriverHost, bare: list[str]) -> None:
    run = bookworm.good(deploy=PLAIN, nvidia_driver_version=OLDER)
    print(f"bare to driver: {run.seconds:.0f} s")
    bookworm.assert_whole(OLDER)
    assert "runs another machine's kernel" in run.stderr
    assert "blacklist nouveau" in bookworm.root("cat /etc/modprobe.d/farrier-nouveau.conf")


def test_the_second_run_changes_nothing(bookworm: DriverHost) -> None:
    before = bookworm.snapshot()
    for deploy in (PLAIN, "deploys/driver.py"):
        run = bookworm.good(deploy=deploy, nvidia_driver_version=OLDER)
        assert run.changed("gpu01") == []
        assert "NVIDIA driver | Packages and kernel modules" in run.unchanged("gpu01")
        print(f"no change, {deploy}: {run.seconds:.1f} s")
    # Without a version the installed one is wanted, although a newer one is on offer.
    assert bookworm.good().changed("gpu01") == []
    assert bookworm.snapshot() == before


def test_another_version_is_left_alone_and_told(bookworm: DriverHost) -> None:
    before = bookworm.snapshot()
    run = bookworm.good(deploy=PLAIN, nvidia_driver_version=NEWER)
    assert run.changed("gpu01") == []
    assert f"535.261.03-1 is installed, the inventory says {NEWER}" in run.stderr
    assert "pyinfra inventory deploys/driver.py" in run.stderr
    assert bookworm.snapshot() == before


def test_no_engine_is_started_on_a_driver_that_the_kernel_has_not_loaded(
    bookworm: DriverHost,
) -> None:
    before = bookworm.snapshot()
    run = bookworm.run(
        deploy=PLAIN, models=[{**STAND_IN, "gpus": [0]}], nvidia_driver_version=OLDER
    )
    assert run.returncode == 1, run.last_words()
    failed = run.last_section("Failed:")
    assert "the driver cannot be used yet, and no engine was started" in failed, failed
    assert "this host is a container" in failed, failed
    assert bookworm.snapshot() == before


def test_a_host_whose_engines_run_is_refused(bookworm: DriverHost) -> None:
    bookworm.root("systemd-run -q --unit engine-tiny.service sleep infinity")
    try:
        before = bookworm.snapshot()
        run = bookworm.run(nvidia_driver_version=NEWER)
        assert run.returncode == 1
        told = "ssh gpu01 sudo systemctl stop engine-tiny.service"
        assert told in run.last_section("Failed:")
        assert bookworm.snapshot() == before
    finally:
        bookworm.root("systemctl stop engine-tiny.service")


def test_what_holds_it_is_put_back(bookworm: DriverHost) -> None:
    bookworm.root(
        "apt-mark unhold nvidia-smi libcuda1 >/dev/null;"
        " rm /etc/apt/preferences.d/farrier-nvidia; echo > /etc/apt/apt.conf.d/60farrier-nvidia"
    )
    run = bookworm.good(deploy=PLAIN, nvidia_driver_version=OLDER)
    assert run.changed("gpu01") == ["NVIDIA driver | Packages and kernel modules"]
    bookworm.assert_whole(OLDER)


def test_the_same_driver_by_somebody_else_is_taken_over(bookworm: DriverHost) -> None:
    before = bookworm.driver()
    bookworm.root(
        "apt-mark showhold | xargs apt-mark unhold >/dev/null;"
        " rm -r /var/lib/farrier/nvidia/current"
        " /etc/apt/preferences.d/farrier-nvidia /etc/apt/apt.conf.d/60farrier-nvidia"
    )
    bookworm.good(deploy=PLAIN)  # no version: not the newest one, but the one that is there
    assert bookworm.driver() == before
    bookworm.assert_whole(OLDER)


def test_removal_leaves_nothing(bookworm: DriverHost, bare: list[str]) -> None:
    run = bookworm.remove()
    print(f"removal: {run.seconds:.0f} s")
    assert bookworm.snapshot() == bare
    again = bookworm.remove()
    assert again.changed("gpu01") == []
