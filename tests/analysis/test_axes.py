import numpy as np
import pytest

from sweep.analysis.axes import Axis, axes_of, shown
from sweep.search.space import Space


def test_each_kind_of_parameter_becomes_its_axis():
    space = Space.from_mapping(
        {
            "learning_rate": {"low": 3e-5, "high": 3e-3, "log": True},
            "weight_decay": {"low": 0.0, "high": 0.3},
            "batch_size": {"choices": [16, 4, 8]},
            "lora_rank": {"low": 4, "high": 12, "step": 4, "int": True},
            "schedule": {"choices": ["wsd", "constant"]},
            "rslora": {"choices": [True, False]},
        }
    )
    axes = {axis.name: axis for axis in axes_of(space)}
    scales = {name: axis.scale for name, axis in axes.items()}
    assert scales == {
        "learning_rate": "log",
        "weight_decay": "linear",
        "batch_size": "ordered",
        "lora_rank": "ordered",
        "schedule": "categorical",
        "rslora": "categorical",
    }
    assert axes["batch_size"].choices == (4, 8, 16)
    assert axes["lora_rank"].choices == (4, 8, 12)


@pytest.mark.parametrize(
    "axis",
    [
        Axis(name="linear", scale="linear", low=-1.0, high=3.0),
        Axis(name="log", scale="log", low=1e-5, high=1e-2),
        Axis(name="ordered", scale="ordered", choices=(4, 8, 16, 32)),
        Axis(name="categorical", scale="categorical", choices=("all-linear", ("q_proj", "v_proj"), True)),
    ],
    ids=lambda axis: axis.name,
)
def test_the_values_at_the_nodes_encode_to_the_nodes(axis):
    np.testing.assert_allclose(axis.encode(axis.values), axis.nodes, atol=1e-12)
    assert axis.weights.sum() == pytest.approx(1.0)


def test_a_value_off_the_axis_goes_to_its_end_and_an_unknown_category_nowhere():
    rate = Axis(name="a", scale="log", low=1e-4, high=1e-2)
    assert rate.encode([0.0, 1e-3, 1.0]).tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert np.isnan(Axis(name="b", scale="categorical", choices=("x", "y")).encode(["z"])).all()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-4, "3e-4"),
        (1.26e-3, "1.26e-3"),
        (0.125, "0.125"),
        (1e-4, "1e-4"),
        (16, "16"),
        (0.0, "0"),
        (("q", "v"), "q,v"),
    ],
)
def test_values_read_as_people_write_them(value, text):
    assert shown(value) == text
