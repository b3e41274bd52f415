"""The last layers that networks declare are those, and only those, that the number of classes shapes."""

import pytest
import torch

import residua
from residua.errors import BadInput
from residua.models.heads import is_last, last_layers
from residua.models.registry import create_model, list_models

NETWORKS = [*list_models(task="segmentation"), *list_models(task="pose")]
SMALL = {
    "hourglass4": {"width": 8},
    "unet": {"width": 2, "depth": 3, "deep_supervision": True},
    "unetpp": {"width": 2, "depth": 3},
    "vnet": {"width": 1, "deep_supervision": True},
    "resnet18_fpn": {"width": 4, "head_width": 4, "head_norm": "batch"},
    "encoder_unet": {"encoder": "resnet20_cifar"},
}


def named(name, classes, **options):
    with torch.device("meta"):
        return create_model(name, classes, **options)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in ("hourglass8",)])
def test_what_the_number_of_classes_shapes_is_declared_and_nothing_else(name):
    three, five = (named(name, classes).state_dict() for classes in (3, 5))
    other = {key for key in three if three[key].shape != five[key].shape}
    assert other
    patterns = last_layers(named(name, 3))
    assert {key for key in three if is_last(key, patterns)} == other


@pytest.mark.parametrize("name", SMALL)
def test_a_new_head_is_all_that_stays_fresh(name, tmp_path):
    torch.manual_seed(0)
    donor, model = (create_model(name, classes, **SMALL[name]) for classes in (3, 5))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    torch.save(donor.state_dict(), tmp_path / "donor")
    with pytest.raises(BadInput, match=r"another head: .* \(3 classes, not 5\).* \(--head new\)"):
        residua.load_weights(model, tmp_path / "donor")
    report = residua.load_weights(model, tmp_path / "donor", head="new")
    theirs, mine = donor.state_dict(), model.state_dict()
    shaped = {key for key in mine if mine[key].shape != theirs[key].shape}
    assert shaped <= set(report.fresh) and set(report.fresh) | set(report.loaded) == set(mine)
    for key, tensor in mine.items():
        assert torch.equal(tensor, (before if key in report.fresh else theirs)[key]), key


def test_the_same_network_takes_its_head_too(tmp_path):
    donor, model = (create_model("hourglass2", 3, width=8) for _ in range(2))
    torch.save(donor.state_dict(), tmp_path / "donor")
    report = residua.load_weights(model, tmp_path / "donor")
    assert report.fresh == () and len(report.loaded) == len(donor.state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(model.eval()(x), donor.eval()(x))


def test_heads_of_deep_supervision_are_new_or_left_out(tmp_path):
    plain, deep = (
        create_model("unet", 3, width=2, depth=3, deep_supervision=deep) for deep in (False, True)
    )
    torch.save(plain.state_dict(), tmp_path / "plain")
    torch.save(deep.state_dict(), tmp_path / "deep")
    fresh = residua.load_weights(deep, tmp_path / "plain", head="new").fresh
    assert {name.split(".")[0] for name in fresh} == {"head", "side_heads"}
    assert len(residua.load_weights(plain, tmp_path / "deep", head="new").fresh) == 2


def test_a_network_that_is_for_other_pictures_says_so(tmp_path):
    torch.save(create_model("unet", 3, 1, width=2, depth=2).state_dict(), tmp_path / "grey")
    colour = create_model("unet", 3, 3, width=2, depth=2)
    with pytest.raises(BadInput, match="is for pictures of 1 channels, the model takes 3"):
        residua.load_weights(colour, tmp_path / "grey")
