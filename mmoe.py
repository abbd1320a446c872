"""MMOE: Multi-gate Mixture-of-Experts, all tasks at once (Ma et al., KDD 2018).

python mmoe.py [--user-data user_data] [--seed 0] [--runs 1]
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
    name: str = setting("mmoe", "name of the model in results.csv and of its files")
    embedding_dim: int = setting(16, "length of an embedding", 1, 1024)
    hidden: tuple[int, ...] = setting((), "widths of the layers before the experts", 1, 8192)
    experts: int = setting(8, "experts, shared by all tasks", 1, 512)
    expert_dim: int = setting(32, "width of an expert", 1, 8192)
    tower: tuple[int, ...] = setting((32,), "widths of the layers of a task's tower", 1, 8192)
    embedding_l2: float = setting(0.0, "L2 penalty on the embeddings that a batch looks up", 0)
    bins: int = setting(4, "bins at whose ends a dense value's linear term bends, or 0", 0, 64)
    dropout: float = setting(0.1, "share of hidden units left out in training", 0, below=1)
    learning_rate: float = setting(0.001, "Adam's learning rate", above=0)
    batch_size: int = setting(1024, "rows a step", 1)
    epochs: int = setting(0, "passes over the rows; 0: 1 or 2, up to 8 for few ids", 0, 10_000)
    keep_embeddings: bool = setting(False, "do not redraw the embeddings between epochs")


# ---- the equation


def mixture(gate, outputs):
    """Sum of g_i E_i over the experts (sec. 4.2). (batch, n), (batch, n, dim) -> (batch, dim)."""
    return ops.sum(ops.expand_dims(gate, -1) * outputs, axis=1)


# ---- the network


def experts(x, n, dim):
    """n experts of one layer as one wide layer, which is faster. (batch, width) -> (batch, n, dim).

    The ReLU stands behind the Reshape: XLA then works on whole experts, a tenth faster.
    """
    wide = layers.Dense(n * dim, kernel_initializer="he_uniform")(x)
    return layers.ReLU()(layers.Reshape((n, dim))(wide))


def gates(x, tasks, n):
    """Each task's softmax of a linear map of x, from one product: {task: (batch, n)}."""
    logits = layers.Dense(len(tasks) * n, use_bias=False, name="gates")(x)
    logits = layers.Reshape((len(tasks), n))(logits)
    return {task: layers.Softmax(name=f"gate_{task}")(logits[:, i]) for i, task in enumerate(tasks)}


def network(vectors, dense, data, tasks, settings):
    """{task: logit (batch, 1)} of vectors (batch, fields, dim) and dense values (batch, width).

    A linear term of the dense values and their pieces, initially zero, is added to each logit.
    """
    x = layers.Concatenate()([layers.Flatten()(vectors), dense])
    for width in settings.hidden:
        x = Dropout(settings.dropout)(layers.Dense(width, "relu")(x))
    shared = experts(x, settings.experts, settings.expert_dim)  # (batch, experts, expert_dim)
    gate = gates(x, tasks, settings.experts)
    effects = layers.Dense(len(tasks), use_bias=False, kernel_initializer="zeros")
    linear = effects(with_pieces(dense, data, settings.bins))  # (batch, tasks)
    logits = {}
    for i, task in enumerate(tasks):
        y = Dropout(settings.dropout)(mixture(gate[task], shared))
        for width in settings.tower:
            y = layers.Dense(width, "relu")(y)
        log_odds = keras.initializers.Constant(data.log_odds(task))
        y = layers.Dense(1, bias_initializer=log_odds, name=f"tower_{task}")(y)
        logits[task] = linear[:, i : i + 1] + y
    return keras.Model([vectors, dense], logits)


# ---- the training


def compiled_model(data, tasks, settings):
    """The network with its embeddings as a keras.Model, compiled: one for all seeds."""
    embedding = FeatureEmbedding(LookUp.of(data), settings.embedding_dim)
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
        epochs=settings.epochs or data.usual_epochs(settings.batch_size, at_most=2),
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
    experiment = Experiment(settings)
    models = [compiled_model(experiment.data, tasks, settings) for tasks in experiment.task_groups]
    for seed in settings.seeds:
        logs = [train(model, experiment.data, settings, seed) for model in models]
        experiment.keep(seed, models, logs)
    names = [f"expert {i + 1}" for i in range(settings.experts)]
    result = experiment.finish(gates={f"gate_{task}": names for task in experiment.data.tasks})
    print(f"{result.target} validation AUC: {mean_and_spread(result.aucs)}")
    return result


if __name__ == "__main__":
    with user_errors():
        main()
