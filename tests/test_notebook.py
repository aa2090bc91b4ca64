"""The notebook runs from top to bottom in a kernel, worker processes included."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[1]
SETTING = 'task, checkpoint, episodes, count = "lift", "checkpoints/lift", 10, 20'


@pytest.fixture
def notebook(monkeypatch, tmp_path):
    """`notebook(setting)` runs it with other settings than its own, in a directory of the test's."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests' / 'evaluation'}", prepend=":")

    def run(setting):
        book = nbformat.read(ROOT / "examples" / "compare_samplers.ipynb", as_version=4)
        code = [cell for cell in book.cells if cell.cell_type == "code"]
        assert SETTING in code[0].source
        code[0].source = code[0].source.replace(SETTING, setting)
        client = NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
        client.create_kernel_manager()
        client.km.kernel_spec.argv[0] = sys.executable  # whatever a kernel of that name elsewhere is
        client.execute()
        return [cell.outputs for cell in code]

    return run


def text(outputs):
    return "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_it_runs(notebook, small_policy, tmp_path):
    task = '{"name": "drift", "id": "drift_env:Drift-v0"}'
    checkpoint = small_policy.save(tmp_path / "policy")
    import torch

    from specpolicy.policy.histories import FILE, write_histories

    seen = {"position": torch.zeros(6, 2, 2).numpy(), "object": torch.zeros(6, 2, 3).numpy()}
    write_histories(checkpoint / FILE, seen)
    outputs = notebook(f'task, checkpoint, episodes, count = {task}, "{checkpoint}", 2, 3')
    assert "block" in text(outputs[0]) and "('ddpm', 'own', 20.0" in text(outputs[2])
    assert (tmp_path / "comparison" / "report.html").exists()
    assert "drift" in text(outputs[3])


def test_a_cell_that_fails_fails_the_test(notebook):
    with pytest.raises(CellExecutionError, match="no policy at"):
        notebook('task, checkpoint, episodes, count = "lift", "nowhere", 2, 3')
