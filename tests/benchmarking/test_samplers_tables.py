"""benchmarks/samplers_tables.py: the page of results follows from the summaries."""

import subprocess
import sys
from pathlib import Path

import pytest

from specpolicy.benchmarking import Settings, benchmark, write_report
from specpolicy.sampler_names import make_sampler

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "samplers_tables.py"


def tables(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def results(small_policy, histories, tmp_path):
    """Runs of two policies, as benchmarks/samplers.sh leaves them."""
    for policy, kind, names, network in (
        ("one", "calls", ("ddpm", "asd"), None),
        ("two", "calls", ("ddpm", "asd", "recycled"), None),
        ("two", "time-eager", ("ddpm", "asd"), None),
        ("two", "large-eager", ("ddpm", "asd"), {"down_dims": [24, 48]}),
    ):
        samplers = {name: make_sampler(name) for name in names}
        summary, draws = benchmark(small_policy, samplers, histories, Settings(count=2, network=network))
        summary["policy"]["path"], summary["command"] = policy, f"specpolicy benchmark policy={policy}"
        write_report(summary, draws, tmp_path / "results" / policy / kind)
    return tmp_path / "results"


def test_the_page_holds_every_figure_and_keeps_what_stands_around(results, tmp_path):
    page = tmp_path / "samplers.md"
    assert tables(results, page).returncode == 0
    text = page.read_text()
    for words in ("## Calls", "## Time, engine eager", "M parameters, engine eager", "two, large-eager"):
        assert words in text
    assert "| sampler | one | two |" in text and "| recycled | - | " in text
    assert text.count("specpolicy benchmark policy=two") == 3
    choice = text.partition("## Which one to choose")[2].partition("## Calls")[0]
    assert choice.count("| asd (1 of 1 policies) |") == 2 and "| eager |" in choice
    page.write_text(
        text.replace("| recycled |", "| stale |").replace("# What", "Mine.\n\n# What") + "\nMore of mine.\n"
    )
    assert tables(results, page).returncode == 0
    assert page.read_text() == text.replace("# What", "Mine.\n\n# What") + "\nMore of mine.\n"


def test_what_is_missing_is_said(results, tmp_path):
    page = tmp_path / "samplers.md"
    done = tables(tmp_path / "nothing", page)
    assert done.returncode == 2 and "holds no results" in done.stderr and not page.exists()
    page.write_text("mine\n")
    done = tables(results, page)
    assert done.returncode == 2 and "lacks the marks" in done.stderr and page.read_text() == "mine\n"
