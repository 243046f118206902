"""Schemes are data: the table, exceptions for some layers, and what is refused."""

import dataclasses

import pytest

from tfcompress.core.grid import Grid
from tfcompress.quantize.scheme import KEEP, ActivationGrid, Scheme


@pytest.mark.parametrize(
    ("name", "weight_bits", "axis", "activation_bits", "folded"),
    [
        ("int8", 8, "channel", 8, False),
        ("int8_per_tensor", 8, None, 8, True),
        ("int16x8", 8, "channel", 16, False),
        ("w4a8", 4, "channel", 8, False),
    ],
)
def test_the_named_schemes(name, weight_bits, axis, activation_bits, folded):
    scheme = Scheme.named(name)
    assert (scheme.weights.bits, scheme.weights.axis) == (weight_bits, axis)
    assert (scheme.activations.bits, scheme.activations.symmetric) == (activation_bits, activation_bits == 16)
    assert (scheme.name, scheme.fold_batch_norm, scheme.overrides) == (name, folded, ())


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError) as error:
        Scheme.named("int4")
    assert str(error.value) == (
        "`scheme` must be one of ['int16x8', 'int8', 'int8_per_tensor', 'w4a8'] or a Scheme. Received: scheme='int4'"
    )


def test_an_override_makes_a_new_scheme_and_keeps_what_it_is_not_given():
    first = Scheme.named("int8")
    second = first.override("head", weights=Grid(bits=4)).override("stem", activations=None)
    assert first.overrides == ()
    assert [o.select for o in second.overrides] == ["head", "stem"]
    assert second.overrides[0].weights == Grid(bits=4) and second.overrides[0].activations is KEEP
    assert second.overrides[1].weights is KEEP and second.overrides[1].activations is None
    assert repr(KEEP) == "KEEP"


def test_a_scheme_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Scheme.named("int8").weights = None


def test_grids_of_the_wrong_kind_are_refused():
    with pytest.raises(TypeError, match=r"`weights` must be a Grid or None. Received: 4"):
        Scheme.named("int8").override("head", weights=4)
    with pytest.raises(TypeError, match="`activations` must be a ActivationGrid or None"):
        Scheme.named("int8").override("head", activations=Grid())
    for bits in (4, 32, "8"):
        with pytest.raises(ValueError, match="`bits` of activations must be 8 or 16"):
            ActivationGrid(bits)
