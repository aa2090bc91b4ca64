"""The tables of docs/results/flow.md and opponents.md: paired differences, rates, calls; gaps are left out."""

import csv
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import flow_page
import opponents_page
from harness_pages import END

MACHINE = {"cpu": "a processor", "cores": 2, "memory_gib": 4.0, "gpu": None}
SUMMARY = {"machines": [MACHINE], "load_at_start": 1.5, "versions": {"torch": "2"}, "command": "specpolicy evaluate"}


def write(place, outcomes):
    """episodes.csv of {condition: outcomes of the seeds 0, 1, ...}, and its summary."""
    place.mkdir(parents=True)
    with (place / "episodes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["condition", "seed", "success"])
        for name, solved in outcomes.items():
            table.writerows([name, seed, int(one)] for seed, one in enumerate(solved))
    (place / "summary.json").write_text(json.dumps(SUMMARY))


def figures(mean, rows):
    return {"calls": {"mean": mean}, "rows": {"mean": rows}}


@pytest.fixture
def results(tmp_path):
    write(tmp_path / "lift" / "flow", {"ddpm-10": [1] * 8 + [0] * 2, "euler-10": [1] * 6 + [0] * 4, "ddpm-4": [1]})
    write(tmp_path / "lift" / "diffusion", {"ddpm-10": [1] * 10, "ddim-10": [1, 0] * 5})
    (tmp_path / "lift" / "calls").mkdir()
    samplers = [
        {"label": "ddpm", **figures(100, 100)},
        {"label": "ddpm-10", **figures(10, 10)},
        {"label": "block-10", **figures(4.26, 25)},
    ]
    (tmp_path / "lift" / "calls" / "summary.json").write_text(json.dumps({"samplers": samplers}))
    return tmp_path


def test_rates_differences_and_calls(results, tmp_path):
    page = tmp_path / "flow.md"
    page.write_text(f"before\n{flow_page.BEGIN}\nold\n{END}\nafter\n")
    assert flow_page.main([str(results), str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    rows = {
        line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in text.splitlines() if "|" in line
    }
    four, ten = rows["lift, 4"], [line for line in text.splitlines() if line.startswith("| lift, 10 |")]
    assert four[2].strip() == "" and four[3].startswith("1.00 [")
    success, calls = (line.strip("| ").split(" | ") for line in ten)
    assert success[1:3] == ["10", "0.60 [0.31, 0.83]"] and success[3].startswith("0.80 [")
    assert success[4].startswith("-0.20 [") and success[5].startswith("1.00 [") and success[6].startswith("0.50 [")
    assert calls[1:] == ["10.0 (10)", "4.3 (25)"]
    assert "Measured on a processor, 2 cores" in text


def test_opponents_are_compared_by_seed_and_by_time(tmp_path):
    task, page = tmp_path / "push_t", tmp_path / "opponents.md"
    write(task / "mip", {"ddpm": [1] * 6 + [0] * 4, "ddpm-1": [0] * 10})
    write(task / "diffusion", {"ddpm": [1] * 8 + [0] * 2, "ddim-10": [1] * 6 + [0] * 4})
    write(task / "delay", {"ddpm d0 e8": [1] * 10, "ddpm d4 e8": [1] * 3 + [0] * 7})
    times = {"diffusion": [("ddpm", 100, 0.2), ("ddim-10", 10, 0.02)], "mip": [("ddpm", 2, 0.005)]}
    for run, found in times.items():
        samplers = [{"label": label, "calls": {"mean": calls}, "seconds": {"p50": p50}} for label, calls, p50 in found]
        (task / f"times-{run}").mkdir()
        (task / f"times-{run}" / "summary.json").write_text(json.dumps({"samplers": samplers}))
    with (task / "mip" / "episodes.csv").open("w") as file:  # as Push-T's, with the largest coverage
        file.write("condition,seed,success,max_coverage\n")
        file.writelines(
            f"ddpm,{seed},{int(seed < 6)},{(0.95, 0.85, 0.3)[(seed > 5) + (seed > 7)]}\n" for seed in range(10)
        )
        file.writelines(f"ddpm-1,{seed},0,0.6\n" for seed in range(10))
    way = {"clockwise": 0.5, "counter_clockwise": 0.25, "straight": 0.25, "rarer": 0.2, "entropy": 0.7}
    (task / "ways.json").write_text(json.dumps({"scenes": 3, "trials": 8, "expert": way}))
    page.write_text(f"{opponents_page.BEGIN}\n{END}\n")
    assert opponents_page.main([str(tmp_path), str(page)]) == 0
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]
    (success,) = (row for row in rows if row[0] == "push_t" and row[1] == "10")
    (late,) = (row for row in rows if row[0] == "push_t" and len(row) == 5 and row[2] == "")
    assert late[1].startswith("1.00 [") and late[3] == "" and late[4].startswith("0.30 [")
    assert [cell[:4] for cell in success[2:6]] == ["0.80", "0.60", "0.60", "0.00"]
    assert success[6].startswith("-0.20 [") and success[7].startswith("+0.00 [")
    assert [row[1:] for row in rows if row[0] == "push_t" and row not in (success, late)] == [
        ["ddpm", "100.0", "200.0", "1.000"],
        ["ddim-10", "10.0", "20.0", "0.100"],
        ["MIP", "2.0", "5.0", "0.025"],
    ]
    assert ["MIP, ddpm", "10", "4", "2", "2", "0.80"] in rows and ["MIP, ddpm-1", "10", "10", "0", "0", "0.60"] in rows
    assert ["expert", "0.50", "0.25", "0.25", "0.20", "0.70"] in rows


@pytest.mark.parametrize(("module", "script"), ((flow_page, "flow.sh"), (opponents_page, "opponents.sh")))
def test_a_page_without_marks_and_results_that_are_not_there(results, tmp_path, capsys, module, script):
    page = tmp_path / "page.md"
    page.write_text("no marks\n")
    assert module.main([str(results), str(page)]) == 2
    assert "lacks the marks" in capsys.readouterr().err
    page.write_text(f"{module.BEGIN}\n{END}\n")
    assert module.main([str(tmp_path / "nothing"), str(page)]) == 2
    assert f"holds no results: run benchmarks/{script}" in capsys.readouterr().err
