"""What is masked of a hook in errors and in kept answers, and what stays readable."""

from __future__ import annotations

import base64
import html
import json
import string
from datetime import UTC, datetime
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procore_hooks import Hook, PreviousSecret, Secret
from procore_hooks._core.masking import SecretsOfHook
from procore_hooks._core.secret import MASK
from procore_hooks._sending import _tidy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Random, so that no test's own text holds them, and with what JSON, URLs and HTML write in ways of their own.
CREDENTIAL = "c3a24b8208/+dead&beef<9\\7>1=="
SIGNING, OLD = "whsec_b4x/8QmTz+0aLrW5cYvE2kHd7uJsNf9g", "whsec_Zt6+pRk1/VxG3nMq8bDwS4hFyC0eAoUj"
TOKEN, CODE = "q7w9-e4r2.t6y8", "zx19cv28bn37"
SEGMENT = "T0kV9xB2sQ4f"
STARS = MASK.encode()


def hook(url: str = "https://hooks.example/in", headers: dict[str, str] | None = None) -> Hook:
    return Hook(
        id=1,
        namespace="acme",
        destination_url=url,
        destination_headers={name: Secret(value) for name, value in (headers or {}).items()},
        signing_secret=Secret(SIGNING),
        previous_secrets=(PreviousSecret(secret=Secret(OLD), expires_at=NOW),),
        created_at=NOW,
        updated_at=NOW,
    )


def full_hook() -> Hook:
    return hook(
        f"https://hooks.example/{SEGMENT}/in?token={TOKEN}&page=12&code={CODE}%20{CODE}",
        {"Authorization": f"Bearer {CREDENTIAL}", "Accept": "application/json", "X-Env": "production", "X-No": "1234"},
    )


def answer(secrets: SecretsOfHook, body: str | bytes, most: int = 65_536, is_cut: bool = False) -> bytes:
    return secrets.masked_in_answer(body.encode() if isinstance(body, str) else body, most, is_cut=is_cut)


WRITINGS = {
    "as it is": str,
    "json": lambda text: json.dumps({"a": text}),
    "json of PHP": lambda text: json.dumps(text).replace("/", "\\/"),
    "json of .NET": lambda text: "".join(f"\\u{ord(c):04X}" if c in "+&<>" else c for c in json.dumps(text)),
    "json of Go": lambda text: "".join(f"\\u{ord(c):04x}" if c in "&<>" else c for c in json.dumps(text)),
    "url": lambda text: quote(text, safe=""),
    "url, lower case": lambda text: quote(text, safe="").replace("%2F", "%2f").replace("%2B", "%2b").lower(),
    "form": quote_plus,
    "html": html.escape,
    "repr": repr,
    "repr of bytes": lambda text: repr(text.encode()),
}


@pytest.mark.parametrize("writing", WRITINGS)
def test_an_echo_is_masked_in_each_writing(writing: str) -> None:
    """A receiver or a transport that quotes a header, whole or only the credential, quotes stars."""
    secrets, write = SecretsOfHook(full_hook()), WRITINGS[writing]
    for text in (f"Bearer {CREDENTIAL}", CREDENTIAL, CREDENTIAL.rstrip("=")):
        for there in (write(text), f"before {write(text)} after", write(text) * 3):
            for masked in (answer(secrets, there).decode(), secrets.masked_in_error(there)):
                assert MASK in masked
                assert "c3a24b8208" not in masked
                assert "beef" not in masked


def test_what_receivers_are_told_apart_by_is_masked() -> None:
    """Signing secrets, the current and the older, with and without their prefix; the query, whole and in parts."""
    secrets = SecretsOfHook(full_hook())
    query = f"token={TOKEN}&page=12&code={CODE}%20{CODE}"
    parts = [SIGNING, SIGNING[6:], OLD, OLD[6:], query, f"token={TOKEN}", TOKEN, f"{CODE}%20{CODE}", f"{CODE} {CODE}"]
    for part in parts:
        masked = answer(secrets, f"a{part}z")
        assert masked.startswith(b"a")
        assert masked.endswith(b"z")
        assert STARS in masked
        for secret in (SIGNING[6:], OLD[6:], TOKEN, CODE):
            assert secret.encode() not in masked
            assert secret not in secrets.masked_in_error(f"a{part}z")


def test_the_url_as_it_was_sent_is_masked_too() -> None:
    """httpx percent-encodes what an app did not; a receiver echoes one of the two."""
    url = "https://hooks.example/in?token=tök-en-5511é"
    sent = "https://hooks.example/in?token=t%C3%B6k-en-5511%C3%A9"
    secrets = SecretsOfHook(hook(url), sent)
    for there in ("tök-en-5511é", "t%C3%B6k-en-5511%C3%A9", json.dumps("tök-en-5511é"), "t%c3%b6k-en-5511%c3%a9"):
        assert b"5511" not in answer(secrets, there)
        assert "5511" not in secrets.masked_in_error(there)
    decoded = SecretsOfHook(hook("https://hooks.example/in?token=a%2Fb%2Bc%3D1%2F2"))
    assert answer(decoded, "wrong token a/b+c=1/2") == b"wrong token *****"


def test_a_password_of_basic_authentication_is_masked_decoded() -> None:
    """Many a receiver says whose password was wrong, and which it was."""
    basic = base64.b64encode(b"acme:pw-55-hunter2").decode()
    for value in (f"Basic {basic}", f"basic  {basic}", f"Basic {basic.rstrip('=')}"):
        secrets = SecretsOfHook(hook(headers={"Authorization": value}))
        assert answer(secrets, "no user acme:pw-55-hunter2") == b"no user *****"
        assert answer(secrets, "wrong: pw-55-hunter2") == b"wrong: *****"
        assert answer(secrets, f"got {basic}") == b"got *****"
    for broken in ("Basic", "Basic =", "Basic a", "Basic /w==", "Basic é"):
        assert answer(SecretsOfHook(hook(headers={"Authorization": broken})), "fine") == b"fine"


def test_evidence_stays_readable() -> None:
    """Words, media types and short values, which an answer holds of itself, are left in it; in headers as well."""
    url = "https://hooks.example/services/in?env=production&id=1234567&token=abc"
    headers = {
        "Accept": "application/json, text/plain",
        "Authorization": 'Digest username="acme", realm="receiver"',
        "X-Env": "production",
        "X-Id": "1234567",
        "X-Kind": "Construction",
        "X-Sender": "Acme Construction Company",
    }
    secrets = SecretsOfHook(hook(url, headers))
    body = json.dumps(
        [
            "application/json",
            "text/plain",
            "production",
            1234567,
            "Construction",
            "access_token",
            "abc",
            "username",
            "acme",
        ]
    ).encode()
    assert answer(secrets, body) == body
    raw = [(b"content-type", b"application/json"), (b"x-env", b"production")]
    assert secrets.masked_in_headers(raw) == raw


def test_a_value_whose_name_says_credential_is_masked_though_it_is_a_word() -> None:
    """A password may be a word; then its header's or parameter's name tells."""
    secrets = SecretsOfHook(hook("https://hooks.example/?api_key=helloworld", {"X-Password": "productive"}))
    assert answer(secrets, "helloworld productive unproductively") == b"***** ***** un*****ly"


def test_an_error_may_lose_a_word_too_many_and_its_path() -> None:
    """Of an error, which goes into logs, texts from four characters on and the URL's path are masked too."""
    secrets = SecretsOfHook(full_hook())
    url = f"https://hooks.example/{SEGMENT}/in?token={TOKEN}"
    assert (
        secrets.masked_in_error(f"POST {url}: 1234 is 123")
        == "POST https://hooks.example*****?token=*****: ***** is 123"
    )
    assert secrets.masked_in_error(f"no route for {SEGMENT}") == "no route for *****"
    assert secrets.masked_in_error("half \ud800 a character é") == "half \ud800 a character é"
    encoded = SecretsOfHook(hook("https://hooks.example/a%2Fb%2B12345678"))
    assert encoded.masked_in_error("no route for a/b+12345678") == "no route for *****"


def test_the_longest_is_masked_first() -> None:
    """A secret that holds another one goes whole: its other part would stay otherwise."""
    headers = {"X-Short-Key": "abcd1234", "X-Long-Key": "abcd1234-efgh5678.abcd1234"}
    secrets = SecretsOfHook(hook(headers=headers))
    assert answer(secrets, "<abcd1234-efgh5678.abcd1234> <abcd1234>") == b"<*****> <*****>"
    assert secrets.masked_in_error("<abcd1234-efgh5678.abcd1234>") == "<*****>"


def test_headers_of_answers_are_masked() -> None:
    """In names and in values, and those without a secret stay the very same."""
    secrets = SecretsOfHook(full_hook())
    raw = [(b"X-Echo", f"Bearer {CREDENTIAL}".encode()), (f"x-{CODE}%20{CODE}".encode(), b"1"), (b"Server", b"nginx")]
    assert secrets.masked_in_headers(raw) == [(b"X-Echo", STARS), (b"x-" + STARS, b"1"), (b"Server", b"nginx")]
    assert secrets.masked_in_headers(raw[2:]) is not None
    assert secrets.masked_in_headers([]) == []


def test_kept_headers_are_of_the_answer_at_hand() -> None:
    """Answers with the same headers share what is kept of them; any other answer's are its own, and masked as ever."""
    secrets = SecretsOfHook(hook(headers={"X-Token": TOKEN}))
    first = [(b"Server", b"nginx"), (b"Date", b"Tue, 24 Nov 2026 10:00:00 GMT")]
    kept = secrets.kept_headers(first)
    assert kept == {"server": "nginx", "date": "Tue, 24 Nov 2026 10:00:00 GMT"}
    assert secrets.kept_headers(list(first)) is kept
    later = [*first[:1], (b"Date", b"Tue, 24 Nov 2026 10:00:01 GMT")]
    assert secrets.kept_headers(later)["date"].endswith("01 GMT")
    assert secrets.kept_headers([(b"X-Echo", TOKEN.encode())]) == {"x-echo": MASK}
    assert secrets.kept_headers([(b"X-Echo", TOKEN.encode())]) == {"x-echo": MASK}
    assert secrets.kept_headers(first) == kept


@pytest.mark.parametrize(
    "raw",
    [[(b"X-Much", b"m" * 300)], [(b"X-" + b"n" * 300, b"1")], [(b"X-%d" % number, b"1") for number in range(21)]],
    ids=["value", "name", "number"],
)
def test_headers_that_are_much_are_not_remembered(raw: list[tuple[bytes, bytes]]) -> None:
    """What one receiver's answer is made of does not stay in memory, with thousands of others, once it is stored."""
    secrets = SecretsOfHook(hook())
    secrets.kept_headers(raw)
    assert secrets._last_headers is None


# Where an answer is cut

BODY = st.text(string.ascii_lowercase + " .", max_size=40).map(str.encode)
WHOLE = f"Bearer {CREDENTIAL}".encode()


def longest_piece(body: bytes, secret: bytes) -> int:
    """How many bytes of `secret`, in one piece, are in `body` at the most."""
    return max(
        (
            end - start
            for start in range(len(secret))
            for end in range(start, len(secret) + 1)
            if secret[start:end] in body
        ),
        default=0,
    )


@given(before=BODY, cut=st.integers(0, len(WHOLE)), most=st.integers(0, 100))
def test_no_cut_leaves_eight_characters_of_a_secret(before: bytes, cut: int, most: int) -> None:
    """Wherever an answer was cut, by us or by the receiver, less than eight bytes of a secret in it stay."""
    secrets = SecretsOfHook(full_hook())
    masked = answer(secrets, before + WHOLE[:cut], most, is_cut=True)
    assert len(masked) <= most
    assert longest_piece(masked, CREDENTIAL.encode()) < 8


@given(before=BODY, after=BODY, most=st.integers(0, 200))
def test_what_is_kept_is_masked_before_it_is_cut(before: bytes, after: bytes, most: int) -> None:
    """The end of what is kept does not cut through a secret, though the answer went on."""
    secrets = SecretsOfHook(full_hook())
    kept = answer(secrets, before + WHOLE + after, most)
    assert kept == (before + STARS + after)[:most]


@given(before=BODY, most=st.integers(0, 200))
def test_an_answer_that_ended_by_itself_is_left_as_it_is(before: bytes, most: int) -> None:
    """The beginning of a secret that an answer ends in of itself is evidence, and no secret."""
    secrets = SecretsOfHook(full_hook())
    assert answer(secrets, before + b"use Bearer c", most) == (before + b"use Bearer c")[:most]


def test_many_echoes_in_a_row_hide_no_cut_one() -> None:
    """Stars are shorter than secrets: of the part that is looked at, more then fits into what is kept."""
    secrets = SecretsOfHook(full_hook())
    for most in (100, 8_192, 65_536):
        for shift in range(len(WHOLE)):
            masked = answer(secrets, (b"x" * shift + WHOLE * 2_000)[:65_536], most, is_cut=True)
            assert masked.startswith(b"x" * shift + STARS)
            assert len(masked.strip(b"x*")) < 8


def test_cuts_are_found_in_each_writing() -> None:
    """What was cut may be JSON of any kind."""
    secrets = SecretsOfHook(full_hook())
    for name, write in WRITINGS.items():
        there = write(CREDENTIAL)
        begun = there[: there.index("beef") + 2]
        assert b"c3a24b82" not in answer(secrets, begun, is_cut=True), name


def test_a_cut_secret_that_holds_another_one_goes_whole() -> None:
    """To mask the shorter one first would leave the rest of the longer one, unknown then, at the end."""
    headers = {"X-Short-Key": "abcd1234", "X-Long-Key": "mnop9876abcd1234efgh5678"}
    assert answer(SecretsOfHook(hook(headers=headers)), "a mnop9876abcd1234efgh56", is_cut=True) == b"a *****"


# Hooks of all kinds


@given(
    url=st.text(max_size=30).map(lambda text: f"https://hooks.example/{text}"),
    headers=st.dictionaries(st.text(max_size=8), st.text(max_size=30), max_size=3),
    body=st.binary(max_size=60),
    text=st.text(max_size=60),
)
def test_whatever_a_hook_and_an_answer_hold(url: str, headers: dict[str, str], body: bytes, text: str) -> None:
    """No text is too odd, and values that are credentials by their name are gone from what quotes them."""
    named = {f"x-key-{name}": value for name, value in headers.items()}
    secrets = SecretsOfHook(hook(url, named))
    assert len(answer(secrets, body, 50, is_cut=True)) <= 50
    secrets.masked_in_error(text)
    for value in named.values():
        if len(value) >= 8 and len(set(value)) > 4:
            quoted = body + value.encode("utf-8", "surrogatepass") + body
            assert value.encode("utf-8", "surrogatepass") not in answer(secrets, quoted)
            assert value not in secrets.masked_in_error(f"{text}{value}")


def test_nothing_at_all() -> None:
    """A hook without headers, query or path, and an answer without a body; and no empty text is ever looked for."""
    secrets = SecretsOfHook(hook("https://hooks.example", {"X-Key": "Basic "}))
    for body in (b"", b"x", b"a" * 70_000):
        assert answer(secrets, body, is_cut=True) == body[:65_536]
    assert secrets.masked_in_error("") == ""


def test_a_thousand_parts_are_not_a_thousand_searches() -> None:
    """A customer who writes many words into a header does not make each answer slow to look through."""
    words = " ".join(f"w{n:06}" for n in range(1_000))
    many = SecretsOfHook(hook(f"https://hooks.example/?{words.replace(' ', '&')}", {f"x-{n}": words for n in range(2)}))
    assert len(many._in_answers._texts) < 60
    assert len(many._in_errors._texts) < 60
    assert answer(many, f"<{words}>") == b"<*****>"
    each = SecretsOfHook(hook(headers={f"x-{n}": f"a{n:07} b{n:07} c{n:07}" for n in range(300)}))
    assert len(each._in_answers._texts) == 200


def test_a_text_that_repeats_itself_is_soon_given_up() -> None:
    """Where a cut could be anywhere, from its first possible place on all is masked, after a few tries."""
    secrets = SecretsOfHook(hook(headers={"X-Key": "+" * 8_191 + "z"}))
    assert answer(secrets, "a" + "\\u002B" * 5_000 + "-", is_cut=True) == b"a*****"


def test_an_error_is_one_line_for_every_reader() -> None:
    """Whatever some reader of a log takes for the end of a line, or a terminal for a command, is a space."""
    secrets = SecretsOfHook(full_hook())
    broken = _tidy(f"a\r\nb\x0bc\x85d\u2028e\u2029f\x9b31m\x1b[0m\x00 {TOKEN}\n", secrets)
    assert broken == "a b c d e f 31m [0m  *****"
    assert len(broken.splitlines()) == 1
