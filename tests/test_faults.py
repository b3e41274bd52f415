"""Faults that other implementations had, by number: each must not come back here.

The numbers are those of the list that the project keeps of its peers' faults; the parts concerned have tests
of their own besides.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import residua
from residua.data.augmentation import mix
from residua.data.joints import mirror_of
from residua.data.masks import mask_values, read_mask
from residua.data.pairs import open_pairs
from residua.data.volumes import write_mask
from residua.errors import BadInput
from residua.models import create_model, list_models, records
from residua.models.densenet import densenet
from residua.nn import is_norm
from residua.nn.regularisers import DROPS, make_drop
from residua.tiles import plan_for, predict
from residua.training.pose.augmentation import PoseAugmentation
from residua.training.pose.batches import PoseBatches
from residua.training.pose.decode import decode, flip_test
from residua.training.pose.targets import collapsed, heatmaps, pose_loss
from residua.training.segmentation.losses import segmentation_loss
from residua.training.segmentation.scores import Scores

LIGHTEST = {}
for known in sorted(records().values(), key=lambda known: known.parameters):
    if known.task == "classification":
        LIGHTEST.setdefault(known.family, known)
WITH_NORM = [known.name for known in LIGHTEST.values() if "norm" in known.options()]

NORM_FREE = {"fixup", "nf_resnet"}  # which take no norm layer at all


def gradients(model, x):
    """The gradients of a model in training, by name; None where there is none."""
    model.train().zero_grad()
    torch.manual_seed(1)
    model(x).square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", WITH_NORM)
def test_1_another_norm_is_another_norm_everywhere_and_not_in_the_stem_alone(name):
    def norms(norm):
        with torch.device("meta"):
            model = create_model(name, norm=norm)
        return [type(layer) for layer in model.modules() if is_norm(layer)]

    try:
        batch, group = norms("batch"), norms("group")
    except BadInput as error:
        assert records()[name].family in NORM_FREE, error
        return
    assert len(batch) == len(group) > 1
    assert all(issubclass(kind, nn.BatchNorm2d) for kind in batch)
    assert all(issubclass(kind, nn.GroupNorm) for kind in group)
    assert norms("none") == []


def test_2_gradient_flows_through_zero_padded_shortcuts():
    torch.manual_seed(0)
    # Every branch is silent, so the shortcuts alone lead back to the stem.
    model = create_model("resnet20_cifar", shortcut="A", zero_init_last=True)
    stem = gradients(model, torch.randn(4, 3, 16, 16))["stem.conv.weight"]
    assert (stem.abs().sum((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("kind", [kind for kind in DROPS if kind != "separated_drop"])
def test_3_stochastic_depth_is_its_own_expectation_in_evaluation(kind):
    torch.manual_seed(0)
    drop = make_drop(kind, 0.4, 1, 1)
    x = torch.ones(1, 1)
    trained = torch.stack([drop.train()(x) for _ in range(4000)])
    assert drop.eval()(x).item() == pytest.approx(trained.mean().item(), abs=0.05)
    assert torch.equal(drop(x), drop(x))


@pytest.mark.parametrize("kind", [*DROPS])
def test_3_stochastic_depth_does_not_freeze_training(kind):
    torch.manual_seed(0)
    model = create_model(
        "resnet20_cifar", stochastic_depth=0.5, drop_decay="constant", drop=kind
    ).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    x, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    for _ in range(12):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("recomputes", ["densenet", "resnet20_cifar", "preact_resnet20_cifar"])
def test_4_a_network_that_recomputes_has_the_gradients_of_one_that_does_not(recomputes):
    def build(on):
        torch.manual_seed(0)
        if recomputes != "densenet":
            return create_model(recomputes, recompute=on, dropout=0.2).double()
        return densenet(
            depths=(2, 3),
            growth=4,
            bottleneck=True,
            small=True,
            num_classes=3,
            in_channels=3,
            dropout=0.2,
            memory_efficient=on,
        ).double()

    torch.manual_seed(2)
    x = torch.randn(
        4, 3, 8, 8, dtype=torch.float64
    )  # needs no gradient itself: the fault's condition
    usual, efficient = build(False), build(True)
    expected, found = gradients(usual, x), gradients(efficient, x)
    assert all(g is not None and g.any() for g in found.values())
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(torch.equal(a, b) for a, b in zip(usual.buffers(), efficient.buffers(), strict=True))


# -- whole runs ------------------------------------------------------------------------------------------

FEW = ("model_options.width=4", "epochs=2", "augmentation.crop_padding=1")


def train(source, *settings):
    return residua.train(
        source,
        out=source.parent / "run",
        model="resnet9_cifar",
        recipe="he2015-cifar",
        settings=("steps=null", *FEW, *settings),
        workers=0,
    )


def test_5_a_frozen_part_keeps_its_weights_and_its_norms_statistics(tmp_path, write_set):
    source = write_set(tmp_path / "set", {"a": 20, "b": 20})
    run = train(source, "batch_size=8", "freeze=[stem,stages.0]")
    card = run.card
    torch.manual_seed(0)
    start = card.build().state_dict()
    moved = {k for k, v in run.model.state_dict().items() if not torch.equal(v, start[k])}
    frozen = {k for k in start if k.startswith(("stem.", "stages.0."))}
    assert any(k.endswith("running_mean") for k in frozen)
    assert moved == set(start) - frozen


def test_6_a_last_batch_of_one_picture_does_not_end_a_run(tmp_path, write_set):
    for split, n in (("train", 17), ("val", 17)):
        write_set(tmp_path / "set" / split, {"a": n - 8, "b": 8})
    run = train(tmp_path / "set", "batch_size=16", "evaluation.batch_size=16")
    assert run.measures["n"] == 17
    assert np.isfinite(run.measures["loss"])


def test_7_mixup_takes_an_odd_batch(tmp_path, write_set):
    write_set(tmp_path / "set" / "train", {"a": 11, "b": 10})
    write_set(tmp_path / "set" / "val", {"a": 3, "b": 3})
    run = train(tmp_path / "set", "batch_size=7", "augmentation.mixup=0.5")
    assert np.isfinite(run.measures["loss"])
    x, targets = mix(torch.randn(7, 3, 4, 4), torch.arange(7) % 2, 2, mixup=0.5)
    assert x.shape[0] == 7
    torch.testing.assert_close(targets.sum(1), torch.ones(7))


@pytest.mark.parametrize("values", [(0, 255), (0, 3, 7), (1, 2, 200)])
def test_8_mask_values_with_gaps_are_classes_without(tmp_path, values):
    pixels = np.array(values, np.uint8)[np.arange(12).reshape(3, 4) % len(values)]
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    found = read_mask(tmp_path / "mask.png", mask_values([tmp_path / "mask.png"]))
    assert np.unique(found).tolist() == list(range(len(values)))
    assert np.array_equal(np.array(values)[found], pixels)


@pytest.mark.parametrize("values", [(0, 255), (3, 7, 200)])
def test_8_masks_beside_pictures_keep_their_values_from_file_to_class_to_file(tmp_path, values):
    noise = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    truth = np.array(values, np.uint8)[np.arange(12 * 14).reshape(12, 14) // 20 % len(values)]
    for i in range(4):
        picture = noise.integers(0, 255, truth.shape, np.uint8)
        Image.fromarray(picture).save(tmp_path / "images" / f"cell {i}a.png")
        Image.fromarray(truth).save(tmp_path / "masks" / f"cell {i}a.png")
    pairs = open_pairs(tmp_path)
    assert pairs.values == values and len(pairs.classes) == len(values)
    assert any("values" in note for note in pairs.notes)  # mapped only after saying so
    classes = pairs.splits["train"].mask(0)
    assert np.unique(classes).tolist() == list(range(len(values)))
    write_mask(tmp_path / "predicted.png", classes, pairs.values)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "predicted.png")), truth)


# -- joints ----------------------------------------------------------------------------------------------

NAMES = ("left_wrist", "right_wrist", "nose")
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))  # of the joints' dots, in that order


class OnePerson:
    """Three dots of their own colours; left and right lie on one height, so that a mirror takes either."""

    joints = np.array([[[12, 20, 2], [51, 20, 2], [31.5, 44, 2]]], np.float32)
    boxes = np.array([[-0.5, -0.5, 63.5, 63.5]], np.float32)

    def __len__(self):
        return 1

    def read(self, _):
        y, x = np.mgrid[:64, :64]
        near = [(abs(x - a) < 4) & (abs(y - b) < 4) for a, b, _ in self.joints[0]]
        return sum(
            n[:, :, None] * np.array(c, np.uint8) for n, c in zip(near, COLOURS, strict=True)
        )


def test_10_in_a_mirrored_picture_the_joint_on_the_left_has_the_other_name():
    mirror, unpaired = mirror_of(NAMES)
    assert mirror == (1, 0, 2) and unpaired == ()
    still = PoseAugmentation(rotation=0.0, scale=(1.0, 1.0), colour=(0.0, 0.0, 0.0))
    options = {"batch_size": 1, "seed": 0, "size": 64, "margin": 1.0, "augmentation": still}
    batches = PoseBatches(OnePerson(), train=True, mirror=mirror, **options)
    seen = set()
    for batch in batches.iterate(0, 20):
        mirrored = bool(np.linalg.det(batch.maps[0, :, :2]) < 0)
        seen.add(mirrored)
        for j in range(3):
            x, y, v = batch.labels[0, j].tolist()
            red, green, blue = batch.pictures[0, round(y), round(x)].tolist()
            # The wrist on the left of the mirrored picture is called left, whatever colour it had.
            assert v == 2 and (red, green, blue) == COLOURS[mirror[j] if mirrored else j]
        assert batch.labels[0, 0, :2].tolist() == pytest.approx([12, 20], abs=1e-3)
    assert seen == {False, True}


def test_10_the_flip_test_of_a_symmetric_network_is_exact_to_the_pixel():
    joints = torch.from_numpy(OnePerson.joints)
    truth = heatmaps(joints, (16, 16))

    def perfect(pictures):  # the truth of a picture, or of its mirror image: names exchanged
        flipped = joints[:, [1, 0, 2]].clone()
        flipped[:, :, 0] = 63 - flipped[:, :, 0]
        return heatmaps(flipped if pictures.sum() else joints, (16, 16))

    class Corner(torch.Tensor):
        """An empty picture; mirrored, one that is not."""

        def flip(self, *_):
            return torch.ones(1, 3, 64, 64)

    mean = flip_test(perfect, torch.zeros(1, 3, 64, 64).as_subclass(Corner), mirror_of(NAMES)[0])
    torch.testing.assert_close(mean, truth, rtol=0, atol=1e-6)
    places, _ = decode(mean)
    torch.testing.assert_close(places, joints[:, :, :2], rtol=0, atol=0.05)
    wrong = flip_test(perfect, torch.zeros(1, 3, 64, 64).as_subclass(Corner), (0, 1, 2))
    assert (wrong - truth).abs().max() > 0.4  # the wrong pairs would have been seen


def test_17_the_heatmap_that_is_nowhere_has_a_large_loss_and_is_told_as_collapsed():
    joints = torch.rand(6, 3, 3) * 50 + 5
    joints[..., 2] = 2
    truth, nothing = heatmaps(joints, (16, 16)), torch.zeros(6, 3, 16, 16)
    assert (truth**2).mean() < 0.02  # which a plain mean over pixels would call a small loss
    assert pose_loss(nothing, joints).item() == pytest.approx(1.0, rel=0.02)
    assert pose_loss(truth, joints).item() == 0
    corner = nothing.clone()
    corner[:, 1, 0, 0] = 1.0  # sure, and always at (0, 0)
    corner[:, 2] = truth[:, 2]
    assert collapsed(corner).tolist() == [True, True, False]


# -- masks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["dice", "dice+cross_entropy", "tversky", "focal_tversky"])
def test_15_the_overlap_loss_of_an_all_background_picture_is_neither_always_0_nor_1(loss):
    truth = torch.zeros(1, 8, 8, dtype=torch.int64)

    def of(foreground):
        scores = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
        scores[:, 1] = foreground
        scores.requires_grad_()
        value = segmentation_loss(loss, scores, truth)
        (gradient,) = torch.autograd.grad(value, scores)
        return value.item(), gradient[:, 1].min().item()

    values = [of(z)[0] for z in (-20.0, -2.0, 0.0, 2.0)]
    assert values[0] == pytest.approx(0, abs=1e-4) and values == sorted(values)
    assert values[2] > 0.1  # half of every pixel is wrong
    assert of(0.0)[1] > 0  # and every pixel is told so


def test_15_the_scores_of_an_all_background_picture_say_nothing_of_a_class_that_is_not_there():
    scores = Scores(("background", "cell"))
    scores.add("empty", np.zeros((4, 4), int), np.zeros((4, 4), int))
    background, cell = scores.result()["per_class"]
    assert (background["dice"], cell["dice"], cell["iou"]) == (1.0, None, None)
    assert scores.result()["mean_dice"] == 1.0
    scores.add("made up", np.eye(4, dtype=int), np.zeros((4, 4), int))
    assert scores.result()["per_class"][1]["dice"] == 0.0


class Lookup(nn.Module):
    """61 classes: the value of a voxel, which a 1 x 1 x 1 convolution finds."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Conv3d(1, 61, 1)
        classes = torch.arange(61.0)
        with torch.no_grad():  # -(v - k)^2 less v^2, which is the same for all classes
            self.scores.weight.copy_((2 * classes).view(61, 1, 1, 1, 1))
            self.scores.bias.copy_(-(classes**2))

    def forward(self, x):
        return self.scores(x)


def test_16_a_volume_of_61_classes_is_predicted_in_a_memory_that_was_named(tmp_path):
    network, limit = Lookup(), 256 * 2**20
    huge = np.broadcast_to(np.float32(0), (1, 200, 2000, 2000))
    plan = plan_for(network, huge, classes=61, in_memory=False, memory_mb=256)
    assert plan.memory(in_memory=False) <= limit < plan.result_bytes / 500
    with pytest.raises(BadInput, match="out="):
        plan_for(network, huge, classes=61, memory_mb=256)
    small = np.random.default_rng(0).integers(0, 61, (1, 40, 30, 26)).astype(np.float32)
    given = {"classes": 61, "dtype": "classes", "memory_mb": 4, "out": tmp_path / "classes.npy"}
    found = predict(network, small, **given)
    assert plan_for(network, small, classes=61, in_memory=False, memory_mb=4).tiles > 1
    assert np.array_equal(found, small[0])


@pytest.mark.parametrize("name", list_models(task="segmentation"))
def test_18_pictures_of_odd_sizes_pass_through_every_network(name):
    known = records()[name]
    with torch.device("meta"):
        model = create_model(name).eval()
    for odd in (known.smallest | 1, known.smallest + 6 | 1, known.smallest + 30 | 1):
        sides = [odd + 2 * axis for axis in range(known.dims)]
        with torch.no_grad():
            scores = model(torch.empty(1, 3, *sides, device="meta"))
        assert scores.shape[:2] == (1, known.num_classes)
        if known.preset.get("padding") == "valid":  # as published: a smaller answer
            assert all(0 < n < side for n, side in zip(scores.shape[2:], sides, strict=True))
        else:
            assert list(scores.shape[2:]) == sides
