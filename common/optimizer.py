"""Adam for a model most of whose weights a batch does not touch."""

import common.backend  # noqa: F401

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("multitask")
class LazyAdam(keras.optimizers.Adam):
    """Adam that touches only those rows of an embedding table that the batch looks up.

    The gradient of a table comes as tf.IndexedSlices, each row once. Rows that are not in it keep
    their weights and moments (lazy Adam), where Adam (Kingma and Ba, 2015) would let them drift.
    To the gradient of a touched row comes l2 times the row, as of a penalty of l2 / 2 times the sum
    of squares, which the loss that is reported does not show.
    """

    def __init__(self, learning_rate=0.001, l2=0.0, name="lazy_adam", **kwargs):
        """kwargs: Adam's. Raises ValueError for those that have no lazy form here."""
        super().__init__(learning_rate, name=name, **kwargs)
        if self.amsgrad or self.gradient_accumulation_steps:
            raise ValueError("LazyAdam has no amsgrad and accumulates no gradients: take Adam.")
        self.l2 = l2

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.renewed = self.add_variable((), "zeros", "int64", name="renewed")

    def update_step(self, gradient, variable, learning_rate):
        """Keras's formula; of an IndexedSlices only its rows are updated.

        Roots are written as powers of a half: each root costs XLA 9 ms when it makes or loads a
        program, and Keras's own step has two for each variable. The result is the same.
        """
        index = self._get_variable_index(variable)
        mean = self._momentums[index].value
        square = self._velocities[index].value
        rate = tf.cast(learning_rate, tf.float32)
        if isinstance(gradient, tf.IndexedSlices):
            self.update_rows(gradient, variable, mean, square, rate)
            return
        step = tf.cast(self.iterations.value + 1, tf.float32)
        rate = rate * (1 - self.beta_2**step) ** 0.5 / (1 - self.beta_1**step)
        mean.assign_add((gradient - mean) * (1 - self.beta_1))
        square.assign_add((gradient**2 - square) * (1 - self.beta_2))
        variable.assign_sub(mean * rate / (square**0.5 + self.epsilon))

    def update_rows(self, gradient, variable, mean, square, rate):
        ids = gradient.indices
        gradient = gradient.values
        if self.l2:
            gradient += self.l2 * tf.gather(variable, ids)
        new_mean = self.beta_1 * tf.gather(mean, ids) + (1 - self.beta_1) * gradient
        new_square = self.beta_2 * tf.gather(square, ids) + (1 - self.beta_2) * gradient**2
        mean.scatter_update(tf.IndexedSlices(new_mean, ids))
        square.scatter_update(tf.IndexedSlices(new_square, ids))
        step = tf.cast(self.iterations.value - self.renewed.value + 1, tf.float32)
        correction = (1 - self.beta_2**step) ** 0.5 / (1 - self.beta_1**step)
        change = rate * correction * new_mean / (new_square**0.5 + self.epsilon)
        variable.scatter_sub(tf.IndexedSlices(change, ids))

    def forget(self, variable):
        """Set the moments of a table that was drawn anew to zero, its steps too."""
        index = self._get_variable_index(variable)
        for moments in (self._momentums[index], self._velocities[index]):
            moments.assign(tf.zeros_like(moments.value))
        self.renewed.assign(self.iterations)

    def get_config(self):
        return {**super().get_config(), "l2": self.l2}
