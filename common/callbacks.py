"""What goes on beside the steps of `fit`: new embeddings, intercepts, scores, lines.

Keras's own callbacks work beside them.
"""

import time
from pathlib import Path

import common.backend  # noqa: F401
from common.command import InputError, bar
from common.scores import mean_and_spread, mean_auc, score_tasks

import keras
import numpy as np
from scipy.special import expit


class RenewedEmbeddings(keras.callbacks.Callback):
    """New embeddings at the start of each epoch but the first; the network stays as it is.

    What lets a network overfit from its second epoch on is the embeddings of rare ids, which know
    the rows that they have seen by heart, and a network that learned to believe them (Zhang et al.,
    CIKM 2022). With new ones each epoch sees its rows as if for the first time (multi-epoch
    learning, MEDA: Liu et al., 2023).
    """

    def __init__(self, seed, keep=False):
        """keep: whether to go on with the embeddings of the epoch before all the same."""
        super().__init__()
        self.seed = seed
        self.keep = keep

    def on_epoch_begin(self, epoch, logs=None):
        step = int(self.model.optimizer.iterations) % self.params["steps"]
        fixed = self.keep or not self.model.embedding.trainable
        if epoch and step == 0 and not fixed:  # not where an epoch is gone on with
            self.model.renew_embeddings(1000 * self.seed + epoch)


class CalibratedIntercepts(keras.callbacks.Callback):
    """Sets the model's intercepts after each epoch: the mean prediction is the share of positives.

    That holds of the training rows, whose mean prediction a sample of them tells, as it does where
    the loss of a logistic regression is least (calibration in the large: Steyerberg, Clinical
    Prediction Models, ch. 15). A network trained at a constant rate ends a tenth above or below, as
    its last steps happen to leave it. No ranking changes, but that rounding may tie two scores. It
    stands before TrainingLog, whose scores have it.
    """

    def __init__(self, data):
        """data: a Data, of whose training rows the sample is scored."""
        super().__init__()
        self.data = data

    def on_epoch_end(self, epoch, logs=None):
        if not np.isfinite((logs or {}).get("loss", np.nan)):
            return  # TrainingLog says why
        for task, logits in self.model.logits(self.data.sample).items():
            change = intercept(logits, self.data.log_odds(task))
            self.model.intercepts[task].assign_add(change)


def intercept(logits, log_odds):
    """What to add to logits (rows,) so that their mean probability has these log odds."""
    logits = np.asarray(logits, np.float64)
    low, high = log_odds - logits.max(), log_odds - logits.min()  # the answer is between
    for _ in range(30):  # by halves: SciPy's brentq takes half a second to import
        middle = (low + high) / 2
        above = np.mean(expit(logits + middle)) > expit(log_odds)
        low, high = (low, middle) if above else (middle, high)
    return middle


class TrainingLog(keras.callbacks.Callback):
    """How training goes: losses every few steps, exact validation scores after each epoch.

    losses: [(epochs done, mean loss since the last)]. scores: [(epoch, {task: scores})]. kept: the
    epoch whose weights the model has in the end, None for the last. seconds: what the steps took.
    It prints a line an epoch, and adds `val_auc`, the mean over the tasks, `val_TASK_auc` and so on
    to Keras's logs, for the callbacks that come after it.
    """

    def __init__(self, data, target, verbose=1):
        """data: a Data, whose validation rows are scored; target: the line's task, "" for usual."""
        super().__init__()
        self.data = data
        self.rows = data.valid or data.first_rows  # where every day is trained on, none validates
        self.target = target or data.first_task
        self.verbose = verbose
        self.losses = []
        self.scores = []
        self.kept = None
        self.seconds = 0.0

    @property
    def final_scores(self):
        """{task: scores} of the model as it is in the end."""
        return dict(self.scores).get(self.kept, self.scores[-1][1])

    def on_epoch_begin(self, epoch, logs=None):
        self.first_step = self.steps_done()
        self.total = 0.0  # of the losses of this epoch's steps
        self.seconds_before = self.seconds
        about = f"epoch {epoch + 1}/{self.params['epochs']}"
        self.bar = bar(about, total=self.params["steps"], shown=self.verbose)
        self.bar.update(self.first_step - epoch * self.params["steps"])

    def on_train_batch_begin(self, batch, logs=None):
        self.now = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds += time.perf_counter() - self.now
        steps = self.steps_done()
        before = round(self.losses[-1][0] * self.params["steps"]) if self.losses else 0
        total = logs["loss"] * (steps - self.first_step)
        self.losses.append((steps / self.params["steps"], (total - self.total) / (steps - before)))
        self.total = total
        self.bar.update(steps - before)

    def on_epoch_end(self, epoch, logs=None):
        self.bar.close()
        if "loss" not in logs:  # what Keras takes for the end of the data is XLA that cannot write
            place = f"{self.data.folder}/.compiled"
            raise InputError(f"{place}: no program could be written: make room on the disk.")
        if not np.isfinite(logs["loss"]):
            told = f"the loss is {logs['loss']} in epoch {epoch + 1}"
            raise InputError(f"{told}: lower --learning-rate.")
        logits = self.model.logits(self.rows)
        if not all(np.isfinite(values).all() for values in logits.values()):
            flags = "--learning-rate or --embedding-l2"
            raise InputError(f"the logits are no numbers after epoch {epoch + 1}: lower {flags}.")
        valid = self.data.valid
        scores = score_tasks(valid, logits, self.data.groups_of(self.data.valid)) if valid else {}
        self.scores.append((epoch + 1, scores))
        logs |= {"val_auc": mean_auc(scores)} if scores else {}
        for task in scores:
            logs |= {f"val_{task}_{name}": value for name, value in scores[task].items()}
        if self.verbose:
            print(self.line(epoch, scores), flush=True)

    def line(self, epoch, scores):
        """What is printed of an epoch, counted from 0."""
        ends, losses = map(np.array, zip(*self.losses, strict=True))
        inside = (ends > epoch) & (ends <= epoch + 1)
        loss = np.average(losses[inside], weights=np.diff(ends, prepend=0)[inside])
        parts = [f"epoch {epoch + 1}/{self.params['epochs']}", f"loss {loss:.5f}"]
        task = self.target if self.target in scores else next(iter(scores), None)
        row = scores.get(task, {})
        aucs = [f"{name} {mean_and_spread([row[name]])}" for name in ("auc", "uauc") if name in row]
        parts += [f"{task} {'  '.join(aucs)}"] if aucs else []
        rows = (self.steps_done() - self.first_step) * self.model.rows_a_step
        parts.append(f"{rows / max(self.seconds - self.seconds_before, 1e-9):,.0f} rows/s")
        return "  ".join(parts)

    def steps_done(self):
        """Steps since the first epoch began."""
        return int(self.model.optimizer.iterations)


def tensorboard(settings, run):
    """Keras's TensorBoard callback, in a folder named after the run. Raises InputError."""
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise InputError("--tensorboard needs a package: pip install tensorboard.") from None
    folder = Path(settings.user_data) / "tensorboard" / run
    return keras.callbacks.TensorBoard(folder, update_freq="epoch")
