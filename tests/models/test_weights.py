"""Checkpoints of others: recognised by their contents, checked before anything is copied."""

import argparse

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import residua
from residua.errors import BadInput
from residua.models.weights import read_weights, timm_state_dict


@pytest.fixture
def model():
    torch.manual_seed(0)
    return residua.create_model("resnet18", num_classes=10)


@pytest.fixture(scope="module")
def donor():
    torch.manual_seed(1)
    return residua.create_model("resnet18", num_classes=10)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.anything"


def equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.values(), b.values(), strict=True))


def refused(model, file, **options):
    """Load a file that does not fit; return its one line, having seen the model unchanged."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(BadInput) as raised:
        residua.load_weights(model, file, **options)
    line = str(raised.value)
    assert "\n" not in line
    assert str(file) in line
    assert equal(model.state_dict(), before)
    return line


def hollow(name, write=lambda model: model.state_dict(), **options):
    """A model's names and shapes over one zero each: quick to make, small in a file."""
    with torch.device("meta"):
        state = write(residua.create_model(name, **options))
    return {k: torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in state.items()}


def save_safetensors(state, path):
    save_file({k: v.contiguous() for k, v in state.items()}, path)


def save_old(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [torch.save, save_old, save_safetensors])
@pytest.mark.parametrize("write", [lambda m: m.state_dict(), residua.torchvision_state_dict])
def test_any_format_and_either_layout_is_recognised_by_content(save, write, model, donor, file):
    save(write(donor), file)
    report = residua.load_weights(model, file)
    assert equal(model.state_dict(), donor.state_dict())
    assert len(report.loaded) == 122
    assert report.fresh == ()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {}, "args": argparse.Namespace(lr=0.1)},
        lambda s: {"state_dict": {f"module._orig_mod.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}},
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
        lambda s: {k: v.double() for k, v in s.items()},
    ],
)
def test_what_trainers_put_around_the_weights_is_taken_off(wrap, model, donor, file):
    torch.save(wrap(residua.torchvision_state_dict(donor)), file)
    residua.load_weights(model, file)
    assert equal(dict(model.named_parameters()), dict(donor.named_parameters()))


def test_averaged_weights_are_taken_before_the_last_ones(model, donor, file):
    last = residua.torchvision_state_dict(residua.create_model("resnet18", num_classes=10))
    averaged = {f"module.{k}": v for k, v in residua.torchvision_state_dict(donor).items()}
    averaged["n_averaged"] = torch.tensor(7)
    torch.save({"model": last, "model_ema": averaged}, file)
    residua.load_weights(model, file)
    assert equal(model.state_dict(), donor.state_dict())


def test_a_compiled_model_takes_the_same_files(donor, model, file):
    torch.save(donor.state_dict(), file)
    residua.load_weights(torch.compile(model), file)
    assert equal(model.state_dict(), donor.state_dict())


def test_half_precision_weights_are_widened(model, donor, file):
    half = {k: v.half() if v.is_floating_point() else v for k, v in donor.state_dict().items()}
    torch.save(half, file)
    residua.load_weights(model, file)
    assert torch.equal(model.head.fc.weight, donor.head.fc.weight.half().float())


@pytest.mark.parametrize("depth", [18, 50])
def test_timm_s_layout_goes_in_and_out(depth, file):
    donor, model = (residua.create_model(f"resnetv2_{depth}", num_classes=10) for _ in range(2))
    state = timm_state_dict(donor)
    assert state["head.fc.weight"].dim() == 4  # a 1x1 convolution there
    assert "stages.1.blocks.0.norm1.running_mean" in state  # our fork's norm
    torch.save(state, file)
    assert residua.load_weights(model, file).layout == "timm"
    assert equal(model.state_dict(), donor.state_dict())


def test_group_norm_checkpoints_of_v1_networks_fit_group_norm_models(file):
    donor, model = (residua.create_model("resnet18", norm="group") for _ in range(2))
    state = donor.state_dict()
    names = {
        "stem.conv": "conv1",
        "stem.norm": "bn1",
        "skip.branch.norm": "bn",
        "skip.branch.": "",
        "skip.shortcut.conv": "downsample.0",
        "skip.shortcut.norm": "downsample.1",
        "head.": "",
        **{f"stages.{i}": f"layer{i + 1}" for i in range(4)},
    }
    theirs = {}
    for name, tensor in state.items():
        for ours, other in names.items():
            name = name.replace(ours, other)
        theirs[name] = tensor
    assert "layer2.0.downsample.1.weight" in theirs
    torch.save(theirs, file)
    assert residua.load_weights(model, file).notes == ()
    assert equal(model.state_dict(), state)


def test_another_number_of_classes_is_refused_unless_the_head_is_to_be_new(model, donor, file):
    other = residua.create_model("resnet18", num_classes=3)
    fresh = other.head.fc.weight.clone()
    torch.save(residua.torchvision_state_dict(donor), file)
    line = refused(other, file)
    assert "head.fc.weight is (10, 512) in the file, (3, 512) in the model" in line
    assert "--head new" in line
    report = residua.load_weights(other, file, head="new")
    assert report.fresh == ("head.fc.weight", "head.fc.bias")
    assert "fresh: head.fc.weight" in str(report)
    assert torch.equal(other.head.fc.weight, fresh)
    assert torch.equal(other.stem.conv.weight, donor.stem.conv.weight)


def test_a_checkpoint_without_a_head_says_so(model, donor, file):
    body = {k: v for k, v in donor.state_dict().items() if not k.startswith("head.")}
    torch.save(body, file)
    assert "saved without a head" in refused(model, file)
    residua.load_weights(model, file, head="new")
    assert torch.equal(model.stem.conv.weight, donor.stem.conv.weight)


def test_a_new_head_is_a_new_last_layer(file):
    state = hollow("vgg11", num_classes=3)
    body = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    model = residua.create_model("vgg11", num_classes=4)
    torch.save(state, file)
    assert residua.load_weights(model, file, head="new").fresh == ("head.fc.weight", "head.fc.bias")
    assert not model.head.fc1.weight.any()
    assert model.head.fc.weight.any()
    torch.save(body, file)  # without a head: its hidden layers stay fresh too
    assert len(residua.load_weights(model, file, head="new").fresh) == 6


def test_a_features_only_model_needs_no_head_from_the_file(donor, file):
    body = residua.create_model("resnet18", features_only=True)
    torch.save(donor.state_dict(), file)
    report = residua.load_weights(body, file)
    assert len(report.loaded) == 120
    assert torch.equal(body.stem.conv.weight, donor.stem.conv.weight)


def test_another_number_of_channels_says_which(donor, file):
    grey = residua.create_model("resnet18", num_classes=10, in_channels=1)
    torch.save(residua.torchvision_state_dict(donor), file)
    line = refused(grey, file)
    assert "pictures of 3 channels, the model takes 1" in line
    assert "in_channels=3" in line


@pytest.mark.parametrize(
    "theirs, ours, says",
    [
        ("resnet34", "resnet18", "it looks like resnet34, not resnet18 or resnetblur18"),
        (
            "resnet50",
            "resnet34",
            "it looks like resnet50 or resnetaa50 or resnet50_gn or resnetblur50, not resnet34",
        ),
        ("resnet50", "resnetv2_50", "or resnetblur50, not resnetv2_50 or resnetv2_50x1_bit"),
        ("resnetv2_50", "resnet50", "it looks like resnetv2_50 or resnetv2_50x1_bit, not resnet50"),
        ("resnet18", "resnet20_cifar", "it looks like resnet18 or resnetblur18, not "),
        ("resnet18", "resnet9_cifar", "it looks like resnet18 or resnetblur18, not resnet9_cifar"),
        ("densenet121", "resnet18", "it looks like densenet121, not resnet18"),
        ("resnext50_32x4d", "resnet50", "it looks like resnext50_32x4d, not resnet50"),
        ("seresnet18", "resnet18", "it looks like seresnet18, not resnet18"),
    ],
)
def test_a_checkpoint_of_another_model_says_of_which(theirs, ours, says, file):
    torch.save(hollow(theirs), file)
    line = refused(residua.create_model(ours), file)
    assert "is of another model" in line
    assert says in line


def test_differences_are_listed_by_name_with_shapes_and_their_number(model, donor, file):
    state = dict(residua.torchvision_state_dict(donor))
    del state["bn1.weight"]
    state["bn1.bias"] = torch.zeros(65)
    state["extra.weight"] = torch.zeros(2, 3)
    torch.save(state, file)
    line = refused(model, file)
    assert "does not fit the model, 3 differences" in line
    assert "stem.norm.weight (64,) is missing" in line
    assert "stem.norm.bias (bn1.bias) is (65,) in the file, (64,) in the model" in line
    assert "extra.weight (2, 3) in the file has no place in the model" in line


def test_at_most_five_differences_are_listed(model, donor, file):
    state = {k: v for k, v in donor.state_dict().items() if not k.endswith("bias")}
    state["head.fc.bias"] = torch.zeros(10)
    torch.save(state, file)
    line = refused(model, file)
    assert "20 differences" in line
    assert line.count("is missing") == 5
    assert line.endswith("; and 15 more")


def test_whole_numbers_are_not_taken_for_weights(model, donor, file):
    state = dict(donor.state_dict())
    state["stem.conv.weight"] = torch.zeros(64, 3, 7, 7, dtype=torch.int8)
    torch.save(state, file)
    assert "stem.conv.weight is torch.int8 in the file, torch.float32 here" in refused(model, file)


def test_names_of_no_known_layout_are_refused(model, file):
    torch.save({"backbone.0.weight": torch.zeros(1)}, file)
    assert "names of no layout known here (such as 'backbone.0.weight')" in refused(model, file)


def test_networks_with_standardised_weights_are_not_taken_for_group_norm(file):
    donor = residua.create_model("resnetv2_50x1_bit", num_classes=10)
    torch.save(timm_state_dict(donor), file)
    group = residua.create_model("resnetv2_50", norm="group", num_classes=10)
    line = refused(group, file)
    assert "is a BiT network of timm's" in line
    assert "such as resnetv2_50x1_bit" in line
    bit = residua.create_model("resnetv2_50x1_bit", num_classes=10)
    assert residua.load_weights(bit, file).notes == ()
    assert equal(bit.state_dict(), donor.state_dict())


@pytest.mark.parametrize(
    "theirs, ours, options, note",
    [
        ("resnet50c", "resnet50d", {}, "not timm's resnet50c: at stages.1.0.skip.shortcut.pool"),
        (
            "resnet18",
            "resnet18",
            {"merge": "sqrt_half"},
            "not torchvision's resnet18: at stages.0.0",
        ),
        ("resnet50", "resnet50", {"stride_on": "1x1"}, "not torchvision's resnet50: at stages.1.0"),
    ],
)
def test_the_same_tensors_in_another_network_are_taken_with_a_note(
    theirs, ours, options, note, file
):
    torch.save(hollow(theirs, timm_state_dict), file)
    report = residua.load_weights(residua.create_model(ours, **options), file)
    assert len(report.notes) == 1
    assert note in report.notes[0]
    assert note in str(report)


def test_an_unknown_way_with_the_head_is_refused(model, donor, file):
    torch.save(donor.state_dict(), file)
    with pytest.raises(BadInput, match="expected keep or new"):
        residua.load_weights(model, file, head="replace")


def test_torchvision_s_layout_has_torchvision_s_names(donor):
    names = list(residua.torchvision_state_dict(donor))
    assert names[:3] == ["conv1.weight", "bn1.weight", "bn1.bias"]
    assert "layer2.0.downsample.0.weight" in names
    assert names[-2:] == ["fc.weight", "fc.bias"]
    assert len(names) == 122  # as in torchvision's resnet18-f37072fd.pth


@pytest.mark.parametrize(
    "name, options, why",
    [
        ("resnetv2_18", {}, r"torchvision has no resnetv2_18 \(timm_state_dict writes"),
        ("resnet20_cifar", {}, "torchvision has no resnet20_cifar$"),
        ("resnet9_cifar", {}, "torchvision has no resnet9_cifar$"),
        ("plain18", {}, "torchvision has no plain18$"),
        ("resnet18", {"shortcut": "A"}, "no network of these tensors and layers"),
        ("resnet18", {"shortcut": "C"}, "no network of these tensors and layers"),
        ("resnet18", {"norm": "group"}, r"resnet18, at stem.norm it has GroupNorm\(.* BatchNorm2d"),
        ("resnet50", {"stride_on": "1x1"}, r"at stages.1.0.skip.branch.conv1 it has .*and 5 more"),
        ("resnet18", {"merge": "sqrt_half"}, r"at stages.0.0.skip.merge it has ScaledAdd\(0.7"),
        (
            "resnet18",
            {"order": "relu_before_addition"},
            r"branch.act2 it has ReLU\(\), not nothing",
        ),
        ("resnet18", {"stochastic_depth": 0.5, "drop": "random_drop"}, "drop it has RandomDrop"),
        ("resnet50", {"shortcut": "D"}, "shortcut.pool it has AvgPool2d"),
        ("alexnet", {"norm": "batch"}, "no network of these tensors"),
        ("vgg16_bn_cifar", {}, "torchvision has no vgg16_bn_cifar"),
    ],
)
def test_a_model_that_torchvision_does_not_have_is_not_written_as_one(name, options, why):
    with torch.device("meta"):
        model = residua.create_model(name, **options)
    with pytest.raises(BadInput, match=f"no layout of torchvision's: .*{why}"):
        residua.torchvision_state_dict(model)


@pytest.mark.parametrize(
    "name, options",
    [
        ("resnet18", {"stochastic_depth": 0.2, "dropout": 0.1, "zero_init_last": True}),
        ("resnet18", {"shortcut_dropout": 0.1}),
        ("resnet18", {"norm": "ghost(16)", "recompute": True}),
        ("densenet121", {"dropout": 0.2, "memory_efficient": True}),
        ("resnet18", {"features_only": True}),
        ("resnet18", {"in_channels": 1, "num_classes": 5}),
    ],
)
def test_what_changes_training_only_is_written_all_the_same(name, options):
    with torch.device("meta"):
        model = residua.create_model(name, **options)
    assert len(residua.torchvision_state_dict(model)) == len(model.state_dict())


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "plain18", "nothing at all"])
def test_a_model_that_timm_does_not_have_is_not_written_as_one(name):
    with torch.device("meta"):
        model = nn.Linear(2, 2) if name == "nothing at all" else residua.create_model(name)
    with pytest.raises(BadInput, match="no layout of timm's: timm has no "):
        timm_state_dict(model)


def test_read_weights_keeps_the_writer_s_names(donor, file):
    torch.save({"state_dict": residua.torchvision_state_dict(donor)}, file)
    assert list(read_weights(file)) == list(residua.torchvision_state_dict(donor))
