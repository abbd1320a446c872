"""The model in training: a keras.Model whose step is one XLA program."""

import warnings

import common.backend  # noqa: F401
from common.command import handlers_kept

import keras
import numpy as np
import tensorflow as tf

STEPS = 50  # of `fit` between two returns to Python and its callbacks
SCORING_BATCH = 16384
# the rest of an epoch that is gone on with does; TrainingLog tells what is an error
warnings.filterwarnings("ignore", "Your input ran out of data")
MOST_SCORED = 5  # datasets that a model keeps: a sample, validation, test, the contest's two tests


def copied(network):
    """A network of the same layers, with new weights as their initializers draw them."""

    def copy(layer):
        more = {"safe_mode": False} if isinstance(layer, keras.layers.Lambda) else {}
        return layer.__class__.from_config(layer.get_config(), **more)

    return keras.models.clone_model(network, clone_function=copy)


def value_of(variable):
    """The value of a variable, as one number if it is the same everywhere."""
    value = variable.numpy()
    same = value.size and (value == value.flat[0]).all()
    return value.flat[0] if same else value


class Recommender(keras.Model):
    """{task: logits (batch, 1)} of what a LookUp gives; `fit` takes `batches`.

    `logits` and `predict` add to a task's logit its intercept, behind the link; `fit`, `evaluate`
    and the model itself do not.

    A step is one XLA program: embedding, network, loss, gradients, optimizer. Beside it `tf.data`
    looks up, on another core, what varies in length: the rows that the next batch touches.
    """

    def __init__(self, embedding, network, link=None, **kwargs):
        """network: keras.Model from `embedding.symbols()` to {task: logit (batch, 1)}.

        link: function from what the network gives to the logit of a probability, None for the same.
        """
        super().__init__(**kwargs)
        self.embedding = embedding
        self.network = network
        self.link = link
        zeros = {"initializer": "zeros", "trainable": False}
        self.intercepts = {task: self.add_weight((), name=task, **zeros) for task in self.tasks}
        self.score = tf.function(
            self.predict_step, jit_compile=True, reduce_retracing=True, autograph=False
        )
        # traced once for each size of a batch, however many datasets there are
        self.look_up = tf.function(embedding.look_up.__call__, autograph=False)
        self._scoring = {}  # datasets of the columns that were scored, by the columns' id
        self._scoring_batch = 0
        self._first_values = None
        self.built = True  # both parts are

    @property
    def tasks(self):
        """The tasks that the network learns."""
        return list(self.network.output)

    def compile(self, *args, steps_per_execution=STEPS, jit_compile=True, **kwargs):
        """Keras's. What it builds at the first step, which is then traced twice, is built here."""
        kwargs |= {"steps_per_execution": steps_per_execution, "jit_compile": jit_compile}
        super().compile(*args, **kwargs)
        self.optimizer.build(self.trainable_variables)
        if not hasattr(self.optimizer, "first_values"):  # one compiled again has trained
            values = [value_of(variable) for variable in self.optimizer.variables]
            self.optimizer.first_values = values
        labels = {task: tf.zeros([1]) for task in self.tasks}
        logits = {task: tf.zeros([1, *z.shape[1:]]) for task, z in self.network.output.items()}
        self.compute_loss(None, labels, logits)
        self.compute_metrics(None, labels, logits)
        self.reset_metrics()

    def fit(self, *args, shuffle=False, **kwargs):  # `batches` does it
        """Keras's; whatever ends it, Ctrl-C and SIGTERM then do what they did before."""
        try:
            with handlers_kept():
                return super().fit(*args, shuffle=shuffle, **kwargs)
        finally:
            self._initial_epoch = None  # or a later `fit` would begin where Resume let this one

    def initialize(self, seed):
        """Draw the trained weights anew, as their initializers do, and begin the optimizer anew.

        What is compiled stays, so that a further seed takes no time for it. The optimizer becomes
        what it was when compiled, weights that are not trained what they were at the first call,
        intercepts 0.
        Weights trained before are set after it.
        """
        keras.utils.set_random_seed(seed)
        still = self.network.non_trainable_weights
        if self._first_values is None:
            self._first_values = [value_of(variable) for variable in still]
        table = self.embedding.table
        if table.trainable:
            table.assign(self.embedding.initializer()(table.shape))
        fresh = copied(self.network)
        for variable, new in zip(self.network.variables, fresh.variables, strict=True):
            variable.assign(new)  # states of random numbers too
        for variable in self.intercepts.values():
            variable.assign(0.0)
        firsts = [*self.optimizer.first_values, *self._first_values]
        for variable, value in zip([*self.optimizer.variables, *still], firsts, strict=True):
            variable.assign(np.broadcast_to(value, variable.shape))

    def call(self, batch, training=False):
        return self.network(list(self.embedding(batch)), training=training)

    def train_step(self, data):
        """Keras's own, but that the gradient of the table is of the touched rows, each once."""
        batch, labels = data
        table = self.embedding.table
        weights = [weight for weight in self.trainable_variables if weight is not table]
        rows = tf.gather(table.value, batch["ids"])  # (ids, dim)
        with tf.GradientTape() as tape:
            tape.watch(rows)
            inputs = self.embedding.assemble(rows, batch)
            logits = self.network(list(inputs), training=True)
            loss = self.compute_loss(batch, labels, logits, training=True)
        of_rows, *of_weights = tape.gradient(loss, [rows, *(weight.value for weight in weights)])
        if of_rows is not None and table.trainable:  # None with dense features alone
            slices = tf.IndexedSlices(tf.convert_to_tensor(of_rows), batch["ids"], tf.shape(table))
            weights = [table, *weights]
            of_weights = [slices, *of_weights]
        self.optimizer.apply(of_weights, weights)
        self._loss_tracker.update_state(loss)
        return self.compute_metrics(batch, labels, logits)

    def predict_step(self, data):
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        logits = self(batch, training=False)
        logits = {task: self.link(z) if self.link else z for task, z in logits.items()}
        return {task: z + self.intercepts[task].value for task, z in logits.items()}

    def batches(self, columns, size, seed):
        """A dataset for `fit`: (looked-up batch, {task: label (batch,)}), a new order an epoch.

        The first rows come again to fill the last batch up. An epoch begins where the optimizer is
        since the dataset was made, so that a run that was stopped goes on with the very batches
        that it had not seen.
        """
        n = self.rows_in(columns)
        size = min(size, n)
        steps = -(-n // size)
        self.rows_a_step = size
        begun = int(self.optimizer.iterations) if self.compiled else 0

        def order():
            epoch, step = divmod(int(self.optimizer.iterations) - begun, steps)
            rows = self.shuffled(columns, np.random.default_rng([seed, epoch]))
            return np.resize(rows, (steps, size))[step:]  # the first ones come again

        data = tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(order, [], tf.int32))
        data = data.flat_map(tf.data.Dataset.from_tensor_slices)
        data = self.looked_up(data, columns, self.tasks, size)
        data.cardinality = lambda: tf.constant(steps, tf.int64)
        return data

    def rows_in(self, columns):
        """The number of rows of {column: (rows,)}."""
        return len(columns[self.embedding.look_up.spec["inputs"][0]])

    def shuffled(self, columns, rng):
        """The rows of an epoch in a new order, int32 (rows,)."""
        return rng.permutation(np.arange(self.rows_in(columns), dtype=np.int32))

    def looked_up(self, data, columns, tasks, size):
        """The dataset of (batch, labels) for one of row numbers (size,), None for any size."""
        with tf.device("CPU:0"):
            names = (*self.embedding.look_up.spec["inputs"], *tasks)
            columns = {name: tf.constant(columns[name]) for name in names}

        @tf.autograph.experimental.do_not_convert  # it has no loops, and would take a second
        def gathered(rows):
            rows = tf.ensure_shape(rows, [size])
            batch = {name: tf.gather(column, rows) for name, column in columns.items()}
            labels = {task: tf.cast(batch.pop(task), tf.float32) for task in tasks}
            return self.look_up(batch), labels

        options = tf.data.Options()
        options.autotune.enabled = False  # there is nothing to tune, and it may take seconds to end
        options.threading.private_threadpool_size = 1  # or each thread keeps memory of its own
        return data.map(gathered).prefetch(1).with_options(options)

    def labelled_batches(self, columns, size):
        """A dataset for `evaluate` and `validation_data`: the same, each row once and in order."""
        rows = tf.data.Dataset.range(self.rows_in(columns), output_type=tf.int32)
        return self.looked_up(rows.batch(size), columns, self.tasks, None)

    def scoring_batches(self, columns):
        """A dataset of (looked-up batch, {}) of all rows in order.

        All batches of a dataset have one size, so that one shape is compiled: the last one begins
        anew, and fewer rows than those of a dataset before are repeated.
        """
        if id(columns) not in self._scoring:  # each epoch scores the same, and is not traced again
            if len(self._scoring) == MOST_SCORED:
                self._scoring.pop(next(iter(self._scoring)))
            n = self.rows_in(columns)
            size = self._scoring_batch = max(self._scoring_batch, min(n, SCORING_BATCH))
            rows = np.resize(np.arange(n, dtype=np.int32), (-(-n // size), size))
            rows = tf.data.Dataset.from_tensor_slices(rows)
            self._scoring[id(columns)] = self.looked_up(rows, columns, [], size), columns
        return self._scoring[id(columns)][0]

    def logits(self, columns):
        """{task: float32 logits (rows,)} of interactions {column: (rows,)}."""
        n = self.rows_in(columns)
        parts = [self.score(batch) for batch, _ in self.scoring_batches(columns)]
        return tf.nest.map_structure(lambda *rows: np.concatenate(rows)[:n, 0], *parts)

    def mean_outputs(self, columns, names):
        """{layer: mean of its output over all rows, float64 (n,)} of layers of the network."""
        outputs = {name: self.network.get_layer(name).output for name in names}
        network = keras.Model(self.network.inputs, outputs)

        @tf.function(reduce_retracing=True, autograph=False)  # XLA would take longer to compile
        def outputs_of(batch):
            return network(list(self.embedding(batch)))

        n = self.rows_in(columns)
        means = dict.fromkeys(names, 0.0)
        for i, (batch, _) in enumerate(self.scoring_batches(columns)):
            for name, output in outputs_of(batch).items():
                left = n - i * len(output)  # the last batch begins anew
                means[name] += output[:left].numpy().sum(axis=0, dtype=np.float64) / n
        return means

    def renew_embeddings(self, seed):
        """Draw the embedding table anew and forget its moments; the network stays as it is."""
        table = self.embedding.table
        table.assign(self.embedding.initializer(seed)(table.shape))
        if hasattr(self.optimizer, "forget"):
            self.optimizer.forget(table)
