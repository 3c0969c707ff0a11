"""Waiting until replicas serve; and saying, of those that will not, why and what to do."""

from __future__ import annotations

import re
import shlex
from functools import partial
from typing import TYPE_CHECKING

from pyinfra import host

from farrier.converge.commands import Refuse, Script
from farrier.converge.questions import Question, answer
from farrier.converge.report import note
from farrier.converge.typed import operation
from roles.engine.state import RECORDS, ReplicaStates, read_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from farrier.converge.commands import Commands
    from farrier.spec import Model
    from roles.engine.state import ReplicaState

__all__ = ["ready", "telling", "wait_script"]


def _replicas(models: Sequence[Model], hashes: Mapping[str, str]) -> Question:  # noqa: ARG001
    replicas = [model.replica for model in models]
    return Question(ReplicaStates, {"replicas": replicas}, several="replicas")


@operation(asks=_replicas)
def ready(models: Sequence[Model], hashes: Mapping[str, str]) -> Commands:
    """Wait until each replica's gate is open; note those that run an older configuration.

    One that somebody drained, or whose gate somebody closed, is not waited for; one that failed its
    warm-up fails at once.

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
        if not now.serves and now.kept_closed() is None:
            waiting.append((model, now.is_older(hashes[model.replica])))
    if not waiting:
        host.noop("every replica is ready, or kept closed by somebody")
    for model, older in waiting:
        host.log(f"waiting for replica {model.replica} to load (at most {model.start_timeout:g} s)")
        yield Script(wait_script(model), explain=partial(_tell, model, older))
    if waiting:
        # What was down meanwhile has started with the new configuration.
        states = host.get_fact(ReplicaStates, replicas=[model.replica for model in models])
    for model in models:
        now = states.get(model.replica)
        if now is None:
            continue
        if why := now.kept_closed():
            note("left", host.name, f"replica {model.replica} {why}")
        if now.is_older(hashes[model.replica]):
            note(
                "pending",
                host.name,
                f"replica {model.replica} runs an older configuration than the inventory's. To"
                f" take the new one: sudo farrier-agent restart {model.replica} (it is drained"
                " first, and does not serve while it loads)",
            )


def wait_script(model: Model) -> str:
    """The shell script that waits for *model*'s replica; its failure is told by :func:`telling`."""
    unit, record = shlex.quote(model.unit), f"{RECORDS}/{model.replica}.json"
    return f"""
run_of() {{ systemctl show -P InvocationID {unit}; }}
start_of() {{ # with microseconds: runs may follow one another within a second
    # Its main process has none while ExecStartPre= runs; the unit has, of this very run.
    for property in ExecMainStartTimestamp InactiveExitTimestamp; do
        began=$(systemctl show --timestamp=us -P $property {unit})
        [ -z "$began" ] || {{ date -d "$began" +@%s.%6N && return; }}
    done
}}
# A field of the record, of its outermost level only: the deeper ones are indented further.
kept() {{ sed -n "s/^ \\"$1\\": *//p" {record} 2>&- | tr -d '",'; }}
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
    if [ "$state" = active ] && [ "$(kept invocation_id)" = "$now" ]; then
        case "$(kept phase) $(kept stop_began)" in
            # what it failed for stands in the record
            "failed "*) why=$(tr -d '\\n' < {record});;
            # somebody wants it so, which is told by whoever called this
            "drained null") exit 0;;
        esac
    fi
    # A reason outweighs the clock: on a busy host a look may take longer than what was left.
    [ -n "$why" ] || [ "$(date +%s)" -lt "$deadline" ] \\
        || why="did not answer within {int(model.start_timeout)} s"
    if [ -n "$why" ]; then
        printf 'FARRIER: %s\\n' "$why" >&2
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
    record = read_record(why)
    if record:
        why = f"failed: {record.reason}"
        step += f". To try it again as it runs: sudo farrier-agent ready {model.replica}"
    elif "ended" in why:
        older = False  # what ended has been started anew, with what the unit says now
    if older:
        step = (
            "It was started with an older configuration than the inventory's and serves nobody:"
            f" sudo farrier-agent restart {model.replica}, then run the deploy again"
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
