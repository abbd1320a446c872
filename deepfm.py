"""DeepFM: a factorization machine and a network on the same embeddings, one task (Guo et al., IJCAI 2017).

    python deepfm.py [--user-data user_data] [--target read_comment] [--seed 0] [--runs 1]
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
    embedding_dim: int = setting(16, "length of a factor vector")
    hidden: str = setting("128,64", "widths of the network's layers")
    embedding_l2: float = setting(0.001, "L2 penalty on the embeddings that a batch looks up")
    dropout: float = setting(0.3, "share of hidden units left out in training")
    learning_rate: float = setting(0.001, "Adam's learning rate")
    batch_size: int = setting(1024, "rows a step")
    epochs: int = setting(1, "passes over the training rows")
    keep_embeddings: bool = setting(False, "go on with the embeddings of the epoch before instead of new ones")


@keras.saving.register_keras_serializable("multitask")
class Factors(layers.Layer):
    """A factor v_i for each dense value x_i: sum of v_i x_i and sum of (v_i x_i)^2. (batch, n) -> 2 x (batch, k)."""

    def __init__(self, k, **kwargs):
        super().__init__(**kwargs)
        self.k = k

    def build(self, shape):
        self.v = self.add_weight((shape[-1], self.k), keras.initializers.RandomNormal(stddev=0.01), name="v")

    def call(self, x):
        return ops.matmul(x, self.v), ops.matmul(ops.square(x), ops.square(self.v))

    def get_config(self):
        return {**super().get_config(), "k": self.k}


def second_order(total, squares):
    """Sum over i < j of <v_i x_i, v_j x_j>, in O(n k), as half of (sum)^2 - sum of squares (Rendle, ICDM 2010, lemma 3.1).

    total, squares: (batch, k), the sums over i of v_i x_i and of its elementwise square. Returns (batch, 1).
    """
    return 0.5 * ops.sum(ops.square(total) - squares, axis=1, keepdims=True)


def build(data, tasks, settings):
    """One logit, w0 + first-order + second-order + network: (FeatureEmbedding, keras.Model)."""
    (task,) = tasks
    embed = FeatureEmbedding.of(data, settings.features.split(","), settings.embedding_dim + 1)
    vectors, dense = embed.symbols()
    w, v = vectors[:, :, :1], vectors[:, :, 1:]  # the first number is the weight w_i of the id, the others its factor v_i

    first = layers.Dense(1, name="w0", kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(data.log_odds(task)))(dense)
    first = first + ops.sum(w, axis=1)
    total, squares = Factors(settings.embedding_dim)(dense)
    second = second_order(ops.sum(v, axis=1) + total, ops.sum(ops.square(v), axis=1) + squares)

    x = layers.Concatenate()([layers.Flatten()(v), dense])
    for width in numbers(settings.hidden):
        x = Dropout(settings.dropout)(layers.Dense(width, "relu")(x))
    return embed, keras.Model([vectors, dense], {task: first + second + layers.Dense(1, use_bias=False)(x)})


def main(argv=None):
    return run(build, Settings, __doc__, argv, multi_task=False)


if __name__ == "__main__":
    main()
