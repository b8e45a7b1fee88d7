"""Signing and verifying, against the reference implementations and against hostile input."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks
from hypothesis import given
from hypothesis import strategies as st

from procore_hooks._core.secret import Secret
from procore_hooks._core.signing import Signer, check_secret, secret_from_bytes, verify_at
from procore_hooks.exceptions import InvalidInput, ProcoreHooksError, VerificationError
from procore_hooks.verification import verify

# The example of the Standard Webhooks specification and its reference tests.
SPEC_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SPEC_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
SPEC_TIME = 1614265330
SPEC_BODY = b'{"test": 2432232314}'
SPEC_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
SPEC_NOW = datetime.fromtimestamp(SPEC_TIME, UTC)

SECRETS = [secret_from_bytes(bytes(range(n, n + 32))) for n in range(3)]
BODIES = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers() | st.none(), max_size=3)


def headers_for(
    body: bytes, secret: Secret | str = SECRETS[0], *, id: str = "msg_1", at: int = SPEC_TIME
) -> dict[str, str]:
    return {
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": Signer(secret).sign(id, at, body),
    }


def refusal(body: Any, headers: Any, secret: Any = SECRETS[0], now: datetime = SPEC_NOW) -> str:
    with pytest.raises(VerificationError) as caught:
        verify(body, headers, secret, now=now)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_example_of_the_specification() -> None:
    """The signature that the specification prints is the one that is made, and it verifies."""
    assert Signer([SPEC_SECRET]).sign(SPEC_ID, SPEC_TIME, SPEC_BODY) == SPEC_SIGNATURE
    headers = {"webhook-id": SPEC_ID, "webhook-timestamp": str(SPEC_TIME), "webhook-signature": SPEC_SIGNATURE}
    assert verify(SPEC_BODY, headers, SPEC_SECRET, now=SPEC_NOW) == {"test": 2432232314}


@given(st.binary(min_size=24, max_size=64), BODIES)
def test_what_we_sign_both_references_accept(random: bytes, value: dict[str, Any]) -> None:
    """Messages of ours verify with standardwebhooks and svix, whichever key and body."""
    body = json.dumps(value, ensure_ascii=False).encode()
    secret = secret_from_bytes(random)
    now = int(datetime.now(UTC).timestamp())
    headers = headers_for(body, secret, at=now)
    assert standardwebhooks.Webhook(secret.reveal()).verify(body, headers) == value
    svix_headers = {name.replace("webhook-", "svix-"): text for name, text in headers.items()}
    svix.webhooks.Webhook(secret.reveal()).verify(body, svix_headers)
    assert verify(body, headers, secret) == value


@given(st.binary(min_size=24, max_size=64), BODIES)
def test_what_both_references_sign_we_accept(random: bytes, value: dict[str, Any]) -> None:
    """Messages of standardwebhooks and svix verify here, under either family of names, as text and as bytes."""
    body = json.dumps(value, ensure_ascii=False)
    secret = secret_from_bytes(random)
    for library in (standardwebhooks.Webhook, svix.webhooks.Webhook):
        signature = library(secret.reveal()).sign("msg_1", SPEC_NOW, body)
        for family in ("webhook", "Svix", "WEBHOOK"):
            headers = {f"{family}-Id": "msg_1", f"{family}-Timestamp": str(SPEC_TIME), f"{family}-Signature": signature}
            assert verify(body, headers, secret, now=SPEC_NOW) == value
            assert verify(body.encode(), headers, secret, now=SPEC_NOW) == value


@given(st.lists(st.sampled_from(SECRETS), min_size=1, max_size=3, unique=True), st.binary(), st.text(max_size=5))
def test_a_signer_signs_with_each_secret_in_order(secrets: list[Secret], body: bytes, tail: str) -> None:
    """Several secrets give several signatures, the current one first, and signing again gives the same."""
    signer = Signer(secrets)
    id = "msg_" + base64.b16encode(tail.encode("utf-8", "surrogatepass")).decode()
    signature = signer.sign(id, 7, body)
    assert signature.split(" ") == [Signer(secret).sign(id, 7, body) for secret in secrets]
    assert signer.sign(id, 7, body) == signature
    assert Signer(secrets[0]).sign(id, 8, body) != Signer(secrets[0]).sign(id, 7, body)


def test_a_receiver_may_know_any_one_of_the_secrets() -> None:
    """While secrets rotate, a message of several verifies with each, and one of one with several."""
    body = b"{}"
    headers = {**headers_for(body), "webhook-signature": Signer(SECRETS[:2]).sign("msg_1", SPEC_TIME, body)}
    for secret in (SECRETS[0], SECRETS[1].reveal(), SECRETS, (SECRETS[2], SECRETS[1])):
        assert verify(body, headers, secret, now=SPEC_NOW) == {}
    assert "no signature matches" in refusal(body, headers, SECRETS[2])


@pytest.mark.parametrize(
    "before",
    ["v1,", "v1", "v1,broken", "v1a,AAAA", "v1,é\udc80", ",", "", "v2,x,y", "v1,AA=A", " ", "v1," + "A" * 44],
)
def test_a_valid_signature_after_a_broken_one_is_accepted(before: str) -> None:
    """Nothing that stands before it, or behind it, spoils a right signature."""
    headers = headers_for(b"{}")
    right = headers["webhook-signature"]
    assert verify(b"{}", {**headers, "webhook-signature": f"{before} {right} {before}"}, SECRETS[0], now=SPEC_NOW) == {}
    assert "no signature" in refusal(b"{}", {**headers, "webhook-signature": f"{before} v1,x"})


def test_the_number_of_signatures_looked_at_is_bounded() -> None:
    """A header of thousands of signatures costs no more than one of a hundred."""
    headers = headers_for(b"{}")
    right = headers["webhook-signature"]
    assert verify(b"{}", {**headers, "webhook-signature": "v1,x " * 99 + right}, SECRETS[0], now=SPEC_NOW) == {}
    refusal(b"{}", {**headers, "webhook-signature": "v1,x " * 100 + right})


def test_any_change_of_the_message_is_noticed() -> None:
    """Another body, id or time, and another way to write the same signature, are refused."""
    headers = headers_for(b'{"a":1}')
    assert verify(b'{"a":1}', headers, SECRETS[0], now=SPEC_NOW) == {"a": 1}
    refusal(b'{"a":2}', headers)
    refusal(b'{"a": 1}', headers)
    refusal(b'{"a":1}', {**headers, "webhook-id": "msg_2"})
    refusal(b'{"a":1}', {**headers, "webhook-timestamp": str(SPEC_TIME + 1)})
    refusal(b'{"a":1}', {**headers, "webhook-timestamp": f"0{SPEC_TIME}"})
    for signature in (
        headers["webhook-signature"].removeprefix("v1,"),
        headers["webhook-signature"].replace("v1", "v2"),
    ):
        refusal(b'{"a":1}', {**headers, "webhook-signature": signature})


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_the_time_may_be_off_by_the_tolerance(seconds: int) -> None:
    """Five minutes either way by default, to the second, and as much as the caller says."""
    headers = headers_for(b"{}")
    assert verify(b"{}", headers, SECRETS[0], now=SPEC_NOW + timedelta(seconds=seconds)) == {}
    if seconds:
        beyond = SPEC_NOW + timedelta(seconds=seconds + (1 if seconds > 0 else -1))
        assert "too old" in refusal(b"{}", headers, now=beyond) or "future" in refusal(b"{}", headers, now=beyond)
        assert verify(b"{}", headers, SECRETS[0], now=beyond, tolerance=timedelta(days=999_999)) == {}
        with pytest.raises(VerificationError):
            verify(b"{}", headers, SECRETS[0], now=SPEC_NOW + timedelta(seconds=seconds), tolerance=timedelta(0))


def test_without_now_the_present_is_meant() -> None:
    """A message of this moment passes, one of 2021 is too old."""
    assert verify(b"{}", headers_for(b"{}", at=int(datetime.now(UTC).timestamp())), SECRETS[0]) == {}
    with pytest.raises(VerificationError, match="too old"):
        verify(b"{}", headers_for(b"{}"), SECRETS[0])


@pytest.mark.parametrize(
    "timestamp",
    [
        *("۱۶۱۴۲۶۵۳۳۰", "1614265330.0", "+1614265330", " 1614265330", "1614265330\n", "1_614_265_330", "-1", "1e9"),
        *("nan", "9" * 15, "9" * 16, "9" * 5_000, "0x5f", "", "1614265330²"),
    ],
    ids=range(15),
)
def test_only_plain_seconds_are_a_time(timestamp: str) -> None:
    """What int() or float() would let pass is refused, even rightly signed."""
    signature = Signer(SECRETS[0]).signatures(f"msg_1.{timestamp}.".encode(), b"{}")[0]
    assert "webhook-timestamp" in refusal(
        b"{}", {"webhook-id": "msg_1", "webhook-timestamp": timestamp, "webhook-signature": signature}
    )


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, b"bytes", 7, ["x"], "", object()])
def test_hostile_header_values(name: str, value: object) -> None:
    """Values of wrong types, and empty ones, end in a VerificationError that names the header."""
    assert name in refusal(b"{}", {**headers_for(b"{}"), name: value})


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature", "webhook-\udc80"])
def test_headers_that_no_encoding_carries(name: str) -> None:
    """Lone surrogates, as some servers decode stray bytes, end in a VerificationError like any wrong value."""
    headers = headers_for(b"{}")
    refusal(b"{}", {**headers, name: headers.get(name, "") + "\udc80", "webhook-signature\udc80": "x"}, SECRETS[1])


def test_missing_headers_are_named() -> None:
    """Each of the three is needed; two families do not mix."""
    headers = headers_for(b"{}")
    for name in headers:
        rest = {other: value for other, value in headers.items() if other != name}
        assert name in refusal(b"{}", rest)
        refusal(b"{}", {**rest, name.replace("webhook", "svix"): headers[name]})
    assert "webhook-id, webhook-timestamp, webhook-signature missing" in refusal(b"{}", {})


def test_a_header_that_is_there_twice_must_be_the_same() -> None:
    """Two spellings of one name with different values are ambiguous."""
    headers = headers_for(b"{}")
    assert verify(b"{}", {**headers, "Webhook-Id": "msg_1"}, SECRETS[0], now=SPEC_NOW) == {}
    assert "twice" in refusal(b"{}", {**headers, "Webhook-Id": "msg_2"})


RELEASED = memoryview(b"{}")
RELEASED.release()


class Failing(Mapping[str, str]):
    """A mapping whose methods raise."""

    def __getitem__(self, key: str) -> str:
        raise KeyError(key)

    def __iter__(self) -> Any:
        raise RuntimeError("hunter2")

    def __len__(self) -> int:
        raise OSError("hunter2")


@pytest.mark.parametrize("headers", [None, 7, "webhook-id: 1", b"x", [("webhook-id", "1")], object, Failing(), dict])
def test_headers_that_are_no_headers(headers: Any) -> None:
    """Whatever is passed as headers: one error, that does not quote it."""
    assert "hunter2" not in refusal(b"{}", headers)


@pytest.mark.parametrize("body", [None, {}, 7, "\udc80", object(), [123], RELEASED])
def test_bodies_that_are_no_bodies(body: Any) -> None:
    """A body that was parsed already, or decoded wrongly, is refused with advice."""
    assert "raw bytes" in refusal(body, headers_for(b"{}"))


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"not json",
            b"[]",
            b'"text"',
            b"null",
            b"1",
            b"\xff{}",
            b'{"a":"\xed\xa0\x80"}',
            b'{"a":NaN}',
            b"{} {}",
        ),
        *(b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' + b"1" * 5_000 + b"}", "{}".encode("utf-16"), b"\xef\xbb\xbf{}"),
    ],
    ids=range(15),
)
def test_signed_bodies_that_are_no_json_object(body: bytes) -> None:
    """Even what is rightly signed must be a JSON object in UTF-8."""
    assert refusal(body, headers_for(body)).startswith("body: the signature is right, but")


@pytest.mark.parametrize("body", [bytearray(b'{"a":1}'), memoryview(b'{"a":1}'), '{"a":1}'])
def test_bodies_of_other_types(body: Any) -> None:
    """Text and buffers are bodies too."""
    assert verify(body, headers_for(b'{"a":1}'), SECRETS[0], now=SPEC_NOW) == {"a": 1}


HOSTILE = st.none() | st.integers() | st.floats() | st.binary() | st.text() | st.lists(st.text()) | st.just(object())
NAMES = st.sampled_from(
    ["webhook-id", "Webhook-Timestamp", "webhook-signature", "svix-id", "svix-timestamp", "WEBHOOK-"]
)
VALUES = HOSTILE | st.sampled_from([str(SPEC_TIME), "v1,", "msg_1", Signer(SECRETS[0]).sign("msg_1", SPEC_TIME, b"{}")])


@given(
    HOSTILE | st.just(b"{}"),
    HOSTILE | st.dictionaries(NAMES | HOSTILE.filter(lambda key: not isinstance(key, list)), VALUES),
)
def test_nothing_but_a_verification_error_comes_out(body: Any, headers: Any) -> None:
    """Whatever body and headers are: a dict that was signed, or a VerificationError."""
    with suppress(VerificationError):
        assert verify(body, headers, SECRETS, now=SPEC_NOW) == {}


@given(st.binary(max_size=300))
def test_no_signed_body_raises_anything_else(body: bytes) -> None:
    """The same for the body alone, rightly signed, where parsing is reached."""
    with suppress(VerificationError):
        assert verify(body, headers_for(body), SECRETS[0], now=SPEC_NOW) == json.loads(body)


BAD_SECRETS: list[Any] = [
    *("", "whsec_", "hunter2", "whsec_hunter2hunter2", base64.b64encode(b"x" * 23).decode(), "whsec_" + "A" * 88),
    *("whsec_" + "A" * 31 + "-", "whsec_" + "A" * 33, " " + SPEC_SECRET, SPEC_SECRET + "\n", "whsk_" + "A" * 32),
    *(
        "whpk_" + "A" * 32,
        "whsec_" + "é" * 40,
        "\udc80" * 40,
        "whsec_" + "A" * 32 + "===",
        b"whsec_" + b"A" * 32,
        None,
        7,
    ),
]


@pytest.mark.parametrize("secret", BAD_SECRETS, ids=range(len(BAD_SECRETS)))
def test_wrong_secrets_are_the_callers_mistake(secret: Any) -> None:
    """A secret that is none is InvalidInput everywhere, in one line that does not show it."""
    calls = (
        lambda: check_secret(secret),
        lambda: Signer([secret]),
        lambda: Signer(secret),
        lambda: verify(b"{}", headers_for(b"{}"), secret, now=SPEC_NOW),
        lambda: verify(b"{}", headers_for(b"{}"), [SECRETS[0], secret], now=SPEC_NOW),
    )
    for call in calls:
        with pytest.raises(InvalidInput) as caught:
            call()
        assert caught.value.field == "signing_secret"
        assert not isinstance(caught.value, VerificationError)
        assert "\n" not in str(caught.value)
        assert not isinstance(secret, str) or len(secret) < 7 or secret not in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_no_secret_at_all_is_the_callers_mistake() -> None:
    """An empty list would accept or sign nothing."""
    for call in (lambda: Signer([]), lambda: verify(b"{}", headers_for(b"{}"), (), now=SPEC_NOW)):
        with pytest.raises(InvalidInput, match="no secret"):
            call()


def test_a_wrong_now_or_tolerance_is_the_callers_mistake() -> None:
    """A naive now, or a negative tolerance, is InvalidInput."""
    headers = headers_for(b"{}")
    wrong: list[dict[str, Any]] = [
        {"now": datetime(2021, 2, 25)},
        {"now": SPEC_TIME},
        {"tolerance": timedelta(seconds=-1)},
        {"tolerance": 300},
    ]
    for arguments in wrong:
        with pytest.raises(InvalidInput, match=next(iter(arguments))):
            verify(b"{}", headers, SECRETS[0], **{"now": SPEC_NOW, **arguments})


@pytest.mark.parametrize("length", [24, 32, 64])
def test_secrets_are_kept_as_given(length: int) -> None:
    """With the prefix or without, padded or not, they mean the same key and come back as they were."""
    secret = secret_from_bytes(b"k" * length)
    assert secret.reveal().startswith("whsec_")
    bare = secret.reveal().removeprefix("whsec_")
    assert base64.b64decode(bare) == b"k" * length
    for spelling in (secret, secret.reveal(), bare, bare.rstrip("=")):
        checked = check_secret(spelling)
        assert checked == (spelling if isinstance(spelling, Secret) else Secret(spelling))
        assert Signer(checked).sign("a", 1, b"x") == Signer(secret).sign("a", 1, b"x")


@pytest.mark.parametrize("length", [0, 23, 65])
def test_too_few_or_too_many_random_bytes(length: int) -> None:
    """The specification asks for 24 to 64."""
    with pytest.raises(InvalidInput, match="24 to 64"):
        secret_from_bytes(bytes(length))


def test_secrets_are_not_shown() -> None:
    """Neither a signer nor an error of verify shows a secret or the right signature."""
    signer = Signer(SECRETS)
    assert repr(signer) == "Signer(3 secrets)"
    headers = headers_for(b"{}")
    right = headers["webhook-signature"].removeprefix("v1,")
    assert right not in refusal(b"{}", {**headers, "webhook-signature": "v1,x"})


def test_the_pure_part_reads_no_clock() -> None:
    """verify_at takes its moment from the caller, always."""
    with pytest.raises(TypeError):
        verify_at(b"{}", {}, SECRETS[0], tolerance=timedelta(0))  # type: ignore[call-arg]
    assert issubclass(VerificationError, ProcoreHooksError)
