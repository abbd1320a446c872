"""Adam for embedding tables: the rows of repeated ids are merged first, and only the rows of the batch are touched.

Keras's optimizers square the gradient of each occurrence of an id instead of their sum, and pass over the whole table at
every step. Here an id that stands twice in a batch counts as one row, as in dense Adam; a row that is not in the batch
keeps its weights and moments (lazy Adam, as in TensorFlow Addons), while Kingma and Ba's algorithm would let them drift.
"""
import tensorflow as tf


class RowAdam:
    """Adam (Kingma and Ba, 2015, Algorithm 1) on the rows of one table.

    table: tf.Variable (rows, dim). The moments have its shape; the bias is corrected by the number of steps taken. To the
    loss of a step comes l2 / 2 times the sum of squares of the rows that it touches, each counted once.
    """

    def __init__(self, table, l2=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
        self.table, self.l2, self.beta_1, self.beta_2, self.epsilon = table, l2, beta_1, beta_2, epsilon
        self.mean, self.square = (tf.Variable(tf.zeros(table.shape), trainable=False) for _ in range(2))
        self.steps = tf.Variable(0, dtype=tf.int64, trainable=False)

    def apply(self, ids, place, gradients, learning_rate):
        """Take one step on the rows `ids`, (rows,), each once, from the gradients (occurrences, dim) of what was looked up.

        place: (occurrences,), where in `ids` each of them looked, as tf.unique gives both; -1 is nowhere.
        """
        self.update(self.table, self.mean, self.square, self.steps, ids, place, gradients, learning_rate)

    def update(self, table, mean, square, steps, ids, place, gradients, learning_rate):
        """`apply` on one device's copies of the table, its moments and the steps taken."""
        gradient = tf.math.unsorted_segment_sum(gradients, place, tf.size(ids))
        if self.l2:
            gradient += self.l2 * tf.gather(table, ids)
        new_mean = self.beta_1 * tf.gather(mean, ids) + (1 - self.beta_1) * gradient
        new_square = self.beta_2 * tf.gather(square, ids) + (1 - self.beta_2) * tf.square(gradient)
        mean.scatter_update(tf.IndexedSlices(new_mean, ids))
        square.scatter_update(tf.IndexedSlices(new_square, ids))
        step = tf.cast(steps.assign_add(1), tf.float32)
        rate = learning_rate * tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        table.scatter_sub(tf.IndexedSlices(rate * new_mean / (tf.sqrt(new_square) + self.epsilon), ids))
