from pathlib import Path

import pytest

from farrier.lab import LabError
from farrier.lab.surroundings import apt_settings, pip_settings, resolv_conf, surroundings


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_bare_machine_hands_over_its_name_servers_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "etc/resolv.conf", "nameserver 192.0.2.53\n")
    around = surroundings(tmp_path, environ={}, apt_dump='APT "";\nAcquire::Languages "";\n')
    assert around.files == {"etc/resolv.conf": b"nameserver 192.0.2.53\n"}
    assert around.directories == ()
    assert around.links == {}


def test_behind_resolveds_stub_the_real_servers_are_taken(tmp_path: Path) -> None:
    write(tmp_path / "etc/resolv.conf", "nameserver 127.0.0.53\noptions edns0\n")
    write(tmp_path / "run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n")
    assert resolv_conf(tmp_path, {}) == "nameserver 192.0.2.1\n"


def test_a_server_on_loopback_alone_is_refused_with_the_way_out(tmp_path: Path) -> None:
    write(tmp_path / "etc/resolv.conf", "nameserver 127.0.0.1\n")
    with pytest.raises(LabError, match="FARRIER_LAB_DNS=<address"):
        resolv_conf(tmp_path, {})
    given = resolv_conf(tmp_path, {"FARRIER_LAB_DNS": "192.0.2.7,192.0.2.8"})
    assert given == "nameserver 192.0.2.7\nnameserver 192.0.2.8\n"


def test_apts_transport_is_taken_over_its_hooks_and_indexes_are_not() -> None:
    dump = """APT::Architecture "amd64";
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://apt.example:3142";
Acquire::Check-Valid-Until "false";
Acquire::IndexTargets::deb::DEP-11::MetaKey "x";
APT::Update::Post-Invoke-Success:: "rm -rf /";
"""
    assert apt_settings(dump, {"http_proxy": "http://other.example"}) == (
        'Acquire::http::Proxy "http://apt.example:3142";\nAcquire::Check-Valid-Until "false";\n'
    )
    assert apt_settings("", {"https_proxy": "http://p.example"}) == (
        'Acquire::https::Proxy "http://p.example";\n'
    )


def test_pips_configuration_is_merged_as_pip_does_and_local_places_are_named(
    tmp_path: Path,
) -> None:
    wheels, index = tmp_path / "opt/wheels", tmp_path / "opt/mirror/simple"
    wheels.mkdir(parents=True)
    index.mkdir(parents=True)
    write(tmp_path / "etc/pip.conf", "[global]\nindex-url = http://a.example\ncert = /x/ca.pem\n")
    write(tmp_path / "home/.config/pip/pip.conf", "[global]\nindex-url = http://b.example\n")
    environ = {
        "HOME": "/home",
        "PIP_FIND_LINKS": "/opt/wheels http://c.example /nowhere",
        "PIP_EXTRA_INDEX_URL": "file:///opt/mirror/simple",
    }
    text, directories = pip_settings(tmp_path, environ)
    assert "index-url = http://b.example\n" in text
    assert "cert = /etc/ssl/certs/ca-certificates.crt\n" in text
    assert "find-links = /opt/wheels http://c.example /nowhere\n" in text
    # an index links to files beside its "simple" directory
    assert directories == (Path("/opt/wheels"), Path("/opt/mirror"))


def test_a_sites_own_certificate_comes_with_the_bundle(tmp_path: Path) -> None:
    write(tmp_path / "etc/resolv.conf", "nameserver 192.0.2.53\n")
    write(tmp_path / "etc/ssl/certs/ca-certificates.crt", "BUNDLE")
    assert "etc/ssl/certs/ca-certificates.crt" not in surroundings(tmp_path, {}, "").files
    write(tmp_path / "usr/local/share/ca-certificates/site.crt", "SITE")
    (tmp_path / "etc/ssl/certs/6ca38420.0").symlink_to("site.pem")
    (tmp_path / "etc/ssl/certs/0a775a30.0").symlink_to("other.pem")
    around = surroundings(tmp_path, {}, "")
    assert around.files["usr/local/share/ca-certificates/site.crt"] == b"SITE"
    assert around.links == {
        "etc/ssl/certs/site.pem": "/usr/local/share/ca-certificates/site.crt",
        "etc/ssl/certs/6ca38420.0": "site.pem",
    }
    assert around.files["etc/ssl/certs/ca-certificates.crt"] == b"BUNDLE"
    write(tmp_path / "srv/own.pem", "OWN")
    named = surroundings(tmp_path, {"SSL_CERT_FILE": "/srv/own.pem"}, "")
    assert named.files["etc/ssl/certs/ca-certificates.crt"] == b"OWN"
