"""RowAdam against dense Adam, and what Keras does instead."""
import common.quiet  # noqa: F401
import keras
import numpy as np
import pytest
import tensorflow as tf

from common.optimizer import RowAdam


def dense_adam(table, gradients, rate, l2=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Algorithm 1 of Kingma and Ba in NumPy, a step for each dense gradient, with epsilon inside the bias correction."""
    mean, square = np.zeros_like(table), np.zeros_like(table)
    for step, gradient in enumerate(gradients, start=1):
        gradient = gradient + l2 * table
        mean = beta_1 * mean + (1 - beta_1) * gradient
        square = beta_2 * square + (1 - beta_2) * gradient**2
        table = table - rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step) * mean / (np.sqrt(square) + epsilon)
    return table


def slices(rng, n_rows, n_ids, dim=3):
    return tf.IndexedSlices(rng.normal(size=(n_ids, dim)).astype(np.float32), rng.integers(0, n_rows, n_ids), (n_rows, dim))


def apply(adam, gradient, rate):
    """A step from tf.IndexedSlices."""
    adam.apply(*tf.unique(gradient.indices), gradient.values, rate)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_equals_dense_adam_on_rows_touched_at_every_step_with_repeated_ids(l2):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(6, 3)).astype(np.float32)
    adam = RowAdam(tf.Variable(start), l2)
    dense = []
    for _ in range(200):
        part = slices(rng, 6, 20)
        every = tf.IndexedSlices(  # each row at least once, many of them several times
            tf.concat([part.values, rng.normal(size=(6, 3)).astype(np.float32)], 0), tf.concat([part.indices, np.arange(6)], 0), (6, 3)
        )
        dense.append(tf.convert_to_tensor(every).numpy())
        apply(adam, every, 0.01)
    np.testing.assert_allclose(adam.table.numpy(), dense_adam(start, dense, 0.01, l2), atol=2e-5)


def test_rows_not_in_the_batch_stay_as_they_are():
    rng = np.random.default_rng(1)
    start = rng.normal(size=(9, 3)).astype(np.float32)
    adam = RowAdam(tf.Variable(start))
    for _ in range(20):
        apply(adam, slices(rng, 4, 8), 0.01)
    np.testing.assert_array_equal(adam.table.numpy()[4:], start[4:])
    assert not adam.mean.numpy()[4:].any() and not adam.square.numpy()[4:].any()


def test_what_fills_a_batch_up_changes_nothing_under_xla():
    """Rows beyond the table and places -1, as a step has them so that few shapes are compiled."""
    rng = np.random.default_rng(2)
    start = rng.normal(size=(5, 3)).astype(np.float32)
    plain, filled = RowAdam(tf.Variable(start), 0.1), RowAdam(tf.Variable(start), 0.1)
    compiled = tf.function(filled.apply, jit_compile=True)
    for _ in range(10):
        part = slices(rng, 5, 6)
        ids, place = tf.unique(part.indices)
        plain.apply(ids, place, part.values, 0.01)
        more = tf.constant(rng.normal(size=(4, 3)).astype(np.float32))
        compiled(tf.concat([ids, [5, 5]], 0), tf.concat([place, [-1] * 4], 0), tf.concat([part.values, more], 0), 0.01)
    np.testing.assert_allclose(filled.table.numpy(), plain.table.numpy(), atol=1e-6)
    np.testing.assert_allclose(filled.square.numpy(), plain.square.numpy(), rtol=1e-4)


def test_keras_squares_each_occurrence_and_row_adam_their_sum():
    """32 equal ids: the second moment that Keras keeps is 1/32 of the right one."""
    gradient = tf.IndexedSlices(tf.ones((32, 1)), tf.zeros(32, tf.int64), (1, 1))
    ours, theirs = RowAdam(tf.Variable([[0.0]])), keras.optimizers.Adam(0.01)
    variable = keras.Variable([[0.0]])
    apply(ours, gradient, 0.01)
    theirs.apply([gradient], [variable])
    kept_by_keras = float(theirs._velocities[0].numpy()[0, 0])
    assert np.isclose(ours.square.numpy()[0, 0], 0.001 * 32**2, rtol=1e-5)
    assert np.isclose(kept_by_keras, 0.001 * 32, rtol=1e-3)
