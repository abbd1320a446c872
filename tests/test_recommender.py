"""A step of training against slow versions, and `fit` as any Keras model's."""

import subprocess
import sys

from common import backend
from common.callbacks import RenewedEmbeddings
from common.dropout import Dropout
from common.optimizer import LazyAdam
from common.recommender import Recommender

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from small_data import data_of, embedded, rows_of


def dense_adam(table, gradients, rate, l2=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Algorithm 1 of Kingma and Ba in NumPy, a step for each dense gradient."""
    mean = np.zeros_like(table)
    square = np.zeros_like(table)
    for step, gradient in enumerate(gradients, start=1):
        gradient = gradient + l2 * table
        mean = beta_1 * mean + (1 - beta_1) * gradient
        square = beta_2 * square + (1 - beta_2) * gradient**2
        rate_now = rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        table = table - rate_now * mean / (np.sqrt(square) + epsilon)
    return table


def slices(rng, n_rows, ids, dim=3):
    values = rng.normal(size=(len(ids), dim)).astype(np.float32)
    return tf.IndexedSlices(values, np.asarray(ids, np.int32), (n_rows, dim))


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_lazy_adam_is_dense_adam_on_rows_touched_at_every_step(l2):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(6, 3)).astype(np.float32)
    table = keras.Variable(start)
    adam = LazyAdam(0.01, l2=l2)
    gradients = [slices(rng, 6, rng.permutation(6)) for _ in range(200)]
    for gradient in gradients:
        adam.apply([gradient], [table])
    dense = [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]
    np.testing.assert_allclose(table, dense_adam(start, dense, 0.01, l2), atol=2e-5)


def test_lazy_adam_of_dense_gradients_is_keras_adam():
    rng = np.random.default_rng(2)
    start = rng.normal(size=(6, 3)).astype(np.float32)
    gradients = [tf.constant(rng.normal(size=(6, 3)), tf.float32) for _ in range(50)]
    found = []
    for kind in (LazyAdam, keras.optimizers.Adam):
        weights = keras.Variable(start)
        adam = kind(keras.optimizers.schedules.ExponentialDecay(0.1, 7, 0.5), beta_1=0.8)
        for gradient in gradients:
            adam.apply([gradient], [weights])
        found.append([weights, *adam.variables[:3]])  # steps, moments
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for other in ({"amsgrad": True}, {"gradient_accumulation_steps": 2}):
        with pytest.raises(ValueError, match="no amsgrad and accumulates"):
            LazyAdam(**other)


def test_lazy_adam_leaves_rows_that_are_not_in_the_batch_and_can_forget():
    rng = np.random.default_rng(1)
    start = rng.normal(size=(9, 3)).astype(np.float32)
    table = keras.Variable(start)
    adam = LazyAdam(0.01)
    for _ in range(20):
        adam.apply([slices(rng, 9, rng.permutation(4))], [table])
    np.testing.assert_array_equal(table.numpy()[4:], start[4:])
    assert np.abs(adam._velocities[0].numpy()[:4]).min() > 0
    assert not adam._velocities[0].numpy()[4:].any()
    adam.forget(table)
    before = table.numpy()
    gradient = slices(rng, 9, [2])
    adam.apply([gradient], [table])  # the first step of a new Adam goes the whole rate
    moved = before[2] - table.numpy()[2]
    np.testing.assert_allclose(moved, 0.01 * np.sign(gradient.values[0]), rtol=1e-3)


def test_keras_adam_squares_each_occurrence_of_an_id():
    """Why rows are merged: of 32 equal ids Keras keeps 1/32 of the right second moment."""
    table = keras.Variable([[0.0]])
    adam = keras.optimizers.Adam(0.01)
    ones = tf.IndexedSlices(tf.ones((32, 1)), tf.zeros(32, tf.int64), (1, 1))
    adam.apply([ones], [table])
    assert float(adam._velocities[0].numpy()[0, 0]) == pytest.approx(0.001 * 32, rel=1e-3)


FEATURES = {"all": (), "ids": ("userid", "author"), "lists": ("words", "tags"), "dense": ("past",)}


def recommender(data, regularizer=None):
    """A small Recommender of two tasks."""
    keras.utils.set_random_seed(0)
    embedding = embedded(data)
    vectors, dense = embedding.symbols()
    x = keras.layers.Concatenate()([keras.layers.Flatten()(vectors), dense])
    x = keras.layers.Dense(5, "tanh", kernel_regularizer=regularizer, name="hidden")(x)
    logits = {task: keras.layers.Dense(1)(x) for task in ("like", "forward")}
    return Recommender(embedding, keras.Model([vectors, dense], logits))


def compiled(model, optimizer, **options):
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    options = {"jit_compile": True, "steps_per_execution": 4} | options
    losses = {"like": entropy, "forward": entropy}
    model.compile(optimizer, losses, loss_weights={"like": 2.0, "forward": 1.0}, **options)
    return model


def by_a_plain_tape(model, batch, labels):
    """The loss of a batch, its dense gradient by the table, and those by the weights."""
    with tf.GradientTape() as tape:
        logits = model(batch, training=True)
        loss = 0.0
        for task, weight in (("like", 2.0), ("forward", 1.0)):
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels[task], logits[task][:, 0])
            loss += weight * tf.reduce_mean(entropy)
    table, *weights = model.trainable_variables
    gradients = tape.gradient(loss, [table.value, *(weight.value for weight in weights)])
    return loss, [g if g is None else tf.convert_to_tensor(g).numpy() for g in gradients]


class Keeps(keras.optimizers.SGD):
    """An optimizer that keeps the gradients of its last step."""

    def apply(self, gradients, variables=None):
        self.kept = dict(zip([v.path for v in variables], gradients, strict=True))


@pytest.mark.parametrize("features", FEATURES)
def test_a_step_has_the_gradients_of_a_plain_tape(features):
    data = data_of(*FEATURES[features])
    model = compiled(recommender(data), Keeps(), jit_compile=False, run_eagerly=True)
    rows = np.array([3, 1, 4, 1, 5, 9, 2, 2])
    columns = {name: data.train[name][rows] for name in model.embedding.look_up.spec["inputs"]}
    batch = model.embedding.look_up(columns)
    labels = {task: data.train[task][rows].astype(np.float32) for task in ("like", "forward")}
    logs = model.train_step((batch, labels))
    loss, wanted = by_a_plain_tape(model, batch, labels)
    assert float(logs["loss"]) == pytest.approx(float(loss), rel=1e-5)
    for variable, gradient in zip(model.trainable_variables, wanted, strict=True):
        if gradient is None:  # nothing is embedded
            assert variable.path not in model.optimizer.kept
        else:
            kept = tf.convert_to_tensor(model.optimizer.kept[variable.path])
            np.testing.assert_allclose(kept, gradient, atol=1e-5)


def fitted(data, epochs=2, size=8, optimizer=None, regularizer=None, callbacks=(), **options):
    model = compiled(recommender(data, regularizer), optimizer or LazyAdam(0.05), **options)
    batches = model.batches(data.train, size, seed=3)
    history = model.fit(batches, epochs=epochs, callbacks=list(callbacks), shuffle=False, verbose=0)
    return model, history.history


def test_fit_compiled_is_fit_step_by_step_in_python():
    data = data_of()
    fast, _ = fitted(data)
    slow, _ = fitted(data, jit_compile=False, run_eagerly=True, steps_per_execution=1)
    for ours, wanted in zip(fast.trainable_variables, slow.trainable_variables, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "before, is_left_out",
    [("gc.enable()", True), ("gc.disable()", False), ("had = [[] for _ in range(100_000)]", False)],
)
def test_the_collector_leaves_out_what_is_imported_and_stays_as_it_was(before, is_left_out):
    """The half million objects of TensorFlow and Keras, but none of a notebook that has many."""
    told = "import common.backend; print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    words = [sys.executable, "-c", f"import gc; {before}; {told}"]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.split() == [str(before != "gc.disable()"), str(is_left_out)], run.stderr


def test_what_is_filled_up_keeps_the_shapes_of_an_epochs_batches_to_one():
    data = data_of(n_rows=3000)  # how often a step is traced is counted below
    batches = compiled(recommender(data), LazyAdam()).batches(data.train, 100, seed=0)
    shapes = {tuple(map(tuple, (t.shape for t in tf.nest.flatten(batch)))) for batch in batches}
    assert len(shapes) == 1


def test_what_is_looked_up_is_traced_once_a_size_whatever_is_scored():
    data = data_of(n_rows=300)
    model = compiled(recommender(data), LazyAdam())
    model.fit(model.batches(data.train, 100, seed=0), epochs=2, verbose=0)
    for n in (300, 200, 120):  # as validation rows and tests are, the largest first
        rows = {name: column[:n] for name, column in data.train.items()}
        logits = model.logits(rows)
        assert all(len(values) == n for values in logits.values())
    assert model.look_up.experimental_get_tracing_count() == 2  # batches of 100, and of 300


class Fading(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that Keras cannot make again from a config."""

    def __call__(self, step):
        return 0.1 * 0.5 ** (keras.ops.cast(step, "float32") / 9)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: LazyAdam(Fading(), l2=0.01),
        lambda: keras.optimizers.Adagrad(0.05, initial_accumulator_value=0.3),
    ],
    ids=["LazyAdam", "Adagrad"],
)
def test_from_the_same_seed_a_trained_model_learns_what_a_new_one_does(optimizer):
    """Whatever layers it has, whatever the optimizer keeps, and whatever is done to its rate."""
    data = data_of()
    traced = []

    class Counted(Recommender):
        def train_step(self, batch):
            traced.append(1)
            return super().train_step(batch)

    def weights_of(model, seed):
        model.initialize(seed)
        batches = model.batches(data.train, 10, seed)
        halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        is_constant = isinstance(model.optimizer._learning_rate, keras.Variable)
        callbacks = [halve] if is_constant else []
        model.fit(batches, epochs=2, callbacks=callbacks, shuffle=False, verbose=0)
        return {variable.path: variable.numpy() for variable in model.variables}

    def new():
        plain = recommender(data)
        flat = keras.layers.Flatten()(plain.network.inputs[0])
        scaled = keras.layers.Normalization()
        scaled.adapt(np.random.default_rng(0).normal(3, size=(9, flat.shape[-1])))
        x = keras.layers.Lambda(lambda values: values * 2)(scaled(flat))
        x = keras.layers.BatchNormalization()(keras.layers.Dense(4, "relu")(x))
        logits = keras.layers.Dense(1)(Dropout(0.5)(x))
        logits = {task: logits + logit for task, logit in plain.network.output.items()}
        network = keras.Model(plain.network.inputs, logits)
        return compiled(Counted(plain.embedding, network), optimizer(), jit_compile=False)

    once = new()
    every = [weights_of(once, seed) for seed in (5, 6, 5)]
    assert len(traced) <= 2  # once for the first shapes, once for any
    of_another = weights_of(new(), 5)
    for again, wanted in zip(every[2].values(), of_another.values(), strict=True):
        np.testing.assert_array_equal(again, wanted)
    for path, again in every[2].items():
        np.testing.assert_array_equal(again, every[0][path])
        is_equal = np.array_equal(again, every[1][path])
        assert is_equal == path.startswith("normalization") or again.size < 2, path
    mean = next(value for path, value in every[2].items() if path.startswith("normalization"))
    assert mean.mean() == pytest.approx(3, abs=0.5)


def test_a_model_compiled_anew_begins_with_its_new_optimizer():
    data = data_of()
    model, _ = fitted(data, epochs=1, jit_compile=False)
    for rate, optimizer in ((0.3, LazyAdam(0.3)), (0.2, keras.optimizers.SGD(0.2, 0.9))):
        compiled(model, optimizer, jit_compile=False)
        for seed in (1, 2):
            model.fit(model.batches(data.train, 10, seed), shuffle=False, verbose=0)
            model.initialize(seed)
            values = {variable.name: variable.numpy() for variable in optimizer.variables}
            assert values.pop("learning_rate") == pytest.approx(rate)
            assert len(values) > 5 and not any(value.any() for value in values.values())
        model.fit(model.batches(data.train, 10, 0), shuffle=False, verbose=0)
        compiled(model, optimizer, jit_compile=False)
        model.initialize(0)
        assert not optimizer.iterations.numpy()


def test_metrics_regularizers_and_any_optimizer_count_as_in_any_keras_model():
    data = data_of()
    plain = {"jit_compile": False}  # which takes less time to compile
    still = {"epochs": 1, "optimizer": keras.optimizers.SGD(0.0), **plain}
    model, history = fitted(data, **still)
    still["optimizer"] = keras.optimizers.SGD(0.0)
    _, regularized = fitted(data, regularizer=keras.regularizers.L2(0.5), **still)
    penalty = 0.5 * float(tf.reduce_sum(model.network.get_layer("hidden").kernel ** 2))
    assert penalty > 0.5
    assert regularized["loss"][0] == pytest.approx(history["loss"][0] + penalty, rel=1e-4)
    options = {"metrics": {"like": [keras.metrics.AUC(from_logits=True, name="auc")]}}
    _, logs = fitted(data, epochs=30, optimizer=keras.optimizers.Adam(0.05), **options, **plain)
    assert logs["like_auc"][-1] > 0.9
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 1, 0.5)
    stopping = keras.callbacks.EarlyStopping("loss", patience=2, min_delta=1e-3)
    _, logs = fitted(data, 50, optimizer=LazyAdam(schedule), callbacks=[stopping], **plain)
    assert 3 <= len(logs["loss"]) < 20  # with a rate that fades nothing is gained any more


@pytest.mark.parametrize("optimizer", [LazyAdam, keras.optimizers.SGD])
def test_embeddings_that_are_frozen_stay_and_the_rest_learns(optimizer):
    data = data_of()
    model = recommender(data)
    model.embedding.trainable = False
    compiled(model, optimizer(0.05), jit_compile=False)
    model.initialize(1)
    variables = (model.embedding.table, *model.network.variables)
    table, *weights = [variable.numpy() for variable in variables]
    anew = [RenewedEmbeddings(0)]
    model.fit(model.batches(data.train, 8, seed=3), epochs=2, callbacks=anew, verbose=0)
    same, *learned = [variable.numpy() for variable in variables]
    np.testing.assert_array_equal(same, table)
    assert not any(np.array_equal(a, b) for a, b in zip(learned, weights, strict=True))
    np.testing.assert_array_equal(same, embedded(data).table)  # as it was before `initialize`


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "float64"])
def test_whatever_type_a_notebook_has_given_keras_ours_is_float32(policy):
    try:
        keras.config.set_dtype_policy(policy)
        backend.settle()
        assert recommender(data_of()).network.dtype_policy.name == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("n, size", [(10, 3), (9, 3), (7, 7), (5, 1), (4, 100), (1, 1)])
def test_every_row_comes_once_and_all_batches_have_one_size(n, size):
    data = data_of("price", n_rows=n)
    data.train["price"] = np.arange(n, dtype=np.float32)
    model = compiled(recommender(data), LazyAdam())
    orders = []
    batches = model.batches(data.train, size, seed=0)
    for _ in range(2):
        orders.append([batch["dense"]["parts"][0].numpy()[:, 0] for batch, _ in batches])
        model.optimizer.iterations.assign(len(orders[0]))
    order = np.concatenate(orders[0])
    assert {len(batch) for batch in orders[0]} == {min(size, n)}
    assert sorted(order[:n]) == list(range(n))
    assert len(order) - n < min(size, n)
    assert n < 4 or not np.array_equal(order, np.concatenate(orders[1]))


def test_a_run_that_begins_amid_an_epoch_takes_the_batches_that_are_left():
    data = data_of("price", n_rows=40)
    model = compiled(recommender(data), LazyAdam())
    batches = model.batches(data.train, 10, seed=1)
    prices = [batch["dense"]["parts"][0].numpy() for batch, _ in batches]
    model.optimizer.iterations.assign(3)
    rest = [batch["dense"]["parts"][0].numpy() for batch, _ in batches]
    np.testing.assert_array_equal(rest, prices[3:])


def test_another_fit_and_evaluate_take_every_row_once():
    """Whatever steps the optimizer has made: each row of a new dataset counts."""
    data = data_of(n_rows=45)
    plain = {"jit_compile": False}  # which takes less time to compile
    model, _ = fitted(data, epochs=1, size=7, metrics={"like": ["mse"]}, **plain)
    assert int(model.optimizer.iterations) == 7
    again = model.batches(data.train, 20, seed=1)
    assert len(list(again)) == 3
    rows = model.labelled_batches(data.train, 20)
    model.fit(again, validation_data=rows, shuffle=False, verbose=0)
    found = model.evaluate(rows, return_dict=True, verbose=0)
    logits = model.logits(data.train)
    wanted = np.mean((logits["like"] - data.train["like"]) ** 2)
    assert found["like_mse"] == pytest.approx(wanted, rel=1e-4)
    assert model.history.history["val_like_mse"] == [pytest.approx(wanted, rel=1e-4)]
    of_each = model(model.embedding.look_up(rows_of(data, model.embedding)))
    predicted = model.predict(rows, verbose=0)
    for task in ("like", "forward"):
        assert logits[task].shape == (45,)
        np.testing.assert_allclose(predicted[task][:, 0], logits[task], atol=1e-6)
        np.testing.assert_allclose(of_each[task][:, 0], logits[task], atol=1e-6)


def test_renewed_embeddings_are_drawn_anew_and_the_network_stays():
    model, _ = fitted(data_of())
    table, *weights = [variable.numpy() for variable in model.trainable_variables]
    model.renew_embeddings(1)
    anew, *same = [variable.numpy() for variable in model.trainable_variables]
    assert anew.std() == pytest.approx(0.01, rel=0.2)
    assert not np.array_equal(table, anew)
    for before, after in zip(weights, same, strict=True):
        np.testing.assert_array_equal(before, after)


def test_dropout_of_nearly_all_leaves_some():
    layer = Dropout(1 - 2**-30)
    some = layer(tf.ones((1000, 1000)), training=True).numpy() > 0  # one in 65536
    assert 1 <= some.sum() < 60


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_leaves_out_its_share_anew_at_each_step_and_keeps_the_mean(rate):
    keras.utils.set_random_seed(0)
    layer = Dropout(rate)
    ones = tf.ones((199, 63))  # an odd number of bits
    step = tf.function(lambda x: layer(x, training=True), jit_compile=True)
    steps = np.stack([step(ones).numpy() for _ in range(40)])  # (steps, rows, units)
    kept = steps > 0
    n = steps.size
    np.testing.assert_allclose(np.unique(steps), [0, 1 / (1 - rate)], rtol=1e-6)
    spread = np.sqrt(rate * (1 - rate))
    assert abs(kept.mean() - (1 - rate)) < 4 * spread / np.sqrt(n)
    for axis in range(3):  # no step, row or unit is favoured
        others = tuple(i for i in range(3) if i != axis)
        wanted = spread / np.sqrt(n / kept.shape[axis])
        assert kept.mean(axis=others).std() == pytest.approx(wanted, rel=0.35)
    neighbours = [
        (kept[:-1], kept[1:]),
        (kept[:, :-1], kept[:, 1:]),
        (kept[:, :, :-1], kept[:, :, 1:]),
        (kept[:, :99], kept[:, 99:198]),
    ]
    for left, right in neighbours:
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 4 / np.sqrt(left.size)
    np.testing.assert_array_equal(layer(ones, training=False), ones)
