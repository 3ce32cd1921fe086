"""Secrets are taken out wherever they stand, and nothing else is."""

from __future__ import annotations

import json
import signal
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_live.observe.redact import HIDDEN, redact

SECRET = "S3CRETs3cretS3cret77"


@pytest.mark.parametrize(
    "line",
    [
        f"the key is sk-proj-{SECRET} and that is it",
        f"sk-ant-api03-{SECRET}-AA",
        f"AIzaSy{SECRET}",
        f"hf_{SECRET}",
        f"gsk_{SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"authorization=Basic {SECRET}==",
        f"curl -H 'Authorization: Bearer {SECRET}'",
        f"bearer {SECRET}",
        f"api_key={SECRET}, model=x",
        f"OPENAI_API_KEY={SECRET}",
        f'{{"api_key": "{SECRET}", "x": 1}}',
        f"{{'api-key': '{SECRET}'}}",
        f"x-api-key: {SECRET}",
        f"LM(api_key='{SECRET}')",
        f"https://host/path?api_key={SECRET}&x=1",
        f"postgresql://me:{SECRET}@host/db",
        f"redis://:{SECRET}@host:6379",
        f'password: "a \\"{SECRET}\\" b"',
        f"client_secret = {SECRET}",
        f"Set-Cookie: {SECRET}",
        json.dumps(json.dumps({"api_key": SECRET, "headers": {"Authorization": f"Bearer {SECRET}"}})),
        f"Authorization: Token {SECRET}",
        f"authorization: ApiKey {SECRET}",
        f"{{b'authorization': b'Token {SECRET}', b'x-api-key': b'{SECRET}'}}",
        f"[('x-api-key', '{SECRET}'), (b'api-key', b'{SECRET}')]",
        f"Cookie: theme=dark; sid={SECRET}; lang=en",
        f"Ocp-Apim-Subscription-Key: {SECRET}",
        f"x-goog-api-key: {SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET} AWS_SESSION_TOKEN={SECRET}",
        f"https://s3.example.com/b?X-Amz-Security-Token={SECRET}&X-Amz-Signature={SECRET}",
        f"https://acc.blob.core.windows.net/c?sv=2022-11-02&sig={SECRET}%3D",
        f"AccountName=x;AccountKey={SECRET}==;EndpointSuffix=core.windows.net",
        f"Driver=ODBC;UID=me;PWD={SECRET};",
        f"https://host/v1/models?key={SECRET}",
        f"https://host/v1/models?x=1&token={SECRET}",
        f'{{"token": "{SECRET}"}}',
        f"postgresql://u:p@{SECRET}@host/db",
        f"https://{SECRET}@host/repository.git",
        f"api_key = SecretStr('{SECRET}')",
        f"def ask(api_key: str = '{SECRET}'):",
        f"api_key=b'{SECRET}'",
        f"api_keys=['x', '{SECRET}']",
        json.dumps({"api_key": {"value": SECRET}}),
        json.dumps(json.dumps({"api_keys": [SECRET, SECRET]})),
        f"Incorrect API key provided: {SECRET}",
        f"['serve', '--api-key', '{SECRET}']",
        f"mysql --password {SECRET}",
        f"ya29.{SECRET}",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\nMII{SECRET}\nAAAA\n-----END RSA PRIVATE KEY-----",
        json.dumps(f"-----BEGIN PRIVATE KEY-----\nMII{SECRET}\n"),
        f"requests.get(url, auth=('me', '{SECRET}'))",
        f"Client(auth=HTTPBasicAuth('me', '{SECRET}'), timeout=3)",
        f"auth={SECRET}",
        json.dumps({"auth": {"user": "me", "pass": SECRET}}),
        f"credentials: {SECRET}",
        f"Credential(credentials='{SECRET}')",
        f"GROQ_KEY={SECRET} LANGFUSE_SECRET={SECRET}",
        f"HF_TOKEN=a,b;c&{SECRET}",
        json.dumps(f'HF_TOKEN="{SECRET}"'),
        f"hf_token={SECRET}",
        f"DB_SECRET: {SECRET}",
    ],
)
def test_a_secret_is_hidden(line: str) -> None:
    cleaned = redact(line)
    assert SECRET not in cleaned
    assert HIDDEN in cleaned


@pytest.mark.parametrize(
    "line",
    [
        "total_tokens=15 prompt_tokens: 10 max_tokens=5",
        "sk-learn and task-based-architectures-of-long-names",
        "the answer is 42, key=value; ski-resort",
        "run=0123456789abcdef0123456789abcdef program=Rag predictor=rag.answer",
        "http://127.0.0.1:8000/predict took 0.5 s",
        "bearer of bad news",
        "basic understanding of basic arithmetic",
        "skip_validation_step_2 of skills-matrix-2026-11 in pkg_resources_version_3",
        "asia-southeast1-docker.pkg.dev and rk3588-board-support-package",
        "api_key=None secret=true",
        '{"api_key": null, "api_keys": []}',
        "token='hello' next token: world",
        "auth=None basic auth: needed, author=me oauth: x authority=y",
        "hf_transfer npm_config_registry npm_package_version fw_version e2b_sandbox pplx-70b-online jina_embeddings_v3",
        "pypi-attestation-models SG.one ABSKURE csk-x MAX_TOKENS_LEFT=3 cache_key=0123456789abcdef0 KEY=1",
        "sk-learn-and-other-libraries-for-the-first-year rk-architecture",
        "",
    ],
)
def test_other_text_stays(line: str) -> None:
    assert redact(line) == line


@given(st.text(), st.text(alphabet=st.characters(blacklist_categories=["Cs"]), min_size=1))
def test_a_line_of_json_stays_one(before: str, secret: str) -> None:
    line = json.dumps({"text": before, "api_key": secret, "n": [1]})
    cleaned = json.loads(redact(line))
    assert cleaned["api_key"] == HIDDEN
    assert cleaned["n"] == [1]


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
WORD = LETTERS + "0123456789"
URL_SAFE = WORD + "_-"

# As their providers make them: the fixed beginning, the signs that follow, and how many of them.
SHAPES = [
    ("hf_", WORD, 34),
    ("pplx-", WORD, 48),
    ("fw_", WORD, 22),
    ("tvly-", WORD, 32),
    ("tvly-dev-", URL_SAFE, 32),
    ("lsv2_pt_", "0123456789abcdef", 32),
    ("jina_0123456789abcdef0123456789abcdef", URL_SAFE, 28),
    ("npm_", WORD, 36),
    ("pypi-AgEIcHlwaS5vcmcC", URL_SAFE, 140),
    ("pcsk_", WORD + "_", 70),
    ("e2b_", "0123456789abcdef", 40),
    ("SG.", URL_SAFE, 22),
    ("glpat-", URL_SAFE, 20),
    ("ABSK", WORD + "+/", 128),
    ("csk-", WORD, 48),
    ("AIza", URL_SAFE, 35),
    ("gsk_", WORD, 52),
    ("ghp_", WORD, 36),
    ("r8_", WORD, 37),
    ("sk-proj-", WORD, 48),
]
PLACES = [
    "{}", "the key {} is wrong", "({})", "'{}'", '{{"error": "no access for {}"}}', "x={};", "https://h/?a={}&b=1",
    "\x1b[32m{}\x1b[0m", "a line\\n{}\\nanother", "q%20{}", "\t{}\r\n",
]  # fmt: skip


@settings(max_examples=600)
@given(st.sampled_from(SHAPES), st.sampled_from(PLACES), st.sampled_from([LETTERS, ""]), st.data())
def test_of_a_key_of_a_known_shape_nothing_is_left(
    shape: tuple[str, str, int], place: str, only: str, data: st.DataObject
) -> None:
    """A key may be of letters alone: a Hugging Face token of 34 letters was once taken for a word."""
    prefix, signs, length = shape
    signs = "".join(c for c in signs if not only or c in only)
    body = data.draw(st.text(signs, min_size=length, max_size=length))
    assert redact(place.format(prefix + body)) == place.format(HIDDEN)


def test_both_parts_of_a_key_of_parts_are_hidden() -> None:
    assert redact("SG.abcdefghijklmnopqrstuv.abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq sent") == f"{HIDDEN} sent"
    assert redact("lsv2_pt_0123456789abcdef0123456789abcdef_0123456789 x") == f"{HIDDEN} x"


@given(
    st.sampled_from(["GROQ_KEY", "HF_TOKEN", "LANGFUSE_SECRET", "X2_KEYS"]),
    st.text(
        st.characters(min_codepoint=33, exclude_categories=["Cs", "Z", "Cc"], exclude_characters="\\\"'"), min_size=1
    ),
)
def test_of_a_secret_in_a_variable_nothing_is_left(name: str, value: str) -> None:
    if value.lower().startswith(("none", "null", "true", "false")):
        value = "x" + value
    assert redact(f"env {name}={value} and") == f"env {name}={HIDDEN} and"
    assert redact(f"env {name}='{value}' and") == f"env {name}='{HIDDEN}' and"
    line = json.loads(redact(json.dumps({"command": f"{name}={value}", name: value, "n": 1})))
    assert line == {"command": f"{name}={HIDDEN}", name: HIDDEN, "n": 1}


@pytest.mark.parametrize("text", ['say "api_key=x" now', 'say "MY_KEY=x" now', "a 'api_key=x' \\ \" now"])
def test_a_name_and_its_value_in_quotes_inside_of_json_leave_it_json(text: str) -> None:
    for depth in range(3):
        line = text
        for _ in range(depth):
            line = json.dumps(line)
        line = redact(line)
        for _ in range(depth):
            line = json.loads(line)
        assert line == text.replace("=x", f"={HIDDEN}")


def test_aws_and_basic_are_known_by_their_shape() -> None:
    assert redact("the key AKIAIOSFODNN7EXAMPLE is") == f"the key {HIDDEN} is"
    assert redact("sent Basic bWU6c2VjcmV0 to it") == f"sent Basic {HIDDEN} to it"


@given(
    st.sampled_from(["api_key", "password", "x-api-key", "Authorization", "client_secret"]),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.lists(st.integers() | st.from_regex(r"[a-z0-9 ,:=]*", fullmatch=True))
    | st.dictionaries(st.from_regex(r"[a-z]+", fullmatch=True), st.integers()),
    st.integers(0, 2),
)  # fmt: skip
def test_a_line_of_json_stays_one_whatever_a_secret_is(name: str, secret: object, depth: int) -> None:
    line: object = {"a": [{name: secret, "b": 1}], "c": "d"}
    for _ in range(depth):
        line = json.dumps(line)
    text = redact(json.dumps(line))
    cleaned = json.loads(text)
    for _ in range(depth):
        cleaned = json.loads(cleaned)
    assert cleaned["c"] == "d"
    assert cleaned["a"][0]["b"] == 1
    assert cleaned["a"][0][name] in (HIDDEN, None, True, False, [], {})


@pytest.mark.parametrize(
    "nasty",
    [
        *("a-", "sk-", "a.", "x", "api_key", 'api_key="', "password=\\", "'", "http://a:b", "api_key: '", "://", "\\"),
        *("eyJ-", "eyJabcdefgh.", "://a1@", "authorization: a ", "cookie: a=b; ", "('api_key', '", "--key ", "token=1"),
        *("?key=", "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "api_key: [", "api_key: {", "bearer ", "basic "),
        *("api_key: a[", "--aaaa", ";pwd=", "sk-1", "Authorization: Basic "),
        *("hf_", "sk-a", "glpat-a.", "SG.aaaaaaaaaaaaaaaa.", "auth=(", "auth=a.", "A_KEY=", 'A_KEY":', "credentials: "),
        *("tvly-", "sk-aaaaaaaaaaaaaaaaaaa-", "\\n", "%20", "auth", 'auth\\\\\\"', "ABSK", "eyJaaaaaaaa."),
    ],
)
def test_long_lines_cost_linear_time(nasty: str) -> None:
    """A bound in CPU seconds that linear work stays far under and quadratic work, minutes of it, does not."""

    def too_long(_: int, __: FrameType | None) -> None:
        raise AssertionError(f"{nasty!r} repeated takes more than 5 s")

    before = signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, 5)
    try:
        redact(nasty * (200_000 // len(nasty)))
        redact(nasty * 5000 + "\\" * 50_000)
        redact(nasty + "\\" * 50_000)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
