"""Engines' metrics on the agent's page: all of a real vLLM's, and nothing that could spoil ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from farrier_agent.engines.passthrough import (
    MAX_BYTES,
    MAX_LINES,
    MAX_SAMPLES,
    Family,
    Page,
    Relabeller,
    merged,
)
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from tests.agent.exposition import Samples, samples

VLLM = (Path(__file__).parent / "pages" / "vllm-0.32.0.txt").read_bytes()
"""What vLLM 0.32.0 told after a few chats, its ``_created`` series and its process's among it."""


def read(page: bytes | str, replica: str = "a", model: str = "m") -> Page:
    body = page.encode() if isinstance(page, str) else page
    return Relabeller(replica, model).read(body)


def lines(page: bytes | str) -> list[str]:
    """The samples that are passed on of *page*, without our two labels, sorted."""
    found = [line for family in read(page).families for line in family.lines]
    return sorted(
        re.sub(r'\{replica="a",model="m",?', "{", line).replace("{}", "") for line in found
    )


def shown(families: Sequence[Family], *, om: bool = False) -> str:
    """A page of *families* alone, in 0.0.4 or OpenMetrics."""
    return "".join(_shown(one, om=om) for one in families) + ("# EOF\n" if om else "")


def _shown(family: Family, *, om: bool) -> str:
    name, kind = family.name, family.kind
    text = family.text.replace("\\", "\\\\").replace("\n", "\\n")
    if om:
        name = name.removesuffix("_total") if kind == "counter" else name
        kind = "unknown" if kind == "untyped" else kind
        text = text.replace('"', '\\"')
    return "\n".join((f"# HELP {name} {text}", f"# TYPE {name} {kind}", *family.lines, ""))


def accepted(families: Sequence[Family]) -> Samples:
    """The samples of *families*, as both reference parsers read them; they refuse what is bad."""
    for family in openmetrics(shown(families, om=True)):  # type: ignore[no-untyped-call]
        assert family.samples
    found: Samples = {}
    for family in plain_text(shown(families)):
        for one in family.samples:
            key = (one.name, tuple(sorted(one.labels.items())))
            assert key not in found, f"twice: {key}"
            assert one.value == one.value, f"NaN: {key}"
            assert {"replica", "model"} <= one.labels.keys()
            found[key] = one.value
    return found


def test_every_sample_of_a_real_vllm_arrives_with_its_value() -> None:
    found = accepted(read(VLLM, "tiny", "llama").families)
    wanted = {}
    for family in plain_text(VLLM.decode()):
        for one in family.samples:
            if one.name.endswith("_created") or one.name.startswith("python_"):
                continue
            name = f"engine_{one.name}" if one.name.startswith("process_") else one.name
            ours = {"replica": "tiny", "model": "llama"}
            wanted[name, tuple(sorted((one.labels | ours).items()))] = one.value
    assert found == wanted
    assert len(found) > 350
    assert read(VLLM).faulty == 0


def test_real_pages_of_four_replicas_make_one_good_page() -> None:
    pages = [read(VLLM, f"r{number}") for number in range(4)]
    families, clashes = merged(pages)
    assert clashes == 0
    assert len(accepted(families)) == 4 * len(accepted(pages[0].families))
    assert samples(shown([one for one in families if one.kind != "untyped"]))


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("a 1", ["a 1"]),
        ("a 1\r\n", ["a 1"]),
        ("a{} 1", ["a 1"]),
        ("a\t 1", ["a 1"]),
        ('a{x="1"}2', ['a{x="1"} 2']),
        ('a{ x = "1" , } 2', ['a{x="1"} 2']),
        (r'a{x="\\\"\n}"} 2', [r'a{x="\\\"\n}"} 2']),
        ("a 1 1700000000000", ["a 1"]),
        ('a{x="1"} 1 # {trace="9"} 2 3', ['a{x="1"} 1']),
        ('a{replica="x",model="y"} 1', ['a{exported_replica="x",exported_model="y"} 1']),
        ("# TYPE a counter\na_total 1", ["a_total 1"]),
        ("# TYPE a_total counter\na_total 1\n# TYPE a_created gauge\na_created 2", ["a_total 1"]),
        ("a_created 2", ["a_created 2"]),
        ("# TYPE a gauge\na +Inf", ["a +Inf"]),
        ("# TYPE a gauge\na -1.5e-3", ["a -1.5e-3"]),
        ("process_open_fds 1", ["engine_process_open_fds 1"]),
        (
            '# TYPE s summary\ns{quantile="1"} 2\ns_sum 3\ns_count 1',
            ["s_count 1", "s_sum 3", 's{quantile="1.0"} 2'],
        ),
        ("llama:tokens_per_second 1.", ["llama:tokens_per_second 1."]),
    ],
)
def test_a_good_line_is_passed_on(page: str, wanted: list[str]) -> None:
    assert lines(page) == wanted
    assert read(page).faulty == 0
    accepted(read(page).families)


@pytest.mark.parametrize(
    "line",
    [
        "a", "a ", "a x", "a 0x10", "a 1_0", "a 1e400", "a 1 2 3", "a 1e", "a ++1", "1a 1", "a-b 1",
        "a{x} 1", "a{x=1} 1", 'a{x="1} 1', 'a{x="1",,} 1', 'a{x="1" y="2"} 1', 'a{x="1",x="2"} 1',
        r'a{x="\t"} 1', 'a{__name__="b"} 1', 'a{replica="1",exported_replica="2"} 1',
        '{"a.b"} 1', '{"a",x="1"} 1', "a{" + ",".join(f'x{n}="1"' for n in range(99)) + "} 1",
        'a{x="' + "y" * 1025 + '"} 1', "# TYPE a counter\na_total -1",
        "# TYPE a counter\na_total +Inf",
        "# TYPE a histogram\na 1", "# TYPE a summary\na 1", '# TYPE a summary\na{quantile="2"} 1',
    ],
)  # fmt: skip
def test_a_faulty_line_is_not(line: str) -> None:
    assert lines(f"before 1\n{line}\nafter 2\n") == ["after 2", "before 1"]


@pytest.mark.parametrize(
    "line",
    [
        *("python_info 1", "up 1", "scrape_duration_seconds 1", "farrier_gpu_up 0"),
        *("llm_requests_total 9", "ALERTS 1", "a NaN"),
    ],
)
def test_what_belongs_to_others_is_left_out_without_being_a_fault(line: str) -> None:
    assert read(f"before 1\n{line}\n") == read("before 1\n\n")


def test_no_byte_that_is_not_utf_8_is_passed_on() -> None:
    assert lines(b'a{x="\xff"} 1\nb{x="\xc3\xa9"} 2\n') == ['b{x="é"} 2']


def test_a_series_that_is_said_twice_is_passed_on_once() -> None:
    page = read('a{x="1",y="2"} 1\na{y="2",x="1"} 2\n')
    assert page.families == (
        Family("a", "untyped", page.families[0].text, ('a{replica="a",model="m",x="1",y="2"} 1',)),
    )
    assert page.faulty == 1


WHOLE = """# HELP h How long.
# TYPE h histogram
h_bucket{le="1",x="1"} 1
h_bucket{le="+Inf",x="1"} 2
h_count{x="1"} 2
h_sum{x="1"} 3.5
"""


def test_a_histogram_is_passed_on_in_order_whatever_its_order_was() -> None:
    shuffled = "".join(reversed(WHOLE.splitlines(keepends=True)))
    assert read(shuffled).families[0].lines == (
        'h_bucket{replica="a",model="m",le="1.0",x="1"} 1',
        'h_bucket{replica="a",model="m",le="+Inf",x="1"} 2',
        'h_count{replica="a",model="m",x="1"} 2',
        'h_sum{replica="a",model="m",x="1"} 3.5',
    )


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('le="+Inf"', 'le="7"'),
        ('le="1"', 'le="-1"'),
        ('le="1",x="1"} 1', 'le="1",x="1"} 3'),
        ('le="1",x="1"} 1', 'le="1",x="1"} 0.5'),
        ('h_count{x="1"} 2', 'h_count{x="1"} 4'),
        ('h_sum{x="1"} 3.5', 'h_sum{x="1"} NaN'),
        ('h_sum{x="1"} 3.5\n', ""),
    ],
)
def test_a_histogram_that_contradicts_itself_is_left_out_alone(good: str, bad: str) -> None:
    assert good in WHOLE
    other = WHOLE.replace('x="1"', 'x="2"').split("\n", 2)[2]
    page = read(WHOLE.replace(good, bad) + other)
    assert len(page.families[0].lines) == 4
    assert 'x="1"' not in "".join(page.families[0].lines)
    assert page.faulty >= 3
    accepted(page.families)


def test_model_names_are_escaped() -> None:
    assert read("a 1", model='org/"m"\\1').families[0].lines == (
        r'a{replica="a",model="org/\"m\"\\1"} 1',
    )


def test_a_help_is_one_printable_line_and_a_kind_is_one_that_both_formats_have() -> None:
    page = read("# HELP a one\\ntwo\x07 \\\\ \n# TYPE a info\na 1\n")
    assert page.families[0][1:3] == ("untyped", "one two  \\ ")


def test_two_versions_of_an_engine_that_disagree_leave_the_first_one_whole() -> None:
    first = read("# TYPE a gauge\na 1\nb 1\n", "x")
    second = read("# TYPE a counter\na_total 1\nb 2\n", "y")
    third = read(WHOLE.replace("h_", "b_").replace(" h ", " b "), "z")
    families, clashes = merged([first, second, third])
    assert clashes == 2
    assert [(one.name, len(one.lines)) for one in families] == [("a", 1), ("b", 2)]
    accepted(families)


def test_a_page_is_bounded_in_bytes_lines_and_samples() -> None:
    assert read(b"a 1\n" + b"#" * MAX_BYTES) == Page((), 1)
    assert read(b"\n" * MAX_LINES) == Page((), 1)
    many = "".join(f'a{{x="{number}"}} 1\n' for number in range(MAX_SAMPLES))
    assert len(lines(many)) == MAX_SAMPLES
    over = read(many + "b 1\n")
    assert ([one.name for one in over.families], over.faulty) == (["a"], 1)


def test_a_page_with_other_lines_is_not_read_by_the_plan_of_the_one_before() -> None:
    relabeller = Relabeller("a", "m")
    pages = [
        "a 1\nb 2",
        "a 1\nb 3",
        "b 2\na 1",
        "# TYPE a gauge\nb 2",
        "# TYPE a gaugehistogram\nb 2",
        "a 1",
        "",
        "x",
    ]
    for page in (*pages, *reversed(pages)):
        assert relabeller.read(page.encode()) == read(page)


VALUES = st.sampled_from(["0.0", "1", "-2", "NaN", "+Inf", "7 123", "1e999", "x", ""])
PIECES = st.sampled_from(
    [
        *WHOLE.splitlines(),
        *("a 1", "a_total 1", "a_sum 2", "a_bucket 1", "a_created 2", "h 1", "h_total 1"),
        *("# TYPE a counter", "# TYPE a gauge", "# TYPE a_bucket summary"),
    ]
)


@given(st.binary())
@example(b"a 1\n\xff\n")
@example(b"a 1\x0bb 2")
def test_whatever_an_engine_says_the_page_stays_good(body: bytes) -> None:
    accepted(merged([read(body), read(WHOLE)])[0])


@given(st.lists(PIECES), st.lists(PIECES))
def test_whatever_families_engines_mix_the_page_stays_good(one: list[str], two: list[str]) -> None:
    accepted(merged([read("\n".join(one), "x"), read("\n".join(two), "y")])[0])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", 'h_bucket{le="+Inf"}', "h_count", "h_sum", "c_total"]), VALUES
        )
    ),
    st.data(),
)
def test_other_values_are_read_as_if_nothing_was_known(
    page: list[tuple[str, str]], data: st.DataObject
) -> None:
    types = "# TYPE h histogram\n# TYPE c_total counter\n"
    relabeller = Relabeller("a", "m")
    for _ in range(3):
        text = types + "\n".join(f"{head} {data.draw(VALUES)}" for head, _ in page)
        told = relabeller.read(text.encode())
        assert told == read(text)
        accepted(told.families)
