"""FeatureEmbedding against a loop over rows, fields and list items."""
import common.quiet  # noqa: F401
import numpy as np
import pytest
import tensorflow as tf

from common.embedding import FeatureEmbedding
from common.pickles import Data

N_USERS, N_FEEDS, N_DAYS, N_ROWS = 7, 11, 4, 50


@pytest.fixture
def data():
    """Two tables with every kind of feature, lists of which some are empty, and features without a table."""
    rng = np.random.default_rng(0)

    def a_list(n, size):
        lengths = rng.integers(0, 4, n)
        return {"values": rng.integers(0, size, lengths.sum()).astype(np.int32), "offsets": np.concatenate([[0], np.cumsum(lengths)])}

    user = {
        "key": np.arange(N_USERS), "userid": rng.integers(0, 9, N_USERS), "past": rng.normal(size=(N_DAYS, N_USERS, 2)),
        "taste": rng.normal(size=(N_DAYS, N_USERS, 2, 3)).astype(np.float16), "leaning": rng.normal(size=(N_USERS, 4, 1)),
    }
    feed = {
        "key": np.arange(N_FEEDS), "author": rng.integers(0, 5, N_FEEDS), "tags": a_list(N_FEEDS, 6), "words": a_list(N_FEEDS, 8),
        "machine_tags": a_list(N_FEEDS, 6), "seconds": rng.normal(size=(N_FEEDS, 1)), "content": rng.normal(size=(N_FEEDS, 3)),
    }
    rows = {
        "user": rng.integers(0, N_USERS, N_ROWS), "feed": rng.integers(0, N_FEEDS, N_ROWS), "day": rng.integers(0, N_DAYS, N_ROWS),
        "device": rng.integers(0, 3, N_ROWS), "price": rng.normal(size=N_ROWS),
    }
    kinds = {
        "userid": ("id", "user"), "author": ("id", "feed"), "device": ("id", None), "tags": ("list", "feed"), "words": ("list", "feed"),
        "machine_tags": ("list", "feed"), "seconds": ("dense", "feed"), "content": ("dense", "feed"), "past": ("dense", "user"),
        "price": ("dense", None), "taste": ("dot", "user"), "leaning": ("dot", "user"),
    }
    features = {
        name: {"kind": kind, "table": table, "vocabulary": "tags" if name == "machine_tags" else name, "daily": name in ("past", "taste")}
        for name, (kind, table) in kinds.items()
    }
    features["taste"]["with"], features["leaning"]["with"] = "content", "seconds"
    sizes = {"userid": 9, "author": 5, "device": 3, "tags": 6, "words": 8}
    return Data({"features": features, "vocabularies": sizes}, {"user": user, "feed": feed}, rows, rows, None)


def expected(data, layer, row):
    """Vectors and dense values of one row, looked up one by one."""
    table, spec = layer.table.numpy(), layer.spec
    vectors, dense = [], []
    user, feed = data.train["user"][row], data.train["feed"][row]
    of = {"user": (data.tables["user"], user), "feed": (data.tables["feed"], feed)}
    for key in ("user", "feed"):
        vectors += [table[spec["starts"][name] + of[key][0][name][of[key][1]]] for name in spec["ids"][key]]
    vectors.append(table[spec["starts"]["device"] + data.train["device"][row]])
    for name in ("tags", "words", "machine_tags"):
        offsets = data.tables["feed"][name]["offsets"]
        items = data.tables["feed"][name]["values"][offsets[feed] : offsets[feed + 1]]
        vectors.append(np.mean([table[spec["starts"][name] + item] for item in items], axis=0) if len(items) else np.zeros(layer.dim))
    dense += [data.train["price"][row], *data.tables["user"]["past"][data.train["day"][row], user]]
    dense += [*data.tables["feed"]["seconds"][feed], *data.tables["feed"]["content"][feed]]
    dense += [taste @ data.tables["feed"]["content"][feed] for taste in data.tables["user"]["taste"][data.train["day"][row], user]]
    dense += [leaning @ data.tables["feed"]["seconds"][feed] for leaning in data.tables["user"]["leaning"][user]]
    return np.array(vectors), np.array(dense)


def test_every_kind_of_feature_is_looked_up(data):
    layer = FeatureEmbedding.of(data, list(data.meta["features"]), dim=4)
    layer.table.assign(np.random.default_rng(1).normal(size=layer.table.shape))
    vectors, dense = layer({name: tf.constant(data.train[name]) for name in layer.spec["inputs"]})
    symbols = layer.symbols()
    assert symbols[0].shape[1:] == vectors.shape[1:] and symbols[1].shape[1:] == dense.shape[1:]
    for row in range(N_ROWS):
        wanted_vectors, wanted_dense = expected(data, layer, row)
        np.testing.assert_allclose(vectors[row], wanted_vectors, atol=1e-6)
        np.testing.assert_allclose(dense[row], wanted_dense, atol=2e-3)  # statistics by day are kept in half precision


def test_keras_is_told_that_xla_cannot_compile_the_lookup(data):
    """Where there is a GPU, Model.predict compiles whatever does not say so."""
    assert not FeatureEmbedding.of(data, ["tags"], dim=4).supports_jit


def test_features_of_one_vocabulary_share_rows_and_others_do_not(data):
    spec = FeatureEmbedding.of(data, ["userid", "tags", "machine_tags", "words"], dim=4).spec
    assert spec["starts"]["tags"] == spec["starts"]["machine_tags"] == 9 and spec["starts"]["words"] == 15
    assert spec["n_rows"] == 9 + 6 + 8


def test_only_the_features_named_are_read(data):
    layer = FeatureEmbedding.of(data, ["author", "seconds"], dim=4)
    assert layer.spec["inputs"] == ["feed"]
    vectors, dense = layer({"feed": tf.constant([1, 2])})
    assert vectors.shape == (2, 1, 4) and dense.shape == (2, 1)


def test_dot_products_alone_ask_for_both_rows_and_stand_still_for_the_test_day(data):
    layer = FeatureEmbedding.of(data, ["taste"], dim=4)
    assert layer.spec["inputs"] == ["user", "feed", "day"] and layer.symbols()[1].shape == (None, 2)
    still = FeatureEmbedding.of(data, ["taste"], dim=4, latest=True)
    assert still.spec["inputs"] == ["user", "feed"]
    rows = {"user": tf.constant([1, 2]), "feed": tf.constant([3, 4])}
    last = layer(rows | {"day": tf.constant([N_DAYS - 1] * 2)})[1]
    np.testing.assert_array_equal(still(rows)[1], last)
    assert not np.array_equal(layer(rows | {"day": tf.constant([0, 0])})[1], last)


def test_gradient_reaches_each_item_of_a_list_once_per_occurrence(data):
    layer = FeatureEmbedding.of(data, ["tags"], dim=2)
    feed = int(np.argmax(np.diff(data.tables["feed"]["tags"]["offsets"])))
    with tf.GradientTape() as tape:
        vectors, _ = layer({"feed": tf.constant([feed, feed])})
        total = tf.reduce_sum(vectors)
    gradient = tf.convert_to_tensor(tape.gradient(total, layer.table.value)).numpy()
    offsets = data.tables["feed"]["tags"]["offsets"]
    items = data.tables["feed"]["tags"]["values"][offsets[feed] : offsets[feed + 1]]
    wanted = np.bincount(items, minlength=6)[:, None] / len(items) * 2  # two rows ask for the feed
    np.testing.assert_allclose(gradient, np.broadcast_to(wanted, gradient.shape), atol=1e-6)


def test_a_layer_made_again_from_its_config_gives_the_same(data):
    layer = FeatureEmbedding.of(data, list(data.meta["features"]), dim=4)
    again = FeatureEmbedding.from_config(layer.get_config())
    again.set_weights(layer.get_weights())
    rows = {name: tf.constant(data.train[name]) for name in layer.spec["inputs"]}
    np.testing.assert_array_equal(layer(rows)[0], again(rows)[0])
