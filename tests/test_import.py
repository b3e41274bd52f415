"""`import residua` is free, and offers what the documentation says."""

import subprocess
import sys

import pytest

import residua


def test_importing_residua_imports_neither_torch_nor_numpy() -> None:
    code = "import residua, sys; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_public_name_can_be_had_and_is_listed() -> None:
    for name in residua.__all__:
        assert getattr(residua, name) is not None
        assert name in dir(residua)


def test_every_public_function_is_the_one_in_its_own_module() -> None:
    from residua.models.registry import create_model

    assert residua.create_model is create_model


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'resnet'"):
        _ = residua.resnet
