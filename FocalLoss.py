"""DeepFM with focal loss (Lin et al., ICCV 2017) and cosine annealing (SGDR, ICLR 2017), one task.

python FocalLoss.py [--user-data user_data] [--target read_comment] [--gamma 0.5] [--cycles 1,1]

The network is the one of deepfm.py; `--gamma 0 --cycles "" --epochs 1` is deepfm.py of one epoch.
"""

import math
from dataclasses import dataclass
from functools import partial

import deepfm
from common.callbacks import CalibratedIntercepts, RenewedEmbeddings, TrainingLog
from common.command import user_errors
from common.embedding import FeatureEmbedding, LookUp
from common.experiment import Experiment
from common.optimizer import LazyAdam
from common.recommender import Recommender
from common.resume import asked_for
from common.saved import use_saved
from common.scores import mean_and_spread
from common.settings import parse, setting

import keras
from keras import ops


@dataclass
class Settings(deepfm.Settings):
    name: str = setting("FocalLoss", "name of the model in results.csv and of its files")
    epochs: int = setting(0, "passes over the rows; 0 chooses: 2, up to 8 for few ids", 0, 10_000)
    gamma: float = setting(0.5, "how fast the loss of well-classified rows fades", 0, 100)
    alpha: float = setting(0.0, "weight of the positive class, 0 for no weights", 0, below=1)
    cycles: tuple[int, ...] = setting((1, 1), 'epochs of each annealing cycle, "" for none', 1)
    lowest_rate: float = setting(0.0, "learning rate at the end of a cycle", 0)
    raw_scores: bool = setting(False, "leave focal scores as they are, no probabilities")


# ---- the equations


def focal_loss(label, logit, gamma, alpha):
    """-alpha_t (1 - p_t)^gamma log p_t of each row, from logits (Lin et al., eq. 5). Any shape.

    p_t is the probability of the row's own class; alpha_t is alpha for positives, 1 - alpha for
    negatives; with alpha 0 both are 1.
    """
    own = (2 * label - 1) * logit  # logit of the row's own class: p_t = sigmoid(own)
    weight = ops.where(label > 0, alpha, 1 - alpha) if alpha else 1.0
    return weight * ops.exp(-gamma * ops.softplus(own)) * ops.softplus(-own)


def unfocused(logit, gamma, alpha):
    """The logit of the chance that a focal logit means: there the row's expected loss is least.

    With q = sigmoid(logit) the chance p solves alpha p phi(q) = (1 - alpha) (1 - p) phi(1 - q), phi
    being the slope of (1 - q)^gamma log q (Charoenphakdee et al., CVPR 2021, theorem 11). It
    rises with q, so that no ranking changes. Any shape.
    """
    z = ops.clip(logit, -50, 50)  # beyond, log1p below is at its limit
    positive = ops.log1p(gamma * ops.softplus(z) * ops.exp(-z))
    negative = ops.log1p(gamma * ops.softplus(-z) * ops.exp(z))
    prior = math.log((1 - alpha) / alpha) if alpha else 0.0
    return (gamma + 1) * logit + positive - negative + prior


@keras.saving.register_keras_serializable("multitask")
class WarmRestarts(keras.optimizers.schedules.LearningRateSchedule):
    """In each cycle half a cosine from the highest to the lowest rate (SGDR, eq. 5).

    lengths: of the cycles, in steps; the last one repeats.
    """

    def __init__(self, highest, lowest, lengths):
        self.highest = highest
        self.lowest = lowest
        self.lengths = lengths

    def __call__(self, step):
        step = ops.cast(step, "int32")
        start = 0
        share = 0.0  # of the cycle that is over
        for length in self.lengths:
            here = ops.cast((step - start) % length, "float32") / length
            share = ops.where(step >= start, here, share)
            start += length
        return self.lowest + (self.highest - self.lowest) * (1 + ops.cos(math.pi * share)) / 2

    def get_config(self):
        return {"highest": self.highest, "lowest": self.lowest, "lengths": self.lengths}


# ---- the training


def compiled_model(data, tasks, settings):
    """The network with its embeddings as a keras.Model, compiled: one for all seeds."""
    embedding = FeatureEmbedding(LookUp.of(data), 1 + settings.embedding_dim)
    vectors, dense = embedding.symbols()
    network = deepfm.network(vectors, dense, data, tasks, settings)
    focus = {"gamma": settings.gamma, "alpha": settings.alpha}
    link = None if settings.raw_scores else partial(unfocused, **focus)
    rate = settings.learning_rate
    if settings.cycles:
        steps = data.steps(settings.batch_size)
        lengths = [steps * epochs for epochs in settings.cycles]
        rate = WarmRestarts(rate, settings.lowest_rate, lengths)
    # a keras.Model for any Keras optimizer, loss and layer; its train_step makes gradients only for
    # the embedding rows that are looked up
    model = Recommender(embedding, network, link)
    model.compile(
        optimizer=LazyAdam(rate, l2=settings.embedding_l2),
        loss={task: partial(focal_loss, **focus) for task in tasks},
        loss_weights={task: data.loss_weights[task] for task in tasks},  # 1 or --task-weights
    )
    return model


def train(model, data, settings, seed):
    """One run, from new weights: the TrainingLog, with its validation scores."""
    model.initialize(seed)  # new weights and optimizer state; what is compiled stays
    log = TrainingLog(data, settings.target, verbose=not settings.quiet)
    model.fit(
        model.batches(data.train, settings.batch_size, seed),
        epochs=settings.epochs or data.usual_epochs(settings.batch_size, at_least=2),
        callbacks=[
            # new embeddings each epoch, or they would know the rows of rare ids by heart
            RenewedEmbeddings(seed, keep=settings.keep_embeddings or data.has_few_ids),
            keras.callbacks.TerminateOnNaN(),
            *([] if settings.raw_scores else [CalibratedIntercepts(data)]),
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
