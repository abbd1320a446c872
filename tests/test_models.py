"""Each paper's equation against a slow version, and the wiring of the experts by its gradients."""

import deepfm
import FocalLoss
import mmoe
import ple
from common import piecewise
from common.contract import Data
from common.piecewise import PiecewiseLinear, with_pieces

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_data import TASKS, data_of, embedded, rows_of

N = 40


def built(module, tasks=TASKS, **changes):
    """A script's network with random inputs: (keras.Model, vectors, dense)."""
    keras.utils.set_random_seed(0)
    data = data_of("userid", "author", "device", "price", "content", n_rows=N)
    settings = module.Settings(**changes)
    embedding = embedded(data, settings.embedding_dim + (module is deepfm))
    symbols = embedding.symbols()
    network = module.network(*symbols, data, tasks, settings)
    _, dense = embedding(embedding.look_up(rows_of(data, embedding)))
    return network, tf.random.normal((N, *symbols[0].shape[1:])), dense


# ---- linear terms in pieces


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_linear_map_of_pieces_is_a_piecewise_linear_function_of_each_number(n):
    rng = np.random.default_rng(n)
    borders = np.sort(rng.normal(size=(n + 1, 3)), axis=0).astype(np.float32)
    borders[:, 1] = borders[0, 1]  # a column that is constant
    borders[-1, 2] = borders[-2, 2]  # an empty bin
    x = np.concatenate([rng.normal(size=(50, 3)), borders, np.full((1, 3), -99.0), [[99.0] * 3]])
    found = PiecewiseLinear(borders)(x.astype(np.float32)).numpy().reshape(len(x), n, 3)
    for row, piece, column in np.ndindex(found.shape):
        low, high = borders[piece : piece + 2, column]
        way = (x[row, column] - low) / (high - low) if low < high else 0
        assert found[row, piece, column] == pytest.approx(min(max(way, 0), 1), abs=1e-5)
    slopes = rng.normal(size=n)
    heights = np.cumsum([0, *slopes])
    wanted = np.interp(x[:, 0], borders[:, 0], heights)
    np.testing.assert_allclose(found[:, :, 0] @ slopes, wanted, atol=1e-4)


@pytest.mark.parametrize("module", [deepfm, mmoe, ple])
def test_by_default_linear_terms_bend_at_quartiles_of_some_training_rows(module, monkeypatch):
    """In the order of the dense values, which are of two kinds; the rows are random ones."""
    monkeypatch.setattr(piecewise, "SOME", N - 9)
    tasks = TASKS[:1] if module is deepfm else TASKS
    keras.utils.set_random_seed(0)
    data = data_of("userid", "price", "content", "taste", n_rows=N)
    data.valid = {name: rows[:0] for name, rows in data.train.items()}
    embedding = embedded(data, 4)
    vectors, dense = embedding(embedding.look_up(rows_of(data, embedding)))
    symbols = embedding.symbols()
    settings = {"embedding_dim": 3 if module is deepfm else 4}
    bent = module.network(*symbols, data, tasks, module.Settings(**settings))
    straight = module.network(*symbols, data, tasks, module.Settings(bins=0, **settings))
    (pieces,) = (layer for layer in bent.layers if isinstance(layer, PiecewiseLinear))
    some = {name: rows[: N - 9] for name, rows in data.sample.items()}
    _, values = embedding(embedding.look_up(some))
    wanted = np.quantile(values, [0, 0.25, 0.5, 0.75, 1], axis=0)
    np.testing.assert_allclose(pieces.borders, wanted, rtol=1e-6)
    width = dense.shape[1]
    slopes = tf.random.normal((width * 5, len(tasks)))
    for weight, other in zip(bent.weights, straight.weights, strict=True):
        if weight.shape == other.shape:
            weight.assign(other)
        else:
            weight.assign(slopes)
            other.assign(slopes[:width])
    before, after = straight([vectors, dense]), bent([vectors, dense])
    effects = pieces(dense) @ slopes[width:]
    for i, task in enumerate(tasks):
        np.testing.assert_allclose(after[task] - before[task], effects[:, i : i + 1], atol=1e-4)


def test_without_dense_values_there_are_no_pieces():
    data = data_of("userid", "author", n_rows=N)
    _, dense = embedded(data, 4).symbols()
    assert with_pieces(dense, data, 3) is dense


# ---- factorization machine


def test_second_order_equals_the_sum_over_all_pairs():
    factors = np.random.default_rng(0).normal(size=(6, 9, 4))  # (batch, n, k): the v_i x_i
    pairs = np.zeros(6)
    for i in range(9):
        for j in range(i + 1, 9):
            pairs += (factors[:, i] * factors[:, j]).sum(axis=1)
    found = deepfm.second_order(factors.sum(axis=1), (factors**2).sum(axis=1))
    np.testing.assert_allclose(found[:, 0], pairs, rtol=1e-10)


def test_deepfm_is_w0_plus_first_plus_second_order_plus_network():
    """The whole logit, term by term and pair by pair, with weights read from the model."""
    keras.backend.clear_session()  # so that names are not counted on
    network, vectors, dense = built(deepfm, TASKS[:1], hidden=(7,), embedding_dim=4)
    for weight in network.weights:
        weight.assign(tf.random.normal(weight.shape))
    named = {weight.path: weight.numpy() for weight in network.weights}
    w_0 = next(value for path, value in named.items() if path.endswith("w_0/bias"))
    weights = next(value for path, value in named.items() if path.endswith("w_0/kernel"))[:, 0]
    factors = next(value for path, value in named.items() if path.endswith("factors/v"))
    kernel, bias, last = (value for path, value in named.items() if path.startswith("dense"))
    (bent,) = (layer for layer in network.layers if isinstance(layer, PiecewiseLinear))
    numbers = np.hstack([dense, bent(dense)])  # of which the first order is linear
    logits = network([vectors, dense])[TASKS[0]].numpy()[:, 0]
    for row in range(5):
        w = vectors[row, :, 0].numpy()
        v = vectors[row, :, 1:].numpy()
        x = dense[row].numpy()
        terms = [*v, *(x[:, None] * factors)]
        second = sum(a @ b for i, a in enumerate(terms) for b in terms[i + 1 :])
        deep = np.maximum(np.concatenate([v.ravel(), x]) @ kernel + bias, 0) @ last[:, 0]
        wanted = w_0[0] + w.sum() + numbers[row] @ weights + second + deep
        np.testing.assert_allclose(logits[row], wanted, rtol=2e-4)


@pytest.mark.parametrize("module", [deepfm, mmoe, ple])
def test_before_training_every_task_is_predicted_at_about_its_training_rate(module):
    tasks = TASKS[:1] if module is deepfm else TASKS
    network, vectors, dense = built(module, tasks)
    logits = network([tf.zeros_like(vectors), tf.zeros_like(dense)])
    for task in tasks:
        wanted = data_of(n_rows=N).log_odds(task)
        assert float(logits[task][0, 0]) == pytest.approx(wanted, abs=1e-5)


# ---- experts and gates


def test_mixture_is_the_sum_of_the_experts_weighed_by_the_gate():
    rng = np.random.default_rng(0)
    gate = rng.normal(size=(3, 4)).astype("f")
    outputs = rng.normal(size=(3, 4, 2)).astype("f")
    groups = [outputs[:, :3], outputs[:, 3:]]
    for found in (mmoe.mixture(gate, outputs), ple.mixture(gate, groups)):
        for row in range(3):
            wanted = sum(g * f for g, f in zip(gate[row], outputs[row], strict=True))
            np.testing.assert_allclose(found[row], wanted, rtol=1e-4)


@pytest.mark.parametrize("module", [mmoe, ple])
def test_experts_differ_at_the_start_and_are_single_layers(module):
    keras.utils.set_random_seed(0)
    symbol = keras.Input((6,))
    model = keras.Model(symbol, module.experts(symbol, 3, 5))
    kernel, bias = (weight.numpy() for weight in model.weights)
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("f")
    found = model(x).numpy()
    for expert in range(3):
        part = slice(5 * expert, 5 * expert + 5)
        wanted = np.maximum(x @ kernel[:, part] + bias[part], 0)
        np.testing.assert_allclose(found[:, expert], wanted, rtol=1e-4, atol=1e-6)
        assert not np.allclose(found[:, expert], found[:, (expert + 1) % 3])


def by_creation(network):
    """The unnamed Dense layers, dense_7 before dense_12."""
    dense = [layer for layer in network.layers if layer.name.startswith("dense")]
    dense = [layer for layer in dense if isinstance(layer, keras.layers.Dense)]
    return sorted(dense, key=lambda layer: int((layer.name + "_0").split("_")[1]))


def gate_weights(network, vectors, dense):
    """{name of a gate: its weights (batch, experts)}."""
    softmax = [layer for layer in network.layers if isinstance(layer, keras.layers.Softmax)]
    outputs = {layer.name: layer.output for layer in softmax}
    return keras.Model(network.inputs, outputs)([vectors, dense])


def influence(network, task, vectors, dense):
    """{weight path: where in the weight the logit of `task` depends on it, bool of its shape}."""
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.square(network([vectors, dense])[task]))
    weights = network.trainable_variables
    gradients = zip(weights, tape.gradient(total, weights), strict=True)
    return {w.path: np.zeros(w.shape, bool) if g is None else g.numpy() != 0 for w, g in gradients}


def expert_kernels(network, dim):
    """{path: its number of experts} of the wide expert layers, in order of creation."""
    wide = [layer for layer in by_creation(network) if layer.use_bias and layer.units % dim == 0]
    return {layer.kernel.path: layer.units // dim for layer in wide}


def inputs_of(vectors, dense):
    """What the experts of the first level read."""
    return np.concatenate([vectors.numpy().reshape(N, -1), dense.numpy()], axis=1)


def test_every_mmoe_task_sees_all_experts_by_a_gate_of_its_own():
    network, vectors, dense = built(mmoe, experts=5, expert_dim=16, tower=(3,))
    (experts,) = expert_kernels(network, 16)
    before = network.get_layer("gates").kernel  # (width, 4 gates x 5 experts)
    x = inputs_of(vectors, dense)
    found = gate_weights(network, vectors, dense)
    for i, task in enumerate(TASKS):
        reached = influence(network, task, vectors, dense)
        assert reached[experts].any()
        part = slice(5 * i, 5 * i + 5)
        wanted = tf.nn.softmax(x @ before.numpy()[:, part])
        np.testing.assert_allclose(found[f"gate_{task}"], wanted, rtol=1e-4)
        assert np.flatnonzero(reached[before.path].any(axis=0)).tolist() == list(range(20))[part]


def test_ple_tasks_reach_none_of_each_others_experts_within_one_level():
    network, vectors, dense = built(
        ple, own_experts=(2, 3, 1, 4), shared_experts=2, expert_dim=16, tower=(3,), levels=1
    )
    kernels = expert_kernels(network, 16)
    assert list(kernels.values()) == [2, 2, 3, 1, 4]  # shared first, then each task's own
    for i, task in enumerate(TASKS):
        reached = influence(network, task, vectors, dense)
        assert [reached[path].any() for path in kernels] == [True] + [j == i for j in range(4)]
    found = {name: w.shape[1] for name, w in gate_weights(network, vectors, dense).items()}
    own = zip(TASKS, (2, 3, 1, 4), strict=True)
    assert found == {f"gate_1_{task}": n + 2 for task, n in own}  # no shared gate at the end


def test_ple_gates_of_level_two_are_fed_by_their_own_tasks_level_one():
    """Level two rebuilt by hand: a task's gate and own experts take its own output of level one."""
    tasks = TASKS[:2]
    two = {"own_experts": (2, 3), "shared_experts": 2, "expert_dim": 16, "levels": 2}
    network, vectors, dense = built(ple, tasks, tower=(), dropout=0.0, **two)
    linear = next(layer for layer in by_creation(network) if layer.units == 2)
    x = inputs_of(vectors, dense)
    kernel = {weight.path: weight.numpy() for weight in network.weights}
    gate_kernels = [w.kernel.path for w in by_creation(network) if not w.use_bias and w != linear]
    first, second_a, second_b = gate_kernels
    shared_1, a_1, b_1, shared_2, a_2, b_2 = expert_kernels(network, 16)

    def experts(path, x):
        wide = x @ kernel[path] + kernel[path.replace("kernel", "bias")]
        return np.maximum(wide, 0).reshape(N, -1, 16)

    def mixed(logits, *groups):
        gate = tf.nn.softmax(logits).numpy()
        return np.einsum("bn,bnd->bd", gate, np.concatenate(groups, axis=1))

    s, a, b = (experts(path, x) for path in (shared_1, a_1, b_1))
    gate_a, gate_b, gate_s = np.split(x @ kernel[first], [4, 9], axis=1)  # one product for all
    x_a = mixed(gate_a, a, s)
    x_b = mixed(gate_b, b, s)
    s = experts(shared_2, mixed(gate_s, a, b, s))
    y_a = mixed(x_a @ kernel[second_a], experts(a_2, x_a), s)
    y_b = mixed(x_b @ kernel[second_b], experts(b_2, x_b), s)
    logits = network([vectors, dense])
    for task, y in zip(tasks, (y_a, y_b), strict=True):
        wanted = y @ kernel[f"tower_{task}/kernel"] + kernel[f"tower_{task}/bias"]
        np.testing.assert_allclose(logits[task], wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("levels", [1, 2])
def test_ple_of_one_task_weighs_its_own_and_the_shared_experts(levels):
    changes = {"own_experts": (2,), "shared_experts": 3, "levels": levels}
    network, vectors, dense = built(ple, TASKS[:1], **changes)
    for weights in gate_weights(network, vectors, dense).values():
        assert weights.shape == (N, 5)
        np.testing.assert_allclose(np.sum(weights, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("module, changes", [(mmoe, {}), (ple, {"levels": 2}), (deepfm, {})])
def test_no_name_of_a_task_changes_the_network(module, changes, monkeypatch):
    """Names that stand for parts of a network, of ours or of any Keras model, are as good."""
    names = ["gate_a", "a", "gates", "shared", "vectors", "dense_values", "tower_a", "dense", "x y"]
    many = len(names) if module is not deepfm else 1
    plain = [f"task{i}" for i in range(many)]
    rows = data_of().train["like"]
    monkeypatch.setattr(Data, "log_odds", lambda self, task: float(np.log(rows.mean())))
    shapes = [
        [weight.shape for weight in built(module, tasks, **changes)[0].weights]
        for tasks in (plain, names[:many], names[-many:])
    ]
    assert shapes[0] == shapes[1] == shapes[2]


# ---- focal loss and annealing


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [0.1, 0.25, 0.9])
def test_focal_loss_equals_keras_with_alpha_on_the_positives(gamma, alpha):
    rng = np.random.default_rng(0)
    logit = rng.normal(size=64).astype("f") * 3
    label = (rng.random(64) < 0.3).astype("f")
    options = {"apply_class_balancing": True, "from_logits": True, "reduction": "none"}
    keras_loss = keras.losses.BinaryFocalCrossentropy(alpha=alpha, gamma=gamma, **options)
    found = FocalLoss.focal_loss(label, logit, gamma, alpha)
    assert found.shape == (64,)  # a value a row
    np.testing.assert_allclose(found, keras_loss(label[:, None], logit[:, None]), 1e-4, 1e-6)
    p = 1 / (1 + np.exp(-logit.astype(np.float64)))
    positive = -alpha * (1 - p) ** gamma * np.log(p)
    negative = -(1 - alpha) * p**gamma * np.log(1 - p)
    np.testing.assert_allclose(found, np.where(label > 0, positive, negative), rtol=1e-4)


def test_focal_loss_of_gamma_0_without_alpha_is_binary_cross_entropy():
    logit = np.linspace(-50, 50, 101).astype("f")
    label = (np.arange(101) % 2).astype("f")
    entropy = keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")
    wanted = entropy(label[:, None], logit[:, None])
    found = FocalLoss.focal_loss(label, logit, 0.0, 0.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize(
    "gamma, alpha", [(0.0, 0.0), (0.5, 0.0), (2.0, 0.0), (2.0, 0.25), (5.0, 0.9)]
)
def test_the_logit_of_least_focal_loss_is_mapped_to_the_probability(gamma, alpha):
    """Of a fine grid of logits the one of least expected loss must come out as the chance."""
    logits = np.linspace(-12, 12, 24001)
    q = 1 / (1 + np.exp(-logits))
    weight = alpha or 0.5
    positive = -weight * (1 - q) ** gamma * np.log(q)
    negative = -(1 - weight) * q**gamma * np.log(1 - q)
    for p in (0.001, 0.03, 0.3, 0.5, 0.8):
        best = logits[np.argmin(p * positive + (1 - p) * negative)]
        mapped = float(FocalLoss.unfocused(np.float64(best), gamma, alpha))
        assert 1 / (1 + np.exp(-mapped)) == pytest.approx(p, rel=0.01)
    ends = np.array([-90.0, -30.0, 0.0, 30.0, 90.0], np.float32)
    mapped = np.asarray(FocalLoss.unfocused(ends, gamma, alpha))
    assert np.isfinite(mapped).all() and (np.diff(mapped) > 0).all()


def test_focal_loss_and_its_gradient_are_finite_at_large_logits():
    logit = tf.constant([-50.0, 50.0, -50.0, 50.0, -500.0, 500.0])
    label = tf.constant([1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(logit)
        loss = FocalLoss.focal_loss(label, logit, 2.0, 0.25)
    gradient = tape.gradient(loss, logit).numpy()
    wanted = [0.25 * 50, 0, 0, 0.75 * 50, 0.25 * 500, 0.75 * 500]
    np.testing.assert_allclose(loss, wanted, rtol=1e-5, atol=1e-20)
    np.testing.assert_allclose(gradient, [-0.25, 0, 0, 0.75, -0.25, 0.75], atol=1e-6)


def test_annealing_starts_hot_and_ends_cold_in_each_cycle():
    schedule = FocalLoss.WarmRestarts(0.1, 0.02, [1000, 2000, 2000])
    again = FocalLoss.WarmRestarts.from_config(schedule.get_config())
    for start, length in ((0, 1000), (1000, 2000), (3000, 2000), (5000, 2000)):  # the last repeats
        for share in (0, 0.25, 0.5, 0.999):
            wanted = 0.02 + 0.08 * (1 + np.cos(np.pi * share)) / 2
            step = start + int(share * length)
            assert float(schedule(step)) == pytest.approx(wanted, rel=1e-4)
            assert float(again(tf.constant(step, tf.int64))) == float(schedule(step))


@pytest.mark.parametrize("module", [mmoe, ple, deepfm, FocalLoss])
def test_each_tasks_loss_counts_by_its_weight(module):
    data = data_of("userid", "price")
    tasks = list(TASKS) if module in (mmoe, ple) else ["like"]
    rng = np.random.default_rng(0)
    logits = {task: rng.normal(size=(9, 1)).astype(np.float32) for task in tasks}
    labels = {task: rng.integers(0, 2, 9).astype(np.float32) for task in tasks}

    def loss(**weights):
        data.loss_weights = {task: weights.get(task, 0.0) for task in tasks}
        model = module.compiled_model(data, tasks, module.Settings())
        return float(model.compute_loss(None, labels, logits))

    single = {task: loss(**{task: 1.0}) for task in tasks}
    weights = {task: 2.0 + i for i, task in enumerate(tasks)}
    wanted = sum(weights[task] * single[task] for task in tasks)
    assert min(single.values()) > 0 and loss(**weights) == pytest.approx(wanted, rel=1e-5)
