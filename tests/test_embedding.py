"""LookUp and FeatureEmbedding against a loop over rows, fields and list items."""

from common.embedding import FeatureEmbedding, LookUp, specify
from common.kinds import SHORTEST

import numpy as np
import pytest
import tensorflow as tf
from small_data import KINDS, N_DAYS, N_ROWS, data_of, embedded, rows_of

FIRST = {"userid": 0, "author": 9, "device": 14, "tags": 17, "words": 23}  # in order of use


def expected(data, table, row):
    """Vectors and dense values of one row, looked up one by one."""
    user_row, feed_row, day = (data.train[name][row] for name in ("user", "feed", "day"))
    user = data.tables["user"]
    feed = data.tables["feed"]
    vectors = [
        table[FIRST["userid"] + user["userid"][user_row]],
        table[FIRST["author"] + feed["author"][feed_row]],
        table[FIRST["device"] + data.train["device"][row]],
    ]
    for name in ("tags", "words", "machine_tags"):
        first = FIRST["words" if name == "words" else "tags"]
        offsets = feed[name]["offsets"]
        items = feed[name]["values"][offsets[feed_row] : offsets[feed_row + 1]]
        rows = [table[first + item] for item in items]
        vectors.append(np.mean(rows, axis=0) if rows else np.zeros(table.shape[1]))
    content = feed["content"][feed_row]
    dense = [data.train["price"][row], *feed["seconds"][feed_row], *content]
    dense += [*user["past"][day, user_row]]
    dense += [taste @ content for taste in user["taste"][day, user_row]]
    dense += [leaning @ feed["seconds"][feed_row] for leaning in user["leaning"][user_row]]
    return np.array(vectors), np.array(dense)


def test_every_kind_of_feature_is_looked_up():
    data = data_of()
    layer = embedded(data)
    vectors, dense = layer(layer.look_up(rows_of(data, layer)))
    symbols = layer.symbols()
    assert symbols[0].shape[1:] == vectors.shape[1:]
    assert symbols[1].shape[1:] == dense.shape[1:]
    for row in range(N_ROWS):
        wanted_vectors, wanted_dense = expected(data, layer.table.numpy(), row)
        np.testing.assert_allclose(vectors[row], wanted_vectors, atol=1e-6)
        np.testing.assert_allclose(dense[row], wanted_dense, atol=2e-3)  # float16 by day


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "u4", "i8", "u8"])
def test_codes_of_any_integers_name_the_same_rows(kind):
    """A vocabulary that stands behind a large one: small integers would not hold its rows."""
    found = []
    for dtype in ("i4", kind):
        data = data_of()
        data.meta["vocabularies"] |= dict.fromkeys(("userid", "author", "tags"), 40_000)
        feed = data.tables["feed"]
        feed["author"] = feed["author"].astype(dtype)
        for name in ("tags", "words"):
            feed[name] = feed[name] | {"values": feed[name]["values"].astype(dtype)}
        data.train["device"] = data.train["device"].astype(dtype)
        layer = embedded(data)
        found.append(layer.look_up(rows_of(data, layer)))
    for ours, wanted in zip(*map(tf.nest.flatten, found), strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_ids_come_once_and_few_shapes_are_compiled():
    data = data_of()
    layer = embedded(data)
    batch = layer.look_up(rows_of(data, layer))
    padding = layer.look_up.spec["n_rows"]
    ids = batch["ids"].numpy()
    real = ids[ids != padding]
    assert len(set(real)) == len(real)
    assert len(ids) % SHORTEST == 0
    assert len(batch["list"]["owners"]) % SHORTEST == 0
    n_items = int(tf.reduce_sum(batch["list"]["lengths"]))
    assert np.count_nonzero(batch["list"]["owners"] >= 0) == n_items


def test_features_of_one_vocabulary_share_rows_and_others_do_not():
    spec, _ = specify(data_of("userid", "tags", "machine_tags", "words"))
    assert spec["n_rows"] == 9 + 6 + 8
    layer = embedded(data_of("tags", "machine_tags"))
    assert layer.table.shape == (6 + 1, 4)


@pytest.mark.parametrize(
    "names, inputs, fields, width",
    [
        (["author", "seconds"], {"feed"}, 1, 1),
        (["device"], {"device"}, 1, 0),
        (["price"], {"price"}, 0, 1),
        (["taste"], {"user", "feed", "day"}, 0, 2),
        (["words"], {"feed"}, 1, 0),
    ],
)
def test_only_what_the_features_need_is_read(names, inputs, fields, width):
    data = data_of(*names)
    layer = embedded(data)
    assert set(layer.look_up.spec["inputs"]) == inputs
    vectors, dense = layer(layer.look_up(rows_of(data, layer)))
    assert vectors.shape == (N_ROWS, fields, 4)
    assert dense.shape == (N_ROWS, width)


@pytest.mark.parametrize("seed", range(20))
def test_for_the_test_each_value_stands_where_it_stood_in_training(seed):
    """Whatever features there are, in whatever order; the saved network has but one order."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(list(KINDS))[: rng.integers(2, len(KINDS) + 1)]
    data = data_of(*map(str, names))
    layer = embedded(data)
    spec, arrays = specify(data, latest=True)
    assert "day" not in spec["inputs"]
    still = FeatureEmbedding(LookUp(spec, {k: tf.constant(v) for k, v in arrays.items()}), 4)
    still.table.assign(layer.table)
    data.train["day"][:] = N_DAYS - 1
    rows = {name: tf.constant(data.train[name]) for name in spec["inputs"]}
    for found, wanted in zip(
        still(still.look_up(rows)), layer(layer.look_up(rows_of(data, layer))), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_gradient_reaches_each_item_of_a_list_once_per_occurrence():
    data = data_of("tags")
    layer = embedded(data)
    offsets = data.tables["feed"]["tags"]["offsets"]
    feed = int(np.argmax(np.diff(offsets)))
    with tf.GradientTape() as tape:
        vectors, _ = layer(layer.look_up({"feed": tf.constant([feed, feed])}))
        total = tf.reduce_sum(vectors)
    gradient = tf.convert_to_tensor(tape.gradient(total, layer.table.value)).numpy()
    items = data.tables["feed"]["tags"]["values"][offsets[feed] : offsets[feed + 1]]
    wanted = np.bincount(items, minlength=7)[:, None] / len(items) * 2  # two rows ask for it
    np.testing.assert_allclose(gradient, np.broadcast_to(wanted, gradient.shape), atol=1e-6)
