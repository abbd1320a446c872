"""DeepFM: a factorization machine and a network on one embedding, one task (Guo et al., 2017).

python deepfm.py [--user-data user_data] [--target read_comment] [--seed 0] [--runs 1]
"""

from dataclasses import dataclass

from common.callbacks import CalibratedIntercepts, RenewedEmbeddings, TrainingLog
from common.command import user_errors
from common.dropout import Dropout
from common.embedding import FeatureEmbedding, LookUp
from common.experiment import Experiment
from common.optimizer import LazyAdam
from common.piecewise import with_pieces
from common.recommender import Recommender
from common.resume import asked_for
from common.saved import use_saved
from common.scores import mean_and_spread
from common.settings import RunSettings, parse, setting

import keras
from keras import layers, ops


@dataclass
class Settings(RunSettings):
    name: str = setting("deepfm", "name of the model in results.csv and of its files")
    target: str = setting("", "task to learn, or all for a network each (default: read_comment)")
    embedding_dim: int = setting(16, "length of a factor vector", 1, 1024)
    hidden: tuple[int, ...] = setting((128, 64), "widths of the network's layers", 1, 8192)
    embedding_l2: float = setting(0.001, "L2 penalty on the embeddings that a batch looks up", 0)
    bins: int = setting(4, "bins at whose ends a dense value's linear term bends, or 0", 0, 64)
    dropout: float = setting(0.3, "share of hidden units left out in training", 0, below=1)
    learning_rate: float = setting(0.001, "Adam's learning rate", above=0)
    batch_size: int = setting(1024, "rows a step", 1)
    epochs: int = setting(0, "passes over the rows; 0 chooses: 1, up to 8 for few ids", 0, 10_000)
    keep_embeddings: bool = setting(False, "do not redraw the embeddings between epochs")


# ---- the equation


def second_order(total, squares):
    """Sum over i < j of <v_i x_i, v_j x_j>: half of (sum)^2 - sum of squares, in O(n k).

    total, squares: (batch, k), the sums over i of v_i x_i and of its elementwise square. Returns
    (batch, 1). Rendle, ICDM 2010, lemma 3.1.
    """
    return 0.5 * ops.sum(ops.square(total) - squares, axis=1, keepdims=True)


# ---- the network


@keras.saving.register_keras_serializable("multitask")
class Factors(layers.Layer):
    """A factor v_i for each dense value x_i: sums of v_i x_i and of (v_i x_i)^2.

    (batch, n) -> 2 x (batch, k).
    """

    def __init__(self, k, **kwargs):
        super().__init__(**kwargs)
        self.k = k

    def build(self, shape):
        initializer = keras.initializers.RandomNormal(stddev=0.01)
        self.v = self.add_weight((shape[-1], self.k), initializer, name="v")

    def call(self, x):
        return ops.matmul(x, self.v), ops.matmul(ops.square(x), ops.square(self.v))

    def get_config(self):
        return {**super().get_config(), "k": self.k}


def network(vectors, dense, data, tasks, settings):
    """{task: logit (batch, 1)}: w_0 + first order + second order + deep network.

    vectors: (batch, fields, 1 + k), first the weight w_i of an id, then its factor v_i. dense:
    (batch, width), numbers x_i with weights, of their pieces too, and factors of their own.
    """
    (task,) = tasks
    w = vectors[:, :, 0]  # (batch, fields)
    v = vectors[:, :, 1:]  # (batch, fields, k)
    log_odds = keras.initializers.Constant(data.log_odds(task))
    w_0 = layers.Dense(1, kernel_initializer="zeros", bias_initializer=log_odds, name="w_0")
    first = w_0(with_pieces(dense, data, settings.bins))
    first = first + ops.sum(w, axis=1, keepdims=True)
    total, squares = Factors(settings.embedding_dim)(dense)
    second = second_order(ops.sum(v, axis=1) + total, ops.sum(ops.square(v), axis=1) + squares)
    x = layers.Concatenate()([layers.Flatten()(v), dense])
    for width in settings.hidden:
        x = Dropout(settings.dropout)(layers.Dense(width, "relu")(x))
    deep = layers.Dense(1, use_bias=False)(x)
    return keras.Model([vectors, dense], {task: first + second + deep})


# ---- the training


def compiled_model(data, tasks, settings):
    """The network with its embeddings as a keras.Model, compiled: one for all seeds."""
    embedding = FeatureEmbedding(LookUp.of(data), 1 + settings.embedding_dim)
    vectors, dense = embedding.symbols()
    # a keras.Model for any Keras optimizer, loss and layer; its train_step makes gradients only for
    # the embedding rows that are looked up
    model = Recommender(embedding, network(vectors, dense, data, tasks, settings))
    model.compile(
        optimizer=LazyAdam(settings.learning_rate, l2=settings.embedding_l2),
        loss={task: keras.losses.BinaryCrossentropy(from_logits=True) for task in tasks},
        loss_weights={task: data.loss_weights[task] for task in tasks},  # 1 or --task-weights
    )
    return model


def train(model, data, settings, seed):
    """One run, from new weights: the TrainingLog, with its validation scores."""
    model.initialize(seed)  # new weights and optimizer state; what is compiled stays
    log = TrainingLog(data, settings.target, verbose=not settings.quiet)
    model.fit(
        model.batches(data.train, settings.batch_size, seed),
        epochs=settings.epochs or data.usual_epochs(settings.batch_size),
        callbacks=[
            # new embeddings each epoch, or they would know the rows of rare ids by heart
            RenewedEmbeddings(seed, keep=settings.keep_embeddings or data.has_few_ids),
            keras.callbacks.TerminateOnNaN(),
            CalibratedIntercepts(data),
            log,  # scores data.valid after each epoch: val_auc and so on, for callbacks behind it
            # always Resume; BestEpoch with --patience, TensorBoard with --tensorboard
            *asked_for(data, settings, model.tasks, seed, log),
        ],
        verbose=0,
    )
    return log


def main(argv=None):
    """Train each seed, compare, print the validation AUC. argv: flags or Settings -> a Result."""
    settings = parse(Settings, __doc__, argv)
    if settings.predict or settings.export:
        return use_saved(settings)
    experiment = Experiment(settings, single_task=True)
    models = [compiled_model(experiment.data, tasks, settings) for tasks in experiment.task_groups]
    for seed in settings.seeds:
        logs = [train(model, experiment.data, settings, seed) for model in models]
        experiment.keep(seed, models, logs)
    result = experiment.finish()
    print(f"{result.target} validation AUC: {mean_and_spread(result.aucs)}")
    return result


if __name__ == "__main__":
    with user_errors():
        main()
