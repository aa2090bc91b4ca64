"""One schema for every option: yaml files say what the dataclasses say, and keys that nobody reads are refused."""

import dataclasses
import inspect
import re

import pytest
from omegaconf import OmegaConf

from specpolicy.cli import main
from specpolicy.cli.configuration import compose_verb, load_option, option_names
from specpolicy.cli.groups import SHIPPED
from specpolicy.cluster import Local, Ray
from specpolicy.control.execution import Execution
from specpolicy.control.limits import Limits
from specpolicy.diffusion import ChainOptions, GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.tracks import TRACKS, Joining
from specpolicy.logging.wandb_logger import WandbLogger
from specpolicy.networks import (
    ConditionalUnet1D,
    DiffusionTransformer,
    DiffusionTransformerOptions,
    EncoderTransformer,
    EncoderTransformerOptions,
    MaskedTransformer,
    MaskedTransformerOptions,
    TransformerForDiffusion,
    TransformerOptions,
    UnetOptions,
)
from specpolicy.parsing import parse, plain
from specpolicy.policy.config import PolicyOptions
from specpolicy.sampler_names import BY_NAME, make_sampler
from specpolicy.samplers.recycled.calibration import Effort
from specpolicy.training import TrainingOptions

MODELS = {"calibration", "head", "draft_denoiser"}  # what samplers take that no yaml can hold


def shipped(verb):
    return OmegaConf.to_container(OmegaConf.load(SHIPPED / f"{verb}.yaml"))


def defaults(kind):
    """{field: default} of a dataclass, as plain values."""
    fields = [field for field in dataclasses.fields(kind) if field.name not in MODELS]
    return {field.name: plain(None if field.default is dataclasses.MISSING else field.default) for field in fields}


@pytest.mark.parametrize("name", option_names("sampler"))
def test_a_samplers_yaml_is_its_dataclass(name):
    yaml = OmegaConf.to_container(load_option("sampler", name))
    assert yaml == {"name": name, **defaults(BY_NAME[name])} and BY_NAME[name].name == name
    assert make_sampler(**yaml) == make_sampler(name)  # the command line draws with what Python draws with


@pytest.mark.parametrize(("name", "kind"), (("local", Local), ("ray", Ray)))
def test_a_clusters_yaml_is_its_dataclass(name, kind):
    yaml = OmegaConf.to_container(load_option("cluster", name))
    assert yaml == {**defaults(kind), "workers": "${workers}"}
    assert compose_verb("collect", ["task=lift", f"cluster={name}", "workers=3"]).cluster.workers == 3


def test_every_sampler_has_a_yaml():
    assert set(option_names("sampler")) == set(BY_NAME)


@pytest.mark.parametrize(
    "verb, kind, where, renamed",
    [
        ("train", TrainingOptions, None, {}),
        ("control", Execution, None, {}),
        ("control", Limits, "limits", {}),
        ("evaluate", Joining, None, {}),
        ("calibrate", Effort, None, {}),
    ],
)
def test_a_verbs_yaml_has_the_defaults_of_the_dataclasses_it_fills(verb, kind, where, renamed):
    yaml = shipped(verb)[where] if where else shipped(verb)
    expected = defaults(kind)
    if kind is Effort:  # the others are for those who call `calibrate` from Python
        expected = {name: expected[name] for name in ("chains", "invented", "rounds", "steps")}
        expected["training_steps"] = sum(one.steps for one in Effort().passes)
    else:
        assert where is None or yaml.keys() == expected.keys()
    assert {name: yaml[name] for name in expected} == expected


@pytest.mark.parametrize(
    "options, network",
    [
        (UnetOptions, ConditionalUnet1D),
        (TransformerOptions, TransformerForDiffusion),
        (EncoderTransformerOptions, EncoderTransformer),
        (MaskedTransformerOptions, MaskedTransformer),
        (DiffusionTransformerOptions, DiffusionTransformer),
        (ChainOptions, GaussianChain.ddpm),
    ],
)
def test_options_are_the_arguments_of_what_they_make(options, network):
    given = {"input_dim", "output_dim", "horizon", "n_obs_steps", "cond_dim", "local_cond_dim", "global_cond_dim"}
    given |= {"vocabulary", "action_dim"}  # these follow from the policy
    taken = {name: one.default for name, one in inspect.signature(network).parameters.items() if name not in given}
    own = {name: value for name, value in defaults(options).items() if name not in ("kind", "ddim")}
    assert own == {name: plain(value) for name, value in taken.items()}


@pytest.mark.parametrize("name", option_names("policy"))
def test_a_policys_yaml_names_every_option_of_its_network(name):
    yaml = OmegaConf.to_container(load_option("policy", name))
    options = parse(PolicyOptions, yaml, "train")
    assert yaml["network"].keys() == plain(options.network).keys()


def test_loggers_and_tracks():
    wandb = OmegaConf.to_container(load_option("logger", "wandb"))
    taken = inspect.signature(WandbLogger).parameters
    ours = ("directory", "run_config", "run_name")
    expected = {name: plain(one.default) for name, one in taken.items() if name not in ours}
    assert wandb == {"name": "wandb", **expected}
    assert set(option_names("track")) == set(TRACKS)


@pytest.mark.parametrize(
    "verb, given, message",
    [
        ("train", "+policy.vison.layers=18", "unknown key 'policy.vison'; did you mean 'vision'"),
        ("train", "policy=unet_image +policy.vision.layer=18", "'policy.vision.layer'; did you mean 'layers'"),
        ("train", "+policy.n_obs_step=3", "unknown key 'policy.n_obs_step'; did you mean 'n_obs_steps'"),
        ("train", "+policy.network.dropout=0.1", "unknown key 'policy.network.dropout'"),
        ("train", "+policy.chain.beta=0.1", "unknown key 'policy.chain.beta'"),
        ("train", "+policy.chain.ddim.etta=0.1", "unknown key 'policy.chain.ddim.etta'; did you mean 'eta'"),
        ("train", "policy.network.down_dims=[24.5,48]", r"'policy.network.down_dims\[0\]' is 24.5"),
        ("train", "policy.chain.prediction=epsilom", "'policy.chain.prediction' is 'epsilom'; did you mean 'epsilon'"),
        ("train", "policy.horizon=0", "horizon is 0"),
        ("train", "+task.observation_key=[a]", "'task.observation_key'; did you mean 'task.observation_keys'"),
        ("train", "+logger.projct=a", "unknown key 'logger.projct'"),
        ("train", "+learning_rat=1", "unknown key 'learning_rat'; did you mean 'learning_rate'"),
        ("collect", "+task.seed=1", "unknown key 'task.seed'"),
        ("evaluate", "+track.delays=[1]", "unknown key 'track.delays'"),
        ("evaluate", "+logger.mode=offline", "unknown key 'logger.mode'"),
        ("evaluate", "+margn=1", "unknown key 'margn'; did you mean 'margin'"),
        ("rollout", "sampler=ddpm +sampler.setps=3", "sampler 'ddpm' has no option 'setps'"),
        ("serve", "sampler=ddpm +sampler.eta=1", "sampler 'ddpm' has no option 'eta'"),
        ("serve", "+sampler.eta=1", "sampler.eta is an option of one sampler: name it too, such as sampler=asd"),
        ("rollout", "sampler=null sampler.steps=4", "sampler.steps is an option of one sampler: name it too"),
        ("rollout", "task=null", "task=null: expected one of can, gym, gym_aloha, gym_pusht, lift"),
        ("control", "+limits.torque=3", "unknown key 'limits.torque'"),
        ("control", "+task.control_hz=3", "unknown key 'task.control_hz'"),
        ("benchmark", "+sampler=ddpm", "unknown key 'sampler'; did you mean 'samplers'"),
        ("calibrate", "+chain=3", "unknown key 'chain'; did you mean 'chains'"),
        ("train_drafter", "+kind=[independent]", "unknown key 'kind'; did you mean 'kinds'"),
        ("convert", "+half=true", "unknown key 'half'"),
    ],
)  # fmt: skip
def test_a_key_that_nobody_reads_is_refused_by_every_verb(verb, given, message, tmp_path, small_policy, capsys):
    required = {
        "train": ["task=lift", f"data={tmp_path}/absent.hdf5", f"output={tmp_path}/out"],
        "convert": [f"path={tmp_path}/policy", f"out={tmp_path}/out"],
        "collect": ["task=lift", f"output={tmp_path}/out.hdf5"],
    }
    policy = small_policy.save(tmp_path / "policy")
    arguments = required.get(verb, [f"policy={policy}"])
    arguments = [*arguments, *(["task=lift"] if verb in ("evaluate", "rollout", "control") else []), *given.split()]
    assert main([verb, *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and re.search(message, printed), printed
    assert not (tmp_path / "out").exists()


def test_files_of_ones_own_are_checked_against_the_shipped_ones(tmp_path):
    (tmp_path / "task").mkdir()
    own = tmp_path / "task" / "mine.yaml"
    own.write_text("name: mine\nid: Pendulum-v1\nkwargs: {a: 1}\nobservation_keyz: null\n")
    with pytest.raises(SpecpolicyError, match=r"'task\.observation_keyz'; did you mean 'task\.observation_keys'"):
        compose_verb("collect", ["task=mine"], [tmp_path])
    (tmp_path / "track").mkdir()
    (tmp_path / "track" / "slow.yaml").write_text("name: charged\nfactors: [2]\ntrace: null\nfactor: 3\n")
    with pytest.raises(SpecpolicyError, match=r"unknown key 'track\.factor'; did you mean 'track\.factors'"):
        compose_verb("evaluate", ["task=lift", "policy=x", "track=slow"], [tmp_path])
