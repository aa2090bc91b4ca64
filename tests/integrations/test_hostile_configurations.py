"""Configurations of strangers: values that are few, and come to many."""

import pytest
import torch
from foreign_files import lowdim_cfg, normaliser_weights, unet, write_workspace
from hostile_files import (
    refused,
)

from specpolicy import SpecpolicyError, load_policy
from specpolicy.integrations.unpickling import plain


@pytest.mark.parametrize(
    "cfg",
    (
        {f"a{n}": f"${{a{n + 1}}}" * 2 for n in range(40)} | {"a40": "laugh"},
        {f"a{n}": [f"${{a{n + 1}}}"] * 2 for n in range(40)} | {"a40": "laugh"},
        {f"a{n}": {"x": f"${{a{n + 1}}}", "y": f"${{a{n + 1}}}"} for n in range(40)} | {"a40": "laugh"},
        {f"a{n}": f"${{eval:'${{a{n + 1}}} * ${{a{n + 1}}}'}}" for n in range(40)} | {"a40": 99},
        {f"a{n}": f"${{a{n + 1}}}" for n in range(200)},
        {"a0": {"x": "${a0}"}},
        {"a0": "${eval:'" + "(" * 10_000 + "1" + ")" * 10_000 + "'}"},
        {"a0": "${eval:'" + "-" * 400 + "1'}", "deep": "-" * 90_000 + "${a0}"},
        {"a0": "${eval:'1e999'}"},
        {"a0": "${eval:'" + "9" * 400 + "'}"},
        {"a0": "x${a1}" * 9000, "a1": "y"},
        {"a0": "x${a1}", "a1": {"b": 1}},
    ),
    ids=range(12),
)
def test_interpolations_that_grow(cfg, tmp_path):
    policy = {**lowdim_cfg()["policy"], "horizon": "${a0}"}
    cfg = {**lowdim_cfg(), **cfg, "policy": policy}
    path = tmp_path / "x.ckpt"
    weights = {f"model.{key}": value for key, value in unet(2, 10).state_dict().items()}
    write_workspace(path, cfg, {**weights, **normaliser_weights({"obs": 5, "action": 2})}, weights)
    refused(path, what=load_policy)


@pytest.mark.parametrize(
    "config",
    (
        '{"a": ' * 100_000 + "1" + "}" * 100_000,
        "[" * 100_000,
        '{"algo": ' + "9" * 1_000_000 + "}",
        '{"algo": 1e999}',
        '{"algo": NaN}',
        '{"a": "' + "b" * 2**24 + '"}',
        "[]",
        "",
        '{"algo": {"horizon": {"observation_horizon": 1e300}}}',
    ),
    ids=range(9),
)
def test_json_without_an_end(config, tmp_path):
    path = tmp_path / "x.pth"
    weights = unet(2, 10).state_dict()
    nets = {f"policy.noise_pred_net.{key}": value for key, value in weights.items()}
    torch.save({"algo_name": "diffusion_policy", "model": {"nets": nets}, "config": config}, path)
    refused(path, what=load_policy)


@pytest.mark.parametrize("value", (["x"] * 300_000, torch.zeros(300_000), [[0] * 1000] * 1000))
def test_configurations_larger_than_any(value):
    with pytest.raises(SpecpolicyError, match="more than 200000 values"):
        plain({"a": value})


def test_configurations_that_hold_themselves():
    value = []
    value.append(value)
    with pytest.raises(SpecpolicyError, match="nests deeper"):
        plain(value)


def test_words_of_the_file_stay_on_one_line(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"algo_name": "\x1b[2J\n" + "a" * 10_000, "model": {}}, path)
    refused(path, "algorithm", load_policy)
    torch.save({"a\nb": 1, "\x1b[2J": 2}, path)
    refused(path, "it is no checkpoint", load_policy)
