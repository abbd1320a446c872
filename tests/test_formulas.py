"""Each paper's equation against a slow version, and the wiring of the experts by its gradients."""
import common.quiet  # noqa: F401
import keras
import numpy as np
import pytest
import tensorflow as tf

import deepfm
import FocalLoss
import mmoe
import ple
from common.dropout import Dropout
from common.pickles import Data

TASKS = ["read_comment", "like", "click_avatar", "forward"]


@pytest.fixture
def data():
    """Forty rows with three id features and two dense ones, and four tasks of different rates."""
    rng = np.random.default_rng(0)
    rows = {name: rng.integers(0, 5, 40).astype(np.int32) for name in ("a", "b", "c")}
    rows |= {name: rng.normal(size=40).astype(np.float32) for name in ("x", "y")}
    rows |= {task: (np.arange(40) % (i + 3) == 0).astype(np.uint8) for i, task in enumerate(TASKS)}
    features = {name: {"kind": "id", "table": None, "vocabulary": name} for name in ("a", "b", "c")}
    features |= {name: {"kind": "dense", "table": None, "daily": False} for name in ("x", "y")}
    meta = {"features": features, "vocabularies": dict.fromkeys("abc", 5), "tasks": dict.fromkeys(TASKS, 1), "group": None}
    return Data(meta, {}, rows, rows, None)


def built(module, data, tasks=TASKS, **changes):
    keras.utils.set_random_seed(0)
    settings = module.Settings(**{"features": "a,b,c,x,y", **changes})
    embed, network = module.build(data, tasks, settings)
    vectors, dense = embed({name: tf.constant(data.train[name]) for name in embed.spec["inputs"]})
    return embed, network, tf.random.normal(vectors.shape), dense


# ---- factorization machine


def test_second_order_equals_the_sum_over_all_pairs():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(6, 9, 4))  # (batch, n, k): the v_i x_i
    pairs = [sum(factors[row, i] @ factors[row, j] for i in range(9) for j in range(i + 1, 9)) for row in range(6)]
    found = deepfm.second_order(factors.sum(axis=1), (factors**2).sum(axis=1))
    np.testing.assert_allclose(found[:, 0], pairs, rtol=1e-10)


def test_deepfm_is_w0_plus_first_plus_second_order_plus_network(data):
    """The whole logit, term by term and pair by pair, with weights read from the model."""
    _, network, vectors, dense = built(deepfm, data, TASKS[:1], hidden="7", embedding_dim=4)
    for weight in network.weights:
        weight.assign(tf.random.normal(weight.shape))
    named = {weight.path: weight.numpy() for weight in network.weights}
    pick = lambda end: next(value for path, value in named.items() if path.endswith(end))
    hidden = [value for path, value in named.items() if path.startswith("dense") and "factors" not in path]
    logits = network([vectors, dense])[TASKS[0]].numpy()[:, 0]
    for row in range(5):
        w, v, x = vectors[row, :, 0].numpy(), vectors[row, :, 1:].numpy(), dense[row].numpy()
        terms = [*v, *(x_i * v_i for x_i, v_i in zip(x, pick("factors/v")))]
        second = sum(terms[i] @ terms[j] for i in range(len(terms)) for j in range(i + 1, len(terms)))
        first = pick("w0/bias")[0] + w.sum() + x @ pick("w0/kernel")[:, 0]
        kernel, bias, last = hidden
        deep = np.maximum(np.concatenate([v.ravel(), x]) @ kernel + bias, 0) @ last[:, 0]
        np.testing.assert_allclose(logits[row], first + second + deep, rtol=2e-4)


@pytest.mark.parametrize("module", [deepfm, mmoe, ple])
def test_before_training_every_task_is_predicted_at_about_its_training_rate(module, data):
    tasks = TASKS[:1] if module is deepfm else TASKS
    embed, network, _, dense = built(module, data, tasks)
    logits = network([tf.zeros((1, *embed.symbols()[0].shape[1:])), tf.zeros((1, dense.shape[1]))])
    for task in tasks:
        assert float(logits[task][0, 0]) == pytest.approx(data.log_odds(task), abs=1e-5)


@pytest.mark.parametrize("module", [mmoe, ple])
def test_each_task_adds_a_first_order_term_of_its_own_that_starts_at_zero(module, data):
    _, network, vectors, dense = built(module, data)
    kernel, before = network.get_layer("first_order").kernel, network([vectors, dense])
    assert not np.any(kernel)
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    after = network([vectors, dense])
    for i, task in enumerate(TASKS):
        np.testing.assert_allclose((after[task] - before[task])[:, 0], dense.numpy() @ kernel.numpy()[:, i], rtol=1e-3, atol=1e-5)


# ---- experts and gates


def test_mixed_is_the_sum_of_the_experts_weighed_by_the_gate():
    rng = np.random.default_rng(0)
    gate, outputs = rng.normal(size=(3, 4)).astype("f"), rng.normal(size=(3, 4, 2)).astype("f")
    for found in (mmoe.mixed(gate, outputs), ple.mixed(gate, [outputs[:, :3], outputs[:, 3:]])):
        for row in range(3):
            np.testing.assert_allclose(found[row], sum(g * f for g, f in zip(gate[row], outputs[row])), rtol=1e-4)


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
        np.testing.assert_allclose(found[:, expert], np.maximum(x @ kernel[:, part] + bias[part], 0), rtol=1e-4, atol=1e-6)
    assert not np.allclose(found[:, 0], found[:, 1]) and not np.allclose(found[:, 1], found[:, 2])


def by_creation(network):
    """The unnamed Dense layers, dense_7 before dense_12."""
    layers = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense) and layer.name.startswith("dense")]
    return sorted(layers, key=lambda layer: int((layer.name + "_0").split("_")[1]))


def gates(network):
    """{name: the Softmax layer of a gate}."""
    return {layer.name: layer for layer in network.layers if isinstance(layer, keras.layers.Softmax)}


def weighed(network, vectors, dense):
    """{name of a gate: its weights (batch, experts)}."""
    return keras.Model(network.inputs, {name: layer.output for name, layer in gates(network).items()})([vectors, dense])


def influence(network, task, vectors, dense):
    """{weight path: does the logit of `task` depend on it}."""
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.square(network([vectors, dense])[task]))
    gradients = tape.gradient(total, network.trainable_variables)
    return {w.path: g is not None and bool(tf.reduce_any(g != 0)) for w, g in zip(network.trainable_variables, gradients)}


def expert_kernels(network, expert_dim):
    """{path: its number of experts} of the wide expert layers, in order of creation."""
    return {layer.kernel.path: layer.units // expert_dim for layer in by_creation(network) if layer.use_bias and layer.units % expert_dim == 0}


def test_every_mmoe_task_sees_all_experts_by_a_gate_of_its_own(data):
    _, network, vectors, dense = built(mmoe, data, experts=5, expert_dim=16, tower="3")
    reached = [influence(network, task, vectors, dense) for task in TASKS]
    (experts,) = expert_kernels(network, 16)
    assert all(one[experts] for one in reached)
    before = network.get_layer("gates").kernel  # (width, 4 gates x 5 experts)
    x = np.concatenate([vectors.numpy().reshape(40, -1), dense.numpy()], axis=1)
    found = weighed(network, vectors, dense)
    for i, task in enumerate(TASKS):
        part = slice(5 * i, 5 * i + 5)
        np.testing.assert_allclose(found[f"gate_{task}"], tf.nn.softmax(x @ before.numpy()[:, part]), rtol=1e-4)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tf.square(network([vectors, dense])[task]))
        assert np.flatnonzero(np.any(tape.gradient(total, before.value).numpy() != 0, axis=0)).tolist() == list(range(20))[part]


def test_ple_tasks_reach_none_of_each_others_experts_within_one_level(data):
    _, network, vectors, dense = built(ple, data, own_experts="2,3,1,4", shared_experts=2, expert_dim=16, tower="3", levels=1)
    kernels = list(expert_kernels(network, 16).items())
    assert [n for _, n in kernels] == [2, 2, 3, 1, 4]  # shared first, then each task's own
    for i, task in enumerate(TASKS):
        reached = influence(network, task, vectors, dense)
        assert [reached[path] for path, _ in kernels] == [True] + [j == i for j in range(4)]
    found = {name: gate.output.shape[1] for name, gate in gates(network).items()}
    assert found == {f"gate_1_{task}": n + 2 for task, n in zip(TASKS, (2, 3, 1, 4))}  # no shared gate at the last level


def test_ple_gates_of_two_levels_see_what_the_paper_says(data):
    tasks = TASKS[:2]
    _, network, vectors, dense = built(ple, data, tasks, own_experts="2,3", shared_experts=2, expert_dim=16, tower="3", levels=2)
    assert [n for n in expert_kernels(network, 16).values()] == [2, 2, 3, 2, 2, 3]
    a, b = tasks
    found = {name: gate.output.shape[1] for name, gate in gates(network).items()}
    assert found == {f"gate_1_{a}": 4, f"gate_1_{b}": 5, "gate_1_shared": 7, f"gate_2_{a}": 4, f"gate_2_{b}": 5}  # the shared one sees all
    reached = {task: influence(network, task, vectors, dense) for task in tasks}
    first_shared, first_a, first_b, _, last_a, last_b = expert_kernels(network, 16)
    assert reached[tasks[0]][first_b] and reached[tasks[1]][first_a]  # by way of the shared experts of level two
    assert not reached[tasks[0]][last_b] and not reached[tasks[1]][last_a] and reached[tasks[0]][first_shared]


def test_ple_gates_of_level_two_are_fed_by_their_own_tasks_level_one(data):
    """Level two of task A, rebuilt by hand: its gate and own experts take A's output of level one, the shared ones theirs."""
    tasks = TASKS[:2]
    _, network, vectors, dense = built(ple, data, tasks, own_experts="2,3", shared_experts=2, expert_dim=16, tower="", levels=2, dropout=0.0)
    x = np.concatenate([vectors.numpy().reshape(40, -1), dense.numpy()], axis=1)
    kernel = {path: weight.numpy() for path, weight in ((w.path, w) for w in network.weights)}
    dense_of = lambda path, x: np.maximum(x @ kernel[path] + kernel[path.replace("kernel", "bias")], 0).reshape(len(x), -1, 16)
    mix = lambda gate, f: np.einsum("bn,bnd->bd", weights[gate], f)
    linear = lambda path, x: tf.nn.softmax(x @ kernel[path]).numpy()
    first, second_a, second_b = [layer.kernel.path for layer in by_creation(network) if not layer.use_bias]
    shared_1, a_1, b_1, shared_2, a_2, b_2 = expert_kernels(network, 16)
    s, a, b = (dense_of(path, x) for path in (shared_1, a_1, b_1))
    parts = np.split(x @ kernel[first], [4, 9], axis=1)  # the gates of level one read the same input: one product
    weights = {who: tf.nn.softmax(part).numpy() for who, part in zip("abs", parts)}
    x_a, x_b, x_s = mix("a", np.concatenate([a, s], 1)), mix("b", np.concatenate([b, s], 1)), mix("s", np.concatenate([a, b, s], 1))
    s, a, b = dense_of(shared_2, x_s), dense_of(a_2, x_a), dense_of(b_2, x_b)
    weights = {"a": linear(second_a, x_a), "b": linear(second_b, x_b)}
    y_a, y_b = mix("a", np.concatenate([a, s], 1)), mix("b", np.concatenate([b, s], 1))
    logits = network([vectors, dense])
    for task, y in zip(tasks, (y_a, y_b)):
        wanted = y @ kernel[f"{task}/kernel"] + kernel[f"{task}/bias"]
        np.testing.assert_allclose(logits[task], wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("levels", [1, 2])
def test_ple_of_one_task_weighs_its_own_and_the_shared_experts(levels, data):
    _, network, vectors, dense = built(ple, data, TASKS[:1], own_experts="2", shared_experts=3, levels=levels)
    assert network([vectors, dense])[TASKS[0]].shape == (40, 1)
    for weights in weighed(network, vectors, dense).values():
        assert weights.shape == (40, 5)
        np.testing.assert_allclose(np.sum(weights, axis=1), 1, rtol=1e-5)


# ---- dropout


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_leaves_out_its_share_anew_at_each_step_and_keeps_the_mean(rate):
    keras.utils.set_random_seed(0)
    layer, ones = Dropout(rate), tf.ones((199, 63))  # an odd number of bits
    compiled = tf.function(lambda x: layer(x, training=True), jit_compile=True)
    steps = np.stack([compiled(ones).numpy() for _ in range(40)])  # (steps, rows, units)
    kept, n = steps > 0, steps.size
    np.testing.assert_allclose(np.unique(steps), [0, 1 / (1 - rate)], rtol=1e-6)
    spread = np.sqrt(rate * (1 - rate))
    assert abs(kept.mean() - (1 - rate)) < 4 * spread / np.sqrt(n)
    for axis in range(3):  # no step, row or unit is favoured: the means of slices spread as those of independent draws
        others = tuple(i for i in range(3) if i != axis)
        assert kept.mean(axis=others).std() == pytest.approx(spread / np.sqrt(n / kept.shape[axis]), rel=0.35)
    for one, next_ in ((kept[:-1], kept[1:]), (kept[:, :-1], kept[:, 1:]), (kept[:, :, :-1], kept[:, :, 1:]), (kept[:, :99], kept[:, 99:198])):
        assert abs(np.corrcoef(one.ravel(), next_.ravel())[0, 1]) < 4 / np.sqrt(one.size)
    np.testing.assert_array_equal(layer(ones, training=False), ones)


def test_dropout_draws_the_same_with_and_without_xla_and_other_numbers_in_another_layer():
    keras.utils.set_random_seed(0)
    one, other, ones = Dropout(0.5, seed=3), Dropout(0.5, seed=3), tf.ones((50, 50))
    plain = one(ones, training=True).numpy()
    np.testing.assert_array_equal(tf.function(lambda x: other(x, training=True), jit_compile=True)(ones), plain)
    assert abs(np.corrcoef(plain.ravel(), Dropout(0.5)(ones, training=True).numpy().ravel())[0, 1]) < 0.08


# ---- focal loss and annealing


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [0.1, 0.25, 0.9])
def test_focal_loss_equals_keras_with_alpha_on_the_positives(gamma, alpha):
    rng = np.random.default_rng(0)
    logit, label = rng.normal(size=64).astype("f") * 3, (rng.random(64) < 0.3).astype("f")
    keras_loss = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=True, alpha=alpha, gamma=gamma, from_logits=True, reduction="none"
    )
    found = FocalLoss.focal_loss(label, logit, gamma, alpha)
    assert found.shape == (64,)  # a value a row
    np.testing.assert_allclose(found, keras_loss(label[:, None], logit[:, None]), rtol=1e-4, atol=1e-6)
    p = 1 / (1 + np.exp(-logit.astype(np.float64)))
    by_hand = np.where(label > 0, -alpha * (1 - p) ** gamma * np.log(p), -(1 - alpha) * p**gamma * np.log(1 - p))
    np.testing.assert_allclose(found, by_hand, rtol=1e-4)


def test_focal_loss_of_gamma_0_without_alpha_is_binary_cross_entropy():
    logit, label = np.linspace(-50, 50, 101).astype("f"), (np.arange(101) % 2).astype("f")
    wanted = keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")(label[:, None], logit[:, None])
    np.testing.assert_allclose(FocalLoss.focal_loss(label, logit, 0.0, -1.0), wanted, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("gamma, alpha", [(0.0, -1.0), (0.5, -1.0), (2.0, -1.0), (2.0, 0.25), (5.0, 0.9)])
def test_the_logit_of_least_focal_loss_is_mapped_to_the_probability(gamma, alpha):
    """For each chance p a fine grid of logits is tried: the one of least expected focal loss must come out as p."""
    logits = np.linspace(-12, 12, 24001)
    q, weight = 1 / (1 + np.exp(-logits)), alpha if alpha >= 0 else 0.5
    positive, negative = -weight * (1 - q) ** gamma * np.log(q), -(1 - weight) * q**gamma * np.log(1 - q)
    for p in (0.001, 0.03, 0.3, 0.5, 0.8):
        best = logits[np.argmin(p * positive + (1 - p) * negative)]
        mapped = float(FocalLoss.unfocused(np.float64(best), gamma, alpha))
        assert 1 / (1 + np.exp(-mapped)) == pytest.approx(p, rel=0.01)
    ends = np.asarray(FocalLoss.unfocused(np.array([-90.0, -30.0, 0.0, 30.0, 90.0], np.float32), gamma, alpha))
    assert np.isfinite(ends).all() and (np.diff(ends) > 0).all()


def test_focal_loss_and_its_gradient_are_finite_at_large_logits():
    logit = tf.constant([-50.0, 50.0, -50.0, 50.0, -500.0, 500.0])
    label = tf.constant([1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(logit)
        loss = FocalLoss.focal_loss(label, logit, 2.0, 0.25)
    gradient = tape.gradient(loss, logit).numpy()
    assert np.isfinite(loss).all() and np.isfinite(gradient).all()
    np.testing.assert_allclose(loss, [0.25 * 50, 0, 0, 0.75 * 50, 0.25 * 500, 0.75 * 500], rtol=1e-5, atol=1e-20)
    np.testing.assert_allclose(gradient, [-0.25, 0, 0, 0.75, -0.25, 0.75], atol=1e-6)


def test_annealing_starts_hot_and_ends_cold_in_each_cycle():
    rate = lambda epochs: FocalLoss.annealed(epochs, [1, 2, 2], highest=0.1, lowest=0.02)
    for start, length in ((0, 1), (1, 2), (3, 2), (5, 2)):  # the last length repeats
        assert rate(start) == pytest.approx(0.1)
        assert rate(start + length / 2) == pytest.approx(0.06)
        assert rate(start + length - 1e-9) == pytest.approx(0.02)
        quarter = 0.02 + 0.08 * (1 + np.cos(np.pi / 4)) / 2
        assert rate(start + length / 4) == pytest.approx(quarter)
