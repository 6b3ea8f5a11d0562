"""Datasets and experiments for tasks without documents, as files of a project.

Belongs here: inputs written by rule from small word lists, so that every run has the same ones, with one variant planted that
is better. Does not belong here: assertions.
"""

import json
import random
from typing import Any

MODELS: dict[str, Any] = {
    "providers": {"offline": {"kind": "offline"}},
    "embedding": [{"name": "lexical", "provider": "offline", "model": "lexical-hash", "dimensions": 64}],
    "chat": [
        {"name": name, "provider": "offline", "model": name}
        for name in ("extractive", "classifier", "summarizer", "translator", "extractor")
    ],
}

TOPICS: dict[str, list[str]] = {
    "billing": [
        "I was charged twice", "the invoice shows a wrong sum", "my card was debited again", "please refund the fee",
        "the receipt lacks the tax number", "your price went up without notice", "the discount code was not applied",
        "I paid by bank transfer last week", "the subscription renewed by itself", "the amount on the bill is too high",
    ],
    "delivery": [
        "the parcel never arrived", "the courier left it outside", "tracking has not moved for days",
        "the box came damaged", "half of the order is missing", "it was sent to my old address",
        "the shipment is stuck at customs", "nobody rang at the door", "the van came a day late",
        "the package went to a neighbour",
    ],
    "technical": [
        "the app crashes on start", "the screen stays black", "it shows error 502", "the update will not install",
        "sync with my phone fails", "the sensor reports nonsense", "the page loads for ever", "bluetooth does not pair",
        "the battery drains overnight", "the export button does nothing",
    ],
    "account": [
        "I forgot my password", "please change my e-mail", "the login link has expired", "delete my profile for good",
        "I cannot verify my identity", "two-factor codes do not come", "my user name is misspelt",
        "somebody else signed in as me", "merge both of my profiles", "my access was locked",
    ],
}  # fmt: skip
OPENINGS = ["Hello,", "Hi team,", "Good morning,", "Please help:", "Once more:", "To whom it may concern,", "Urgent:"]
PLACES = [
    "in Lyon", "since Tuesday", "on my second try", "for the Zurich office", "as I told Marta", "before the trade fair",
    "on the blue model", "while travelling through Norway", "with three colleagues watching", "after lunch yesterday",
    "during the spring sale", "in the garden shed", "for my grandmother", "on the night train", "near Porto",
]  # fmt: skip
ENDINGS = ["Thank you.", "Regards, Jo", "What now?", "I am waiting.", "Kindly look into it.", "This is the third time."]


def lines(rows: list[dict[str, Any]]) -> str:
    """Rows as a JSON lines file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def splits(train: int, dev: int, test: int) -> list[str]:
    """The split of each row."""
    return ["train"] * train + ["dev"] * dev + ["test"] * test


def tickets(train: int = 40, dev: int = 64, test: int = 40, seed: int = 3) -> list[dict[str, Any]]:
    """Messages to a support team: two complaints about one topic, told in different surroundings."""
    rng = random.Random(seed)
    pairs = {
        label: rng.sample([(a, b) for a in said for b in said if a != b], len(said) * (len(said) - 1))
        for label, said in TOPICS.items()
    }
    rows = []
    for number, split in enumerate(splits(train, dev, test)):
        label = list(TOPICS)[number % len(TOPICS)]
        first, second = pairs[label].pop()
        where, when = rng.sample(PLACES, 2)
        text = f"{rng.choice(OPENINGS)} {first} {where}.\nAlso {second} {when}. {rng.choice(ENDINGS)}"
        rows.append(
            {"id": f"t{number:03d}", "question": text, "answer": label, "split": split, "tags": {"topic": label}}
        )
    return rows


PROMPTS: dict[str, dict[str, Any]] = {
    "bare": {
        "name": "bare",
        "system": "Sort messages to a support team. Labels: {{ labels | join(', ') }}\n"
        "Answer with a JSON object: label, and probabilities of all labels.",
        "user": "{{ input }}\nLabel:",
    },
    "shown": {
        "name": "shown",
        "system": "Sort messages to a support team. Labels: {{ labels | join(', ') }}\n"
        "Answer with a JSON object: label, and probabilities of all labels.",
        "user": "{% for example in examples %}\n{{ example.input }}\nLabel: {{ example.answer }}\n\n{% endfor %}\n"
        "{{ input }}\nLabel:",
    },
}


def triage(**experiment: Any) -> dict[str, Any]:
    """Classification: a prompt with labels alone, against one that is shown examples."""
    return {
        "models.yaml": MODELS,
        "prompts/bare.yaml": PROMPTS["bare"],
        "prompts/shown.yaml": PROMPTS["shown"],
        "evaluation/tickets.yaml": {
            "name": "tickets", "task": "classification", "labels": list(TOPICS), "questions": "tickets.jsonl",
            "sources": [],
        },
        "evaluation/tickets.jsonl": lines(tickets()),
        "experiments/triage.yaml": {
            "name": "triage",
            "dataset": "tickets",
            "grid": {
                "prompt": ["shown"],
                "model": ["classifier"],
                "context": [{"name": "none"}, {"name": "near", "examples": 8, "select": "similar"}],
            },
            "baseline": {"prompt": "shown", "model": "classifier"},
            "resamples": 1000,
            **experiment,
        },
    }  # fmt: skip


SUBJECTS = ["The harbour", "The library", "The tram line", "The bakery", "The museum", "The ferry", "The market hall",
            "The school", "The power plant", "The theatre", "The hospital", "The observatory"]  # fmt: skip
EVENTS = ["was closed for repairs", "opened a second hall", "cut its night service", "won a prize for design",
          "ran out of spare parts", "hired forty apprentices", "lost its licence", "doubled its prices"]  # fmt: skip
CAUSES = ["after a storm broke the roof", "because of a gift from a donor", "since the budget was halved",
          "as the city council had asked", "when two engines failed", "before the summer festival"]  # fmt: skip
ASIDES = ["A visitor from Ghent took pictures.", "The weather was mild.", "Coffee was served in paper cups.",
          "A dog slept near the entrance.", "Somebody had forgotten an umbrella.", "The bells rang at noon.",
          "Children drew with chalk outside.", "A band played two old songs."]  # fmt: skip


def news(train: int = 12, dev: int = 48, test: int = 32, seed: int = 5) -> list[dict[str, Any]]:
    """Reports whose first sentence tells what happened, and is the summary."""
    rng = random.Random(seed)
    facts = rng.sample([(s, e, c) for s in SUBJECTS for e in EVENTS for c in CAUSES], train + dev + test)
    rows = []
    for number, (split, (subject, event, cause)) in enumerate(zip(splits(train, dev, test), facts, strict=True)):
        fact = f"{subject} {event} {cause}."
        reason = f"Those who use {subject.lower()} said that it {event} only {cause}."
        text = "\n".join([fact, *rng.sample(ASIDES, 3), reason])
        rows.append({"id": f"n{number:03d}", "question": text, "answer": fact, "split": split})
    return rows


def summaries() -> dict[str, Any]:
    """Summarization: four sentences, against one."""
    prompts = {
        name: {"name": name, "system": f"Summarise in at most {how}.", "user": "{{ input }}\nSummary:"}
        for name, how in (("long", "four sentences"), ("short", "one sentence"))
    }
    return {
        "models.yaml": MODELS,
        **{f"prompts/{name}.yaml": prompt for name, prompt in prompts.items()},
        "evaluation/news.yaml": {
            "name": "news", "task": "summarization", "questions": "news.jsonl", "sources": [],
        },
        "evaluation/news.jsonl": lines(news()),
        "experiments/summaries.yaml": {
            "name": "summaries",
            "dataset": "news",
            "grid": {"prompt": ["long", "short"], "model": ["summarizer"]},
            "baseline": {"prompt": "long", "model": "summarizer"},
            "resamples": 1000,
        },
    }  # fmt: skip


DICTIONARY = {
    "the": "die", "small": "kleine", "red": "rote", "old": "alte", "new": "neue", "cat": "Katze", "lamp": "Lampe",
    "street": "Straße", "school": "Schule", "clock": "Uhr", "door": "Tür", "bridge": "Brücke", "is": "ist",
    "warm": "warm", "open": "offen", "heavy": "schwer", "clean": "sauber", "loud": "laut", "today": "heute",
    "here": "hier", "very": "sehr", "again": "wieder",
}  # fmt: skip


def phrases(train: int = 0, dev: int = 48, test: int = 32, seed: int = 7) -> list[dict[str, Any]]:
    """English sentences of few words, and their translations word by word; too alike for some to be examples of others."""
    rng = random.Random(seed)
    adjectives, nouns = ["small", "red", "old", "new"], ["cat", "lamp", "street", "school", "clock", "door", "bridge"]
    states, ends = ["warm", "open", "heavy", "clean", "loud"], ["today", "here", "very", "again"]
    every = [(a, n, s, e) for a in adjectives for n in nouns for s in states for e in ends]
    rows = []
    for number, (split, words) in enumerate(
        zip(splits(train, dev, test), rng.sample(every, train + dev + test), strict=True)
    ):
        adjective, noun, state, end = words
        source = ["the", adjective, noun, "is", end, state]
        text = " ".join(source).capitalize() + "."
        target = " ".join(DICTIONARY[word] for word in source)
        rows.append(
            {"id": f"p{number:03d}", "question": text, "answer": target[0].upper() + target[1:] + ".", "split": split}
        )
    return rows


def translations() -> dict[str, Any]:
    """Translation: without help, against a dictionary in the prompt."""
    system = "Translate from {{ languages.from }} to {{ languages.to }}."
    listed = "\n".join(f"{source} = {target}" for source, target in DICTIONARY.items())
    return {
        "models.yaml": MODELS,
        "prompts/plain.yaml": {"name": "plain", "system": system, "user": "{{ input }}\nTranslation:"},
        "prompts/words.yaml": {"name": "words", "system": f"{system}\n{listed}", "user": "{{ input }}\nTranslation:"},
        "evaluation/phrases.yaml": {
            "name": "phrases", "task": "translation", "languages": {"from": "en", "to": "de"},
            "questions": "phrases.jsonl", "sources": [],
        },
        "evaluation/phrases.jsonl": lines(phrases()),
        "experiments/translations.yaml": {
            "name": "translations",
            "dataset": "phrases",
            "grid": {"prompt": ["plain", "words"], "model": ["translator"]},
            "baseline": {"prompt": "plain", "model": "translator"},
            "resamples": 1000,
        },
    }  # fmt: skip


def orders(train: int = 16, dev: int = 48, test: int = 32, seed: int = 11) -> list[dict[str, Any]]:
    """Messages about orders. Where the gate is, only examples tell: nothing about its name says what it looks like."""
    rng = random.Random(seed)
    names = ["Ana Lind", "Tom Weber", "Ines Rocha", "Per Dahl", "Mia Kovac", "Leo Marsh", "Eva Stein", "Jan Bakker"]
    rows = []
    for number, split in enumerate(splits(train, dev, test)):
        order, name = f"A-{rng.randint(10000, 99999)}", rng.choice(names)
        due = f"2026-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}" if rng.random() < 0.8 else None
        gate = rng.choice(["Birch", "Cedar", "Maple", "Willow", "Rowan", "Hazel"])
        when = f"It is due on {due}." if due else "There is no hurry."
        text = f"{rng.choice(OPENINGS)}\nI am {name}. My order {order} goes {rng.choice(PLACES)}. {when}\nUnload at {gate} please."
        answer = {"order_number": order, "due_date": due, "gate": gate}
        rows.append({"id": f"o{number:03d}", "question": text, "answer": answer, "split": split})
    return rows


def fields() -> dict[str, Any]:
    """Extraction: without and with examples."""
    user = "{% for example in examples %}\n{{ example.input }}\nJSON: {{ example.answer }}\n\n{% endfor %}\n{{ input }}\nJSON:"
    return {
        "models.yaml": MODELS,
        "prompts/fields.yaml": {
            "name": "fields",
            "system": "Give a JSON object, null for what the text does not say.\nFields: {{ fields | join(', ') }}",
            "user": user,
        },
        "evaluation/orders.yaml": {
            "name": "orders", "task": "extraction", "fields": ["order_number", "due_date", "gate"],
            "questions": "orders.jsonl", "sources": [],
        },
        "evaluation/orders.jsonl": lines(orders()),
        "experiments/fields.yaml": {
            "name": "fields",
            "dataset": "orders",
            "grid": {
                "prompt": ["fields"],
                "model": ["extractor"],
                "context": [{"name": "none"}, {"name": "four", "examples": 4}],
            },
            "baseline": {"prompt": "fields", "model": "extractor"},
            "resamples": 1000,
        },
    }  # fmt: skip
