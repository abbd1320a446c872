"""DeepFM: a factorization machine and a network on the same embeddings, one task (Guo et al., IJCAI 2017).

    python deepfm.py [--user-data user_data] [--target read_comment] [--seed 0] [--runs 1]
"""
from dataclasses import dataclass

from common.training import RunSettings, main as run, numbers, setting  # before keras: it quiets TensorFlow's start-up
from common.embedding import FeatureEmbedding
import keras
from keras import layers, ops

FEATURES = (
    "userid,feedid,device,authorid,bgm_song_id,bgm_singer_id,manual_tag_list,manual_keyword_list,machine_tag_list,"
    "machine_keyword_list,videoplayseconds,feed_embedding,user_history,feed_history,author_history"
)


@dataclass
class Settings(RunSettings):
    features: str = setting(FEATURES, "features to use, separated by commas")
    embedding_dim: int = setting(16, "length of a factor vector")
    hidden: str = setting("128,64", "widths of the network's layers")
    dropout: float = setting(0.1, "share of hidden units left out in training")
    learning_rate: float = setting(0.001, "Adam's learning rate")
    batch_size: int = setting(2048, "rows a step")
    epochs: int = setting(1, "passes over the training rows")


def second_order(factors):
    """Sum over i < j of <v_i x_i, v_j x_j>, in O(n k): half of (sum)^2 - sum of squares (Rendle, ICDM 2010, lemma 3.1).

    factors: (batch, n, k), the v_i x_i. Returns (batch, 1).
    """
    return 0.5 * ops.sum(ops.square(ops.sum(factors, axis=1)) - ops.sum(ops.square(factors), axis=1), axis=1, keepdims=True)


def build(data, tasks, settings):
    """One logit, w0 + first-order + second-order + network: (FeatureEmbedding, keras.Model)."""
    (task,) = tasks
    embed = FeatureEmbedding.of(data, settings.features.split(","), settings.embedding_dim + 1)
    vectors, dense = embed.symbols()
    w, v = vectors[:, :, :1], vectors[:, :, 1:]  # the first number is the weight w_i of the id, the others its factor v_i

    first = layers.Dense(1, name="w0", bias_initializer=keras.initializers.Constant(data.log_odds(task)))(dense)
    first = first + ops.sum(w, axis=1)
    factors = layers.EinsumDense("bn,nk->bnk", (dense.shape[1], settings.embedding_dim), name="dense_factors")(dense)
    second = second_order(ops.concatenate([v, factors], axis=1))

    x = layers.Concatenate()([layers.Flatten()(v), dense])
    for width in numbers(settings.hidden):
        x = layers.Dropout(settings.dropout)(layers.Dense(width, "relu")(x))
    return embed, keras.Model([vectors, dense], {task: first + second + layers.Dense(1, use_bias=False)(x)})


def main(argv=None):
    return run(build, Settings, __doc__, argv, multi_task=False)


if __name__ == "__main__":
    main()
