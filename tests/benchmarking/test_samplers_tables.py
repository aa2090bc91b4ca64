"""benchmarks/samplers_tables.py: the page of results follows from the summaries."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from specpolicy.benchmarking import Settings, benchmark, write_report
from specpolicy.policy import DiffusionPolicy
from specpolicy.sampler_names import make_sampler

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import samplers_tables


def tables(*arguments):
    return samplers_tables.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def results(small_policy_config, histories, tmp_path_factory):
    """Runs of two policies, as benchmarks/samplers.sh leaves them, not to be changed."""
    measured, directory = DiffusionPolicy.from_config(small_policy_config), tmp_path_factory.mktemp("results")
    for policy, kind, names, network in (
        ("one", "calls", ("ddpm", "asd"), None),
        ("two", "calls", ("ddpm", "asd", "recycled"), None),
        ("two", "time-eager", ("ddpm", "asd"), None),
        ("two", "large-eager", ("ddpm", "asd"), {"down_dims": [24, 48]}),
        ("two", "mip-eager", ("ddim-10",), None),
    ):
        samplers = {name: make_sampler(name) for name in names}
        summary, draws = benchmark(measured, samplers, histories, Settings(count=2, network=network))
        summary["policy"]["path"], summary["command"] = policy, f"specpolicy benchmark policy={policy}"
        write_report(summary, draws, directory / policy / kind)
    return directory


def test_the_page_holds_every_figure_and_keeps_what_stands_around(results, tmp_path):
    page = tmp_path / "samplers.md"
    assert tables(results, page) == 0
    text = page.read_text()
    for words in ("## Calls", "## Time, engine eager", "M parameters, engine eager", "two, large-eager"):
        assert words in text
    assert "| sampler | one | two |" in text and "| recycled | - | " in text
    assert text.count("specpolicy benchmark policy=two") == 4
    choice = text.partition("## Which one to choose")[2].partition("## Calls")[0]
    assert choice.count("| asd (1 of 1 policies) |") == 2 and "| eager |" in choice
    page.write_text(
        text.replace("| recycled |", "| stale |").replace("# What", "Mine.\n\n# What") + "\nMore of mine.\n"
    )
    assert tables(results, page) == 0
    assert page.read_text() == text.replace("# What", "Mine.\n\n# What") + "\nMore of mine.\n"


def test_the_other_policy_is_a_row_of_the_table_of_times(results, tmp_path):
    page = tmp_path / "samplers.md"
    assert tables(results, page) == 0
    own, reference = (
        json.loads((results / "two" / kind / "summary.json").read_text())["samplers"][0]
        for kind in ("mip-eager", "time-eager")
    )
    ratio = own["seconds"]["p50"] / reference["seconds"]["p50"]
    (row,) = (line for line in page.read_text().splitlines() if line.startswith("| MIP |"))
    assert f" ms; {ratio:.2f} (" in row and reference["label"] == "ddpm"


def test_what_is_missing_is_said(results, tmp_path, capsys):
    page = tmp_path / "samplers.md"
    command = [sys.executable, samplers_tables.__file__, str(tmp_path / "nothing"), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "holds no results" in done.stderr and not page.exists()
    page.write_text("mine\n")
    assert tables(results, page) == 2
    assert "lacks the marks" in capsys.readouterr().err and page.read_text() == "mine\n"
