"""The convert verb."""

import pytest
import torch
from foreign_files import FRAMES, lowdim_cfg, normaliser_weights, unet, write_workspace

from specpolicy import load_policy
from specpolicy.cli import main


@pytest.fixture
def checkpoint(tmp_path):
    network = unet(2, global_cond_dim=FRAMES * 5)
    weights = {f"model.{name}": value for name, value in network.state_dict().items()}
    return write_workspace(
        tmp_path / "latest.ckpt", lowdim_cfg(use_ema=False), weights | normaliser_weights({"obs": 5, "action": 2})
    )


@pytest.mark.parametrize("half", ("false", "true"))
def test_a_converted_checkpoint_is_ours(checkpoint, half, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["convert", f"path={checkpoint}", f"out={out}", f"half_precision={half}"]) == 0
    shown = capsys.readouterr().out
    assert "DiffusionUnetLowdimPolicy of diffusion_policy" in shown and "2 frames of obs 5" in shown
    assert "executes 3 from entry 2" in shown and "DDPM, 20 of 20 steps" in shown
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "convert.yaml", "model.safetensors"]
    checkpoint.unlink()
    policy = load_policy(out)
    out = policy.predict({"obs": torch.zeros(2, 5)}, sampler="ddim", generator=torch.Generator().manual_seed(0))
    assert out.actions.shape == (1, 8, 2) and policy.first_action == 2


def test_what_is_there_is_kept_unless_told_otherwise(checkpoint, tmp_path, capsys):
    arguments = ["convert", f"path={checkpoint}", f"out={tmp_path / 'out'}"]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "is not empty: choose another directory or overwrite=true" in capsys.readouterr().err
    assert main([*arguments, "overwrite=true"]) == 0
    assert main(["convert", f"path={tmp_path / 'out'}", f"out={tmp_path / 'out'}", "overwrite=true"]) == 2
    assert "is the checkpoint itself" in capsys.readouterr().err
    assert main(["convert", f"path={checkpoint}", f"out={checkpoint}"]) == 2
    assert "is a file: name a directory" in capsys.readouterr().err


def test_a_bad_file_is_one_line_and_leaves_nothing(tmp_path, capsys):
    (tmp_path / "bad.ckpt").write_bytes(b"PK not an archive")
    assert main(["convert", f"path={tmp_path / 'bad.ckpt'}", f"out={tmp_path / 'out'}"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("specpolicy convert: ") and "truncated" in line and line.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_rate_is_what_the_user_knows_of_it(checkpoint, tmp_path, capsys):
    assert load_policy(checkpoint).control_hz is None
    assert main(["convert", f"path={checkpoint}", f"out={tmp_path / 'unknown'}"]) == 0
    assert "at a rate that is not known" in capsys.readouterr().out
    assert load_policy(tmp_path / "unknown").control_hz is None
    assert main(["convert", f"path={checkpoint}", f"out={tmp_path / 'told'}", "control_hz=10"]) == 0
    assert "at 10 Hz" in capsys.readouterr().out and load_policy(tmp_path / "told").control_hz == 10
    again = ["convert", f"path={tmp_path / 'told'}", f"out={tmp_path / 'again'}"]
    for hz, complaint in (("20", "say 10 and 20"), ("0", "control_hz is 0"), ("fast", "control_hz is 'fast'")):
        assert main([*again, f"control_hz={hz}"]) == 2
        assert complaint in capsys.readouterr().err and not (tmp_path / "again" / "config.json").exists()
    assert main(again) == 0 and load_policy(tmp_path / "again").control_hz == 10
