"""A small product catalogue with questions, for tests that run an experiment on the real stages.

Belongs here: files of a data directory in which the prompt with a refusal beats the one without.
Does not belong here: running stages (tests/lifecycle.py) and assertions.
"""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from resources.platform import Platform
from tests.lifecycle import build_dataset, refresh

PRODUCTS = [
    "anvil", "barrel", "candle", "drum", "engine", "funnel", "girder", "hammer", "inkwell", "jack", "kettle", "ladder",
    "mortar", "needle", "oven", "pulley",
]  # fmt: skip
ELSEWHERE = [
    "Who composed the opera Fidelio?", "Which river crosses Vienna?", "When did Mozart travel to Prague?",
    "How deep is Lake Baikal?", "Why do cats purr at night?", "Which moon circles Neptune backwards?",
    "Who painted sunflowers in Arles?", "Where do eels spawn?", "What language was spoken in Carthage?",
    "Which treaty ended the Crimean war?", "How fast can cheetahs sprint?", "Who translated Homer into Latin?",
    "Why is seawater salty?", "Which glacier feeds the Rhone?", "When was Esperanto invented?", "Who discovered helium?",
]  # fmt: skip
USER = "{% for passage in passages %}\n[{{ passage.number }}] {{ passage.document }}\n{{ passage.text }}\n\n{% endfor %}\nQuestion: {{ question }}\n"
GUARDED = (
    "Answer with the exact words of the passage that answer the question and nothing else, then its number, such as [1]. "
    'If the passages do not contain the answer, reply exactly: "{{ refusal }}"'
)
UNGUARDED = "Answer the question from the numbered passages and cite them, such as [1]."


def sentence(product: str) -> str:
    """The only sentence of a product's document."""
    return f"The {product} weighs {10 + PRODUCTS.index(product)} kilograms and is painted in shade {product[::-1]}."


def write_documents(folder: Path) -> None:
    """One Markdown file per product."""
    folder.mkdir(parents=True, exist_ok=True)
    for product in PRODUCTS:
        (folder / f"{product}.md").write_text(f"# {product.title()}\n\n{sentence(product)}\n", encoding="utf-8")


def questions() -> str:
    """Question file: ten answerable and ten unanswerable questions to choose by, six and six held back."""
    lines: list[dict[str, Any]] = []
    for number, product in enumerate(PRODUCTS):
        split = "dev" if number < 10 else "test"
        lines.append(
            {
                "id": f"weight-{product}",
                "question": f"How many kilograms does the {product} weigh?",
                "answer": f"{10 + number} kilograms",
                "evidence": [{"document": f"docs/{product}.md", "quote": sentence(product)}],
                "split": split,
            }
        )
        lines.append(
            {"id": f"else-{number}", "question": ELSEWHERE[number], "answer": None, "evidence": [], "split": split}
        )
    return "".join(json.dumps(line) + "\n" for line in lines)


def files(**experiment: Any) -> dict[str, Any]:
    """Configuration for ``make_platform``: experiment ``catalogue`` with four variants over ``docs``."""
    return {
        "prompts/guarded.yaml": {"name": "guarded", "system": GUARDED, "user": USER},
        "prompts/unguarded.yaml": {"name": "unguarded", "system": UNGUARDED, "user": USER},
        "evaluation/products.yaml": {"name": "products", "questions": "products.jsonl", "sources": ["docs"]},
        "evaluation/products.jsonl": questions(),
        "experiments/catalogue.yaml": {
            "name": "catalogue",
            "dataset": "products",
            "grid": {
                "index": ["main"],
                "prompt": ["guarded", "unguarded"],
                "search_mode": ["hybrid"],
                "k": [1, 2],
                "model": ["extractive"],
            },
            "baseline": {
                "index": "main", "prompt": "unguarded", "search_mode": "hybrid", "k": 1, "model": "extractive",
            },
            "resamples": 2000,
            **experiment,
        },
    }  # fmt: skip


def load(platform: Platform, instance: dg.DagsterInstance) -> None:
    """Bring documents, index and dataset up to date."""
    refresh(platform, "docs", instance)
    build_dataset(platform, "products", instance)
