"""Basic authentication and rates: who is answered, how often, and what a wrong password costs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import bcrypt
import pytest
from farrier_agent.web import passwords
from farrier_agent.web.bucket import Bucket, Buckets
from farrier_agent.web.users import BURST, credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agent.host import until
from tests.agent.web.conftest import Serve
from tests.agent.web.served import ALICE, ask, basic

USERS = f"basic_auth_users:\n  alice: {ALICE}\n"


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


# -- bcrypt ------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.text(min_size=1, max_size=24).filter(lambda text: "\0" not in text), st.text(max_size=24))
def test_passwords_are_checked_as_bcrypt_says(password: str, other: str) -> None:
    made = hashed(password).encode()
    for variant in (b"2a", b"2b", b"2y"):  # one algorithm by three names
        one = b"$" + variant + made[3:]
        assert passwords.matches(password.encode(), one)
        if other != password:
            assert not passwords.matches(other.encode(), one)
    assert not passwords.matches(password.encode() + b"\0more", made)


def test_this_host_can_check_passwords() -> None:
    passwords.check()


@pytest.mark.parametrize("made", [b"", b"*0", b"$2b$04$", b"$2b$99$" + b"a" * 53, b"x" * 9999])
def test_what_is_no_hash_matches_nothing(made: bytes) -> None:
    assert not passwords.matches(b"", made)
    assert not passwords.matches(made, made)


# -- the header --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (basic("alice", "a:b:c")["Authorization"], ("alice", "a:b:c")),
        (basic("alice", "")["Authorization"], ("alice", "")),
        (basic("ü", "ß")["Authorization"], ("ü", "ß")),
        ("bAsIc YTpi", ("a", "b")),
        (None, None),
        ("", None),
        ("Bearer YTpi", None),
        ("Basic", None),
        ("Basic YWxpY2U=", None),
        ("Basic YTpi!", None),
        ("Basic /////w==", None),
    ],
)
def test_what_a_client_says_of_itself(header: str | None, found: tuple[str, str] | None) -> None:
    assert credentials(header) == found


@given(st.text())
def test_any_header_can_be_read(text: str) -> None:
    assert credentials(text) is None or ":" not in (credentials(text) or ("", ""))[0]
    assert credentials("Basic " + text) is None or True


# -- who is answered -----------------------------------------------------------------------------


def test_without_a_password_nothing_is_told(serve: Serve) -> None:
    one = serve(USERS)
    for path in ("/metrics", "/livez", "/status", "/readyz", "/nowhere"):
        reply = one.get(path)
        assert reply.code == 401
        assert reply.headers["www-authenticate"] == "Basic"
        assert b"farrier_" not in reply.body
        assert b"/metrics" not in reply.body


@pytest.mark.parametrize(
    ("user", "password"),
    [("alice", ""), ("alice", "Wonderland"), ("", "wonderland"), ("bob", "wonderland"), ("", "")],
)
def test_wrong_ones(serve: Serve, user: str, password: str) -> None:
    assert serve(USERS).get(headers=basic(user, password)).code == 401


def test_the_right_ones(serve: Serve) -> None:
    one = serve(USERS + f"  bob: {hashed('builder')}\n")
    assert one.get("/metrics", basic()).code == 200
    assert one.get("/metrics", basic("bob", "builder")).code == 200
    assert one.get("/metrics", basic("bob", "wonderland")).code == 401
    assert one.get("/metrics", basic()).code == 200


def test_a_right_password_is_computed_once(serve: Serve) -> None:
    """At a cost of 12 it takes 0.2 s: a hundred of them would take 20 s."""
    one = serve(f"basic_auth_users: {{alice: {hashed('wonderland', 12)}}}")
    begun = time.monotonic()
    for _ in range(100):
        assert one.get(headers=basic()).code == 200
    assert time.monotonic() - begun < 10


def test_an_unknown_user_takes_as_long_as_a_known_one(serve: Serve) -> None:
    one = serve(f"basic_auth_users: {{alice: {hashed('wonderland', 12)}}}")
    assert one.get(headers=basic()).code == 200

    def cost(user: str) -> float:
        begun = time.process_time()  # the server runs here, and other programs do not count
        assert one.get(headers=basic(user, "wrong")).code == 401
        return time.process_time() - begun

    known, unknown = min(cost("alice") for _ in range(3)), min(cost("mallory") for _ in range(3))
    assert 0.3 < known / unknown < 3
    assert unknown > 0.05


def test_wrong_passwords_are_counted_and_who_was_right_is_answered_on(serve: Serve) -> None:
    one = serve(f"basic_auth_users: {{alice: {hashed('wonderland', 10)}}}")
    assert one.get(headers=basic()).code == 200
    with ThreadPoolExecutor(8) as pool:
        guesses = [pool.submit(one.get, "/metrics", basic("alice", f"g{n}")) for n in range(100)]
        for _ in range(20):
            begun = time.monotonic()
            assert one.get("/metrics", basic()).code == 200
            assert time.monotonic() - begun < 5
        codes = [guess.result().code for guess in guesses]
    assert set(codes) == {401, 429}
    assert codes.count(401) <= BURST + 5, "each costs 50 ms of a core"
    # on a busy machine one or another may be due again by now
    guesses_again = (one.get(headers=basic("alice", "guess")) for _ in range(BURST + 5))
    refused = next(answer for answer in guesses_again if answer.code == 429)
    assert refused.headers["retry-after"] == "2"


def test_a_user_who_is_taken_out_is_refused_on_an_open_connection(serve: Serve) -> None:
    one = serve(USERS + f"  bob: {hashed('builder')}\n")
    alice, bob = one.connection(), one.connection()
    assert ask(alice, headers=basic()).code == 200
    assert ask(bob, headers=basic("bob", "builder")).code == 200
    one.write(USERS)
    until(lambda: ask(bob, headers=basic("bob", "builder")).code in {401, 429})
    assert ask(alice, headers=basic()).code == 200
    one.write(f"basic_auth_users: {{alice: {hashed('looking-glass')}}}")
    until(lambda: ask(alice, headers=basic("alice", "looking-glass")).code == 200)
    assert ask(alice, headers=basic()).code in {401, 429}


# -- rates ---------------------------------------------------------------------------------------


def test_a_rate_for_everybody(serve: Serve) -> None:
    one = serve("rate_limit: {interval: 1h, burst: 3}")
    assert [one.get().code for _ in range(5)] == [200, 200, 200, 429, 429]
    assert one.get().headers["retry-after"]


class Watch:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket() -> None:
    watch = Watch()
    bucket = Bucket(2.0, 3, watch)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    watch.now = 1.9
    assert not bucket.take()
    watch.now = 2.0
    assert [bucket.take(), bucket.take()] == [True, False]
    watch.now = 1000.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_buckets_of_addresses() -> None:
    watch = Watch()
    buckets = Buckets(1.0, 1, most=3, clock=watch)
    assert buckets.take("10.0.0.1")
    assert not buckets.take("10.0.0.1")
    assert buckets.take("10.0.0.2")
    assert buckets.take("2001:db8::1")
    assert not buckets.take("2001:db8::ffff:1"), "one network, one customer"
    assert not buckets.take("10.0.0.1")
    for number in range(3):
        buckets.take(f"10.1.0.{number}")
    assert buckets.take("10.0.0.1"), "the one that was seen the longest time ago is forgotten"
