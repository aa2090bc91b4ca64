"""No verb replaces files of others, and overwrite=true deletes what an earlier run of the same verb has written."""

import shutil
from pathlib import Path

import pytest
from looking_at_outputs import place, refused, tree

from specpolicy import load_policy

OVERWRITING = ("train", "evaluate", "convert")


FOREIGN = {
    "notes": {"thesis.tex": "years of work"},
    "a model of another project": {"config.json": '{"model_type": "bert"}', "model.safetensors": "weights"},
    "settings of another program": {"config.yaml": "a: 1\n", "settings.json": "{}", "metrics.csv": "x,y\n"},
    "results of another program": {"episodes.csv": "a\n", "summary.json": "[]", "report.html": "", "plot_a.png": ""},
    "states of another program": {"training.pt": "state", "wandb_run_id.txt": "abc"},
    "figures of another program": {"table.md": "|", "chunks.csv": "a\n", "timing.json": "{}", "metrics.txt": ""},
}


@pytest.mark.parametrize("content", FOREIGN)
@pytest.mark.parametrize("verb", OVERWRITING)
def test_overwriting_a_directory_that_is_not_ours_is_refused(verb, content, run, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    for name, text in FOREIGN[content].items():
        (output / name).write_text(text)
    (tmp_path / "link").symlink_to(output)
    before = tree(tmp_path)
    for given in (output, tmp_path / "link"):
        assert run(verb, given, "overwrite=true") == 2
        assert str(given) in refused(capsys)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        *(
            ("train", name)
            for name in ("config.yaml", "config.json", "model.safetensors", "training.pt", "metrics.csv")
        ),
        *(("evaluate", name) for name in ("config.yaml", "settings.json", "episodes.csv", "report.html")),
        *(("benchmark", name) for name in ("config.yaml", "summary.json", "table.md", "chunks.csv")),
        *(("control", name) for name in ("config.yaml", "timing.json")),
        *(("serve", name) for name in ("config.yaml", "metrics.txt")),
        *(("rollout", name) for name in ("config.yaml", "videos/ddim-4-100000.mp4")),
        *(("calibrate", name) for name in ("observations.safetensors", "calibrate.yaml", "speculation.json")),
        *(("train_drafter", name) for name in ("drafters.json", "drafters.safetensors", "train_drafter.yaml")),
        ("benchmark", "observations.safetensors"),
        ("convert", "notes.txt"),
        ("collect", "data.yaml"),
        ("collect", "data.hdf5"),
        ("collect", "data.hdf5.parts/notes.txt"),
    ],
)
def test_files_of_others_are_not_replaced(verb, name, run, tmp_path, capsys):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("title: mine\n")
    before = tree(tmp_path)
    more = {"rollout": ["video=true"], "calibrate": ["held_out=9"]}.get(verb, [])
    assert run(verb, place(verb, tmp_path / "out"), *more) == 2
    assert Path(name).parts[0] in refused(capsys) or verb == "convert"
    assert tree(tmp_path) == before


@pytest.mark.parametrize("more", [["held_out=0"], ["learn=false"]])
def test_a_calibration_that_is_not_ours_is_not_replaced(more, run, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    for name in ("speculation.json", "speculation.safetensors"):
        (output / name).write_text('{"format": "mine"}')
    before = tree(tmp_path)
    assert run("calibrate", output, *more) == 2
    assert "speculation.safetensors and is no output of specpolicy calibrate" in refused(capsys)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("verb", "name"), [("calibrate", "speculation.json"), ("train_drafter", "drafters.json")])
def test_what_lies_beside_ones_own_checkpoint_is_made_anew(verb, name, run, drifter, tmp_path):
    """Also what is damaged, or came without the settings that it was made with."""
    output = tmp_path / "out"
    shutil.copytree(drifter, output)
    for text in ("damaged", None):
        if text is not None:
            (output / name).write_text(text)
        for settings in ("calibrate.yaml", "train_drafter.yaml"):
            (output / settings).unlink(missing_ok=True)
        assert run(verb, output) == 0
        assert (output / name).read_text() != text


@pytest.mark.parametrize("verb", ("evaluate", "benchmark", "train", "rollout"))
def test_hydras_record_of_another_application_is_kept(verb, run, tmp_path, capsys):
    theirs = tmp_path / "out" / ".hydra"
    theirs.mkdir(parents=True)
    (theirs / "hydra.yaml").write_text(f"hydra: {{help: {{app_name: {verb}}}, job: {{name: {verb}}}}}\n")
    (theirs / "config.yaml").write_text("lr: 1\n")
    before = tree(tmp_path)
    assert run(verb, tmp_path / "out") == 2
    assert "holds .hydra of another application" in refused(capsys)
    assert tree(tmp_path) == before
    assert run(verb, tmp_path / "out", "hydra.output_subdir=.ours") == 0
    assert run(verb, tmp_path / "out", "hydra.output_subdir=.ours") == 0  # and one of ours is replaced
    after = tree(tmp_path / "out")
    assert {path: after[path] for path in before} == before
    assert str(tmp_path / "out" / ".ours" / "hydra.yaml") in after


def test_a_rollout_does_not_replace_the_settings_of_an_evaluation(run, tmp_path, capsys):
    """Verbs share many keys: the first line alone tells whose settings they are."""
    assert run("evaluate", tmp_path / "out") == 0
    capsys.readouterr()
    before = tree(tmp_path)
    assert run("rollout", tmp_path / "out") == 2
    assert "holds config.yaml and is no output of specpolicy rollout" in refused(capsys)
    assert tree(tmp_path) == before


def test_the_output_of_another_verb_is_not_overwritten(run, tmp_path, capsys):
    assert run("rollout", tmp_path / "out") == 0
    capsys.readouterr()
    before = tree(tmp_path)
    for verb in ("train", "evaluate", "benchmark", "control", "serve"):
        assert run(verb, tmp_path / "out") == 2
        assert f"no output of specpolicy {verb}" in refused(capsys)
    assert tree(tmp_path) == before


BAD = {
    "train": ("data=nothing", "policy.horizon=9", "policy.chain.prediction=x"),
    "evaluate": ("policy=nothing", "task.id=Nothing-v0"),
    "convert": ("path=nothing", "path=.."),
}


@pytest.mark.parametrize("verb", OVERWRITING)
def test_overwriting_comes_after_everything_that_can_be_wrong(verb, run, tmp_path, capsys):
    output = tmp_path / "out"
    assert run(verb, output) == 0
    before = tree(output)
    capsys.readouterr()
    for bad in BAD[verb]:
        assert run(verb, output, bad, "overwrite=true") == 2, bad
        refused(capsys)
        assert tree(output) == before, bad
    (output / "notes.txt").write_text("mine")
    other = {"train": "seed=3", "evaluate": "seed=3", "convert": "half_precision=true"}[verb]
    assert run(verb, output, other, "overwrite=true") == 0
    after = tree(output)
    assert after.pop(str(output / "notes.txt")) == b"mine"
    assert after.keys() == before.keys() and after != before


def test_a_checkpoint_whose_training_cannot_go_on_is_kept(run, drifter, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(drifter, output)
    (output / "speculation.json").write_text("{}")  # of the old weights
    before = tree(output)
    assert run("train", output) == 2
    assert "holds a checkpoint without training.pt" in refused(capsys)
    assert tree(output) == before
    assert run("train", output, "overwrite=true") == 0
    assert load_policy(output).config.task["id"] == "Pendulum-v1" and not (output / "speculation.json").exists()


def test_the_working_directory_may_be_the_output_and_the_home_may_not(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "main.py").write_text("print()")
    monkeypatch.chdir(tmp_path / "project")
    assert run("train", ".", "overwrite=true") == 2
    monkeypatch.setenv("HOME", str(tmp_path / "project"))
    assert run("train", tmp_path / "project") == 2
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["main.py"]


def test_a_conversion_deletes_no_part_that_is_not_its_own(run, tmp_path, capsys):
    mine = tmp_path / "out" / ".part"
    mine.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "convert.yaml"):
        (mine / name).write_text("mine")
    before = tree(tmp_path)
    for more in ([], ["overwrite=true"]):
        assert run("convert", tmp_path / "out", *more) == 2
        refused(capsys)
    assert tree(tmp_path) == before
