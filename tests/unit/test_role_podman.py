"""Engines in images: what the inventory may say, podman's argv, and what the role says and runs.

podman itself is a stand-in here (a few lines of sh); that the real one does as it is told is in
tests/full/test_images.py.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farrier.converge.images import explain_load, explain_pull, load_script, pull_script
from farrier.preflight.wanted import wanted
from farrier.spec import OPEN_ACCESS, ArchiveImage, HostSpec, Model, RegistryImage, read_host
from farrier.spec.engines import ENGINES
from roles import engine
from roles import podman as role
from roles.engine.commands import argv, environment

RUN = Path(role.__file__).parent / "templates" / "run"
SETTINGS = engine.DEFAULTS.data()
CUDA = HostSpec("gpu01", groups=("gpu",))
CPU = HostSpec("gpu02", groups=("gpu",), accelerator="cpu")
DIGEST = "ab" * 32
NAME = "ghcr.io/huggingface/text-generation-inference"
FIELDS: dict[str, Any] = {
    "name": "chat",
    "engine": "tgi",
    "source": "path:/srv/models/chat",
    "gpus": [2, 3],
    "port": 8105,
    "image": f"{NAME}:3.3.7@sha256:{DIGEST}",
    "command": ENGINES["tgi"].example,
    "env": {"MAX_TOTAL_TOKENS": "4096"},
}
CHAT = Model(**FIELDS)
ARCHIVE = f"/srv/images/tgi.tar@sha256:{DIGEST}"


def problems(model: Model, accelerator: str = "cuda") -> dict[str, str]:
    data = {"models": [model], "open_access": OPEN_ACCESS, "accelerator": accelerator}
    return {one.field: one.message for one in read_host("gpu01", ["gpu"], data)[1]}


def test_what_the_inventory_may_say() -> None:
    assert problems(CHAT) == {}
    assert CHAT.parsed_image() == RegistryImage(NAME, DIGEST)
    archived = Model(**FIELDS | {"image": "", "image_archive": ARCHIVE})
    assert problems(archived) == {}
    assert archived.parsed_image() == ArchiveImage("/srv/images/tgi.tar", DIGEST)
    local = Model(**FIELDS | {"image": f"localhost:5000/a/b@sha256:{DIGEST}"})
    assert problems(local) == {}
    for name in ("custom", "sglang", "trtllm", "triton"):
        example = ENGINES[name].example or ("/serve", "{port}")
        assert problems(Model(**FIELDS | {"engine": name, "command": example})) == {}
    assert problems(Model(**FIELDS | {"image": ""})) == {}


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"image": f"{NAME}:3.3.7"}, "image", f"no digest, .* write {NAME}:3.3.7@sha256:DIGEST"),
        ({"image": f"{NAME}@sha256:abc"}, "image", "64 hexadecimal digits"),
        ({"image": f"tgi@sha256:{DIGEST}"}, "image", "is not of the form registry/name"),
        ({"image": f"library/tgi@sha256:{DIGEST}"}, "image", "names no registry.*docker.io/libr"),
        ({"image": 7}, "image", "must be text"),
        ({"image": "", "image_archive": "/x.tar"}, "image_archive", r"sha256:HASH \(sha256sum x.t"),
        ({"image": "", "image_archive": f"x@sha256:{DIGEST}"}, "image_archive", "absolute path"),
        ({"image_archive": ARCHIVE}, "image_archive", "one image: leave image or image_archive"),
        ({"engine": "vllm", "command": None}, "image", "'vllm' is installed by its role.*tgi"),
        ({"command": ["serve", "{host}", "{port}"]}, "command", "absolute path in its image"),
    ],
)
def test_what_it_may_not(fields: dict[str, Any], field: str, words: str) -> None:
    found = problems(Model(**FIELDS | fields))
    assert found.keys() == {f"models[0].{field}"}
    assert re.search(words, found[f"models[0].{field}"]), found


def test_an_engine_that_is_installed_or_not_needs_a_command_for_its_image() -> None:
    model = Model(**FIELDS | {"engine": "llama_cpp", "command": None, "source": "path:/m/a.gguf"})
    found = problems(model)
    assert found == {"models[0].image": "what runs from it is not said: give its argv as command"}


def test_podman_is_told_to_be_like_the_unit_and_to_give_what_is_asked_for() -> None:
    words = argv(CHAT, CUDA, SETTINGS, "/usr")
    image = f"{NAME}@sha256:{DIGEST}"
    assert words[:4] == ["/opt/farrier/podman/run", "farrier-engine", image, "engine-chat"]
    at = words.index(image, 4)
    options, command = words[4:at], words[at + 1 :]
    assert command == [
        *("--model-id", "/srv/models/chat", "--hostname", "127.0.0.1", "--port", "8105")
    ]
    assert options[-1] == "--entrypoint=/tgi-entrypoint.sh"
    assert all(one.startswith("--") for one in options)
    assert {
        *("--rm", "--pull=never", "--init"),
        *("--cgroups=disabled", "--sdnotify=ignore", "--network=host", "--log-driver=passthrough"),
        *("--cap-drop=all", "--security-opt=no-new-privileges", "--read-only"),
        *("--device=nvidia.com/gpu=2", "--device=nvidia.com/gpu=3"),
        "--volume=/srv/models/chat:/srv/models/chat:ro",
        "--volume=/var/lib/farrier/engines/chat:/var/lib/farrier/engines/chat",
        *("--env=HOME=/var/lib/farrier/engines/chat", "--env=MAX_TOTAL_TOKENS=4096"),
        "--env=HF_HUB_OFFLINE=1",
    } <= set(options)
    # its GPUs are all that it sees: a second count of them would hide them
    assert not [one for one in options if "VISIBLE_DEVICES" in one]


def test_one_without_gpus_or_a_directory_gets_none() -> None:
    model = replace(
        CHAT, engine="custom", gpus=(), source="hf:a/b@main", command=("/serve", "{port}")
    )
    words = argv(model, CPU, SETTINGS, "/usr")
    assert not [one for one in words if one.startswith("--device") or "OFFLINE" in one]
    assert [one for one in words if one.startswith("--volume")] == [
        "--volume=/var/lib/farrier/engines/chat:/var/lib/farrier/engines/chat"
    ]


def test_its_unit_is_that_of_all_engines() -> None:
    text = engine.unit_text(CHAT, CPU, SETTINGS, "/usr")
    (start,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    assert start.startswith("ExecStart=+/opt/farrier/podman/run farrier-engine ")
    assert "User=farrier-engine\n" in text
    assert "SuccessExitStatus=143\n" in text
    # its device filter would be in force for podman, too, in spite of the +
    assert "PrivateDevices" not in text
    assert [line for line in text.splitlines() if line.startswith("Environment=")] == [
        "Environment=HOME=/root"
    ]
    assert environment(CHAT, CUDA, "/usr") == {"HOME": "/root"}
    # nor does anything of it stand in the unit of an engine of the host
    own = engine.unit_text(Model(**FIELDS | {"image": ""}), CPU, SETTINGS, "/usr")
    assert "ExecStart=/tgi-entrypoint.sh" in own
    assert "143" not in own
    assert "PrivateDevices=yes" in own


def test_another_digest_is_another_configuration() -> None:
    other = replace(CHAT, image=f"{NAME}@sha256:{'cd' * 32}")
    hashes = {
        engine.config_hash(engine.unit_text(model, CUDA, SETTINGS, "/usr"))
        for model in (CHAT, other, replace(CHAT, image="", image_archive=ARCHIVE))
    }
    assert len(hashes) == 3
    tagged = replace(CHAT, image=f"{NAME}:latest@sha256:{DIGEST}")
    assert argv(tagged, CUDA, SETTINGS, "/usr") == argv(CHAT, CUDA, SETTINGS, "/usr")


def test_an_archive_that_is_not_on_the_operators_machine_is_known(tmp_path: Path) -> None:
    there = tmp_path / "there.tar"
    there.touch()
    models = tuple(
        replace(CHAT, image="", image_archive=f"{path}@sha256:{DIGEST}")
        for path in (there, tmp_path / "not.tar", "https://example.org/x.tar")
    )
    found = wanted(replace(CUDA, models=models), {})
    assert found.no_archives == {str(tmp_path / "not.tar")}


# What the host runs


class Podman:
    """A stand-in for podman: it has the images that are files of its directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "bin").mkdir()
        (directory / "images").mkdir()
        self.loads = directory / "loads"
        program = directory / "bin" / "podman"
        program.write_text(
            "#!/bin/sh\n"
            f"cd {directory}\n"
            'case "$1 $2" in\n'
            '    "image exists") [ ! -e broken ] || { echo storage is broken >&2; exit 125; }\n'
            '        [ -e "images/$(echo "$3" | tr / _)" ];;\n'
            '    "load -q") cat loads;;\n'
            '    "image ls") echo sha256:id-1;;\n'
            '    "image rm") echo "$@" >> removals;;\n'
            '    "image inspect") [ "$5" = two ] && echo id-2 || echo id-1;;\n'
            '    "rm "*) echo "$@" >> removals; [ "$(wc -l < removals)" -gt 1 ];;\n'
            '    "tag id-1") echo "$3" >> "images/$(echo "$3" | tr / _)";;\n'
            '    *) echo "$@";;\n'
            "esac\n"
        )
        program.chmod(0o755)

    def has(self, reference: str) -> None:
        (self.directory / "images" / reference.replace("/", "_")).touch()

    def sh(self, *words: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.directory}/bin:{os.environ['PATH']}"
        return subprocess.run(
            words, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path}
        )


@pytest.fixture
def fake(tmp_path: Path) -> Podman:
    return Podman(tmp_path)


def test_what_starts_it_gives_the_engine_the_hosts_account(fake: Podman) -> None:
    me = pwd.getpwuid(os.getuid())
    fake.has("a/b@sha256:00")
    words = (me.pw_name, "a/b@sha256:00", "engine-chat", "--rm", "--env=A=b c", "x")
    done = fake.sh("sh", str(RUN), *words)
    account = f"{me.pw_uid}:{me.pw_gid}"
    start = f"run --name engine-chat --replace --user {account} --rm --env=A=b c x\n"
    assert (done.stdout, done.stderr) == (start, "")
    # as podman does after its conmon was killed: the first removal fails
    removal = "rm --force --ignore --time 0 engine-chat\n"
    assert (fake.directory / "removals").read_text() == removal * 2


def test_what_starts_it_says_what_is_not_there(fake: Podman) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    done = fake.sh("sh", str(RUN), me, "a/b@sha256:00", "engine-x", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "run: error: the image a/b@sha256:00 is not on this host: run the deploy again, which"
        " brings it\n"
    )
    (fake.directory / "broken").touch()
    done = fake.sh("sh", str(RUN), me, "a/b@sha256:00", "engine-x", "x")
    assert "podman cannot look for the image a/b@sha256:00: storage is broken" in done.stderr
    done = fake.sh("sh", str(RUN), "no-such-user", "a/b@sha256:00", "engine-x", "x")
    assert "there is no user no-such-user" in done.stderr


def loaded(fake: Podman, said: str, content: bytes = b"an image") -> Any:
    """The script that loads an archive, with its directory in ours."""
    fake.loads.write_text(said)
    archive = fake.directory / "image.tar"
    archive.write_bytes(content)
    image = ArchiveImage(str(archive), hashlib.sha256(b"an image").hexdigest())
    script = load_script(image, str(archive))
    script = script.replace("/opt/farrier/podman", f"{fake.directory}/opt")
    return image, archive, fake.sh("sh", "-euc", script)


@pytest.mark.parametrize(
    "said",
    [
        "Loaded image: localhost/tgi:3.3.7\n",
        "Loaded image: sha256:00\n",
        "Loaded image: localhost/tgi:a\nLoaded image: localhost/tgi:b\n",  # one with two names
        "Loaded image(s): localhost/tgi:a,localhost/tgi:b\n",
    ],
)
def test_an_archive_is_known_by_its_hash(fake: Podman, said: str) -> None:
    image, archive, done = loaded(fake, said)
    assert done.returncode == 0, done.stderr
    assert (fake.directory / "images" / image.reference.replace("/", "_")).exists()
    brought = fake.directory / "opt" / "brought" / image.digest
    assert brought.read_text() == f"{image.reference}\n"
    assert not archive.exists()


def test_an_archive_of_two_images_or_with_another_hash_is_not_taken(fake: Podman) -> None:
    image, _, done = loaded(fake, "Loaded image: one\nLoaded image: two\n")
    assert done.returncode == 1
    assert "holds more than one image" in explain_load(done.stderr, image)
    assert "podman save -o FILE IMAGE" in explain_load(done.stderr, image)
    # what was there before stays
    assert (fake.directory / "removals").read_text() == "image rm --force id-2\n"
    image, archive, done = loaded(fake, "Loaded image: one\n", b"another")
    assert done.returncode == 1
    assert not archive.exists()
    assert list((fake.directory / "images").iterdir()) == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "Error: initializing source docker://x: reading manifest sha256:00 in x: manifest"
            " unknown",
            f"ghcr.io has no image {NAME} with the digest sha256:{DIGEST}",
        ),
        ("unauthorized: authentication required", "podman login --authfile"),
        ("requested access to the resource is denied", "podman login --authfile"),
        ("dial tcp: lookup ghcr.io: no such host", "image_archive='/path/to/FILE@sha256:HASH'"),
        ("write /var/lib/containers: no space left on device", "df -h /var/lib/containers"),
    ],
)
def test_a_pull_that_failed_says_why_and_what_to_do(said: str, words: str) -> None:
    told = explain_pull(said, RegistryImage(NAME, DIGEST))
    assert words in told
    assert said in told


def test_a_pull_is_by_digest() -> None:
    script = pull_script(RegistryImage(NAME, DIGEST))
    assert f"podman pull -q {NAME}@sha256:{DIGEST}" in script
    assert f"/opt/farrier/podman/brought/{DIGEST}" in script
