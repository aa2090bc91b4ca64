"""Backbones of torchvision: their weights come from a file, they stay or learn as the options say, and are saved."""

import copy
import importlib
import sys

import pytest
import torch
from safetensors.torch import save_file
from toy_images import CONFIG, read, write
from toy_runs import Curve

from specpolicy import SpecpolicyError, load_policy
from specpolicy.parsing import parse
from specpolicy.policy.config import PolicyOptions
from specpolicy.training import TrainingOptions, train
from specpolicy.training.new_policy import new_policy

try:
    import torchvision
except ImportError:
    pytest.skip("needs specpolicy[torchvision]", allow_module_level=True)
except RuntimeError:
    # PyPI's torchvision is built for CUDA and lacks its operators beside a CPU build of torch; none is called here.
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")
    import torchvision

OPTIONS = TrainingOptions(steps=3, batch_size=4, log_every=3, warmup_steps=1, learning_rate=1e-2)
BACKBONE = {"kind": "torchvision", "resize": [64, 64], "crop": [56, 56], "keypoints": 8, "features": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read(write(tmp_path_factory.mktemp("toy") / "toy.hdf5", episodes=6))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{name of a network: (the network of torchvision with statistics of its own, file of its weights)}."""
    place, found = tmp_path_factory.mktemp("weights"), {}
    for name, save in (("resnet18", torch.save), ("mobilenet_v3_small", save_file)):
        torch.manual_seed(3)
        network = torchvision.models.get_model(name, weights=None).train()
        with torch.no_grad():
            network(torch.rand(8, 3, 64, 64))
        file = place / f"{name}.{'pth' if save is torch.save else 'safetensors'}"
        save(network.state_dict(), file)
        found[name] = network.eval(), file
    return found


def fresh(data, **vision):
    torch.manual_seed(0)
    config = copy.deepcopy({**CONFIG, "vision": {**BACKBONE, **vision}})
    return new_policy(parse(PolicyOptions, config, "toy"), data[0], {"name": "toy"})


def whole(network, images):
    """The feature map of torchvision's own network, from images in [0, 1]."""
    mean, deviation = (torch.tensor(one).view(3, 1, 1) for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = (images - mean) / deviation
    if hasattr(network, "features"):
        return network.features(images)
    return torch.nn.Sequential(*list(network.children())[:-2])(images)


@pytest.mark.parametrize("name", ("resnet18", "mobilenet_v3_small"))
def test_it_sees_what_torchvisions_network_sees(data, files, name):
    network, file = files[name]
    policy = fresh(data, name=name, weights=str(file))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backbone = policy.encoder.vision[0].backbone.train()  # batch norms stay as they are
    with torch.no_grad():
        found = backbone(policy.normaliser.normalise("top_image", images))
        torch.testing.assert_close(found, whole(network, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("vision", "learns"),
    [
        ({"frozen": True}, set()),
        ({}, {"convolutions"}),
        ({"norm": "group"}, {"convolutions", "norms"}),
    ],
)
def test_what_is_to_learn_learns_and_all_is_saved(data, files, tmp_path, vision, learns):
    policy = fresh(data, name="resnet18", weights=str(files["resnet18"][1]), **vision)
    before = {name: value.clone() for name, value in policy.encoder.state_dict().items()}
    trained = train(policy, *data, OPTIONS, tmp_path, Curve())
    after = trained.encoder.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    body = {name.partition("backbone.body.")[2] for name in moved if ".body." in name}
    kinds = {"convolutions" if before[f"vision.0.backbone.body.{name}"].dim() == 4 else "norms" for name in body}
    assert kinds == learns and "vision.0.linear.weight" in moved
    loaded = load_policy(tmp_path)  # without the file
    assert (
        loaded.config.vision.weights is None and str(files["resnet18"][1]) not in (tmp_path / "config.json").read_text()
    )
    seen = {key: values.numpy() for key, values in data[0].seen([0, 3]).items()}
    one, other = (one.predict(seen, generator=torch.Generator().manual_seed(1)) for one in (trained, loaded))
    assert torch.equal(one.actions, other.actions)


@pytest.mark.parametrize(
    ("vision", "words"),
    [
        ({"weights": "nowhere.pth"}, "no weights at nowhere.pth: weights are read from a file"),
        ({"weights": "{mobilenet_v3_small}"}, "lacks weights of resnet18: of another network"),
        ({"name": "resnet34", "weights": "{resnet18}"}, "of another network"),
        ({"name": "resnet81", "norm": "group"}, "torchvision has no network resnet81; did you mean 'resnet"),
        ({"name": "vit_b_16", "norm": "group"}, "vit_b_16 of torchvision gives no feature map"),
        ({"frozen": True}, "a frozen backbone needs policy.vision.weights=FILE"),
        ({}, "norm=frozen_batch keeps the statistics of weights"),
        ({"frozen": True, "norm": "group"}, "use norm=frozen_batch"),
        ({"norm": "batch"}, "'policy.vision.norm|norm"),
    ],
)
def test_what_cannot_be_is_one_line(data, files, vision, words):
    given = {key: str(files[one[1:-1]][1]) if str(one)[0] == "{" else one for key, one in vision.items()}
    with pytest.raises(SpecpolicyError, match=words) as caught:
        fresh(data, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", (b"", b"no weights", b"\x80\x04cos\nsystem\n."))
def test_a_damaged_file_is_one_line(data, tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(SpecpolicyError, match=r"weights\.pth holds no weights that can be read") as caught:
        fresh(data, weights=str(tmp_path / "weights.pth"))
    assert "\n" not in str(caught.value)


def test_without_the_package_it_says_which_one(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(SpecpolicyError, match=r"pip install 'specpolicy\[torchvision\]'"):
        fresh(data, norm="group")

    def other_build(name, *more):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", other_build)
    with pytest.raises(SpecpolicyError, match="torchvision does not fit this torch"):
        fresh(data, norm="group")
