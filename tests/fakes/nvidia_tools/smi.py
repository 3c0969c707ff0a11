"""A stand-in for ``nvidia-smi``: ``-q [-i GPU]`` and ``--gpu-reset -i GPU[,GPU]``.

Lines of the state file that only it knows:

    reset.refuse <words>      a reset fails with these words
    reset.hang 1              a reset does not return
    reset.then <key> <value>  what a reset leaves behind: a line of the state file
    N.reset.linked 1          this GPU hangs together with others by NVLink
    smi.holders <words>       somebody else has the GPUs open
    smi.hang 1                ``-q`` does not return

A reset forgets what it ends on a real one: the recovery action, pending rows and pages, volatile
ECC errors, the energy's count; a pending ECC mode becomes the present one. It counts itself
(``resets N``).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fakes.nvidia_tools.state import State
else:  # by itself, wherever these files were put
    sys.path.insert(0, str(Path(__file__).parent))
    from state import State

_FAILED = """\
The following GPUs could not be reset:
  GPU {bus}: {why}

1 device is currently being used by one or more other processes (e.g., Fabric Manager, CUDA \
application, graphics application such as an X server, or a monitoring application such as another \
instance of nvidia-smi). Please first kill all processes using this device and all compute \
applications running in the system.
"""


def main(words: list[str]) -> int:
    """Do what *words* ask for; the exit code."""
    try:
        state = State()
    except FileNotFoundError:
        print(
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make"
            " sure that the latest NVIDIA driver is installed and running.\n"
        )
        return 9
    which = words[words.index("-i") + 1] if "-i" in words else None
    gpus = state.gpus() if which is None else state.meant(which)
    if not gpus:
        print("No devices were found")
        return 6
    if {"-r", "--gpu-reset"} & set(words):
        return reset(state, gpus)
    if "-q" in words:
        if state.get("smi.hang") == "1":
            time.sleep(600)
        print(queried(state, gpus))
    else:
        print("\n".join(f"Link 0: <inactive> of {state.uuid(one)}" for one in gpus))
    return 0


def queried(state: State, gpus: list[int]) -> str:
    """As ``nvidia-smi -q`` prints it, shortened."""
    lines = ["", "==============NVSMI LOG==============", ""]
    lines.append(f"Driver Version                            : {state.get('driver', '580.95.05')}")
    lines.append(f"Attached GPUs                             : {len(state.gpus())}")
    for gpu in gpus:
        lines.append(f"GPU {state.bus(gpu)}")
        for name, value in (
            ("Product Name", state.of(gpu, "name")),
            ("Serial Number", state.of(gpu, "serial")),
            ("GPU UUID", state.uuid(gpu)),
            ("VBIOS Version", state.of(gpu, "vbios")),
            ("Board Part Number", state.of(gpu, "part")),
            ("FRU Part Number", "N/A"),
        ):
            lines.append(f"    {name:<38}: {value}")
        lines.append("    PCI")
        lines.append(f"        Bus Id                             : {state.bus(gpu)}")
        lines.append("    ECC Mode")
        mode = "Enabled" if state.of(gpu, "ecc.mode") == "1" else "Disabled"
        lines.append(f"        Current                            : {mode}")
    return "\n".join(lines) + "\n"


def reset(state: State, gpus: list[int]) -> int:
    """As a real one, as far as can be seen."""
    if state.get("reset.hang") == "1":
        time.sleep(600)
    state.put("resets", str(int(state.get("resets", "0")) + 1))
    state.save()
    for gpu in gpus:
        if words := state.get("reset.refuse"):
            print(f"Unable to reset GPU {state.bus(gpu)}: {words}")
            return 255
        linked = [one for one in state.gpus() if state.get(f"{one}.reset.linked") == "1"]
        if gpu in linked and set(linked) - set(gpus):
            print(
                f"GPU Reset couldn't run because GPU {state.bus(gpu)} is connected by NVLink to"
                " GPUs that are not reset with it.\n"
            )
            return 3
        held = state.get("smi.holders") or (state.of(gpu, "processes") not in {"", "N/A"})
        if held or state.get(f"{gpu}.lost") == "1":
            why = "In use by another client" if held else "GPU is lost"
            print(_FAILED.format(bus=state.bus(gpu), why=why))
            return 255
    for gpu in gpus:
        mode = state.of(gpu, "ecc.pending")
        for pattern in ("recovery", "remapped[.]pending", "retired[.]pending", "ecc[.]mode"):
            state.drop(f"{gpu}[.]{pattern}")
        state.drop(rf"{gpu}[.]ecc[.]uncorrected[.]volatile.*")
        state.put(f"{gpu}.ecc.mode", mode)
        state.put(f"{gpu}.energy", "0")
        print(f"GPU {state.bus(gpu)} was successfully reset.")
    for line in [one for one in state.lines if one.startswith("reset.then ")]:
        state.lines.append(line.removeprefix("reset.then "))
    state.save()
    print("All done.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
