"""DeepFM trained with focal loss (Lin et al., ICCV 2017) and cosine annealing with warm restarts (SGDR, ICLR 2017).

    python FocalLoss.py [--user-data user_data] [--target read_comment] [--gamma 0.5] [--cycles 1,1] [--seed 0] [--runs 1]

The network is the one of deepfm.py; `--gamma 0 --cycles ""` with the same epochs is deepfm.py again, to the last digit.
"""
from dataclasses import dataclass
from itertools import chain, repeat
from math import cos, log, pi

from common.command import numbers, setting
from common.experiment import main as run  # before keras: it quiets TensorFlow's start-up
import deepfm
from keras import ops


@dataclass
class Settings(deepfm.Settings):
    gamma: float = setting(0.5, "focusing parameter: how fast the loss of well-classified rows fades")
    alpha: float = setting(-1.0, "weight of the positive class, 1 - alpha that of the negative; -1 for no weights")
    epochs: int = setting(2, "passes over the training rows")
    cycles: str = setting("1,1", 'lengths of the annealing cycles in epochs, such as 1,2,2; "" for no annealing')
    lowest_rate: float = setting(0.0, "learning rate at the end of a cycle")
    raw_scores: bool = setting(False, "leave the scores as focal loss makes them, without mapping them back to probabilities")


def focal_loss(label, logit, gamma, alpha):
    """-alpha_t (1 - p_t)^gamma log p_t of each row, from logits (Lin et al., eq. 5). (batch,), (batch,) -> (batch,).

    p_t is the probability of the row's own class; alpha_t is alpha for positives, 1 - alpha for negatives, 1 if alpha < 0.
    """
    own = (2 * label - 1) * logit  # logit of the row's own class: p_t = sigmoid(own)
    weight = ops.where(label > 0, alpha, 1 - alpha) if alpha >= 0 else 1.0
    return weight * ops.exp(-gamma * ops.softplus(own)) * ops.softplus(-own)


def unfocused(logit, gamma, alpha):
    """The logit of the probability that a focal logit means: focal loss is least there if the row's chance is just that.

    With q = sigmoid(logit) the chance p solves alpha p phi(q) = (1 - alpha) (1 - p) phi(1 - q), phi being minus the slope of
    (1 - q)^gamma log q (Charoenphakdee et al., CVPR 2021, theorem 11). It rises with q, so that no ranking changes. Any shape.
    """
    z = ops.clip(logit, -50, 50)  # beyond, log1p below is at its limit
    p = (gamma + 1) * logit + ops.log1p(gamma * ops.softplus(z) * ops.exp(-z)) - ops.log1p(gamma * ops.softplus(-z) * ops.exp(z))
    return p + log((1 - alpha) / alpha) if 0 < alpha < 1 else p


def annealed(epochs, cycles, highest, lowest):
    """Learning rate after `epochs` epochs (a float): in each cycle half a cosine from highest to lowest (SGDR, eq. 5).

    cycles: their lengths in epochs; the last one repeats.
    """
    lengths = chain(cycles, repeat(cycles[-1]))
    length = next(lengths)
    while epochs >= length:  # a new cycle starts hot again
        epochs -= length
        length = next(lengths)
    return lowest + (highest - lowest) * (1 + cos(pi * epochs / length)) / 2


def loss(settings):
    return lambda label, logit: focal_loss(label, logit, settings.gamma, settings.alpha)


def link(settings):
    return (lambda logit: logit) if settings.raw_scores else lambda logit: unfocused(logit, settings.gamma, settings.alpha)


def schedule(settings):
    cycles = numbers(settings.cycles)
    if not cycles:
        return lambda epochs: settings.learning_rate
    return lambda epochs: annealed(epochs, cycles, settings.learning_rate, settings.lowest_rate)


def main(argv=None):
    return run(deepfm.build, Settings, __doc__, argv, multi_task=False, loss=loss, link=link, schedule=schedule)


if __name__ == "__main__":
    main()
