"""From the fleet to routes, from keys to maps: what HAProxy is told."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from farrier.spec import AgentSettings, ApiKey, HostSpec, Model
from roles import gateway
from roles.gateway import PLACES, tls_address
from roles.gateway.certificate import CertificateError, read_certificate
from roles.gateway.configuration import Bounds, Places, affinity, bounds, config_text, maps
from roles.gateway.room import Room, RoomFact
from roles.gateway.routes import backend_names, host_label, routes

NOW = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
SETTINGS = gateway.DEFAULTS.data()


def model(name: str, replica: str | None = None) -> Model:
    return Model(name, replica=replica, source="path:/srv/models/x")


def host(name: str, *models: Model, **more: object) -> HostSpec:
    return HostSpec(name, groups=("gpu",), address=f"{name}.lan", models=models, **more)  # type: ignore[arg-type]


FLEET = (
    host("gpu02", model("tiny")),
    host("gpu01", model("tiny"), model("Qwen/Qwen3", "qwen"), nginx_port=8088),
    host("gw01"),
)


def test_a_route_for_each_model_with_a_server_for_each_replica() -> None:
    qwen, tiny = routes(FLEET)
    assert (qwen.model, qwen.backend, [one.name for one in qwen.servers]) == (
        "Qwen/Qwen3",
        "Qwen:Qwen3",
        ["gpu01:qwen"],
    )
    assert [one.name for one in tiny.servers] == ["gpu01:tiny", "gpu02:tiny"]
    assert [one.target for one in tiny.servers] == ["gpu01.lan:8088", "gpu02.lan:8080"]
    assert {one.check_port for one in tiny.servers} == {AgentSettings.check_port}


def adapted(*adapters: str) -> Model:
    lora = dict.fromkeys(adapters, "path:/a")
    return Model("tiny", source="path:/srv/models/x", lora=lora)


def test_an_adapter_goes_where_its_model_goes_or_to_the_replicas_that_have_it() -> None:
    law, tiny = routes([host("gpu01", adapted("law", "go")), host("gpu02", adapted("go"))])
    assert (tiny.model, tiny.names, tiny.of) == ("tiny", ("tiny", "go"), None)
    assert [one.name for one in tiny.servers] == ["gpu01:tiny", "gpu02:tiny"]
    assert (law.model, law.of, law.backend) == ("law", "tiny", "law")
    assert [one.name for one in law.servers] == ["gpu01:tiny"]
    keys = {
        one.name: one
        for one in (
            ApiKey.of("all", "a" * 20),
            ApiKey.of("base", "b" * 20, models=("tiny",)),
            ApiKey.of("one", "c" * 20, models=("law",)),
        )
    }
    written = maps((law, tiny), keys)
    assert written["models.map"].splitlines()[1:] == ["law law", "tiny tiny", "go tiny"]
    allowed = {line.split()[0] for line in written["allowed.map"].splitlines()[1:]}
    every = {"law", "tiny", "go"}
    assert allowed == {f"{key}|{one}" for key in ("all", "base") for one in every} | {"one|law"}


def test_two_replicas_of_a_model_on_one_host_are_two_servers() -> None:
    (tiny,) = routes([host("gpu01", model("tiny", "tiny-1"), model("tiny", "tiny-2"))])
    assert [one.name for one in tiny.servers] == ["gpu01:tiny-1", "gpu01:tiny-2"]
    assert len({one.target for one in tiny.servers}) == 1
    assert len({one.number for one in tiny.servers}) == 2


def test_ipv6_addresses_have_brackets() -> None:
    (route,) = routes([HostSpec("a", address="fd00::7", models=(model("m"),))])
    assert route.servers[0].target == "[fd00::7]:8080"


def test_names_that_would_be_the_same_end_differently() -> None:
    names = backend_names(["a/b", "a:b", "A/b", "a.b"])
    assert len(set(names.values())) == 4
    assert names["A/b"] == "A:b"
    assert names["a.b"] == "a.b"
    assert names["a/b"].startswith("a:b-")
    assert names == backend_names(["a.b", "A/b", "a:b", "a/b"])


def test_the_host_of_a_connector_has_its_plain_name() -> None:
    assert host_label("@ssh/gpu01") == "gpu01"
    assert host_label("gpu01.example.com") == "gpu01.example.com"


def test_numbers_belong_to_names_whoever_else_is_there() -> None:
    few = {one.name: one.number for route in routes(FLEET[:1]) for one in route.servers}
    many = {one.name: one.number for route in routes(FLEET) for one in route.servers}
    assert few.items() <= many.items()


def test_weights_are_of_replicas() -> None:
    _, tiny = routes(FLEET, {"gpu01:tiny": 50})
    assert [one.weight for one in tiny.servers] == [50, 100]
    with pytest.raises(ValueError, match=r"'gpu09:tiny' is no replica .* gpu01:qwen"):
        routes(FLEET, {"gpu09:tiny": 50})
    for wrong in (-1, 257, True, "50"):
        with pytest.raises(ValueError, match="from 0 to 256"):
            routes(FLEET, {"gpu01:tiny": wrong})  # type: ignore[dict-item]


KEYS = {
    one.name: one
    for one in (
        ApiKey.of("bob", "b" * 24, models=("tiny",), requests_per_minute=7),
        ApiKey.of("alice", "a" * 24, streams=2),
    )
}


def entries(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_maps_hold_hashes_and_what_each_key_may_do() -> None:
    written = maps(routes(FLEET), KEYS)
    assert not any("a" * 24 in text or "b" * 24 in text for text in written.values())
    assert entries(written["keys.map"]) == [
        f"{KEYS[name].sha256} {name}" for name in ("alice", "bob")
    ]
    assert entries(written["allowed.map"]) == [
        "alice|Qwen/Qwen3 yes",
        "alice|tiny yes",
        "bob|tiny yes",
    ]
    assert entries(written["requests_per_minute.map"]) == ["bob 7"]
    assert entries(written["streams.map"]) == ["alice 2"]
    assert entries(written["models.map"]) == ["Qwen/Qwen3 Qwen:Qwen3", "tiny tiny"]


def limits(memory_mib: int, *, shared: bool = False, **data: object) -> Bounds:
    return bounds(SETTINGS | data, memory_mib, 4, shared=shared)


def test_bounds_come_from_the_memory_with_room_for_two_processes() -> None:
    small, large = limits(2048), limits(65536)
    assert small.requests < large.requests
    for one in (small, large):
        worst = 2 * one.requests * (2 * one.buffer + 32 * 1024)
        assert worst <= one.memory_mib * 1024 * 1024
    assert limits(8192, shared=True).memory_mib < limits(8192).memory_mib
    assert limits(8192, gateway_memory_percent=10).memory_mib == 819
    assert limits(8192, gateway_max_requests=77).requests == 77
    assert limits(8192).body == 1024 * 1024 < limits(8192).buffer


def test_memory_and_cpus_are_read_from_what_a_host_says() -> None:
    assert RoomFact().process(["2048000", "4"]) == Room(2000, 4)
    assert RoomFact().process([]) is None


def text(**data: object) -> str:
    return config_text(routes(FLEET), SETTINGS | data, limits(8192), places=Places())


def test_no_secret_and_nothing_of_keys_is_in_the_configuration() -> None:
    assert "alice" not in text()


def test_no_thread_drops_a_line_of_the_log_for_another_one() -> None:
    text = config_text(routes(FLEET), SETTINGS, limits(8192), places=PLACES)
    targets = re.findall(r"^    log (\S+) ", text, re.MULTILINE)
    assert targets[0] == "unix@/dev/log"
    assert not {"stdout", "stderr"} & {*targets}


def test_tls_only_where_there_is_a_certificate() -> None:
    assert " ssl crt " not in text()
    with_tls = text(gateway_tls_certificate="x.pem", gateway_port=0)
    assert "ssl crt /etc/haproxy/farrier/tls.pem alpn h2,http/1.1" in with_tls
    assert "bind 0.0.0.0:80" not in with_tls


def test_affinity_is_a_key_a_user_or_a_header() -> None:
    assert affinity("") is None
    assert affinity("header X-Session-ID") == "req.fhdr(x-session-id)"
    assert "balance leastconn" in text()
    assert "hash-type consistent" in text(gateway_affinity="user")
    for wrong in ("session", "header", "header x)y"):
        with pytest.raises(ValueError, match="none of 'key', 'user'"):
            affinity(wrong)


def test_a_host_that_is_all_stops_its_engines_before_the_gateway() -> None:
    spec = host("one", model("tiny"))
    unit = gateway.unit_text(spec, SETTINGS, limits(8192, shared=True))
    assert "Before=engine-tiny.service" in unit
    assert "MemoryMax=1638M" in unit
    assert "Before=" not in gateway.unit_text(host("gw"), SETTINGS, limits(8192))


def pem(path: Path, *, days: int = 30, foreign: bool = False, mode: int = 0o600) -> Path:
    """A certificate of its own for a year ago until *days* from NOW, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gw")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - datetime.timedelta(days=365))
        .not_valid_after(NOW + datetime.timedelta(days=days))
        .sign(key, SHA256())
    )
    kept = ec.generate_private_key(ec.SECP256R1()) if foreign else key
    secret = kept.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(certificate.public_bytes(Encoding.PEM) + secret)
    path.chmod(mode)
    return path


def test_a_good_certificate_is_read_as_it_is(tmp_path: Path) -> None:
    path = pem(tmp_path / "tls.pem")
    assert read_certificate(path, NOW) == path.read_text()


def test_a_certificate_that_cannot_serve_is_refused_with_its_reason(tmp_path: Path) -> None:
    cases = {
        "has expired on 2026-11-21": pem(tmp_path / "old.pem", days=-1),
        "the key is not that of": pem(tmp_path / "foreign.pem", foreign=True),
        "chmod 600": pem(tmp_path / "open.pem", mode=0o644),
        "No such file": tmp_path / "none.pem",
    }
    (tmp_path / "text.pem").write_text("hello")
    (tmp_path / "text.pem").chmod(0o600)
    cases["cat CERTIFICATE CHAIN KEY"] = tmp_path / "text.pem"
    for reason, path in cases.items():
        with pytest.raises(CertificateError, match=reason):
            read_certificate(path, NOW)
    with pytest.raises(CertificateError, match="valid only from"):
        read_certificate(pem(tmp_path / "new.pem"), NOW - datetime.timedelta(days=400))


def test_where_a_host_reaches_its_own_gateway_over_tls() -> None:
    settings = {"gateway_addresses": ["0.0.0.0", "[::]"], "gateway_tls_port": 443}
    assert tls_address({**settings, "gateway_tls_certificate": ""}) is None
    certified = {**settings, "gateway_tls_certificate": "gw.pem"}
    assert tls_address(certified) == "127.0.0.1:443"
    assert tls_address({**certified, "gateway_addresses": ["192.0.2.7"]}) == "192.0.2.7:443"
