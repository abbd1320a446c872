"""MMOE: Multi-gate Mixture-of-Experts, all tasks at once (Ma et al., KDD 2018).

    python mmoe.py [--user-data user_data] [--seed 0] [--runs 1]
"""
from dataclasses import dataclass

from common.command import RunSettings, numbers, setting
from common.experiment import main as run  # before keras: it quiets TensorFlow's start-up
from common.dropout import Dropout
from common.embedding import FeatureEmbedding
import keras
from keras import layers, ops

FEATURES = (
    "userid,feedid,device,authorid,bgm_song_id,bgm_singer_id,manual_tag_list,manual_keyword_list,"
    "user_history,feed_history,author_history,user_watch_time,feed_watch_time,author_watch_time,user_taste,"
    "user_cooccurrence,feed_cooccurrence"
)


@dataclass
class Settings(RunSettings):
    features: str = setting(FEATURES, "features to use, separated by commas")
    embedding_dim: int = setting(16, "length of an embedding")
    hidden: str = setting("", "widths of the layers between the embeddings and the experts")
    experts: int = setting(8, "number of experts, shared by all tasks")
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


def mixed(gate, outputs):
    """Sum of g_i f_i over the experts (eq. 6). (batch, n), (batch, n, dim) -> (batch, dim)."""
    return ops.sum(ops.expand_dims(gate, -1) * outputs, axis=1)


def build(data, tasks, settings):
    """A logit a task: (FeatureEmbedding, keras.Model)."""
    embed = FeatureEmbedding.of(data, settings.features.split(","), settings.embedding_dim)
    vectors, dense = embed.symbols()
    x = layers.Concatenate()([layers.Flatten()(vectors), dense])
    for width in numbers(settings.hidden):
        x = Dropout(settings.dropout)(layers.Dense(width, "relu")(x))

    shared = experts(x, settings.experts, settings.expert_dim)
    gate_logits = layers.Reshape((len(tasks), settings.experts))(layers.Dense(len(tasks) * settings.experts, use_bias=False, name="gates")(x))
    first = layers.Dense(len(tasks), use_bias=False, kernel_initializer="zeros", name="first_order")(dense)  # (batch, tasks)
    logits = {}
    for i, task in enumerate(tasks):
        gate = layers.Softmax(name=f"gate_{task}")(gate_logits[:, i])  # eq. 7: the softmax of a linear map of x, (batch, experts)
        y = Dropout(settings.dropout)(mixed(gate, shared))
        for width in numbers(settings.tower):
            y = layers.Dense(width, "relu")(y)
        y = layers.Dense(1, name=task, bias_initializer=keras.initializers.Constant(data.log_odds(task)))(y)
        logits[task] = first[:, i : i + 1] + y
    return embed, keras.Model([vectors, dense], logits)


def gates(tasks, settings):
    """What each task's gate weighs."""
    return {f"gate_{task}": [f"expert {i + 1}" for i in range(settings.experts)] for task in tasks}


def main(argv=None):
    return run(build, Settings, __doc__, argv, gates=gates)


if __name__ == "__main__":
    main()
