"""Training on images: what is in them is learnt, whoever reads them, and whatever is interrupted."""

import copy
import os
import signal

import pytest
import torch
from toy_images import CONFIG, KEYS, SIDE, read, write
from toy_runs import Curve, Killed, KilledAt

from specpolicy import SpecpolicyError, load_policy
from specpolicy.data.robomimic_images import HDF5Images
from specpolicy.parsing import parse
from specpolicy.policy.config import PolicyOptions
from specpolicy.training import TrainingOptions, train
from specpolicy.training.new_policy import new_policy
from specpolicy.training.views import draw_views, jittered

OPTIONS = dict(steps=6, batch_size=8, log_every=1, validate_every=3, save_every=2, warmup_steps=2, colour_jitter=0.3)
TASK = {"name": "toy"}


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    return write(tmp_path_factory.mktemp("toy") / "toy.hdf5")


@pytest.fixture
def data(demonstrations):
    return read(demonstrations)


def fresh(training, **changes):
    torch.manual_seed(0)
    config = copy.deepcopy({**CONFIG, **changes})
    return new_policy(parse(PolicyOptions, config, "toy"), training, TASK)


def vision(**changes):
    return {**CONFIG["vision"], **changes}


def seen(data, rows=(0, 7)):
    return {key: values.numpy() for key, values in data[0].seen(list(rows)).items()}


def drawn(policy, observation):
    return policy.predict(observation, generator=torch.Generator().manual_seed(1)).actions


TRANSFORMER = {"kind": "transformer", "n_layer": 1, "n_head": 2, "n_emb": 16, "p_drop_attn": 0.2}


def test_a_small_encoder_learns_what_only_images_say(demonstrations, data, tmp_path):
    """Without images the same network cannot come near the loss: the action is in them alone."""
    options = TrainingOptions(**{**OPTIONS, "steps": 200, "batch_size": 32, "log_every": 100, "learning_rate": 3e-3})
    losses = {}
    for name, keys, config in (("images", KEYS, CONFIG), ("vectors", KEYS[:1], {**CONFIG, "vision": None})):
        windows = read(demonstrations, keys)
        curve = Curve()
        train(fresh(windows[0], vision=config["vision"]), *windows, options, tmp_path / name, curve)
        losses[name] = curve.rows[200]["validation/loss"]
    print(losses)
    assert losses["images"] < 0.05 < 0.1 < losses["vectors"]


@pytest.mark.parametrize("change", ({}, {"network": TRANSFORMER}))
def test_a_killed_run_resumes_to_the_same_curve_and_weights(data, tmp_path, change):
    """With random crops, colours, and dropout."""
    options, whole, second = TrainingOptions(**OPTIONS, accumulate=2), Curve(), Curve()
    expected = train(fresh(data[0], **change), *data, options, tmp_path / "whole", whole)
    with pytest.raises(Killed):
        train(fresh(data[0], **change), *data, options, tmp_path / "killed", KilledAt(4))
    resumed = train(fresh(data[0], **change), *data, options, tmp_path / "killed", second)
    assert min(second.rows) == 3
    assert all(row == whole.rows[step] for step, row in second.rows.items())
    state = resumed.state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.state_dict().items())
    assert any(name.startswith("encoder.vision.0.backbone") for name in state)


@pytest.mark.parametrize("kind", ({}, {"kind": "resnet", "resize": [64, 64], "crop": [56, 60]}))
def test_a_saved_policy_draws_the_same_chunks(data, tmp_path, kind):
    config = {name: value for name, value in CONFIG["vision"].items() if name != "widths" or not kind}
    options = TrainingOptions(**{**OPTIONS, "steps": 2})
    before = fresh(data[0], vision={**config, **kind})
    start = [value.clone() for value in before.encoder.parameters()]
    policy = train(before, *data, options, tmp_path, Curve())
    moved = [not torch.equal(*pair) for pair in zip(start, policy.encoder.parameters(), strict=True)]
    assert all(moved)  # the average, too, of every weight that sees
    loaded, observation = load_policy(tmp_path), seen(data)
    assert loaded.config.observation == {"still": 1, "top_image": (3, SIDE, SIDE)}
    assert torch.equal(drawn(loaded, observation), drawn(policy, observation))


def test_the_small_encoder_is_small(data):
    options = {name: value for name, value in CONFIG["vision"].items() if name in ("kind", "crop")}
    assert sum(one.numel() for one in fresh(data[0], vision=options).encoder.parameters()) < 1_000_000


def test_several_readers_give_the_curve_of_one(data, tmp_path):
    curves = []
    for workers in (0, 2):
        curves.append(Curve())
        options = TrainingOptions(**{**OPTIONS, "steps": 4}, accumulate=2)
        train(fresh(data[0]), *data, options, tmp_path / str(workers), curves[-1], workers=workers)
    assert curves[0].rows == curves[1].rows


def test_passes_add_up_to_one_batch(data, tmp_path):
    """To rounding; and not to a batch of the size of one pass."""
    curves = []
    for number, sizes in enumerate(({"batch_size": 24}, {"batch_size": 8, "accumulate": 3}, {"batch_size": 8})):
        curves.append(Curve())
        train(fresh(data[0]), *data, TrainingOptions(**{**OPTIONS, **sizes}), tmp_path / str(number), curves[-1])
    one, passes, other = ([row["train/loss"] for row in curve.rows.values()] for curve in curves)
    assert passes == pytest.approx(one, rel=1e-4) and other != pytest.approx(one, rel=1e-2)


def test_bfloat16_follows_the_curve_of_float32_with_float32_weights(data, tmp_path):
    curves = {}
    for precision in ("float32", "bfloat16"):
        curve, options = Curve(), TrainingOptions(**OPTIONS, precision=precision)
        policy = train(fresh(data[0]), *data, options, tmp_path / precision, curve)
        assert all(value.dtype is torch.float32 for value in policy.parameters())
        curves[precision] = [row["train/loss"] for row in curve.rows.values()]
    assert curves["bfloat16"] != curves["float32"]
    assert curves["bfloat16"] == pytest.approx(curves["float32"], rel=0.03)


def test_keypoints_are_not_rounded_in_bfloat16(data):
    pool = fresh(data[0]).encoder.vision[0].pool
    maps = torch.randn(3, 32, 7, 7, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = pool(maps)
    assert found.dtype is torch.float32
    assert (found - found.bfloat16()).abs().max() > 0  # they lie between what bfloat16 can say


def test_images_are_read_a_window_at_a_time(data, tmp_path, monkeypatch):
    """Never the whole set: what a step reads are the windows of its batch."""
    read, original = [], HDF5Images.read
    monkeypatch.setattr(HDF5Images, "read", lambda self, *at: read.append(len(at[1])) or original(self, *at))
    run = TrainingOptions(**{**OPTIONS, "steps": 2, "batch_size": 4})
    train(fresh(data[0]), data[0], None, run, tmp_path, Curve(), identity={})
    assert 0 < sum(read) <= 2 * 4 * 2


def test_frames_of_a_window_are_changed_alike_and_windows_differently(data):
    policy, generator = fresh(data[0]), torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 3, SIDE, SIDE, generator=generator).expand(4, 2, -1, -1, -1)
    draws = draw_views(("top_image",), 4, generator)
    changed = jittered(image, draws["colour/top_image"], 0.3)
    assert torch.equal(changed[:, 0], changed[:, 1]) and not torch.equal(changed[0], changed[1])
    assert float(changed.min()) >= 0 and float(changed.max()) <= 1
    torch.testing.assert_close(jittered(image, torch.full((4, 3), 0.5), 0.3), image)
    encoder = policy.encoder.vision[0]
    inputs = []
    encoder.backbone.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    vectors = {"still": torch.zeros(4, 2, 1), "top_image": image}
    policy.encoder(vectors, {"top_image": draws["crop/top_image"]})
    policy.encoder(vectors, {"top_image": torch.full((4, 2), 1 - 2**-24)})  # the last place, and not beyond
    policy.encoder(vectors)
    random, last, middle = (one.unflatten(0, (4, 2)) for one in inputs)
    assert torch.equal(random[:, 0], random[:, 1]) and not torch.equal(random[0], random[1])
    assert torch.equal(last, image[..., 4:, 4:]) and torch.equal(middle, image[..., 2:30, 2:30])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vision": None}, "'top_image' is an image, and policy=toy_image sees none"),
        ({"vision": vision(crop=[40, 28])}, r"images of 32 x 32 pixels are smaller than the crop \(40, 28\)"),
        ({"vision": {"kind": "resnet", "group_norm": False}}, "policy.vision.group_norm=false"),
        ({"vision": {"kind": "resnet"}}, "32 x 32 pixels leave .* a feature map of one pixel"),
        ({"vision": vision(kind="smal")}, "'smal'; did you mean 'small'"),
        ({"vision": vision(widths=[12, 16])}, "widths"),
    ],
)
def test_options_that_do_not_fit_are_one_line(data, change, words):
    with pytest.raises(SpecpolicyError, match=words) as caught:
        fresh(data[0], **change)
    assert "\n" not in str(caught.value)


def test_a_policy_that_sees_wants_images(demonstrations):
    with pytest.raises(SpecpolicyError, match="sees images, and there is none among still"):
        fresh(read(demonstrations, KEYS[:1])[0])


def test_other_images_than_the_policys_are_refused(demonstrations, data, tmp_path):
    policy = fresh(data[0])
    with pytest.raises(SpecpolicyError, match="the data lack 'top_image'"):
        train(policy, *read(demonstrations, KEYS[:1]), TrainingOptions(**OPTIONS), tmp_path, Curve(), identity={})
    data[0].images["top_image"].episodes[0].size = (32, 30, 3)
    with pytest.raises(SpecpolicyError, match=r"\(3, 32, 30\) in the data, and \(3, 32, 32\) in the policy"):
        train(policy, *data, TrainingOptions(**OPTIONS), tmp_path, Curve(), identity={})


@pytest.mark.parametrize("workers", (0, 1))
def test_an_image_that_cannot_be_read_is_one_line(tmp_path, workers):
    import h5py

    path = write(tmp_path / "toy.hdf5", 8)
    windows = read(path)
    with h5py.File(path) as file:
        chunks = [file[f"data/demo_{number}/obs/top_image"].id.get_chunk_info(2) for number in range(8)]
    with path.open("r+b") as raw:
        for chunk in chunks:
            raw.seek(chunk.byte_offset)
            raw.write(b"\0" * chunk.size)
    with pytest.raises(SpecpolicyError, match="obs/top_image cannot be read") as caught:
        options = TrainingOptions(**OPTIONS)
        train(fresh(windows[0]), windows[0], None, options, tmp_path, Curve(), workers=workers, identity={})
    assert "\n" not in str(caught.value)


class Fatal(HDF5Images):
    """Ends the process that reads, as the system does when memory is short."""

    def read(self, where, steps):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_reader_that_dies_is_one_line(data, tmp_path):
    for episode in data[0].images["top_image"].episodes:
        episode.source = Fatal(episode.source.path)
    with pytest.raises(SpecpolicyError, match=r"a process that reads images has died .*: use fewer workers") as caught:
        train(fresh(data[0]), data[0], None, TrainingOptions(**OPTIONS), tmp_path, Curve(), workers=1, identity={})
    assert "\n" not in str(caught.value)
