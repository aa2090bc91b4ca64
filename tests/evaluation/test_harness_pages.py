"""benchmarks/harness_pages.py: the pages of results follow from the summaries of small runs."""

import json
import re
from pathlib import Path

import pytest

from specpolicy.cli import main
from specpolicy.evaluation.tables import differences_table, probability, results_table, signed

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def pages(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import harness_pages

    return harness_pages


@pytest.fixture
def evaluate(drift_policy, drift_task, tmp_path):
    """`evaluate(task, *arguments)`: a run of three episodes as the scripts in benchmarks/ leave it; its summary."""

    def run(task, *arguments):
        output = tmp_path / "results" / task
        common = ["task=gym", f"task.name={task}", "task.id=drift_env:Drift-v0", f"policy={drift_policy}"]
        common += ["+task.kwargs.radius=2.6", f"output={output}", "videos=0", "workers=0"]
        common += ["episodes=3", "engine=eager"]
        assert main(["evaluate", *common, *arguments]) == 0
        return json.loads((output / "summary.json").read_text())

    return run


def lines_of(page, start):
    return [line for line in page.read_text().splitlines() if line.startswith(start)]


@pytest.mark.usefixtures("without_plots")
def test_the_delay_page(pages, evaluate, tmp_path):
    delays = ["track=delay", "samplers=[ddim-2]", "track.delays=[5,0]", "track.swept_execute_steps=[1,2]"]
    one = evaluate("one", *delays)
    evaluate("two", *delays, "track.delays=[0]")
    page = tmp_path / "docs" / "delay.md"
    assert pages.main(["delay", str(tmp_path / "results"), str(page)]) == 0
    text = page.read_text()
    assert text.startswith("# Success against delay") and (page.parent / "delay.png").stat().st_size > 0
    assert "| task | rate | d = 0 | d = 5 | first loss |" in text and "sampler ddim-2" in text
    row, other = lines_of(page, "| one | 10 Hz")[0], lines_of(page, "| two | 10 Hz")[0]
    conditions = {condition["label"]: condition for condition in one["conditions"]}
    for label in ("ddim-2 d0 e4", "ddim-2 d5 e5"):
        rate = conditions[label]["success_rate"]
        assert f"{rate['estimate']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]" in row
    change = next(
        one for one in one["differences"] if one["condition"] == "ddim-2 d5 e5" and one["kind"] == "circumstances"
    )
    changed, none = lines_of(page, "| one | ")[1], lines_of(page, "| two | ")[1]
    assert changed == f"| one | {signed(change['success_rate'])}, p {probability(change['success_p_value'])} |"
    assert none == "| two | – |"
    assert re.search(r"\(\d+%\) \|", row) and "| – |" in other  # steps without an action; not played
    horizons = lines_of(page, "| one | 1 |") + lines_of(page, "| one | 2 |")
    assert len(horizons) == 2 and "specpolicy evaluate" not in horizons[0]
    assert f"```bash\n{one['command']}\n{one['command']}\n```" in text and one["machines"][0]["cpu"] in text


def test_the_charged_page(pages, evaluate, tmp_path):
    trace = tmp_path / "calls.csv"
    trace.write_text("sampler,seconds\nddpm,0.5\nddim-2,0.02\n")
    charged = ["track=charged", f"track.trace={trace}", "samplers=[ddpm,ddim-2]", "references=[ddpm,ddim-2]"]
    summary = evaluate("moving", *charged)
    page = tmp_path / "charged.md"
    assert pages.main(["charged_clock", str(tmp_path / "results"), str(page)]) == 0
    text = page.read_text()
    assert "## moving, control at 10 Hz, 3 episodes" in text
    plot = tmp_path / "results" / "moving" / "plot_success_against_latency.png"
    assert (tmp_path / "charged_moving.png").read_bytes() == plot.read_bytes() and "(charged_moving.png)" in text
    for line in pages.verdicts(summary):
        assert f"- {line}" in text
    for table in (results_table(summary, brief=True), differences_table(summary)):
        assert pages.markdown(table) in text


@pytest.mark.usefixtures("without_plots")
def test_the_equivalence_page(pages, evaluate, tmp_path):
    summary = evaluate("lift", "samplers=[ddpm,ddim-2,ddim-4]", "margin=0.5")
    page = tmp_path / "equivalence.md"
    assert pages.main(["equivalence", str(tmp_path / "results"), str(page)]) == 0
    verdicts = lines_of(page, "- ")
    assert len(verdicts) == len(summary["differences"]) == 2
    for line, difference in zip(verdicts, summary["differences"], strict=True):
        tests = difference["equivalence"]
        said = "equal" if tests["equivalent"] else "equality not shown"
        assert line.startswith(f"- {difference['condition']} and ddpm: {said} within 50 points (90 % interval")
        assert f"{tests['low']:+.3f} to {tests['high']:+.3f}" in line and "3 pairs" in line
    assert "ms per chunk" not in page.read_text()  # they are those of whole batches
    assert (tmp_path / "equivalence.png").stat().st_size > 0


@pytest.mark.usefixtures("without_plots")
def test_one_sampler_alone_is_compared_with_nothing(pages, evaluate, tmp_path):
    evaluate("lift", "samplers=[ddim-2]")
    page = tmp_path / "equivalence.md"
    assert pages.main(["equivalence", str(tmp_path / "results"), str(page)]) == 0
    assert "nothing to compare it with" in page.read_text() and "![" not in page.read_text()


@pytest.mark.usefixtures("without_plots")
def test_only_what_stands_between_the_marks_is_replaced(pages, evaluate, tmp_path, capsys):
    evaluate("lift", "samplers=[ddim-2,ddim-4]")
    arguments = ["equivalence", str(tmp_path / "results"), str(tmp_path / "page.md")]
    assert pages.main(arguments) == 0
    page = tmp_path / "page.md"
    written = page.read_text()
    assert pages.main(arguments) == 0 and page.read_text() == written
    page.write_text("My own title\n" + written.replace("3 episodes", "9 episodes") + "\nMy own end\n")
    assert pages.main(arguments) == 0
    assert page.read_text() == "My own title\n" + written + "\nMy own end\n"
    page.write_text("no marks")
    assert pages.main(arguments) == 2
    assert pages.main(["equivalence", str(tmp_path / "nowhere"), str(page)]) == 2
    assert pages.main(["delays", "a", "b"]) == 2
    error = capsys.readouterr().err
    assert "lacks the marks" in error and "run benchmarks/equivalence.sh" in error and "usage:" in error
    assert page.read_text() == "no marks"


def condition(label, sampler, **others):
    rate = {"estimate": others.pop("rate", 0.5), "low": 0.0, "high": 1.0}
    usual = {"delay": 0, "execute_steps": 4, "clock": "delay", "method": sampler, "success_rate": rate}
    return {"label": label, "sampler": sampler, **usual, **others}


def difference(one, other, low, high, kind="circumstances"):
    rate = {"estimate": (low + high) / 2, "low": low, "high": high}
    return {"condition": one, "reference": other, "kind": kind, "success_rate": rate}


def test_the_first_loss_is_the_smallest_delay_that_is_beyond_doubt(pages):
    conditions = [condition(f"a d{delay}", "a", delay=delay, execute_steps=max(delay, 4)) for delay in (0, 2, 4, 8)]
    conditions.append(condition("a d2 e8", "a", delay=2, execute_steps=8))  # not the shortest horizon
    intervals = {"a d2": (-0.2, 0.1), "a d4": (-0.4, -0.1), "a d8": (-0.9, -0.5), "a d2 e8": (-0.9, -0.5)}
    differences = [difference(label, "a d0", *interval) for label, interval in intervals.items()]
    summary = {"track": {"execute_steps": 4}, "conditions": conditions, "differences": differences}
    assert pages.first_loss(summary) == "d = 4"
    assert pages.first_loss({**summary, "differences": differences[:1]}) == "none"
    other = difference("a d2", "b d2", -0.9, -0.5, kind="sampler")  # worse than another sampler is no loss by delay
    assert pages.first_loss({**summary, "differences": [*differences, other]}) == "d = 4"


def test_verdicts_name_losses_gains_and_what_is_not_shown(pages):
    conditions = []
    for sampler, method, waits, moves in (
        ("ddpm", "ddpm", 0.9, 0.2),
        ("ddim-10", "ddim", 0.8, 0.85),
        ("recycled", "recycled", 0.9, 0.95),
    ):
        conditions.append(condition(sampler, sampler, method=method, clock="paused", rate=waits))
        conditions.append(condition(f"{sampler} trace", sampler, method=method, clock="trace", rate=moves))
    differences = [
        difference("recycled", "ddim-10", 0.0, 0.2, kind="sampler"),  # where the world waits: no question here
        difference("recycled trace", "ddpm trace", 0.6, 0.8, kind="sampler"),
        difference("recycled trace", "ddim-10 trace", 0.02, 0.18, kind="sampler"),
        difference("ddpm trace", "ddpm", -0.8, -0.6),
        difference("ddim-10 trace", "ddim-10", -0.05, 0.15),
        difference("recycled trace", "recycled", 0.01, 0.09),
    ]
    assert pages.verdicts({"conditions": conditions, "differences": differences}) == [
        "recycled trace minus ddim-10 trace: +0.10 [+0.02, +0.18]",
        "ddpm, a loss: 0.90 where the world waits, 0.20 where not, -0.70 [-0.80, -0.60]",
        "ddim-10, no difference shown: 0.80 where the world waits, 0.85 where not, +0.05 [-0.05, +0.15]",
        "recycled, a gain: 0.90 where the world waits, 0.95 where not, +0.05 [+0.01, +0.09]",
    ]
