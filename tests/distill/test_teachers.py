"""What can teach, and what it answers."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax
from scipy.stats import entropy

import tflite_export
from tests.distill.models import X, compiled, conv, dense, keras, layers
from tfcompress.distill import Distiller, Ensemble, Features, Logits
from tfcompress.distill.teachers import resolve


def test_a_model_teaches_in_inference_mode():
    teacher = conv()
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    before = [w.copy() for w in teacher.get_weights()]
    np.testing.assert_allclose(resolve(teacher)(x)[0], teacher(x, training=False), rtol=1e-6)
    for a, b in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_function_teaches():
    np.testing.assert_allclose(resolve(lambda x: x + 1)(X)[0], X + 1)


def test_several_teachers_are_averaged_as_logits_or_as_probabilities():
    one, other = dense(4), dense(5)
    found = resolve([one, other])(X)[0]
    np.testing.assert_allclose(found, (one(X) + other(X)) / 2, rtol=1e-5, atol=1e-6)
    mixed = Ensemble([one, dense(5, "softmax")], weights=[1, 3])
    assert mixed.kind == "softmax"
    expected = 0.25 * tf.nn.softmax(one(X)) + 0.75 * mixed.teachers[1].model(X)
    np.testing.assert_allclose(mixed(X)[0], expected, rtol=1e-5)


def test_each_of_several_teachers_has_taps_of_its_own():
    teacher = Ensemble([dense(4), dense(7)])
    losses = [Features((1, "hidden"), "hidden"), Features((0, "hidden"), "hidden")]
    distiller = compiled(Distiller(teacher, dense(5), losses))
    assert [tuple(p.kernel.shape) for p in distiller.projections] == [(5, 7), (5, 4)]
    with pytest.raises(ValueError, match=r"must be \(number of the teacher, its layer\)"):
        Distiller(teacher, dense(5), Features("hidden", "hidden"))


def test_weights_of_teachers_are_checked():
    for weights in ([1], [1, -1], [0, 0], [1, float("nan")], [True, 1], 1.0, ["a", "b"]):
        with pytest.raises(ValueError, match="`weights` must be 2 numbers from 0 on, not all 0"):
            Ensemble([dense(), dense()], weights=weights)
    with pytest.raises(ValueError, match="outputs are of one kind"):
        Ensemble([dense(activation="sigmoid"), dense()])
    with pytest.raises(ValueError, match=r"outputs of the same shapes. Received: .*\(24, 1\).*\(24, 3\)"):
        Ensemble([dense(classes=1), dense()])(X)
    with pytest.raises(ValueError, match="at least one teacher"):
        resolve([])


def test_each_output_of_an_ensemble_has_its_own_kind():
    def two():
        inputs = keras.Input((6,))
        return keras.Model(inputs, [dense(activation="softmax")(inputs), layers.Dense(2, "sigmoid")(inputs)])

    one, other = two(), two()
    both = Ensemble([one, other])
    assert [both.kind_of(place) for place in (0, 1)] == ["softmax", "sigmoid"]
    for place, found in enumerate(both(X)[0]):
        np.testing.assert_allclose(found, (one(X)[place] + other(X)[place]) / 2, rtol=1e-5)


def test_a_tflite_file_teaches(tmp_path):
    model = dense()
    exported = tflite_export.export(model)
    path = tmp_path / "teacher.tflite"
    path.write_bytes(exported.content)
    for given in (exported, exported.content, path, str(path)):
        np.testing.assert_allclose(resolve(given)(tf.constant(X[:3]))[0], model(X[:3]), rtol=1e-4, atol=1e-5)
    history = compiled(Distiller(path, dense(4), Logits())).fit(X, np.zeros(24), batch_size=12, verbose=0)
    assert np.isfinite(history.history["distillation_loss"][0])
    with pytest.raises(ValueError, match="shows no inner tensors"):
        Distiller(path, dense(4), Features("hidden", "hidden"))


def test_a_saved_model_teaches(tmp_path):
    model = dense()
    module = tf.Module()
    module.weights = [tf.Variable(w) for w in model.get_weights()]

    @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32)])
    def serve(x):
        a, b, c, d = module.weights
        return {"classes": tf.nn.relu(x @ a + b) @ c + d}

    tf.saved_model.save(module, str(tmp_path), {"serving_default": serve.get_concrete_function()})
    np.testing.assert_allclose(resolve(tmp_path)(tf.constant(X))[0], model(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(resolve(str(tmp_path))({"x": tf.constant(X)})[0], model(X), rtol=1e-5, atol=1e-6)


def saved(path, serve, *specs):
    """A SavedModel whose signature takes the tensors `specs` by name."""
    module = tf.Module()
    module.serve = tf.function(serve, input_signature=list(specs))
    tf.saved_model.save(module, str(path), {"serving_default": module.serve.get_concrete_function()})
    return path


def told_by(teacher, student, loss, x=X):
    distiller = Distiller(teacher, student, loss, student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    return distiller.evaluate(x, verbose=0, return_dict=True)["distillation_loss"]


def divergence(teacher, student, temperature):
    """T^2 KL of logits, by scipy."""
    p, q = (softmax(np.asarray(z, "float64") / temperature, -1) for z in (teacher, student))
    return temperature**2 * entropy(p, q, axis=-1).mean()


def test_probabilities_of_saved_models_and_functions_are_seen(tmp_path):
    table, student = np.random.default_rng(0).normal(size=(6, 3)).astype("float32"), dense(4)
    expected = divergence(X @ table, student(X), 3.0)
    logits, probabilities = lambda x: x @ table, lambda x: tf.nn.softmax(x @ table)
    for name, function in (("logits", logits), ("probabilities", probabilities)):
        path = saved(tmp_path / name, function, tf.TensorSpec([None, 6], tf.float32, name="x"))
        for teacher in (function, path, [function, function], [path]):
            np.testing.assert_allclose(told_by(teacher, student, Logits(3.0)), expected, rtol=1e-3)
    # What is asked for counts: probabilities taken for logits.
    found = told_by(probabilities, student, Logits(3.0, from_logits=True))
    np.testing.assert_allclose(found, divergence(tf.nn.softmax(X @ table), student(X), 3.0), rtol=1e-3)


@pytest.mark.parametrize(("activation", "recipe"), [
    ("softmax", None), ("sigmoid", None), (None, None), ("softmax", "int8"), ("sigmoid", "int8"),
])  # fmt: skip
def test_what_a_files_answers_are_is_told_by_its_last_operator(activation, recipe):
    model = dense(activation=activation)
    options = {} if recipe is None else {"calibration": X}
    file = tflite_export.export(model, recipe, **options) if recipe else tflite_export.export(model)
    assert resolve(file).kind == (activation or "logits")
    inputs = keras.Input((6,))
    behind = keras.Model(inputs, layers.Reshape((1, 3))(model(inputs)))
    assert resolve(tflite_export.export(behind)).kind == (activation or "logits")


def two(names, width):
    inputs = keras.Input((6,))
    hidden = layers.Dense(width, "relu")(inputs)
    return keras.Model(inputs, [layers.Dense(3, name=name)(hidden) for name in names])


def test_an_outputs_name_is_looked_up_in_the_teachers_own_names():
    student = two(["a", "b"], 4)
    mine = student(X)[0]
    for names, place in ((["b", "a"], 1), (["a", "b"], 0), (["c", "d", "a"], 2), (["x", "y"], 0)):
        teacher = two(names, 9)
        expected = divergence(teacher(X)[place], mine, 2.0)
        for given in (teacher, [teacher]):
            found = told_by(given, student, Logits(2.0, output="a"))
            np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=str(names))
    teacher = two(["b", "a"], 9)
    found = told_by(lambda x: {"b": teacher(x)[0], "a": teacher(x)[1]}, student, Logits(2.0, output="a"))
    np.testing.assert_allclose(found, divergence(teacher(X)[1], mine, 2.0), rtol=1e-3)


def pair(names):
    inputs = [keras.Input((3,), name=name) for name in names]
    return keras.Model(inputs, layers.Dense(3)(inputs[0] - 0.5 * inputs[1]))


def test_a_saved_models_inputs_are_matched_by_name(tmp_path):
    specs = [tf.TensorSpec([None, 3], tf.float32, name=name) for name in ("zebra", "ant")]
    path = saved(tmp_path, lambda zebra, ant: 2 * zebra - ant, *specs)
    student, x = pair(["zebra", "ant"]), [X[:, :3], X[:, 3:]]
    expected = divergence(2 * x[0] - x[1], student(x), 1.0)
    np.testing.assert_allclose(told_by(path, student, Logits(1.0), x), expected, rtol=1e-3)
    by_name = {"zebra": tf.constant(x[0]), "ant": tf.constant(x[1])}
    np.testing.assert_allclose(resolve(path)(by_name)[0], 2 * x[0] - x[1], rtol=1e-5)
    with pytest.raises(ValueError, match=r"a dict with the inputs \['ant', 'zebra'\].*a list of 2 inputs"):
        resolve(path)([tf.constant(part) for part in x])
    with pytest.raises(ValueError, match=r"a dict with the inputs .*Received: \['one', 'two'\]"):
        Distiller(path, pair(["one", "two"]), Logits())


def test_what_cannot_teach(tmp_path):
    with pytest.raises(TypeError, match=r"`teacher` must be a Keras model, a list of teachers, .* Received: int"):
        resolve(3)
    with pytest.raises(ValueError, match=r"which does not exist"):
        resolve(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"`teacher` must be a .tflite file, the folder of a SavedModel"):
        resolve(tmp_path)
