"""ed25519 keys and signatures: against RFC 8032, another implementation's example and the package; hostile input."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import pickle
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import standardwebhooks
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from procore_hooks import Hook, InvalidInput, Secret, VerificationError, generate_ed25519_secret, verify
from procore_hooks._core.ed25519 import PrivateKey, PublicKey, public_key_of, secret_from_seed
from procore_hooks._core.signing import Signer, check_secret, secret_from_bytes

AT = 1614265330
NOW = datetime.fromtimestamp(AT, UTC)
SEED = bytes(range(32))
PAIR = secret_from_seed(SEED)
PUBLIC = public_key_of(PAIR) or ""
OTHER = secret_from_seed(bytes(range(1, 33)))
SHARED = secret_from_bytes(bytes(32))
BODIES = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers() | st.none(), max_size=3)

# RFC 8032, section 7.1: seed, public key, message, signature.
RFC_8032 = {
    "1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe"
        "24655141438e7a100b",
    ),
    "2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302a"
        "eeb00d291612bb0c00",
    ),
    "3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed2"
        "8dc027beceea1ec40a",
    ),
    "SHA(abc)": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac1"
        "7ad9bef1177331a704",
    ),
}


def text_of(prefix: str, raw: bytes) -> str:
    return prefix + base64.b64encode(raw).decode()


def headers_for(body: bytes, *secrets: str | Secret, id: str = "msg_1", at: int = AT) -> dict[str, str]:
    signature = Signer(secrets or (PAIR,)).sign(id, at, body)
    return {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": signature}


def refusal(body: Any, headers: Any, secret: Any = PUBLIC) -> str:
    with pytest.raises(VerificationError) as caught:
        verify(body, headers, secret, now=NOW)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", RFC_8032)
def test_the_examples_of_rfc_8032(name: str) -> None:
    """From each seed come the public key and the signature that the RFC prints, and they verify."""
    seed, public, message, signature = (bytes.fromhex(text) for text in RFC_8032[name])
    for private in (text_of("whsk_", seed), text_of("whsk_", seed + public)):
        assert public_key_of(private) == text_of("whpk_", public)
        for cut in range(len(message) + 1):
            made = PrivateKey(private).signature(message[:cut], message[cut:])
            assert made == text_of("v1a,", signature)
    key = PublicKey(text_of("whpk_", public))
    assert key.matches(text_of("v1a,", signature), message)
    assert not key.matches(text_of("v1a,", signature), message + b"\0")
    assert not key.matches(text_of("v1,", signature), message)


def test_the_example_of_svix() -> None:
    """A pair, a message and its signature as the Svix server's own tests have them, in the same textual form."""
    pair = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
    public = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
    signature = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
    body = b'{"test": 2432232314}'
    headers = headers_for(body, pair, id="msg_p5jXN8AQM9LWM0D4loKWxJek")
    assert headers["webhook-signature"] == signature
    assert public_key_of(pair) == public
    assert check_secret(pair) == Secret(pair)
    assert verify(body, headers, public, now=NOW) == {"test": 2432232314}


@given(st.binary(min_size=32, max_size=32), BODIES)
def test_what_we_sign_the_package_accepts(seed: bytes, value: dict[str, Any]) -> None:
    """Messages of ours verify with `cryptography` itself, given the raw bytes, whichever key and body."""
    body = json.dumps(value, ensure_ascii=False).encode()
    secret = secret_from_seed(seed)
    headers = headers_for(body, secret)
    version, encoded = headers["webhook-signature"].split(",")
    assert version == "v1a"
    public = base64.b64decode((public_key_of(secret) or "").removeprefix("whpk_"))
    assert public == Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    signed = f"msg_1.{AT}.".encode() + body
    Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(encoded), signed)
    assert verify(body, headers, text_of("whpk_", public), now=NOW) == value


@given(st.binary(min_size=32, max_size=32), BODIES)
def test_what_the_package_signs_we_accept(seed: bytes, value: dict[str, Any]) -> None:
    """Messages that `cryptography` signed verify here, under either family of names, as text and as bytes."""
    body = json.dumps(value, ensure_ascii=False)
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = text_of("whpk_", private.public_key().public_bytes_raw())
    signature = text_of("v1a,", private.sign(f"msg_1.{AT}.{body}".encode()))
    for family in ("webhook", "Svix", "WEBHOOK"):
        headers = {f"{family}-Id": "msg_1", f"{family}-Timestamp": str(AT), f"{family}-Signature": signature}
        assert verify(body, headers, public, now=NOW) == value
        assert verify(body.encode(), headers, public.rstrip("="), now=NOW) == value


def test_kinds_are_told_apart() -> None:
    """Secrets of both kinds sign in their order; each key accepts its own kind, alone or among others."""
    headers = headers_for(b"{}", PAIR, SHARED, OTHER)
    signatures = headers["webhook-signature"].split(" ")
    assert [one.partition(",")[0] for one in signatures] == ["v1a", "v1", "v1a"]
    assert repr(Signer((PAIR, SHARED, OTHER))) == "Signer(3 secrets)"
    for secret in (PUBLIC, PAIR, PAIR.reveal(), SHARED, public_key_of(OTHER), Secret(PUBLIC)):
        assert verify(b"{}", headers, secret, now=NOW) == {}  # type: ignore[arg-type]
        assert verify(b"{}", headers, [secret_from_bytes(b"k" * 24), secret], now=NOW) == {}  # type: ignore[list-item]
    assert verify(b"{}", headers_for(b"{}", SHARED), [PUBLIC, SHARED], now=NOW) == {}
    assert verify(b"{}", headers_for(b"{}"), [public_key_of(OTHER) or "", PUBLIC], now=NOW) == {}
    assert "no signature matches" in refusal(b"{}", headers_for(b"{}", SHARED))
    assert "no signature matches" in refusal(b"{}", headers_for(b"{}"), SHARED)
    assert "no signature matches" in refusal(b"{}", headers_for(b"{}", OTHER))


def test_a_public_key_is_no_shared_secret() -> None:
    """What is signed by HMAC with the public key, which anyone may know, is not accepted for that key."""
    raw = PUBLIC.removeprefix("whpk_")
    signed_by_anyone = Signer("whsec_" + raw).sign("msg_1", AT, b"{}")
    for signature in (signed_by_anyone, signed_by_anyone.replace("v1,", "v1a,")):
        refusal(b"{}", {**headers_for(b"{}"), "webhook-signature": signature})


def test_a_receiver_of_the_shared_kind_passes_over_ours() -> None:
    """standardwebhooks, which knows `v1` only, finds its signature behind one of ed25519."""
    now = int(datetime.now(UTC).timestamp())
    headers = headers_for(b'{"a":1}', PAIR, SHARED, at=now)
    assert standardwebhooks.Webhook(SHARED.reveal()).verify(b'{"a":1}', headers) == {"a": 1}


@pytest.mark.parametrize(
    "before",
    [
        *("v1a,", "v1a", "v1a,broken", "v1a,AA=A", "v1a,é\udc80", "v1a,,", ",", "", "v1,AAAA", "v2,x,y", "v1b,", " "),
        *("v1a," + "A" * 86 + "==", "v1a," + "A" * 88, "v1a," + "A" * 84, "v1a," + "A" * 100_000),
    ],
    ids=range(16),
)
def test_a_valid_signature_after_a_broken_one_is_accepted(before: str) -> None:
    """Nothing that stands before it, or behind it, spoils a right signature."""
    headers = headers_for(b"{}")
    right = headers["webhook-signature"]
    assert verify(b"{}", {**headers, "webhook-signature": f"{before} {right} {before}"}, PUBLIC, now=NOW) == {}
    assert "no signature" in refusal(b"{}", {**headers, "webhook-signature": f"{before} v1a,x"})


def test_the_number_of_signatures_looked_at_is_bounded() -> None:
    """A header of thousands of signatures costs no more than one of twenty: each is a computation over the body."""
    headers = headers_for(b"{}")
    right = headers["webhook-signature"]
    assert verify(b"{}", {**headers, "webhook-signature": "v1a,x " * 19 + right}, PUBLIC, now=NOW) == {}
    assert verify(b"{}", {**headers, "webhook-signature": "v1,x " * 99 + right}, PUBLIC, now=NOW) == {}
    refusal(b"{}", {**headers, "webhook-signature": "v1a,x " * 20 + right})
    refusal(b"{}", {**headers, "webhook-signature": "v1,x " * 100 + right})


def test_any_change_of_the_message_is_noticed() -> None:
    """Another body, id or time, another key's signature, and another way to write the same one, are refused."""
    headers = headers_for(b'{"a":1}')
    right = headers["webhook-signature"]
    assert verify(b'{"a":1}', headers, PUBLIC, now=NOW) == {"a": 1}
    refusal(b'{"a":2}', headers)
    refusal(b'{"a": 1}', headers)
    refusal(b'{"a":1}', {**headers, "webhook-id": "msg_2"})
    refusal(b'{"a":1}', {**headers, "webhook-timestamp": str(AT + 1)})
    refusal(b'{"a":1}', {**headers, "webhook-timestamp": f"0{AT}"})
    # The last digit holds two bits of the signature and four that are none; 64 bytes end in "A", "Q", "g" or "w".
    loose = right[:-3] + chr(ord(right[-3]) + 1) + "=="
    assert base64.b64decode(loose[4:]) == base64.b64decode(right[4:])
    for signature in (right.rstrip("="), right.replace("v1a", "v1"), right.replace("v1a,", "V1A,"), loose, right[4:]):
        refusal(b'{"a":1}', {**headers, "webhook-signature": signature})


def test_the_time_counts_as_for_the_other_kind() -> None:
    """A right signature of six minutes ago is too old, unless the caller says otherwise."""
    headers = headers_for(b"{}", at=AT - 360)
    assert "too old" in refusal(b"{}", headers)
    assert verify(b"{}", headers, PUBLIC, now=NOW, tolerance=timedelta(hours=1)) == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"\xff{}", b'{"a":NaN}', b"[" * 100_000], ids=range(6))
def test_signed_bodies_that_are_no_json_object(body: bytes) -> None:
    """Even what is rightly signed must be a JSON object in UTF-8."""
    assert refusal(body, headers_for(body)).startswith("body: the signature is right, but")


HOSTILE = st.none() | st.integers() | st.floats() | st.binary() | st.text() | st.lists(st.text()) | st.just(object())
NAMES = st.sampled_from(
    ["webhook-id", "Webhook-Timestamp", "webhook-signature", "svix-id", "svix-timestamp", "WEBHOOK-"]
)
SIGNATURES = st.text().map("v1a,".__add__) | st.binary(max_size=70).map(lambda raw: text_of("v1a,", raw))
RIGHT = Signer(PAIR).sign("msg_1", AT, b"{}")
VALUES = HOSTILE | SIGNATURES | st.sampled_from([str(AT), "v1a,", "msg_1", RIGHT])


@given(
    HOSTILE | st.just(b"{}"),
    HOSTILE | st.dictionaries(NAMES | HOSTILE.filter(lambda key: not isinstance(key, list)), VALUES),
)
def test_nothing_but_a_verification_error_comes_out(body: Any, headers: Any) -> None:
    """Whatever body and headers are: a dict that was signed, or a VerificationError."""
    with suppress(VerificationError):
        assert verify(body, headers, [SHARED, PUBLIC], now=NOW) == {}


@given(st.lists(SIGNATURES | st.just("v1a,"), max_size=19), st.lists(SIGNATURES, max_size=5))
def test_no_neighbours_make_or_break_a_signature(before: list[str], after: list[str]) -> None:
    """The right one is found among any others, and they are not right without it."""
    headers = headers_for(b"{}")
    around = [[one.replace(" ", "") for one in several] for several in (before, after)]
    joined = " ".join([*around[0], RIGHT, *around[1]])
    assert verify(b"{}", {**headers, "webhook-signature": joined}, PUBLIC, now=NOW) == {}
    refusal(b"{}", {**headers, "webhook-signature": " ".join([*around[0], "v1a,", *around[1]])})


@given(st.binary(max_size=80), st.sampled_from(["whsk_", "whpk_"]))
def test_any_bytes_behind_a_prefix_are_a_key_or_the_callers_mistake(raw: bytes, prefix: str) -> None:
    """A key of whatever bytes: it works, or is InvalidInput that does not show it."""
    text = text_of(prefix, raw)
    with suppress(InvalidInput):
        refusal(b"{}", headers_for(b"{}", OTHER), text)
    try:
        key = check_secret(text).reveal()
    except InvalidInput as error:
        key, told = None, str(error)
    if key is None:
        assert not raw[:12] or text[5:] not in told
    else:
        assert len(base64.b64decode(key[5:])) == 64


ENCODED = base64.b64encode(SEED).decode()
BAD_KEYS = [
    *("whsk_", "whpk_", "whsk_hunter2hunter2", "whpk_hunter2hunter2", "whsk_" + "A" * 42, "whpk_" + "A" * 44),
    *("whsk_" + ENCODED + "=", f" whsk_{ENCODED}", f"whsk_{ENCODED}\n", "whsk_ " + ENCODED, "whpk_" + "é" * 43),
    *("whsk_" + ENCODED.replace("A", "-"), "whpk_" + "\udc80" * 43, "WHSK_" + ENCODED, "whpk_whpk_" + PUBLIC[5:]),
    *(PAIR.reveal()[:-3], PAIR.reveal()[:-2] + "A=", PUBLIC[:-2], "whpk_" + PAIR.reveal()[5:]),
    text_of("whsk_", SEED + bytes(32)),
    text_of("whsk_", SEED + base64.b64decode((public_key_of(OTHER) or "")[5:])),
]


@pytest.mark.parametrize("secret", BAD_KEYS, ids=range(len(BAD_KEYS)))
def test_wrong_keys_are_the_callers_mistake(secret: str) -> None:
    """A key that is none is InvalidInput everywhere, in one line that does not show it."""
    calls = (
        lambda: check_secret(secret),
        lambda: Signer([SHARED, secret]),
        lambda: verify(b"{}", headers_for(b"{}"), Secret(secret), now=NOW),
        lambda: verify(b"{}", headers_for(b"{}"), [PUBLIC, secret], now=NOW),
    )
    for call in calls:
        with pytest.raises(InvalidInput) as caught:
            call()
        assert caught.value.field == "signing_secret"
        assert "\n" not in str(caught.value)
        assert secret[5:].strip() == "" or secret.strip() not in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_public_key_does_not_sign() -> None:
    """A hook wants the private one, and the error says so."""
    for call in (check_secret, Signer):
        with pytest.raises(InvalidInput, match="only verifies: use the private one, 'whsk_'"):
            call(PUBLIC)


# Points of the curve, by the addition law of RFC 8032, section 5.1.4: the code under test adds none.
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493
Point = tuple[int, int]


def added(one: Point, other: Point) -> Point:
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def times(number: int, point: Point) -> Point:
    total = (0, 1)
    while number:
        if number & 1:
            total = added(total, point)
        point, number = added(point, point), number >> 1
    return total


def encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def point_with(y: int) -> Point | None:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    for x in (root, root * pow(2, (P - 1) // 4, P) % P):
        if x * x % P == square:
            return x, y
    return None


def points_of_small_order() -> set[Point]:
    """The eight of them: what is left of any point when its part of the large order is multiplied away."""
    left = {times(ORDER, point) for y in range(2, 60) if (point := point_with(y)) is not None}
    return {added(one, other) for one in left for other in left}


def test_keys_that_anyone_can_sign_for_are_no_keys() -> None:
    """Points of small order are refused, in every spelling, the 32 zero bytes of an empty setting among them."""
    small = points_of_small_order()
    assert len(small) == 8
    spellings = {encoded(point) for point in small}
    # Numbers that are not reduced, and the sign of an x that is 0.
    spellings |= {(y + P).to_bytes(32, "little") for y in (0, 1)}
    spellings |= {(y + 2**255).to_bytes(32, "little") for y in (1, P - 1, P, P + 1)}
    assert bytes(32) in spellings
    for raw in spellings:
        with pytest.raises(InvalidInput, match="no public key of ed25519"):
            verify(b"{}", headers_for(b"{}"), text_of("whpk_", raw), now=NOW)
    # Why: for such a key, here that of order 1, the package itself accepts what nobody has signed.
    neutral = encoded((0, 1))
    Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"whatever")


@pytest.mark.parametrize("y", range(2, 60))
def test_only_points_of_the_curve_are_keys(y: int) -> None:
    """A number with a point is a key, even outside the large subgroup; one without is none: a slip of the pen."""
    raw = y.to_bytes(32, "little")
    if point_with(y) is None:
        with pytest.raises(InvalidInput, match="no public key"):
            PublicKey(text_of("whpk_", raw))
    else:
        PublicKey(text_of("whpk_", raw))
        with pytest.raises(InvalidSignature):
            Ed25519PublicKey.from_public_bytes(raw).verify(bytes(64), b"")
    if y < 19:  # another spelling of the same number
        with pytest.raises(InvalidInput, match="no public key"):
            PublicKey(text_of("whpk_", (y + P).to_bytes(32, "little")))


def test_a_seed_is_completed_by_its_public_key() -> None:
    """A bare seed, padded or not, comes back as the pair; a pair comes back as it was."""
    for spelling in (text_of("whsk_", SEED), text_of("whsk_", SEED).rstrip("="), PAIR.reveal().rstrip("=")):
        assert check_secret(spelling) == PAIR
        assert check_secret(Secret(spelling)) == PAIR
        assert Signer(spelling).sign("a", 1, b"x") == Signer(PAIR).sign("a", 1, b"x")
    assert check_secret(PAIR) == PAIR


def test_generated_keys_are_pairs_and_differ() -> None:
    """Each is new, is a secret that a hook may have, and signs for its public key."""
    secrets = [generate_ed25519_secret() for _ in range(20)]
    assert len(set(secrets)) == 20
    for secret in secrets:
        assert isinstance(secret, Secret)
        assert check_secret(secret) == secret
        assert verify(b"{}", headers_for(b"{}", secret), public_key_of(secret) or "", now=NOW) == {}


def a_hook(secret: str | Secret) -> Hook:
    return Hook(
        id=1,
        namespace="acme",
        destination_url="https://acme.example/",
        signing_secret=Secret(secret),
        created_at=NOW,
        updated_at=NOW,
    )


def test_a_hook_tells_its_public_key() -> None:
    """`whpk_` for a pair and for a bare seed; None for a secret of the other kind and for none."""
    assert a_hook(PAIR).public_key == PUBLIC
    assert a_hook(text_of("whsk_", SEED)).public_key == PUBLIC
    assert a_hook(SHARED).public_key is None
    assert a_hook("").public_key is None


def test_private_keys_are_not_shown() -> None:
    """Neither a key nor a signer, a hook, an error or a copy of their fields shows the seed."""
    key, hook = PrivateKey(PAIR.reveal()), a_hook(PAIR)
    shown = [repr(key), str(key), repr(Signer(PAIR)), repr(key.text), repr(hook), repr(attrs.asdict(hook))]
    shown.append(refusal(b"{}", headers_for(b"{}", OTHER)))
    assert [text for text in shown if PAIR.reveal()[5:30] in text or ENCODED[:20] in text or SEED.hex() in text] == []
    for thing in (key, Signer(PAIR), hook):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
    assert copy.copy(hook) == hook


def test_an_openssl_without_ed25519(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenSSL refuses the algorithm, as in FIPS mode, the error says so, for both halves."""

    def refuse(data: bytes) -> Any:
        raise UnsupportedAlgorithm("ed25519 is not supported")

    class Unsupported:
        from_private_bytes = from_public_bytes = staticmethod(refuse)

    module = "cryptography.hazmat.primitives.asymmetric.ed25519"
    monkeypatch.setattr(f"{module}.Ed25519PrivateKey", Unsupported)
    monkeypatch.setattr(f"{module}.Ed25519PublicKey", Unsupported)
    for call in (generate_ed25519_secret, lambda: check_secret(PAIR), lambda: PublicKey(PUBLIC)):
        with pytest.raises(InvalidInput, match="offers no ed25519"):
            call()
