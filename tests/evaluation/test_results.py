"""The tables survive kills at every byte."""

import csv

import numpy as np
import pytest

from specpolicy import SpecpolicyError
from specpolicy.control.chunk import Chunk
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.episode import Episode
from specpolicy.evaluation.results import Results


def episode(seed, chunks=2, coverage=0.25):
    costs = tuple(Chunk(np.zeros((1, 2)), 0.1 * (number + 1), 0.05, 10, 20, 0.03) for number in range(chunks))
    return Episode(seed, seed % 2 == 0, 0.1 + seed, 13, 1.3, coverage, costs)


def test_an_episode_reads_back(tmp_path):
    Results(tmp_path).add("lift", Condition("ddim-10"), episode(4), 4)
    results = Results(tmp_path)
    (row,) = results.episodes.rows
    assert (row["task"], row["sampler"], row["seed"], row["success"]) == ("lift", "ddim-10", "4", "1")
    assert float(row["return"]) == 4.1 and row["length"] == "13" and float(row["max_coverage"]) == 0.25
    assert (row["chunks"], row["calls"], row["rows"]) == ("2", "20", "40")
    assert float(row["chunk_seconds_mean"]) == pytest.approx(0.15)
    assert float(row["chunk_seconds_p95"]) == pytest.approx(0.195)
    assert float(row["network_share"]) == pytest.approx(1 / 3)
    assert float(row["encode_share"]) == pytest.approx(0.2)
    assert [float(chunk["encode_seconds"]) for chunk in results.chunks.rows] == [0.03, 0.03]
    assert [float(chunk["seconds"]) for chunk in results.chunks.rows] == [0.1, 0.2]
    assert results.done == {("ddim-10", 4)}


def test_what_a_task_lacks_stays_blank(tmp_path):
    results = Results(tmp_path)
    results.add(
        "lift", Condition("ddpm"), episode(1, chunks=0, coverage=None), 4
    )  # solved by the reset: nothing was planned
    with (tmp_path / "episodes.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["max_coverage"] == "" and row["chunks"] == "0" and row["network_share"] == "0.0"


def test_a_kill_at_any_byte_loses_only_the_episode_being_written(tmp_path):
    """Every prefix of what the two files go through is a state that a kill can leave."""
    results = Results(tmp_path)
    results.add("lift", Condition("ddpm"), episode(1), 4)
    paths = [tmp_path / "chunks.csv", tmp_path / "episodes.csv"]
    before = [path.read_bytes() for path in paths]
    results.add("lift", Condition("ddpm"), episode(2), 4)
    after = [path.read_bytes() for path in paths]
    states = [(after[0][:cut], before[1]) for cut in range(len(before[0]), len(after[0]) + 1, 5)]
    states += [(after[0], after[1][:cut]) for cut in range(len(before[1]), len(after[1]), 5)]
    for state in states:
        for path, content in zip(paths, state, strict=True):
            path.write_bytes(content)
        resumed = Results(tmp_path)
        assert resumed.done == {("ddpm", 1)} and len(resumed.chunks.rows) == 2
        resumed.add("lift", Condition("ddpm"), episode(2), 4)
        assert [path.read_bytes() for path in paths] == after


def test_a_kill_within_a_letter_of_several_bytes(tmp_path):
    results = Results(tmp_path)
    results.add("lüft", Condition("ddpm"), episode(1), 4)
    before = results.episodes.path.read_bytes()
    cut = before + "lü".encode()[:-1]
    for _ in range(2):
        results.episodes.path.write_bytes(cut)
        assert Results(tmp_path).done == {("ddpm", 1)}
    results.episodes.path.write_bytes(before.replace("ü".encode(), b"\xff"))
    with pytest.raises(SpecpolicyError, match="is damaged"):
        Results(tmp_path)


def test_a_file_of_another_layout_is_refused(tmp_path):
    (tmp_path / "episodes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SpecpolicyError, match="other columns"):
        Results(tmp_path)


def lines(tmp_path):
    return [(tmp_path / name).read_text().splitlines() for name in ("episodes.csv", "chunks.csv")]


def append(path, rows):
    with path.open("a") as file:
        file.writelines(f"{row}\n" for row in rows)


def test_episodes_that_two_runs_have_written_count_once(tmp_path):
    results = Results(tmp_path)
    for seed in (1, 2, 3):
        results.add("lift", Condition("ddpm"), episode(seed), 4)
    expected = lines(tmp_path)
    (head, one, two, three), (chunk_head, *chunks) = expected
    for file, rows in (("episodes.csv", (three, one, one)), ("chunks.csv", (*chunks[4:], *chunks[:2], *chunks[:2]))):
        append(tmp_path / file, rows)
    assert Results(tmp_path).done == {("ddpm", seed) for seed in (1, 2, 3)}
    assert lines(tmp_path) == expected == [[head, one, two, three], [chunk_head, *chunks]]


def test_an_episode_keeps_the_chunks_that_are_its_own(tmp_path):
    """Another run has played the same seed in another way: its chunks came first, its episode came last."""
    (tmp_path / "other").mkdir()
    Results(tmp_path / "other").add("lift", Condition("ddpm"), episode(1, chunks=3), 4)
    results = Results(tmp_path)
    append(tmp_path / "chunks.csv", lines(tmp_path / "other")[1][1:])
    results.add("lift", Condition("ddpm"), episode(1, chunks=2), 4)
    append(tmp_path / "episodes.csv", lines(tmp_path / "other")[0][1:])
    results = Results(tmp_path)
    assert [row["chunks"] for row in results.episodes.rows] == ["2"]
    assert [float(row["seconds"]) for row in results.chunks.rows] == [0.1, 0.2]


def test_an_episode_without_its_chunks_is_played_again(tmp_path):
    results = Results(tmp_path)
    for seed in (1, 2):
        results.add("lift", Condition("ddpm"), episode(seed), 4)
    (episodes, chunks) = lines(tmp_path)
    mixed = [chunks[0], chunks[1], chunks[3], chunks[2], chunks[4]]  # two runs wrote into each other's lines
    (tmp_path / "chunks.csv").write_text("\n".join([*mixed[:4], ""]))
    assert Results(tmp_path).done == {("ddpm", 1)}
    assert lines(tmp_path) == [episodes[:2], chunks[:3]]
