"""`wrap` for LeRobot's MultiTaskDiTPolicy: its encoders and processors stay, its objective draws through us."""

import types
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from specpolicy.denoisers.flow import flow_denoiser
from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.lerobot.dit import dit_options
from specpolicy.integrations.lerobot.dit_settings import flow_options
from specpolicy.integrations.wrapping import Drawer, require
from specpolicy.model import Model
from specpolicy.networks import DiffusionTransformer
from specpolicy.parsing.tensors import Unfilled
from specpolicy.samplers.registry import as_sampler

TOLERANCE = 1e-4  # of the root mean square of the policy's own output


@dataclass
class Kept:
    """What is kept from chunk to chunk, beside a policy and copied with it, but no part of its weights.

    Attributes:
        weights: the parameters it was made for.
        form: the horizon, and number formats and devices of the parameters, which `Module.to` changes in place.
        network: our network on these parameters; None if the policy's is another one.
        chain: that of `denoiser`.
        denoiser: `network` as the chain calls it.
    """

    weights: dict[str, Tensor]
    form: Any
    network: DiffusionTransformer | None = None
    chain: GaussianChain | None = None
    denoiser: Any = None

    def denoiser_of(self, chain: GaussianChain, flow: bool) -> Any:
        """Return the denoiser for a chain: one object for all chunks, because a calibration compares its weights where
        it is new."""
        if self.chain is not chain:
            self.chain, self.denoiser = chain, flow_denoiser(self.network, chain) if flow else self.network
        return self.denoiser


def wrap_dit(policy: Any, drawer: Drawer, own: bool) -> Any:
    """Make the policy draw by `drawer`, or, if `own`, by what its settings name at each chunk; see
    `specpolicy.integrations.lerobot.wrap`."""
    require(policy, ("objective", "noise_predictor", "config"), "LeRobot's MultiTaskDiTPolicy")
    objective = policy.objective
    require(objective, ("conditional_sample", "horizon", "action_dim"), "its objective")
    if not _is_flow(objective):
        require(objective, ("noise_scheduler", "num_inference_steps"), "its objective 'diffusion'")

    def chain_of(objective: Any) -> GaussianChain:
        if not _is_flow(objective):
            return drawer.chain(objective.noise_scheduler, objective.num_inference_steps)
        config = objective.config
        return drawer.flow_chain(flow_options(config.num_integration_steps, config.sigma_min))

    parameter = next(policy.noise_predictor.parameters())
    drawer.check(chain_of(objective), (objective.horizon, objective.action_dim), parameter)
    policy.last_stats, policy._kept = None, None

    def conditional_sample(self: Any, model: Any, batch_size: int, conditioning_vec: Tensor) -> Tensor:
        objective = self.objective
        flow, chain = _is_flow(objective), chain_of(objective)
        shape = (batch_size, objective.horizon, objective.action_dim)
        like = next(model.parameters())
        kept = _ours(self, model, objective.horizon, conditioning_vec)
        sampler = as_sampler(own_sampler(self)) if own else None  # a user may change them between two chunks
        if kept.network is None:
            out = drawer.draw(model, chain, shape, {"conditioning_vec": conditioning_vec}, like, sampler=sampler)
        else:
            cond = conditioning_vec.to(like.dtype)
            model = Model(kept.denoiser_of(chain, flow), like.device)
            out = drawer.draw_by(model, chain, shape, cond, like, sampler=sampler)
        self.last_stats = out.stats
        return out.actions

    objective.conditional_sample = types.MethodType(conditional_sample, policy)  # a copy of the policy gets its own
    return policy


def own_sampler(policy: Any) -> str:
    """Return the name of what the policy draws with by itself: its scheduler's chain, or the solver of its flow."""
    objective: Any = getattr(policy, "objective", None)
    if not _is_flow(objective):
        return "ddpm"
    return f"{objective.config.integration_method}-{objective.config.num_integration_steps}"


def _is_flow(objective: Any) -> bool:
    """Whether it is LeRobot's objective `flow_matching`."""
    names = ("num_integration_steps", "integration_method", "sigma_min")
    config = getattr(objective, "config", None)
    return not hasattr(objective, "noise_scheduler") and all(hasattr(config, name) for name in names)


def _ours(policy: Any, model: Any, horizon: int, cond: Tensor) -> Kept:
    """Return our network on the parameters of the policy's own one: it works out once a chunk what follows from the
    condition alone. If the policy's network is another one, that is called as it is.

    It is made when it is first needed, and when parameters were replaced, moved or converted.
    """
    weights = dict(model.state_dict(keep_vars=True))
    form = horizon, [(value.dtype, value.device) for value in weights.values()]
    kept = policy._kept
    if (
        kept is not None
        and kept.form == form
        and kept.weights.keys() == weights.keys()
        and all(kept.weights[name] is weights[name] for name in weights)
    ):
        return kept  # type: ignore[no-any-return]
    network = None
    if all(value.dtype == torch.float32 for value in weights.values()):
        try:
            network = _sharing(weights, policy.config, horizon, str(type(policy).__name__))
        except SpecpolicyError:  # other weights than this network has
            network = None
    if network is not None and not _same(network, model, horizon, cond):
        network = None
    policy._kept = Kept(weights, form, network)
    return policy._kept  # type: ignore[no-any-return]


def _sharing(weights: dict[str, Any], config: Any, horizon: int, where: str) -> DiffusionTransformer:
    """Return our network with these parameters.

    Raises:
        SpecpolicyError: they are not those of such a network.
    """
    sizes, action_dim, cond_dim = dit_options(weights, where)
    with Unfilled():
        network = DiffusionTransformer(
            action_dim, action_dim, horizon, cond_dim, **sizes, num_heads=config.num_heads, rope_base=config.rope_base
        )
    own = {name: value.shape for name, value in network.state_dict().items()}
    if own != {name: value.shape for name, value in weights.items()}:
        raise SpecpolicyError(f"{where}: its weights are not those of a diffusion transformer")
    for name, value in weights.items():
        owner, _, leaf = name.rpartition(".")
        network.get_submodule(owner).register_parameter(leaf, value)
    return network.to(next(iter(weights.values())).device).eval()


@torch.no_grad()
def _same(network: DiffusionTransformer, model: Any, horizon: int, cond: Tensor) -> bool:
    """Whether two networks compute the same, at a few random inputs."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(2, horizon, network.input_proj.in_features, generator=source).to(cond.device)
    t, cond = torch.tensor([0, 7], device=cond.device), cond[:1].float().expand(2, -1)
    modes = [(module, module.training) for module in model.modules()]  # parts that are frozen have their own
    try:
        expected, found = model.eval()(x, t, conditioning_vec=cond), network(x, t, cond)
    finally:
        for module, training in modes:
            module.training = training
    return bool((found - expected).abs().max() <= TOLERANCE * expected.square().mean().sqrt().clamp(min=1e-6))
