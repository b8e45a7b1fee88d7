"""A secret shows itself nowhere but in `reveal`."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

import attrs
import pytest

from procore_hooks._core.models import Hook, PreviousSecret
from procore_hooks._core.secret import MASK, Secret, mask, reveal

TEXT = "hunter2-hunter2"
NOW = datetime(2025, 1, 1, tzinfo=UTC)


def a_hook() -> Hook:
    return Hook(
        id=1,
        namespace="acme",
        destination_url="https://acme.example/",
        destination_headers={"Authorization": Secret(TEXT)},
        signing_secret=Secret(TEXT),
        previous_secrets=(PreviousSecret(secret=Secret(TEXT), expires_at=NOW),),
        created_at=NOW,
        updated_at=NOW,
    )


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        format,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40}",
        lambda secret: f"{secret:>40}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
        lambda secret: "{0} {0!r}".format(secret),  # noqa: UP032
        lambda secret: str([secret, {"a": secret}, (secret,)]),
        lambda secret: repr(ValueError(secret)),
        lambda secret: repr(attrs.asdict(a_hook())),
        lambda secret: repr(a_hook()),
        lambda secret: str(a_hook().destination_headers),
        lambda secret: repr(a_hook().previous_secrets),
    ],
    ids=range(15),
)
def test_printed_it_is_masked(show: Callable[[Secret], str]) -> None:
    """However it is made text, alone or within something, only stars come out."""
    text = show(Secret(TEXT))
    assert MASK in text
    assert "hunter2" not in text


def test_logged_it_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    """As an argument, as the message, and in a traceback."""
    log = logging.getLogger("an.app")
    with caplog.at_level(logging.INFO):
        log.info("a %s and %r in %s", Secret(TEXT), Secret(TEXT), a_hook())
        log.info(Secret(TEXT))
        try:
            raise KeyError(Secret(TEXT))
        except KeyError:
            log.exception("it failed")
    assert caplog.text.count(MASK) >= 4
    assert "hunter2" not in caplog.text


def test_in_an_exception_it_is_masked() -> None:
    """The text of a traceback shows stars."""
    shown = "".join(traceback.format_exception(ValueError("wrong", Secret(TEXT))))
    assert MASK in shown
    assert "hunter2" not in shown


def test_it_does_not_serialise() -> None:
    """A pickle or JSON would show it: both refuse, for what holds one too."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for value in (Secret(TEXT), [Secret(TEXT)], a_hook()):
            with pytest.raises(TypeError, match="does not pickle"):
                pickle.dumps(value, protocol)
    with pytest.raises(TypeError):
        json.dumps({"a": Secret(TEXT)})


def test_reveal_gives_it() -> None:
    """To the character, wrapped once or twice, or not wrapped at all."""
    assert Secret(TEXT).reveal() == Secret(Secret(TEXT)).reveal() == reveal(Secret(TEXT)) == reveal(TEXT) == TEXT
    assert Secret("\ud800").reveal() == "\ud800"


@pytest.mark.parametrize("value", [None, 7, b"hunter2"])
def test_it_wraps_text_alone(value: str) -> None:
    """Bytes are no text; the error names the type and not the value."""
    with pytest.raises(TypeError, match=r"wraps a str, not (NoneType|int|bytes)$"):
        Secret(value)


def test_copies_are_itself() -> None:
    """It does not change, so a copy is the same one, also deep within a hook."""
    secret = Secret(TEXT)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret
    hook = a_hook()
    assert copy.copy(hook) == copy.deepcopy(hook) == hook


def test_equality() -> None:
    """Equal to a secret of the same text, in sets too, and to no plain string; any text can be compared."""
    assert Secret(TEXT) == Secret(TEXT)
    assert Secret(TEXT) != Secret(TEXT + "x")
    assert Secret(TEXT) != TEXT
    assert Secret("\ud800é") == Secret("\ud800é")
    assert len({Secret(TEXT), Secret(TEXT), TEXT}) == 2


def test_it_does_not_change() -> None:
    """No attribute can be set, and there is no room for another."""
    secret = Secret(TEXT)
    for name in ("_text", "other"):
        with pytest.raises(AttributeError):
            setattr(secret, name, "x")
    assert secret.reveal() == TEXT
    assert not hasattr(secret, "__dict__")


def test_its_length() -> None:
    """An empty one is false, as an empty string is."""
    assert (len(Secret(TEXT)), bool(Secret("")), bool(Secret("a"))) == (15, False, True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("Bearer abcxMiJ9", "*****xMiJ9"), ("0123456789", "*****56789"), ("012345678", MASK), ("", MASK)],
)
def test_mask(text: str, shown: str) -> None:
    """As Procore shows it: the last five characters, of a short value none."""
    assert mask(text) == shown
