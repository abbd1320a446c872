"""PLE: Progressive Layered Extraction, all tasks at once (Tang et al., RecSys 2020).

    python ple.py [--user-data user_data] [--seed 0] [--runs 1]
"""
from dataclasses import dataclass

from common.command import RunSettings, numbers, setting
from common.experiment import main as run  # before keras: it quiets TensorFlow's start-up
from common.dropout import Dropout
from common.embedding import FeatureEmbedding
from common.pickles import InputError
import keras
import numpy as np
from keras import layers, ops

FEATURES = (
    "userid,feedid,device,authorid,bgm_song_id,bgm_singer_id,manual_tag_list,manual_keyword_list,"
    "user_history,feed_history,author_history,user_watch_time,feed_watch_time,author_watch_time,user_taste,"
    "user_cooccurrence,feed_cooccurrence"
)

SHARED = "shared"  # stands beside the tasks for what the shared experts take and give


@dataclass
class Settings(RunSettings):
    features: str = setting(FEATURES, "features to use, separated by commas")
    embedding_dim: int = setting(16, "length of an embedding")
    hidden: str = setting("", "widths of the layers between the embeddings and the experts")
    own_experts: str = setting("2", "experts of each task's own, one number for all or one a task, such as 2,3,2,2")
    shared_experts: int = setting(2, "experts shared by all tasks")
    levels: int = setting(1, "extraction levels; one is the paper's CGC")
    expert_dim: int = setting(32, "width of an expert")
    tower: str = setting("32", "widths of the layers of a task's tower")
    embedding_l2: float = setting(0.0, "L2 penalty on the embeddings that a batch looks up")
    dropout: float = setting(0.1, "share of hidden units left out in training")
    learning_rate: float = setting(0.001, "Adam's learning rate")
    batch_size: int = setting(1024, "rows a step")
    epochs: int = setting(1, "passes over the training rows")
    keep_embeddings: bool = setting(False, "go on with the embeddings of the epoch before instead of new ones")


def experts(x, n, dim):
    """n experts of one layer, drawn independently, as one wide layer. (batch, width) -> (batch, n, dim).

    The ReLU stands behind the Reshape since XLA then works on whole experts, which makes a step a tenth faster.
    """
    return layers.ReLU()(layers.Reshape((n, dim))(layers.Dense(n * dim, kernel_initializer="he_uniform")(x)))


def mixed(gate, groups):
    """Sum of g_i f_i over the experts of all groups (eq. 1), none copied. (batch, n of all), [(batch, n, dim)] -> (batch, dim)."""
    ends = np.cumsum([outputs.shape[1] for outputs in groups])
    weights = ops.split(ops.expand_dims(gate, -1), ends[:-1].tolist(), axis=1)
    return sum(ops.sum(g * outputs, axis=1) for g, outputs in zip(weights, groups))


def gate_logits(inputs, sizes, level):
    """A linear map of each gate's input, {who: (batch, its experts)}, to take the softmax of (eq. 2)."""
    if level:
        return {who: layers.Dense(n, use_bias=False)(inputs[who]) for who, n in sizes.items()}
    together = layers.Dense(sum(sizes.values()), use_bias=False)(inputs[SHARED])
    ends = np.cumsum([*sizes.values()]).tolist()
    return {who: together[:, end - n : end] for (who, n), end in zip(sizes.items(), ends)}  # the first level's read the same


def own_experts(tasks, settings):
    """{task: number of experts of its own}."""
    n_own = numbers(settings.own_experts)
    if len(n_own) not in (1, len(tasks)):
        raise InputError(f"--own-experts {settings.own_experts} names {len(n_own)} tasks and there are {len(tasks)}: {', '.join(tasks)}.")
    return dict(zip(tasks, n_own * len(tasks) if len(n_own) == 1 else n_own))


def build(data, tasks, settings):
    """A logit a task: (FeatureEmbedding, keras.Model)."""
    embed = FeatureEmbedding.of(data, settings.features.split(","), settings.embedding_dim)
    vectors, dense = embed.symbols()
    x = layers.Concatenate()([layers.Flatten()(vectors), dense])
    for width in numbers(settings.hidden):
        x = Dropout(settings.dropout)(layers.Dense(width, "relu")(x))

    n_own = own_experts(tasks, settings)
    inputs = dict.fromkeys([*tasks, SHARED], x)
    for level in range(settings.levels):
        shared = experts(inputs[SHARED], settings.shared_experts, settings.expert_dim)
        own = {task: experts(inputs[task], n_own[task], settings.expert_dim) for task in tasks}
        seen = {task: [own[task], shared] for task in tasks}
        if level < settings.levels - 1:  # after the last level nothing would read what the shared gate gives
            seen[SHARED] = [*own.values(), shared]
        before = gate_logits(inputs, {who: sum(outputs.shape[1] for outputs in groups) for who, groups in seen.items()}, level)
        inputs = {who: mixed(layers.Softmax(name=f"gate_{level + 1}_{who}")(before[who]), groups) for who, groups in seen.items()}

    first = layers.Dense(len(tasks), use_bias=False, kernel_initializer="zeros", name="first_order")(dense)  # (batch, tasks)
    logits = {}
    for i, task in enumerate(tasks):
        y = Dropout(settings.dropout)(inputs[task])
        for width in numbers(settings.tower):
            y = layers.Dense(width, "relu")(y)
        y = layers.Dense(1, name=task, bias_initializer=keras.initializers.Constant(data.log_odds(task)))(y)
        logits[task] = first[:, i : i + 1] + y
    return embed, keras.Model([vectors, dense], logits)


def gates(tasks, settings):
    """What each task's gate of the last level weighs."""
    shared = [f"shared {i + 1}" for i in range(settings.shared_experts)]
    own = own_experts(tasks, settings)
    return {f"gate_{settings.levels}_{task}": [f"own {i + 1}" for i in range(own[task])] + shared for task in tasks}


def main(argv=None):
    return run(build, Settings, __doc__, argv, gates=gates)


if __name__ == "__main__":
    main()
