"""Projects with enrichment steps, and a chat model that answers them."""

import json
import re
from collections.abc import Callable
from typing import Any

from resources.platform import Platform
from tests.conftest import MODELS
from tests.fake_openai import FakeOpenAI

PRICE = {"currency": "USD", "input_per_million": 1.0, "output_per_million": 2.0}


def index(name: str = "main", steps: list[dict[str, Any]] | None = None, **settings: Any) -> dict[str, Any]:
    """An index with small chunks and some enrichment steps; other keys of ``enrichment`` by name."""
    top = {key: settings.pop(key) for key in ("sources", "chunker", "embedder", "text_search") if key in settings}
    return {
        "name": name,
        "embedder": "lexical",
        "chunker": {"kind": "markdown", "unit": "characters", "size": 120},
        "enrichment": {"steps": steps or [], **settings},
        **top,
    }


def models(server: FakeOpenAI | None = None, **limits: Any) -> dict[str, Any]:
    """``models.yaml`` with a chat model ``writer`` and an embedding model ``paid`` of the fake server."""
    writer = {
        "name": "writer",
        "provider": "openai",
        "model": "writer-1",
        "parameters": {"max_completion_tokens": 50},
        "limits": {"concurrency": 2, "max_tries": 2, **limits},
        "price": PRICE,
    }
    paid = {
        "name": "paid",
        "provider": "openai",
        "model": "vectors-1",
        "dimensions": 8,
        "batch_size": 4,
        "limits": {"concurrency": 2, "max_tries": 2},
        "price": {"currency": "USD", "input_per_million": 1.0},
    }
    return {
        **MODELS,
        "providers": {**MODELS["providers"], "openai": {"kind": "openai"}},
        "chat": [*MODELS["chat"], writer],
        "embedding": [*MODELS["embedding"], paid],
    }


def with_server(platform: Platform, server: FakeOpenAI) -> Platform:
    """The platform with its OpenAI provider at the fake server."""
    platform.environment.update(server.environment())
    return platform


def passage_of(body: dict[str, Any]) -> str:
    """What stands between the markers of an enrichment request."""
    content = body["messages"][-1]["content"]
    found = re.search(r"<<<passage ([0-9a-f]+)>>>\n(.*)\n<<<end \1>>>", content, re.DOTALL)
    assert found is not None, content
    return found[2]


def answering(make: Callable[[str], Any]) -> Callable[[dict[str, Any]], str]:
    """A chat answer made from the passage of the request, as JSON under the key the request asks for."""

    def answer(body: dict[str, Any]) -> str:
        form = body["messages"][-1]["content"].rpartition("Answer as: ")[2]
        return json.dumps({next(iter(json.loads(form))): make(passage_of(body))})

    return answer
