"""A target says yes only when the service accepted; secrets are shown nowhere."""

import json
import logging
from pathlib import Path

import pytest

from resources.notifier import AppriseTarget, LogFile, Message, build_notifier
from tests.webhook import Webhook

CANARY = "c4n4ry-s3cr3t"
MESSAGE = Message("failure", "Check volume_drop failed", "expected less; observed more", ("check:a/b",))


def test_a_message_arrives_with_title_body_and_kind() -> None:
    with Webhook() as hook:
        (target,) = build_notifier(Path("unused"), {"GENAIOPS_NOTIFY_URLS": hook.url}).targets
        assert target.send(MESSAGE)
        assert target.send(Message("recovered", "Recovered", "again fine"))
    assert [(item["title"], item["type"]) for item in hook.received] == [
        ("Check volume_drop failed", "failure"),
        ("Recovered", "success"),
    ]
    assert hook.received[0]["message"] == "expected less; observed more"


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
def test_an_answer_other_than_success_is_no_acceptance(status: int) -> None:
    with Webhook(status=status) as hook:
        assert not AppriseTarget(hook.url, "hook").send(MESSAGE)


def test_a_dead_service_is_no_acceptance() -> None:
    with Webhook() as hook:
        url = hook.url
    assert not AppriseTarget(url, "hook").send(MESSAGE)


def test_a_hanging_service_is_given_up_and_not_asked_again_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.notifier._DEADLINE_SECONDS", 0.3)
    with Webhook() as hook:
        hook.hold.clear()
        target = AppriseTarget(hook.url, "hook")
        assert not target.send(MESSAGE)
        assert not target.send(MESSAGE)
        assert hook.requests == 1
        hook.hold.set()


def test_without_urls_messages_go_to_a_log_file(tmp_path: Path) -> None:
    notifier = build_notifier(tmp_path / "artifacts", {})
    assert [target.label for target in notifier.targets] == ["log file"]
    assert notifier.targets[0].send(MESSAGE)
    assert notifier.targets[0].send(MESSAGE)
    lines = (tmp_path / "artifacts" / "alerts.log").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert json.loads(lines[0])["title"] == MESSAGE.title


def test_a_log_file_that_cannot_be_written_is_no_acceptance(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not LogFile(tmp_path / "file" / "alerts.log").send(MESSAGE)


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        ("json://one.example json://two.example", ["json://one.example", "json://two.example"]),
        ("json://one.example,json://two.example", ["json://one.example", "json://two.example"]),
        ("  json://one.example ,\n json://two.example, ", ["json://one.example", "json://two.example"]),
        ("json://one.example/a json://one.example/b", ["json://one.example", "json://one.example#2"]),
        (
            "mailto://user:pass@mail.example?to=a@example.org,b@example.org",
            ["mailto://mail.example"],
        ),
    ],
)
def test_urls_are_separated_by_blanks_or_commas(value: str, labels: list[str]) -> None:
    notifier = build_notifier(Path("unused"), {"GENAIOPS_NOTIFY_URLS": value})
    assert [target.label for target in notifier.targets] == labels
    assert notifier.problems == ()


def test_a_url_nobody_understands_is_a_problem_and_the_others_still_work() -> None:
    value = f"nonsense://{CANARY} json://one.example"
    notifier = build_notifier(Path("unused"), {"GENAIOPS_NOTIFY_URLS": value})
    assert [target.label for target in notifier.targets] == ["json://one.example"]
    assert "entry 1 (nonsense://…)" in notifier.problems[0]
    assert CANARY not in repr(notifier)


def test_with_only_unusable_urls_nothing_is_silent(tmp_path: Path) -> None:
    notifier = build_notifier(tmp_path, {"GENAIOPS_NOTIFY_URLS": CANARY})
    assert [target.label for target in notifier.targets] == ["log file"]
    assert len(notifier.problems) == 1
    assert CANARY not in repr(notifier)


def test_secrets_of_a_url_are_shown_nowhere(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture) -> None:
    """User, password, token in path, token in query, and a token where other schemes have the host."""
    with caplog.at_level(logging.DEBUG), Webhook(status=500) as hook:
        host = hook.url.removeprefix("json://").split("/")[0]
        urls = [
            f"json://user{CANARY}:{CANARY}@{host}/{CANARY}?+X-Token={CANARY}",
            f"slack://{CANARY.replace('-', '').upper()[:9]}/B12345678/{CANARY.replace('-', '')}1234567890abc",
        ]
        notifier = build_notifier(Path("unused"), {"GENAIOPS_NOTIFY_URLS": " ".join(urls)})
        assert not notifier.targets[0].send(MESSAGE)
    assert CANARY in json.dumps(hook.headers)  # it did travel
    printed = capfd.readouterr()
    seen = "".join([repr(notifier), caplog.text, printed.out, printed.err, *(t.label for t in notifier.targets)])
    assert CANARY not in seen
    assert CANARY.replace("-", "").upper()[:9] not in seen
