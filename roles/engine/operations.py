"""Operations on replicas: their users, waiting for them, and what the inventory has forgotten."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge.commands import Refuse, Script, in_words
from farrier.converge.questions import Question, answer
from farrier.converge.report import note
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from farrier.converge.commands import Commands
    from farrier.spec import Model

__all__ = ["ReplicaState", "accounts", "orphans", "ready"]


class Accounts(FactBase[set[str]]):
    """Names of the system's users."""

    def command(self, users: Sequence[str]) -> str:
        """One process for all of *users*."""
        return f"getent passwd {' '.join(map(shlex.quote, users))}; true"

    @staticmethod
    def default() -> set[str]:
        """None of them."""
        return set()

    def process(self, output: list[str]) -> set[str]:
        """The names."""
        return {line.partition(":")[0] for line in output}


@operation(asks=lambda users: Question(Accounts, {"users": users}, several="users"))
def accounts(users: Sequence[str]) -> Commands:
    """Create the system users *users*, whose home is of no use to anybody.

    + users: names
    """
    there = answer()
    missing = [user for user in users if user not in there]
    if not missing:
        host.noop(f"users are there: {', '.join(users)}")
    for user in missing:
        yield Script(
            f"useradd --system --user-group --home-dir /nonexistent --no-create-home"
            f" --shell /usr/sbin/nologin {shlex.quote(user)}",
            explain=in_words(f"user {user} not created"),
        )


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """A replica's unit, the configuration hash that it was started with, and its gate."""

    active: str
    started: str
    gate_open: bool
    agent_opened: bool

    def is_older(self, config_hash: str) -> bool:
        """Whether it runs, with another configuration than the one of *config_hash*."""
        return self.active == "active" and self.started not in {"-", config_hash}


class ReplicaStates(FactBase[dict[str, ReplicaState]]):
    """The state of each of *replicas*."""

    def command(self, replicas: Sequence[str]) -> str:
        """One ``systemctl show`` for all, what runs of them, and the agent's record of openings."""
        names = " ".join(map(shlex.quote, replicas))
        units = " ".join(shlex.quote(f"engine-{replica}.service") for replica in replicas)
        return (
            f"systemctl show -p Id,ActiveState,InvocationID -- {units}; echo ==\n"
            f"for r in {names}; do\n"
            "    started=-; gate=closed\n"
            "    [ -e /run/farrier/started/$r ] && read -r started < /run/farrier/started/$r\n"
            "    [ -e /run/farrier/open/$r ] && gate=open\n"
            '    echo "$r $started $gate"\n'
            "done\n"
            "echo ==; cat /run/farrier/agent/opened.json 2>/dev/null; true"
        )

    @staticmethod
    def default() -> dict[str, ReplicaState]:
        """Nothing is known."""
        return {}

    def process(self, output: list[str]) -> dict[str, ReplicaState]:
        """Parse what :meth:`command` printed."""
        # each part ends with a newline; the last one is empty on a host without a record
        shown, replicas, record = "".join(f"{line}\n" for line in output).split("==\n", 2)
        units = {}
        for block in shown.split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if values:
                units[values["Id"]] = values
        states = {}
        for line in replicas.splitlines():
            replica, started, gate = line.split()
            unit = units[f"engine-{replica}.service"]
            run = unit["InvocationID"]
            opened = bool(run) and run in record
            states[replica] = ReplicaState(unit["ActiveState"], started, gate == "open", opened)
        return states


def _replicas(models: Sequence[Model], hashes: Mapping[str, str]) -> Question:  # noqa: ARG001
    replicas = [model.replica for model in models]
    return Question(ReplicaStates, {"replicas": replicas}, several="replicas")


@operation(asks=_replicas)
def ready(models: Sequence[Model], hashes: Mapping[str, str]) -> Commands:
    """Wait until each replica's gate is open; note those that run an older configuration.

    + models: the host's models
    + hashes: replica to the hash of its configuration as it should be
    """
    states: dict[str, ReplicaState] = answer()
    waiting: list[tuple[Model, bool]] = []
    for model in models:
        now = states.get(model.replica)
        if now is None:
            yield Refuse("the host could not be asked for its replicas; see the line above")
            return
        if now.active == "active" and not now.gate_open and now.agent_opened:
            note(
                "left",
                host.name,
                f"replica {model.replica} is healthy, but somebody closed its gate. To open it:"
                f" sudo touch /run/farrier/open/{model.replica}",
            )
        elif not now.gate_open or now.active != "active":
            waiting.append((model, now.is_older(hashes[model.replica])))
    if not waiting:
        host.noop("every replica is ready")
    for model, older in waiting:
        host.log(f"waiting for replica {model.replica} to load (at most {model.start_timeout:g} s)")
        yield Script(_wait_script(model), explain=partial(_tell, model, older))
    if waiting:
        # What was down meanwhile has started with the new configuration.
        states = host.get_fact(ReplicaStates, replicas=[model.replica for model in models])
    for model in models:
        if model.replica in states and states[model.replica].is_older(hashes[model.replica]):
            note(
                "pending",
                host.name,
                f"replica {model.replica} runs an older configuration than the inventory's. To"
                f" take the new one: sudo systemctl restart {model.unit} (it does not serve while"
                " it loads)",
            )


def _wait_script(model: Model) -> str:
    unit = shlex.quote(model.unit)
    return f"""
run_of() {{ systemctl show -P InvocationID {unit}; }}
start_of() {{ # with microseconds: runs may follow one another within a second
    # Its main process has none while ExecStartPre= runs; the unit has, of this very run.
    for property in ExecMainStartTimestamp InactiveExitTimestamp; do
        began=$(systemctl show --timestamp=us -P $property {unit})
        [ -z "$began" ] || {{ date -d "$began" +@%s.%6N && return; }}
    done
}}
run=$(run_of) since=$(start_of) again=0
deadline=$(($(date +%s) + {int(model.start_timeout)}))
until [ -e /run/farrier/open/{model.replica} ] && systemctl -q is-active {unit}; do
    state=$(systemctl show -P ActiveState {unit})
    # Starts that were seen are counted, not systemd's restarts: what the one before the last wrote
    # is told, as it has ended. One still earlier may have had another command.
    now=$(run_of)
    [ "$now" = "$run" ] || {{
        since=${{last-$since}} last=$(start_of) run=$now again=$((again + 1))
    }}
    why=
    case "$state" in failed|inactive) why="is $state" since=${{last-$since}};; esac
    [ "$again" -lt 2 ] || why="ended $again times while starting"
    [ "$(date +%s)" -lt "$deadline" ] || why="did not answer within {int(model.start_timeout)} s"
    if [ -n "$why" ]; then
        echo "FARRIER: $why" >&2
        journalctl --sync || : # it lags behind a process that is gone
        # Not by invocation: journald loses that of a process that ended at once (systemd 257).
        # With --since, -n would mean the first lines (systemd 252).
        journalctl -q _SYSTEMD_UNIT={unit} ${{since:+--since="$since"}} --no-pager -o cat \\
            | tail -n 20000 >&2
        exit 1
    fi
    sleep 0.5
done
"""


def _tell(model: Model, older: bool, output: str) -> str:
    why = next(
        (line.partition("FARRIER: ")[2] for line in output.splitlines() if "FARRIER: " in line),
        "did not become ready",
    )
    journal = [line for line in output.splitlines() if line.strip() and "FARRIER: " not in line]
    step = "Correct the model in the inventory, then run the deploy again"
    if older and "ended" not in why:
        step = (
            "It was started with an older configuration than the inventory's and serves nobody:"
            f" sudo systemctl restart {model.unit}, then run the deploy again"
        )
    return (
        f"replica {model.replica} ({model.unit}) {why}. Its last journal lines:\n"
        f"{chr(10).join(telling(journal))}\n"
        f"Look at: sudo journalctl -u {model.unit} -e; farrier-agent status. {step}"
    )


def telling(journal: Sequence[str], most: int = 6) -> list[str]:
    """The lines of an engine's *journal* that say why it ended, in order.

    A Python traceback's cause is its last line, and engines of several processes print one each:
    the first causes are worth more than the frames and the parents' echoes that follow.
    """
    causes = [line for line in journal if _CAUSE.search(line)]
    chosen = dict.fromkeys([*causes[:most], *causes[-1:], *journal[-most // 2 :]])
    return [line for line in dict.fromkeys(journal) if line in chosen]


_CAUSE = re.compile(r"(?:^|[\s\]])[\w.]*(?:Error|Exception|Exit|error)\b: ?\S")


class EngineUnits(FactBase[list[str]]):
    """Names of the engine units on the host."""

    def command(self) -> str:
        """No process but the shell."""
        return (
            "for unit in /etc/systemd/system/engine-*.service; do\n"
            '    [ ! -e "$unit" ] || echo "${unit##*/}"\n'
            "done"
        )

    @staticmethod
    def default() -> list[str]:
        """None."""
        return []

    def process(self, output: list[str]) -> list[str]:
        """The names."""
        return output


@operation(asks=lambda known: Question(EngineUnits, {}))  # noqa: ARG005
def orphans(known: Sequence[str]) -> Commands:
    """Note the engine units that the inventory no longer has; they keep serving.

    + known: names of the units that it has
    """
    for unit in answer():
        if unit not in known:
            note(
                "left",
                host.name,
                f"{unit} is not in the inventory any more and was left alone. To end it: sudo"
                f" systemctl disable --now {unit} && sudo rm /etc/systemd/system/{unit}",
            )
    host.noop("nothing is removed by a converge")
    yield from ()
