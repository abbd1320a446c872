"""Adam for embedding tables: the rows of repeated ids are merged first, and only the rows of the batch are touched.

Keras's optimizers square the gradient of each occurrence of an id instead of their sum, and pass over the whole table at
every step. Here an id that stands twice in a batch counts as one row, as in dense Adam; a row that is not in the batch
keeps its weights and moments (lazy Adam, as in TensorFlow Addons), while Kingma and Ba's algorithm would let them drift.
"""
import tensorflow as tf


def merge_rows(slices):
    """Sum the gradients of equal ids. IndexedSlices (occurrences, dim) -> ids (rows,), each once, and sums (rows, dim)."""
    ids, place = tf.unique(tf.reshape(slices.indices, [-1]))
    return ids, tf.math.unsorted_segment_sum(slices.values, place, tf.size(ids))


class RowAdam:
    """Adam (Kingma and Ba, 2015, Algorithm 1) on the rows of one table.

    table: tf.Variable (rows, dim). The moments have its shape; the bias is corrected by the number of steps taken. To the
    loss of a step comes l2 / 2 times the sum of squares of the rows that it touches, each counted once.
    """

    def __init__(self, table, l2=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
        self.table, self.l2, self.beta_1, self.beta_2, self.epsilon = table, l2, beta_1, beta_2, epsilon
        self.mean = tf.Variable(tf.zeros_like(table), trainable=False)
        self.square = tf.Variable(tf.zeros_like(table), trainable=False)
        self.steps = tf.Variable(0, dtype=tf.int64, trainable=False)

    def apply(self, slices, learning_rate):
        """Take one step on the rows of `slices`, tf.IndexedSlices as tf.gather's gradient gives them."""
        ids, gradient = merge_rows(slices)
        if self.l2:
            gradient += self.l2 * tf.gather(self.table, ids)
        step = tf.cast(self.steps.assign_add(1), tf.float32)
        mean = self.beta_1 * tf.gather(self.mean, ids) + (1 - self.beta_1) * gradient
        square = self.beta_2 * tf.gather(self.square, ids) + (1 - self.beta_2) * tf.square(gradient)
        self.mean.scatter_update(tf.IndexedSlices(mean, ids))
        self.square.scatter_update(tf.IndexedSlices(square, ids))
        rate = learning_rate * tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        self.table.scatter_sub(tf.IndexedSlices(rate * mean / (tf.sqrt(square) + self.epsilon), ids))
