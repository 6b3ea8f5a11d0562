"""The shape of ``policies/*.yaml``: what may enter, what blocks, what is kept, what counts as drift.

Belongs here: one model per file. Does not belong here: the judgements made by them (each stage's checks.py).
"""

import difflib
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from resources.config_base import Strict


class CorpusPolicy(Strict):
    """``policies/corpus.yaml``: what may enter, and what blocks a refresh."""

    maximum_bytes: int = Field(default=50_000_000, ge=1)
    minimum_characters: int = Field(default=1, ge=0)
    allowed_licences: list[str] | Literal["any"] = "any"
    maximum_document_drop: float = Field(default=0.3, ge=0, le=1, description="Larger drop blocks the refresh.")
    maximum_quarantine_share: float = Field(default=0.2, ge=0, le=1)


class IndexPolicy(Strict):
    """``policies/index.yaml``: the gates before a snapshot and how long snapshots live."""

    minimum_recall_at_10: float = Field(default=0.95, ge=0, le=1)
    minimum_self_retrieval: float = Field(default=0.95, ge=0, le=1)
    sample_size: int = Field(default=100, ge=1)
    keep_snapshots: int = Field(default=10, ge=1)
    keep_days: int = Field(default=30, ge=0)
    rebuild_share: float = Field(default=0.3, ge=0, le=1, description="A larger delta is loaded as a new build.")
    compact_dead_share: float = Field(default=0.5, ge=0, le=1)
    freshness_hours: int = Field(default=36, ge=1)
    unconfigured_days: int = Field(
        default=14, ge=0, description="An index that left the configuration so long ago is removed."
    )
    graph_memory_mb: int = Field(default=4096, ge=64, description="Most memory one graph build asks the server for.")


class DriftPolicy(Strict):
    """``policies/drift.yaml``: reference, tests and verdict."""

    reference_days: int = Field(default=7, ge=1, description="Compare with the newest snapshot at least this old.")
    psi_warn: float = Field(default=0.1, gt=0)
    psi_alert: float = Field(default=0.25, gt=0)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    permutations: int = Field(default=500, ge=99)
    sample_size: int = Field(default=1000, ge=20)
    minimum_questions: int = Field(default=30, ge=2)


class RetentionPolicy(Strict):
    """``policies/retention.yaml``: how long operational records live."""

    interaction_days: int = Field(default=365, ge=1)
    run_days: int = Field(default=90, ge=1, description="Dagster runs and their events.")
    trial_days: int = Field(default=90, ge=1, description="Trials of experiment results; remembered searches.")
    generation_days: int = Field(default=90, ge=1, description="Remembered model calls that nothing kept refers to.")
    evidence_days: int = Field(default=365, ge=1, description="Results of checks that are no longer the newest.")
    dataset_days: int = Field(default=90, ge=1, description="Versions of evaluation datasets.")
    draft_days: int = Field(default=90, ge=1, description="Rejected drafts of synthetic questions.")
    keep_dataset_versions: int = Field(default=10, ge=1, description="The newest of each dataset stay, however old.")


#: Every detector of the screening, in the order they are shown.
DETECTORS = (
    "pii",
    "secrets",
    "prompt_injection",
    "hidden_text",
    "licence",
    "toxicity",
    "near_duplicate",
    "ai_generated",
    "language",
)
ScreeningAction = Literal["allow", "mask", "quarantine"]
EntityAction = Literal["ignore", "allow", "mask", "quarantine"]

#: National identifiers a company may add by name; each is a recogniser of presidio that needs no model.
NATIONAL_IDENTIFIERS = (
    "AU_ABN",
    "AU_ACN",
    "AU_MEDICARE",
    "AU_TFN",
    "ES_NIE",
    "ES_NIF",
    "FI_PERSONAL_IDENTITY_CODE",
    "IN_AADHAAR",
    "IN_PAN",
    "IT_FISCAL_CODE",
    "IT_VAT_CODE",
    "PL_PESEL",
    "SG_NRIC_FIN",
    "UK_NHS",
    "UK_NINO",
    "US_ITIN",
)


class DetectorRule(Strict):
    """What one detector's findings lead to; of several findings in a document the worst action wins.

    Every finding has a score from 0 to 1. ``allow`` records it, ``mask`` replaces its characters, ``quarantine``
    keeps the document out. Findings below the threshold are recorded and lead to nothing.
    """

    known_entities: ClassVar[tuple[str, ...]] = ()
    ignored_entities: ClassVar[tuple[str, ...]] = ()  # unless an override names them

    enabled: bool = True
    action: ScreeningAction = "allow"
    threshold: float = Field(default=0.5, ge=0, le=1)
    entities: dict[str, EntityAction] = Field(default={}, description="Overrides by kind of finding.")

    @field_validator("entities")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name not in cls.known_entities:
                close = difflib.get_close_matches(name, cls.known_entities, n=1, cutoff=0.5)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"there is no {name!r}; allowed: {', '.join(cls.known_entities)}.{hint}")
        return value

    def action_of(self, entity: str) -> EntityAction:
        """What a finding of this kind at or above the threshold leads to."""
        return self.entities.get(entity, "ignore" if entity in self.ignored_entities else self.action)


class PersonalDataRule(DetectorRule):
    """Personal data; ``identifiers`` adds national ones, ``regions`` says how numbers without +CC are read."""

    known_entities: ClassVar[tuple[str, ...]] = (
        "EMAIL_ADDRESS",
        "PHONE_NUMBER",
        "CREDIT_CARD",
        "IBAN_CODE",
        "IP_ADDRESS",
        "US_SSN",
        "CRYPTO",
        "DATE_OF_BIRTH",
        "STREET_ADDRESS",
        "US_DRIVER_LICENSE",
        "URL",
        *NATIONAL_IDENTIFIERS,
    )
    ignored_entities: ClassVar[tuple[str, ...]] = ("URL",)

    regions: list[str] = Field(default=["US", "GB"], description="ISO codes of the countries phone numbers are of.")
    identifiers: list[Literal[NATIONAL_IDENTIFIERS]] = Field(default=[])  # pyright: ignore[reportInvalidTypeForm]

    @field_validator("regions")
    @classmethod
    def _regions(cls, value: list[str]) -> list[str]:
        for name in value:
            if len(name) != 2 or not name.isalpha() or not name.isupper():
                raise ValueError(f"{name!r} is no two-letter country code in capitals, e.g. US, GB, DE")
        return value


class SecretsRule(DetectorRule):
    """Credentials."""

    known_entities: ClassVar[tuple[str, ...]] = (
        "PRIVATE_KEY",
        "AWS_KEY",
        "AZURE_STORAGE_KEY",
        "GITHUB_TOKEN",
        "GITLAB_TOKEN",
        "SLACK_TOKEN",
        "STRIPE_KEY",
        "SENDGRID_KEY",
        "TWILIO_KEY",
        "OPENAI_KEY",
        "NPM_TOKEN",
        "PYPI_TOKEN",
        "DISCORD_TOKEN",
        "TELEGRAM_TOKEN",
        "SQUARE_TOKEN",
        "MAILCHIMP_KEY",
        "JSON_WEB_TOKEN",
        "BASIC_AUTH",
        "PASSWORD",
    )

    action: ScreeningAction = "quarantine"
    threshold: float = Field(default=0.7, ge=0, le=1)


class PromptInjectionRule(DetectorRule):
    """Text addressed at a model instead of a reader."""

    known_entities: ClassVar[tuple[str, ...]] = ("INSTRUCTION",)

    action: ScreeningAction = "quarantine"
    threshold: float = Field(default=0.6, ge=0, le=1)


class HiddenTextRule(DetectorRule):
    """Characters and markup a reader does not see."""

    known_entities: ClassVar[tuple[str, ...]] = (
        "TAG_CHARACTERS",
        "VARIATION_SELECTORS",
        "BIDI_CONTROL",
        "ZERO_WIDTH",
        "HIDDEN_ELEMENT",
        "HIDDEN_INSTRUCTION",
        "COMMENT_INSTRUCTION",
    )
    entities: dict[str, EntityAction] = Field(
        default={
            "TAG_CHARACTERS": "quarantine",
            "VARIATION_SELECTORS": "quarantine",
            "HIDDEN_INSTRUCTION": "quarantine",
        },
        description="What can only be meant to deceive is kept out by default.",
    )


class RightsRule(DetectorRule):
    """Statements of rights and of confidentiality; ``mask`` would falsify them."""

    known_entities: ClassVar[tuple[str, ...]] = (
        "SPDX_LICENCE",
        "COPYRIGHT",
        "ALL_RIGHTS_RESERVED",
        "CONFIDENTIAL",
    )

    action: Literal["allow", "quarantine"] = "allow"
    entities: dict[str, Literal["ignore", "allow", "quarantine"]] = Field(default={})  # pyright: ignore[reportIncompatibleVariableOverride]


class ToxicityRule(DetectorRule):
    """Abusive words; a list of words does not understand what is said with them."""

    known_entities: ClassVar[tuple[str, ...]] = ("PROFANITY",)


class AiMarkersRule(DetectorRule):
    """What chat models leave behind in copied text; not a classifier of who wrote it."""

    known_entities: ClassVar[tuple[str, ...]] = ("CHAT_BOILERPLATE", "CHAT_ARTEFACT")


class NearDuplicateRule(Strict):
    """Documents that share most of their text; with ``quarantine`` the older one stays."""

    enabled: bool = True
    action: Literal["allow", "quarantine"] = "allow"
    similarity: float = Field(default=0.9, ge=0.8, le=1, description="Jaccard similarity of runs of five words.")


class LanguageRule(Strict):
    """The languages a source is expected to be in; ``any`` expects nothing."""

    enabled: bool = True
    action: Literal["allow", "quarantine"] = "allow"
    expected: list[str] | Literal["any"] = "any"


class ScreeningPolicy(Strict):
    """``policies/screening.yaml``: what is looked for in every document, and what a finding leads to."""

    pii: PersonalDataRule = PersonalDataRule()
    secrets: SecretsRule = SecretsRule()
    prompt_injection: PromptInjectionRule = PromptInjectionRule()
    hidden_text: HiddenTextRule = HiddenTextRule()
    licence: RightsRule = RightsRule()
    toxicity: ToxicityRule = ToxicityRule()
    near_duplicate: NearDuplicateRule = NearDuplicateRule()
    ai_generated: AiMarkersRule = AiMarkersRule()
    language: LanguageRule = LanguageRule()
    warn_injection_share: float = Field(default=0.01, ge=0, le=1)
    warn_hidden_text_share: float = Field(default=0.01, ge=0, le=1)


class EnrichmentPolicy(Strict):
    """``policies/enrichment.yaml``: how many values a model may fail to make, and what a refresh may spend."""

    maximum_given_up_share: float = Field(
        default=0.05, ge=0, le=1, description="A larger share of chunks without a step's value blocks the refresh."
    )
    money_per_refresh: float | None = Field(
        default=None, ge=0, description="Most that enrichment and embedding of a source may cost in one refresh."
    )
    calls_per_refresh: int | None = Field(default=None, ge=0, description="Most model requests, retries included.")
    currency: str = "USD"


class Policies(Strict):
    """All files under ``policies/``; a missing file means the defaults."""

    corpus: CorpusPolicy = CorpusPolicy()
    index: IndexPolicy = IndexPolicy()
    drift: DriftPolicy = DriftPolicy()
    retention: RetentionPolicy = RetentionPolicy()
    screening: ScreeningPolicy = ScreeningPolicy()
    enrichment: EnrichmentPolicy = EnrichmentPolicy()
