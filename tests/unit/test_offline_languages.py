"""The extractive answerer in other languages than English: examples of each, and floors on XQuAD."""

import json
import random
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from resources.offline_extractive import answer
from resources.offline_languages import ENGLISH, LANGUAGES, language_of

REFUSAL = "NO."
SYSTEM = f'Answer in one sentence. If you do not know, reply exactly: "{REFUSAL}"'
EXAMPLES = {
    "de": (
        "Wann wurde die Brücke gebaut?",
        "Die alte Brücke wurde 1903 gebaut. Sie ist 40 m lang. Der Markt steht daneben.",
        "Die alte Brücke wurde 1903 gebaut.",
    ),
    "es": (
        "¿Cuántos kilómetros dura la cadena?",
        "El timbre suena fuerte. La cadena dura 3000 kilómetros. El freno es rojo.",
        "La cadena dura 3000 kilómetros.",
    ),
    "fr": (
        "Combien de jours la livraison prend-elle ?",
        "Le magasin ouvre tôt. La livraison prend cinq jours. Le retour est gratuit.",
        "La livraison prend cinq jours.",
    ),
    "tr": (
        "Köprü ne zaman yapıldı?",
        "Pazar yanında durur. Eski köprü 1903 yılında yapıldı. Uzunluğu kırk metredir.",
        "Eski köprü 1903 yılında yapıldı.",
    ),
    "ru": (
        "Когда построили мост?",
        "Рынок стоит рядом. Старый мост построили в 1903 году. Его длина сорок метров.",
        "Старый мост построили в 1903 году.",
    ),
    "ar": (
        "متى بني الجسر القديم؟",
        "يقع السوق بجانبه. بني الجسر القديم في عام 1903. طوله أربعون مترا.",
        "بني الجسر القديم في عام 1903.",
    ),
    "hi": ("पुराना पुल कब बना था?", "बाज़ार पास में है। पुराना पुल 1903 में बना था। यह लंबा है।", "पुराना पुल 1903 में बना था।"),
    "zh": ("旧桥是哪一年建成的？", "市场在旁边。旧桥建成于1903年。桥长四十米。", "旧桥建成于1903年。"),
}


def ask(question: str, *texts: str, system: str = SYSTEM) -> str:
    passages = [
        f"[{number}] d\n" + "\n".join(f"> {line}" for line in text.split("\n")) for number, text in enumerate(texts, 1)
    ]
    user = "\n\n".join([*passages, f"Question: {question}"])
    return answer([{"role": "system", "content": system}, {"role": "user", "content": user}])


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_sentence_that_answers_is_given(code: str) -> None:
    question, text, expected = EXAMPLES[code]
    assert language_of(question) is LANGUAGES[code]
    assert ask(question, text) == f"{expected} [1]"


@pytest.mark.parametrize("code", EXAMPLES)
def test_another_languages_passage_is_no_answer(code: str) -> None:
    question, _, _ = EXAMPLES[code]
    others = [text for other, (_, text, _) in EXAMPLES.items() if other != code]
    assert ask(question, *others) == REFUSAL


def test_a_span_without_spaces_is_cut_out() -> None:
    question, text, _ = EXAMPLES["zh"]
    assert ask(question, text, system="Give the exact words.") == "1903 [1]"


@pytest.mark.parametrize("question", ["", "?", "1903", "kW", "What is the torque of die 3?", "Was it a man or a war?"])
def test_nothing_speaks_against_english(question: str) -> None:
    assert language_of(question) is ENGLISH


@pytest.fixture(scope="module")
def questions(shared_data: Path) -> dict[str, list[tuple[str, list[str], list[str], list[str]]]]:
    """By language: (question, answers, paragraphs with the answer among them, paragraphs without) of the half that
    nothing was chosen on."""
    rows: dict[str, list[Any]] = {}
    for name in ("paragraphs", "questions"):
        lines = (shared_data / "xquad" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows[name] = [json.loads(line) for line in lines]
    texts = {row["paragraph_id"]: row["text"] for row in rows["paragraphs"]}
    articles: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows["paragraphs"]:
        articles[(row["lang"], row["article"])].append(row["paragraph_id"])
    article_of = {key: name for name, keys in articles.items() for key in keys}
    chance = random.Random(5)
    found: dict[str, list[tuple[str, list[str], list[str], list[str]]]] = defaultdict(list)
    for row in rows["questions"]:
        key, language = row["paragraph_id"], row["lang"]
        if zlib.crc32(key.removesuffix(f".{language}").encode()) % 2 == 0 or len(found[language]) == 120:
            continue
        others = [other for other in articles[article_of[key]] if other != key]
        chance.shuffle(others)
        shown = [key, *others[:4]]
        chance.shuffle(shown)
        answers = [one["text"] for one in row["answers"]]
        found[language].append(
            (row["question"], answers, [texts[one] for one in shown], [texts[o] for o in others[:5]])
        )
    return found


@pytest.mark.parametrize("language", ["en", "es", "de", "ru", "zh", "ar", "hi", "tr"])
def test_answers_and_refusals_on_xquad(questions: dict[str, list[Any]], language: str) -> None:
    asked = questions[language]
    given = [(ask(question, *shown), answers) for question, answers, shown, _ in asked]
    right = sum(any(one in said for one in answers) for said, answers in given) / len(asked)
    refused = sum(ask(question, *without) == REFUSAL for question, _, _, without in asked) / len(asked)
    print(f"{language}: {right:.3f} right, {refused:.3f} refused without the paragraph")
    assert right > 0.4, "0.50 (hi) to 0.69 (en) were measured; two standard errors below"
    assert refused > 0.8, "0.88 to 0.97 were measured"
    known = sum(language_of(question) is LANGUAGES.get(language, ENGLISH) for question, *_ in asked)
    assert known > 0.8 * len(asked), "the language of a question is mistaken too often"
