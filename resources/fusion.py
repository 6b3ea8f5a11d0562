"""Fusion: which weights make one ranking of the vector list and the text list.

Belongs here: the fusion of a search as it is handed to vector_index.py, and the weights used when none are configured.
Does not belong here: computing it (the statement in vector_index.py), and choosing weights on data (tuning.py).
"""

from dataclasses import dataclass
from typing import Literal

from resources.index_config import FusionConfig

#: Share of the vector list when the configuration names no weights, chosen on the dev halves of SciFact and SQuAD 2.0
#: together and confirmed on the other halves (docs/search.md): of a model that knows meanings, and of the built-in
#: lexical-hash, which knows little that BM25 does not.
SEMANTIC_SHARE = 0.4
LEXICAL_SHARE = 0.15


@dataclass(frozen=True)
class Fusion:
    """How two ranked lists become one.

    ``weighted`` is a convex combination of scores that need no list to be scaled (after Bruch, Gai and Ingber, ACM
    TOIS 2023): vector_weight * cosine + text_weight * BM25 / ideal, where ideal is what a chunk would get that had
    every word of the question without limit. ``rrf`` is the weighted sum of 1 / (k + rank) (Cormack, Clarke and
    Büttcher, SIGIR 2009).

    Attributes:
        vector_weight: of the vector list; with ``weighted`` the two weights sum to 1.
        k: constant of reciprocal ranks.
    """

    method: Literal["weighted", "rrf"] = "weighted"
    vector_weight: float = SEMANTIC_SHARE
    text_weight: float = 1 - SEMANTIC_SHARE
    k: int = 60

    def to_config(self) -> FusionConfig:
        """The same as a configuration with its weights written out."""
        return FusionConfig(
            method=self.method, vector_weight=self.vector_weight, text_weight=self.text_weight, rrf_k=self.k
        )


def resolve_fusion(config: FusionConfig, *, lexical: bool) -> Fusion:
    """The fusion a configuration asks for.

    Args:
        lexical: the embedding model is the built-in one that compares words.
    """
    share = LEXICAL_SHARE if lexical else SEMANTIC_SHARE
    vector, text = config.vector_weight, config.text_weight
    if vector is None or text is None:
        vector, text = share, 1 - share
    if config.method == "weighted":
        total = vector + text
        vector, text = vector / total, text / total
    return Fusion(config.method, vector, text, config.rrf_k)
