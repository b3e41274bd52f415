"""Trainings on masks and joints begin with a classification network's weights, or with a whole network's."""

import pytest
import torch
from safetensors.torch import save_file

import residua
from residua.errors import BadInput
from residua.models.registry import create_model, records
from residua.models.starting import CLASSIFIER, start_from

OVER_18 = {
    "resnet18_fpn": {"width": 8, "head_width": 8},
    "encoder_unet": {},
    "fpn": {"encoder": "resnet18", "width": 8, "head_width": 8},
}


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return create_model("resnet18", num_classes=4)


@pytest.fixture(scope="module", params=["ours", "torchvision"])
def file(request, resnet, tmp_path_factory):
    """The same weights in both layouts."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    state = (
        resnet.state_dict() if request.param == "ours" else residua.torchvision_state_dict(resnet)
    )
    save_file(dict(state), path)
    return path


def refused(model, name, path, **options):
    """Return the one line, having seen the model unchanged."""
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(BadInput) as said:
        start_from(model, name, path, **options)
    line = str(said.value)
    assert "\n" not in line and str(path) in line
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    return line


@pytest.mark.parametrize("name", OVER_18)
def test_a_classification_network_goes_into_the_encoder(name, resnet, file):
    model = create_model(name, 3, **OVER_18[name])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    report = start_from(model, name, file)
    theirs = resnet.state_dict()
    loaded = 0
    for key, tensor in model.state_dict().items():
        inside, _, rest = key.partition(".")
        if inside == "encoder":
            assert torch.equal(tensor, theirs[rest]), key
            loaded += 1
        else:
            assert torch.equal(tensor, before[key]), key
    assert loaded == len(report.loaded) == len(theirs) - 2  # all but the classifier's last layer
    assert len(report.fresh) == len(before) - loaded
    assert f"loaded {loaded} tensors" in str(report) and "into the encoder; fresh: " in str(report)


def test_the_encoder_s_maps_are_those_of_the_classifier(resnet, file):
    model = create_model("encoder_unet", 3).eval()
    start_from(model, "encoder_unet", file)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = model.encoder.forward_stages(x), resnet.eval().forward_stages(x)
    assert all(torch.equal(ours[stage], theirs[stage]) for stage in theirs)


def test_a_grey_picture_is_seen_as_a_colour_one_whose_channels_are_alike(resnet, file):
    model = create_model("encoder_unet", 3, in_channels=1).double().eval()
    report = start_from(model, "encoder_unet", file)
    assert "summed over the colours" in str(report)
    x = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        ours = model.encoder.forward_stages(x)["stages.3"]
        theirs = resnet.double().eval().forward_stages(x.expand(1, 3, 64, 64))["stages.3"]
    resnet.float()
    assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()  # weights are summed in single


def test_any_other_number_of_channels_is_refused(file):
    line = refused(create_model("encoder_unet", 3, in_channels=2), "encoder_unet", file)
    assert "is for pictures of 3 channels, the model takes 2" in line and "--model" not in line


def test_a_network_without_encoder_names_those_that_would_take_the_file(file):
    line = refused(create_model("unet", 3, width=2, depth=2), "unet", file)
    assert (
        "is of resnet18 or resnetblur18, a classification network, and unet has no encoder" in line
    )
    assert "--model resnet18_fpn, or --model" in line
    assert "encoder_unet or fpn with --set model_options.encoder=resnet18" in line


def test_an_encoder_of_another_family_names_those_that_would_take_the_file(file):
    line = refused(create_model("encoder_unet", 3, encoder="resnet34"), "encoder_unet", file)
    assert (
        "it looks like resnet18 or resnetblur18, not resnet34" in line
        and "--model resnet18_fpn" in line
    )


@pytest.mark.parametrize(
    ("name", "dims", "task"), [("hourglass1", 2, "pose"), ("unet3d", 3, "segm")]
)
def test_where_no_network_has_an_encoder_that_is_said(name, dims, task, file):
    line = refused(create_model(name, 3, width=8), name, file)
    assert f"no {dims}-D network for {task}" in line and f"what fits {name} is" in line


def test_a_whole_network_keeps_its_last_layers_where_their_number_is_the_same(tmp_path):
    donor = create_model("hourglass2", 3, width=8)
    torch.save(donor.state_dict(), tmp_path / "donor")
    same, other, new = (create_model("hourglass2", joints, width=8) for joints in (3, 4, 3))
    assert start_from(same, "hourglass2", tmp_path / "donor").fresh == ()
    assert all(
        torch.equal(a, b) for a, b in zip(same.parameters(), donor.parameters(), strict=True)
    )
    fresh = start_from(other, "hourglass2", tmp_path / "donor").fresh
    assert sorted(fresh) == [
        *("links.0.heatmaps.weight", "stacks.0.heatmaps.bias", "stacks.0.heatmaps.weight"),
        *("stacks.1.heatmaps.bias", "stacks.1.heatmaps.weight"),
    ]
    assert torch.equal(other.stem.conv.weight, donor.stem.conv.weight)
    assert sorted(start_from(new, "hourglass2", tmp_path / "donor", head="new").fresh) == sorted(
        fresh
    )


def test_a_whole_network_with_an_encoder_is_not_taken_for_a_classifier(tmp_path):
    donor, model = (create_model("encoder_unet", 3, encoder="resnet20_cifar") for _ in range(2))
    torch.save(donor.state_dict(), tmp_path / "donor")
    assert start_from(model, "encoder_unet", tmp_path / "donor").fresh == ()
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), donor.parameters(), strict=True)
    )


@pytest.mark.slow
def test_classifiers_are_told_from_other_networks_by_their_names():
    for name, record in records().items():
        with torch.device("meta"):
            names = list(create_model(name).state_dict())
        at_the_top = any(key.startswith(CLASSIFIER) for key in names)
        assert at_the_top == (record.task == "classification"), name
