"""What the kernel says of GPUs, in every form in which it was seen; and garbage."""

from __future__ import annotations

import pytest
from farrier_agent.collectors.kernel_log import (
    MAX_TEXT,
    Lines,
    Reader,
    Record,
    concerns,
    is_fatal,
    record,
)
from farrier_agent.gpus import XidEvent
from hypothesis import example, given
from hypothesis import strategies as st

C1 = "00000000:C1:00.0"


def read(*lines: str | bytes) -> list[XidEvent]:
    """What these records or lines tell, one after another."""
    reader, events = Reader(), []
    for line in lines:
        raw = line if isinstance(line, bytes) else line.encode()
        one = record(raw) if concerns(raw) else None
        event = reader.feed(one, 1000.0) if one else None
        if event:
            events.append(event)
    return events


# the line, its XID, its PCI address, the action that it announces
FORMS: list[tuple[str, int, str | None, str | None]] = [
    (
        "NVRM: Xid (PCI:0000:c1:00): 79, pid=1122, name=python3, GPU has fallen off the bus.",
        79,
        C1,
        None,
    ),
    ("NVRM: Xid (PCI:0000:23:00): 79, GPU has fallen off the bus.", 79, "00000000:23:00.0", None),
    ("NVRM: Xid (0000:03:00): 14, Channel 00000001", 14, "00000000:03:00.0", None),
    # before there were domains: bus and device, which is no address that could be compared
    ("NVRM: Xid (0003:00): 13, 0001 00000000 00008397 00001b0c 1000f010", 13, None, None),
    (
        "NVRM: Xid (PCI:0000:cb:00): 13, pid='<unknown>', name=<unknown>, Graphics SM Warp"
        " Exception on (GPC 7, TPC 7, SM 0): Illegal Instruction Parameter",
        13,
        "00000000:CB:00.0",
        None,
    ),
    (
        "NVRM: Xid (PCI:0000:cb:00): 109, pid=1797828, name=pt_main_thread, Ch 00000008,"
        " errorString CTX SWITCH TIMEOUT, Info 0x58005",
        109,
        "00000000:CB:00.0",
        None,
    ),
    ("NVRM: Xid (PCI:0000:0f:00): 119, pid=1, name=x, Timeout", 119, "00000000:0F:00.0", None),
    # MIG: the GPU instance, and the compute instance
    (
        "NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9)."
        " RST: No, D-RST: No",
        94,
        "00000000:01:00.0",
        None,
    ),
    (
        "NVRM: Xid (PCI:0000:3b:00 GPU-I:01 GPU-CI:02): 13, pid=9, name=a, Graphics Exception",
        13,
        "00000000:3B:00.0",
        None,
    ),
    ("NVRM: Xid (PCI:10000:e1:00.0): 48, DBE", 48, "00010000:E1:00.0", None),
    (
        "NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6"
        " 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000)",
        149,
        "00000018:01:00.0",
        None,
    ),
    (
        "NVRM: Xid (PCI:0009:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6)",
        149,
        "00000009:01:00.0",
        None,
    ),
    (
        "NVRM: Xid (PCI:0000:00:1e): 149, NETIR_LINK_EVT Fatal XC 1 i 2 Link 01 [0x0000000a]",
        149,
        "00000000:00:1E.0",
        None,
    ),
    ("NVRM: Xid (PCI:0018:01:00): 149, NETIR_INT  Fatal   XC0 i0 Link -1", 149, None, None),
    *(
        (
            f"NVRM: Xid (PCI:0009:01:00): 154, GPU recovery action changed from 0x0 (None) to {to}",
            154,
            "00000009:01:00.0",
            action,
        )
        for to, action in (
            ("0x0 (None)", "none"),
            ("0x1 (GPU Reset Required)", "gpu_reset"),
            ("0x1 (PF FLR)", "gpu_reset"),
            ("0x2 (Node Reboot Required)", "node_reboot"),
            ("0x2 (OS Reboot)", "node_reboot"),
            ("0x3 (Drain P2P)", "drain_p2p"),
            ("0x4 (Drain and Reset)", "drain_and_reset"),
            ("0x2 (what a later driver calls it)", "node_reboot"),
            ("0x2", "node_reboot"),
            # 5 has two meanings in NVML's headers, so only its name counts
            ("0x5 (Bus Reset)", "bus_reset"),
            ("0x5 (Something new)", "unknown"),
            ("0xffffffff (?)", "unknown"),
        )
    ),
    ("NVRM: Xid (PCI:0000:c1:00): 154, something else", 154, C1, None),
    # no XID at all
    ("NVRM: GPU 0000:18:00.0: GPU has fallen off the bus.", 79, "00000000:18:00.0", None),
    ("NVRM: GPU at 0000:01:00.0 has fallen off the bus.", 79, "00000000:01:00.0", None),
    (
        "NVRM: The NVIDIA GPU 0000:05:00.0 installed in this system has fallen off the bus and is"
        " not responding to commands.",
        79,
        "00000000:05:00.0",
        None,
    ),
    # NVSwitch
    (
        "nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 20009, Non-fatal, Link 28 RX Short Error Rate",
        20009,
        "00000000:C3:00.0",
        None,
    ),
    ("nvidia-nvswitch1 SXid (PCI:0000:06:00.0): 12028, Fatal, Link 04", 12028, None, None),
]


@pytest.mark.parametrize(("line", "xid", "pci", "action"), FORMS, ids=[one[0] for one in FORMS])
@pytest.mark.parametrize("form", ["kmsg", "bare", "dmesg"])
def test_forms(line: str, xid: int, pci: str | None, action: str | None, form: str) -> None:
    whole = {
        "kmsg": f"3,7945,33839524378,-;{line}\n SUBSYSTEM=pci\n DEVICE=+pci:0000:c1:00.0\n",
        "bare": line,
        "dmesg": f"[33839.524378] {line}",
    }[form]
    (event,) = read(whole)
    assert (event.xid, event.recovery_action, event.source) == (xid, action, "kmsg")
    assert pci is None or event.pci_bus_id == pci
    assert event.text == line


GONE = [
    "NVRM: The NVIDIA GPU 0000:b3:00.0",
    "NVRM: (PCI ID: 10de:26b5) installed in this system has",
    "NVRM: fallen off the bus and is not responding to commands.",
]


@pytest.mark.parametrize(
    "lines",
    [
        ["4,1,2,-;" + "\\x0a".join(GONE) + "\n"],
        GONE,
        [GONE[0], " " * 15 + GONE[1], " " * 15 + GONE[2]],
        [f"4,{seq},5,-;{line}" for seq, line in enumerate(GONE)],
        [GONE[0], "NVRM: something of another GPU", GONE[1], "usb 1-1: new device", GONE[2]],
        [
            "NVRM: The NVIDIA GPU 0000:b3:00.0 (PCI ID: 10de:1e07) installed in this",
            "NVRM: system has fallen off the bus and is not responding to commands.",
        ],
    ],
)
def test_a_gpu_that_fell_off_the_bus_in_several_lines(lines: list[str]) -> None:
    (event,) = read(*lines)
    assert (event.xid, event.pci_bus_id) == (79, "00000000:B3:00.0")
    assert "not responding" in event.text


def test_the_end_of_such_a_message_long_after_its_beginning_is_of_another() -> None:
    assert read(GONE[0], *["NVRM: other"] * 20, GONE[2]) == []


def test_in_the_midst_of_such_a_message_others_count() -> None:
    events = read(GONE[0], "NVRM: Xid (PCI:0000:c1:00): 31, pid=1", GONE[1], GONE[2])
    assert [event.xid for event in events] == [31, 79]


@pytest.mark.parametrize(
    "line",
    [
        "NVRM: Xid (PCI:0000:c1:00): 0, noise",
        "NVRM: Xid (PCI:0000:66:00): abc, pid=2280636",
        "NVRM: Xid error: xyz, invalid data",
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.158.01",
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): garbled, Fatal",
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 00000, none",
        "NVRM: Xid (PCI:0000:c1:00): ٧٩, digits of another script",
        # what others write, with our words somewhere inside
        "engine[12]: NVRM: Xid (PCI:0000:c1:00): 79, forged",
        "usb 1-1: Product: NVRM: Xid (PCI:0000:c1:00): 79, forged",
        " NVRM_LOOKALIKE=NVRM: Xid (PCI:0000:c1:00): 79",
        "5,1,2,-;x\n NVRM: Xid (PCI:0000:c1:00): 79, in the dictionary",
        "5,1,2,-;comm a\\x0aNVRM: Xid (PCI:0000:c1:00): 79, after a line's end in a name",
    ],
)
def test_what_is_none(line: str) -> None:
    assert read(line) == []


def test_a_name_cannot_write_to_a_terminal_nor_fill_the_memory() -> None:
    name = "\\x1b[2J\\x00\\xe2\\x80\\xae"
    (event,) = read(f"4,1,2,-;NVRM: Xid (PCI:0000:c1:00): 13, name={name}, {'x' * 5000}")
    assert event.text.startswith("NVRM: Xid (PCI:0000:c1:00): 13, name= [2J  , xx")
    assert len(event.text) == MAX_TEXT
    assert event.text.isprintable()


def test_a_record_has_its_number_and_time() -> None:
    assert record(b"6,7945,33839524378,-,caller=T1;vb: up\n K=v\n") == Record(
        "vb: up", 7945, 33839.524378
    )
    assert record(b"[    1.500000] NVRM: hello") == Record("NVRM: hello", None, 1.5)


def test_the_kernel_tells_the_uuid_too() -> None:
    reader = Reader()
    uuid = "GPU-b9b26ba8-0b58-4a5f-8f3c-111111111111"
    assert reader.feed(Record(f"NVRM: GPU at PCI:0000:01:00: {uuid}"), 1.0) is None
    assert reader.uuids == {"00000000:01:00.0": uuid}


@pytest.mark.parametrize(
    ("text", "fatal"),
    [
        ("149, NETIR_LINK_EVT Fatal XC0", True),
        ("149, NETIR_LINK_EVT Nonfatal XC0", False),
        ("20009, Non-fatal, Link", False),
        ("20009, Non-Fatal, Link", False),
        ("20009, Fatal, Link", True),
    ],
)
def test_fatal(text: str, fatal: bool) -> None:
    assert is_fatal(text) is fatal


@given(st.lists(st.binary(max_size=50) | st.just(b"\n"), max_size=20), st.integers(1, 30))
def test_lines_come_out_as_they_were_however_they_are_cut(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    lines = Lines()
    found = []
    for at in range(0, len(data), size):
        found += lines.feed(data[at : at + size])
    found += lines.end()
    wanted = data.split(b"\n")
    assert found == (wanted if wanted[-1] else wanted[:-1])


def test_a_line_without_an_end_costs_no_more_than_a_line() -> None:
    lines = Lines()
    found = []
    for _ in range(1000):
        found += lines.feed(b"x" * 1000)
        assert lines.pending < 10_000
    assert [len(line) for line in found] == [8192]
    assert lines.feed(b"end\nnext\n") == [b"next"]


WORDS = st.sampled_from(
    [
        b"NVRM: ",
        b"Xid (",
        b"PCI:0000:c1:00",
        b"): ",
        b"79",
        b"154, GPU recovery action changed from 0x0 to 0x",
        b"\\x0a",
        b"\\xff",
        b"\x00",
        b"\n",
        b"6,1,2,-;",
        b"The NVIDIA GPU 0000:b3:00.0",
        b"fallen off the bus",
        b"nvidia-nvswitch0: SXid (",
        b"GPU at ",
        b"(",
        b" " * 50,
        "٣".encode(),
    ]
)


@given(st.lists(st.lists(WORDS | st.binary(max_size=20), max_size=12).map(b"".join), max_size=5))
@example([b"NVRM: Xid (PCI:0000:c1:00): " + "٣".encode()])
@example([b"9" * 30 + b",1,1,-;NVRM: Xid (0000:c1:00): 79"])
def test_whatever_the_log_has_it_costs_nothing(raws: list[bytes]) -> None:
    for event in read(*raws):
        assert 0 < event.xid < 100_000
        assert len(event.text) <= MAX_TEXT
        assert event.text.isprintable()
        assert event.pci_bus_id is None or len(event.pci_bus_id) == 16
