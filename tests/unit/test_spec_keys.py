"""The file of API keys: what it may say, and how it is refused without showing a key."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from farrier.spec import ApiKey, KeysError, read_keys

KEY = "sk-farrier-0123456789abcdef"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
OTHER = "another-key-of-20-characters"


def keys_file(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "keys.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_an_entry_is_a_key_or_a_table_of_what_its_client_may_do(tmp_path: Path) -> None:
    file = keys_file(
        tmp_path,
        f"""[keys]
alice = "{KEY}"
[keys.bob]
key = "{OTHER}"
models = ["qwen3-8b", "Qwen/Qwen3-Coder", "qwen3-8b"]
requests_per_minute = 60
streams = 4
[keys.carol]
sha256 = "{"AB" * 32}"
""",
    )
    keys = read_keys(file)
    assert list(keys) == ["alice", "bob", "carol"]
    assert keys["alice"] == ApiKey("alice", DIGEST, KEY)
    assert keys["bob"] == ApiKey.of(
        "bob",
        OTHER,
        models=("qwen3-8b", "Qwen/Qwen3-Coder"),
        requests_per_minute=60,
        streams=4,
    )
    assert keys["carol"] == ApiKey("carol", "ab" * 32, None)
    assert KEY not in repr(keys)
    assert OTHER not in repr(keys)


def test_a_key_without_a_list_of_models_may_use_all() -> None:
    assert ApiKey.of("alice", KEY).may_use("anything")
    some = ApiKey.of("alice", KEY, models=("a", "b"))
    assert (some.may_use("b"), some.may_use("c")) == (True, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one key"),
        ("[keys]\n", "at least one key"),
        (f'alice = "{KEY}"\n', "at least one key"),
        (f'[keys]\nalice = "{KEY}"\n[more]\n', "one table"),
        ("[keys]\nalice = 7\n", "entry 1 under [keys]: a key is 20 to 256"),
        (f'[keys]\nalice = "{KEY[:19]}"\n', "entry 1 under [keys]: a key is 20 to 256"),
        (f'[keys]\na = "{KEY}"\nb = "{KEY} "\n', "entry 2 under [keys]: a key is"),
        (f'[keys]\na = "{KEY}"\nb = "{KEY}\\n"\n', "entry 2 under [keys]: a key is"),
        (f'[keys]\nAlice = "{KEY}"\n', "entry 1 under [keys]: its name is no label"),
        (f'[keys]\n{KEY}x = "alice"\n', "entry 1 under [keys]"),
        (f'[keys]\na = "{KEY}"\nb = "{KEY}"\n', "entry 2 under [keys] has the same key as entry 1"),
        (
            f'[keys]\na = "{KEY}"\n[keys.b]\nsha256 = "{DIGEST.upper()}"\n',
            "entry 2 under [keys] has the same key as entry 1",
        ),
        ("[keys.a]\n", "entry 1 under [keys] has to have either key"),
        ("[keys.a]\nstreams = 4\n", "and has neither"),
        (f'[keys.a]\nkey = "{KEY}"\nsha256 = "{DIGEST}"\n', "not both"),
        (f'[keys.a]\nsha256 = "{KEY}"\n', "entry 1 under [keys]: sha256 is 64 hexadecimal"),
        (f'[keys.a]\nsha256 = "{DIGEST}0"\n', "entry 1 under [keys]: sha256 is 64"),
        ("[keys.a]\nkey = 7\n", "entry 1 under [keys]: a key is 20 to 256"),
        (f'[keys.a]\nkey = "{KEY}"\nmodel = ["b"]\n', "did you mean 'models'?"),
        (f'[keys.a]\n"{KEY}" = "key"\n', "entry 1 under [keys]: a field is none of key, sha256"),
        (f'[keys.a]\nkey = "{KEY}"\nmodels = "b"\n', "entry 1 under [keys]: models is a list"),
        (f'[keys.a]\nkey = "{KEY}"\nmodels = []\n', "entry 1 under [keys]: models is a list"),
        (f'[keys.a]\nkey = "{KEY}"\nmodels = ["a b"]\n', "entry 1 under [keys]: models is a"),
        (f'[keys.a]\nkey = "{KEY}"\nstreams = 0\n', "streams is a whole number from 1 to"),
        (f'[keys.a]\nkey = "{KEY}"\nstreams = true\n', "streams is a whole number from 1 to"),
        (
            f'[keys.a]\nkey = "{KEY}"\nrequests_per_minute = 0.5\n',
            "requests_per_minute is a whole number from 1 to",
        ),
        (f'[keys]\nalice = "{KEY}\n', "is not valid TOML (at line 2"),
        (f"[keys]\nalice = {KEY}\n", "is not valid TOML (at line 2"),
    ],
)
def test_a_keys_file_is_refused_without_showing_a_key(
    tmp_path: Path, text: str, message: str
) -> None:
    file = keys_file(tmp_path, text)
    with pytest.raises(KeysError) as caught:
        read_keys(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert KEY[:19] not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_keys_file_is_its_owners_alone(tmp_path: Path, mode: int) -> None:
    file = keys_file(tmp_path, f'[keys]\nalice = "{KEY}"\n', mode)
    with pytest.raises(KeysError, match=f"chmod 600 {file}"):
        read_keys(file)


def test_a_keys_file_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="No such file"):
        read_keys(tmp_path / "absent.toml")
    with pytest.raises(KeysError, match="not a regular file"):
        read_keys(tmp_path)
    os.mkfifo(tmp_path / "pipe", stat.S_IRUSR | stat.S_IWUSR)
    with pytest.raises(KeysError, match="not a regular file"):
        read_keys(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "binary").chmod(0o600)
    with pytest.raises(KeysError, match="not UTF-8"):
        read_keys(tmp_path / "binary")
