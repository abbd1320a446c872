"""A compiled step, filled up to few shapes, against a plain tape over the layer and the network."""
import common.quiet  # noqa: F401
import keras
import numpy as np
import pytest
import tensorflow as tf
from test_embedding import N_ROWS, data  # noqa: F401 -- the fixture

from common.embedding import FeatureEmbedding
from common.recommender import SHORTEST, Recommender
from common.training import cross_entropy

FEATURES = {
    "everything": ("userid", "author", "device", "tags", "words", "machine_tags", "seconds", "content", "past", "price", "taste", "leaning"),
    "ids alone": ("userid", "author"), "lists alone": ("words", "tags"), "dense alone": ("seconds", "past"),
}


def recommender(data, features):
    data.train["like"] = (np.arange(N_ROWS) % 3 == 0).astype(np.uint8)
    embed = FeatureEmbedding.of(data, features, dim=4)
    embed.table.assign(np.random.default_rng(1).normal(size=embed.table.shape))
    vectors, dense = embed.symbols()
    x = keras.layers.Dense(5, "tanh")(keras.layers.Concatenate()([keras.layers.Flatten()(vectors), dense]))
    network = keras.Model([vectors, dense], {"like": keras.layers.Dense(1)(x)})
    return Recommender(embed, network, cross_entropy(None), {"like": 2.0}), {name: tf.constant(column) for name, column in data.train.items()}


def by_a_plain_tape(model, train, rows):
    """The loss, its dense gradient with respect to the table, and those to the weights."""
    with tf.GradientTape() as tape:
        logits = model.network(list(model.embed({name: tf.gather(train[name], rows) for name in model.columns})))["like"][:, 0]
        label = tf.cast(tf.gather(train["like"], rows), tf.float32)
        loss = 2 * tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(label, logits))
    to_table, *to_weights = tape.gradient(loss, [model.embed.table.value, *model.weights], unconnected_gradients="zero")
    return loss, tf.convert_to_tensor(to_table), to_weights


@pytest.mark.parametrize("features", FEATURES)
def test_recommender_has_the_gradients_of_a_plain_tape(features, data):  # noqa: F811
    model, train = recommender(data, FEATURES[features])
    empty = np.flatnonzero(np.diff(data.tables["feed"]["words"]["offsets"])[data.train["feed"]] == 0)[:2]
    rows = tf.constant([3, 1, 4, 1, 5, 9, *empty], tf.int32)
    labels, found, ids, place = tf.function(model.look_up)(train, rows)
    loss, to_rows, to_weights = tf.function(model.gradients, jit_compile=True)(labels, found)
    wanted_loss, to_table, wanted_to_weights = by_a_plain_tape(model, train, rows)
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-5)
    for one, wanted in zip(to_weights, wanted_to_weights):
        np.testing.assert_allclose(one, wanted, atol=1e-5)
    real = ids.numpy()[ids.numpy() < len(to_table)]
    assert len(set(real)) == len(real) and len(ids) % SHORTEST == 0
    sums = tf.math.unsorted_segment_sum(to_rows, place, tf.size(ids))[: len(real)]
    np.testing.assert_allclose(sums, to_table.numpy()[real], atol=1e-5)
    assert not np.delete(to_table.numpy(), real, axis=0).any()


def test_recommender_looks_the_next_batch_up_and_learns_from_this_one(data):  # noqa: F811
    """Three steps in one call are three steps one by one."""
    order, rates = np.random.default_rng(2).integers(0, N_ROWS, (3, 7)).astype(np.int32), tf.constant([0.1, 0.01, 0.1])
    after = []
    for calls in ([order], [order[:1], order[1:2], order[2:]]):
        keras.utils.set_random_seed(0)
        model, train = recommender(data, FEATURES["everything"])
        step = 0
        for part in calls:
            model.train(train, tf.constant(part), rates[step : step + len(part)])
            step += len(part)
        after.append([variable.numpy() for variable in model.variables()])
    assert after[0][3] == 3
    for one, other in zip(*after):
        np.testing.assert_allclose(one, other, atol=1e-6)
    last = tf.constant(order[2])
    before = model.row_adam.table.numpy()
    model.train(train, tf.constant(order[2:]), rates[:1])
    moved = np.flatnonzero((model.row_adam.table.numpy() != before).any(axis=1))
    assert set(moved) <= set(model.embed.look_up({name: tf.gather(train[name], last) for name in model.columns})["places"].numpy())
