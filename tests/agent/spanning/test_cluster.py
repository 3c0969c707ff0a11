"""What the agent makes of the file in which a node of Ray tells of its cluster."""

from __future__ import annotations

from pathlib import Path

from farrier_agent.spanning.cluster import NO_CLUSTER, read


def test_a_fresh_file_is_believed(tmp_path: Path) -> None:
    file = tmp_path / "cluster.json"
    file.write_text('{"at": 1000.0, "nodes": 1, "wanted": 2, "lacks": ["gpu02 is not there"]}')
    told = read(file, 1003.0)
    assert (told.nodes, told.wanted, told.lacks) == (1, 2, ["gpu02 is not there"])


def test_an_old_file_a_broken_one_and_none_are_no_cluster(tmp_path: Path) -> None:
    file = tmp_path / "cluster.json"
    assert read(file, 1000.0) is NO_CLUSTER
    file.write_text('{"at": 1000.0, "nodes": 2, "wanted": 2, "lacks": []}')
    assert read(file, 1030.0) is NO_CLUSTER
    for broken in ("", "{", '{"at": 1000.0}', "[]"):
        file.write_text(broken)
        assert read(file, 1000.0) is NO_CLUSTER
