"""Fake secrets of many kinds in many dressings, and texts that only look like one. Made when a test runs, never stored.

Every value is random. What a token begins with is put together from parts, so that no scanner takes this file for a leak.
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
LOWER = string.ascii_lowercase + string.digits
URLSAFE = ALNUM + "-_"
BASE64 = ALNUM + "+/"


class Kind(NamedTuple):
    """A kind of secret: how one is made, and the name that it stands under where its form alone doesn't tell."""

    name: str
    make: Callable[[random.Random], str]
    key: str = ""
    line: str = ""
    """Where it makes sense in one form only: the line with ``{}`` for the value."""


def _text(alphabet: str, length: int) -> Callable[[random.Random], str]:
    return lambda rng: "".join(rng.choices(alphabet, k=length))


def _after(*parts: str, of: str = ALNUM, length: int = 32) -> Callable[[random.Random], str]:
    return lambda rng: "".join(parts) + _text(of, length)(rng)


def _form(pattern: str) -> Callable[[random.Random], str]:
    """``a20`` letters and digits, ``h8`` hexadecimal, ``u6`` URL-safe, ``U4`` capitals; all else is itself."""

    def make(rng: random.Random) -> str:
        capitals = string.ascii_uppercase + string.digits
        alphabets = {"a": ALNUM, "h": HEX, "u": URLSAFE, "U": capitals, "d": "123456789", "l": LOWER, "b": BASE64}
        parts = pattern.split(" ")
        return "".join(
            _text(alphabets[part[0]], int(part[1:]))(rng) if re.fullmatch(r"[ahuUdlb]\d+", part) else part.strip("'")
            for part in parts
        )

    return make


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _jwt(rng: random.Random) -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": str(rng.getrandbits(32)), "name": "x"})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, _text(URLSAFE, 43)(rng)])


def _pem(name: str) -> Callable[[random.Random], str]:
    return lambda rng: "-----BEGIN " + name + "PRIVATE " + "KEY-----\n" + _text(BASE64, 64)(rng) + "\n"


def _basic(rng: random.Random) -> str:
    return base64.b64encode(f"admin:{_text(ALNUM, 12)(rng)}".encode()).decode()


TOKENS = [
    Kind("Hugging Face", _after("h", "f_", length=34)),
    Kind("Hugging Face organisation", _after("api", "_org_", length=34)),
    Kind("OpenAI, old", _form("sk- a20 T3Blbk 'FJ' a20")),
    Kind("OpenAI, project", _after("sk", "-proj-", of=URLSAFE, length=80)),
    Kind("OpenAI, service account", _after("sk", "-svcacct-", of=URLSAFE, length=60)),
    Kind("OpenAI, admin", _after("sk", "-admin-", of=URLSAFE, length=60)),
    Kind("Anthropic", _after("sk", "-ant-api03-", of=URLSAFE, length=95)),
    Kind("OpenRouter", _after("sk", "-or-v1-", of=HEX, length=64)),
    Kind("Deepseek", _after("s", "k-", of=HEX, length=32)),
    Kind("ElevenLabs", _after("s", "k_", of=HEX, length=48)),
    Kind("Groq", _after("gs", "k_", length=52)),
    Kind("xAI", _after("xa", "i-", length=80)),
    Kind("Replicate", _after("r", "8_", length=37)),
    Kind("Perplexity", _after("pp", "lx-", length=48)),
    Kind("NVIDIA", _after("nv", "api-", of=URLSAFE, length=64)),
    Kind("Together", _after("tgp", "_v1_", of=URLSAFE, length=43)),
    Kind("LangSmith", _form("lsv2 '_pt_' h32 '_' h10")),
    Kind("Pinecone", _after("pc", "sk_", of=ALNUM, length=60)),
    Kind("Jina", _after("ji", "na_", length=60)),
    Kind("Tavily", _after("tv", "ly-", length=32)),
    Kind("Weights & Biases, new", _after("wandb", "_v1_", length=40)),
    Kind("GitHub", _after("gh", "p_", length=36)),
    Kind("GitHub OAuth", _after("gh", "o_", length=36)),
    Kind("GitHub user to server", _after("gh", "u_", length=36)),
    Kind("GitHub server to server", _after("gh", "s_", length=36)),
    Kind("GitHub refresh", _after("gh", "r_", length=36)),
    Kind("GitHub fine-grained", _form("github '_pat_' a22 '_' a59")),
    Kind("GitLab", _after("gl", "pat-", of=URLSAFE, length=20)),
    Kind("GitLab runner", _after("gl", "rt-", of=URLSAFE, length=20)),
    Kind("GitLab pipeline", _after("gl", "ptt-", of=HEX, length=40)),
    Kind("GitLab deploy", _after("gl", "dt-", of=URLSAFE, length=20)),
    Kind("GitLab registration", _after("GR13", "48941", of=URLSAFE, length=20)),
    Kind("Bitbucket", _after("AT", "BB", length=32)),
    Kind("Atlassian", _after("ATA", "TT3x", of=URLSAFE, length=186)),
    Kind("AWS access key", _after("AK", "IA", of=string.ascii_uppercase + "234567", length=16)),
    Kind("AWS session key", _after("AS", "IA", of=string.ascii_uppercase + "234567", length=16)),
    Kind("Google API", _after("AI", "za", of=URLSAFE, length=35)),
    Kind("Google OAuth secret", _after("GOC", "SPX-", of=URLSAFE, length=28)),
    Kind("Google OAuth token", _after("ya", "29.", of=URLSAFE, length=100)),
    Kind("Azure storage", _form("b86 ==")),
    Kind("Azure AD", _form("a3 d1 'Q~' a34")),
    Kind("Slack bot", _form("xo 'xb-' d12 - d12 - a24")),
    Kind("Slack user", _form("xo 'xp-' d12 - d12 - d12 - h32")),
    Kind("Slack app", _form("xa 'pp-1-' U11 - d13 - h64")),
    Kind("Slack webhook", _form("https://hooks.slack .com/services/T U9 /B U9 / a24")),
    Kind("Discord bot", _form("M a23 . a6 . u27")),
    Kind("Discord webhook", _form("https://discord .com/api/webhooks/ d18 / u68")),
    Kind("Telegram", _form("d9 :AA u33")),
    Kind("Teams webhook", _form("https://x.webhook.office .com/webhookb2/ h32 @ h32 /IncomingWebhook/ h32")),
    Kind("Stripe", _after("sk_", "live_", length=24)),
    Kind("Stripe, restricted", _after("rk_", "live_", length=24)),
    Kind("Stripe webhook", _after("wh", "sec_", length=32)),
    Kind("Square", _after("sq0", "csp-", of=URLSAFE, length=43)),
    Kind("Shopify", _after("shp", "at_", of=HEX, length=32)),
    Kind("Twilio", _after("S", "K", of=HEX, length=32)),
    Kind("SendGrid", _form("SG . u22 . u43")),
    Kind("Mailgun", _after("ke", "y-", of=HEX, length=32)),
    Kind("Mailchimp", _form("h32 -us d1")),
    Kind("Brevo", _form("xkey 'sib-' h64 - a16")),
    Kind("npm", _after("np", "m_", length=36)),
    Kind("PyPI", _after("pypi-", "AgEIcHlwaS5vcmc", of=URLSAFE, length=100)),
    Kind("RubyGems", _after("ruby", "gems_", of=HEX, length=48)),
    Kind("NuGet", _after("oy", "2", of=LOWER, length=43)),
    Kind("Docker", _after("dckr", "_pat_", of=URLSAFE, length=27)),
    Kind("Databricks", _after("da", "pi", of=HEX, length=32)),
    Kind("DigitalOcean", _after("dop", "_v1_", of=HEX, length=64)),
    Kind("Heroku, new", _after("HRK", "U-", of=URLSAFE, length=60)),
    Kind("Netlify", _after("nf", "p_", length=36)),
    Kind("Fly", _after("fo", "1_", of=URLSAFE, length=43)),
    Kind("Supabase", _after("sb", "p_", of=HEX, length=40)),
    Kind("PlanetScale", _after("pscale", "_tkn_", of=URLSAFE, length=43)),
    Kind("Tailscale", _form("ts 'key-auth-' a12 - a32")),
    Kind("Vault", _after("hv", "s.", of=URLSAFE, length=90)),
    Kind("Terraform", _form("a14 .atlas 'v1.' u64")),
    Kind("Pulumi", _after("pu", "l-", of=HEX, length=40)),
    Kind("Doppler", _after("dp", ".pt.", length=43)),
    Kind("Grafana", _form("gl 'sa_' a32 '_' h8")),
    Kind("Grafana cloud", _after("gl", "c_", of=BASE64, length=60)),
    Kind("New Relic", _after("NRA", "K-", of=string.ascii_uppercase + string.digits, length=27)),
    Kind("Sentry", _after("sntr", "yu_", of=HEX, length=64)),
    Kind("Dynatrace", _form("dt0 'c01.' U24 . U64")),
    Kind("Postman", _form("PM 'AK-' h24 - h34")),
    Kind("Linear", _after("lin", "_api_", length=40)),
    Kind("Notion", _after("nt", "n_", length=46)),
    Kind("Notion, old", _after("sec", "ret_", length=43)),
    Kind("Figma", _after("fi", "gd_", of=URLSAFE, length=40)),
    Kind("HubSpot", lambda rng: "pat-" + "na1-" + _uuid(rng)),
    Kind("Airtable", _form("pat a14 . h64")),
    Kind("Contentful", _after("CF", "PAT-", of=URLSAFE, length=43)),
    Kind("CircleCI", _form("CCI 'PAT_' a22 '_' h40")),
    Kind("Buildkite", _after("bk", "ua_", of=HEX, length=40)),
    Kind("Facebook", _after("EA", "ACEdEose0cBA", length=80)),
    Kind("Artifactory", _after("AK", "Cp", length=69)),
    Kind("OpenShift", _after("sha", "256~", of=URLSAFE, length=43)),
    Kind("Age", _after("AGE-SECRET", "-KEY-1", of="QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", length=58)),
    Kind("Cloudflare origin", _form("v1 '.0-' h24 - h146")),
    Kind("Twitter bearer", _after("A" * 22, of=ALNUM, length=80)),
    Kind("JWT", _jwt),
    Kind("PEM, RSA", _pem("RSA ")),
    Kind("PEM, OpenSSH", _pem("OPENSSH ")),
    Kind("PEM, PKCS 8", _pem("")),
    Kind("PGP", lambda rng: "-----BEGIN PGP " + "PRIVATE " + "KEY BLOCK-----\n\n" + _text(BASE64, 64)(rng)),
    Kind("PostgreSQL", _form("postgres://app: a16 @db.example.com:5432/x")),
    Kind("MongoDB", _form("mongodb+srv://app: a16 @cluster0.example.net")),
    Kind("Redis", _form("redis://: a24 @cache.example.com:6379/0")),
    Kind("AMQP", _form("amqps://app: a20 @mq.example.com/v")),
    Kind("token-only URL", _form("https:// a40 @git.example.com/me/x.git")),
    Kind("token in a query", _form("https://host.example.com/x?access_token= a24")),
    Kind("SAS", _form("https://x.blob.core.windows .net/c?sv=2022-11-02&sp=r&sig= a42 %3D")),
    Kind("Sentry DSN", _form("https:// h32 @o123.ingest.sentry.io/456")),
]  # fmt: skip
"""Kinds that are known by their form, wherever they stand."""

NAMED = [
    Kind("AWS secret key", _text(BASE64, 40), "aws_secret_access_key"),
    Kind("Azure OpenAI", _text(HEX, 32), "azure_openai_api_key"),
    Kind("Azure account key", _form("b86 =="), "AccountKey"),
    Kind("Weights & Biases", _text(HEX, 40), "wandb_api_key"),
    Kind("Comet", _text(ALNUM, 25), "comet_api_key"),
    Kind("Heroku", _uuid, "heroku_api_key"),
    Kind("Twilio auth", _text(HEX, 32), "twilio_auth_token"),
    Kind("Datadog", _text(HEX, 32), "dd_api_key"),
    Kind("Datadog application", _text(HEX, 40), "datadog_app_key"),
    Kind("Fastly", _text(URLSAFE, 32), "fastly_api_token"),
    Kind("Cloudflare", _text(URLSAFE, 40), "cloudflare_api_token"),
    Kind("Cloudflare global", _text(HEX, 37), "cloudflare_api_key"),
    Kind("Algolia", _text(HEX, 32), "algolia_admin_key"),
    Kind("Snyk", _uuid, "snyk_token"),
    Kind("Codecov", _uuid, "codecov_token"),
    Kind("Mistral", _text(ALNUM, 32), "mistral_api_key"),
    Kind("Cohere", _text(ALNUM, 40), "cohere_api_key"),
    Kind("IBM Cloud", _text(URLSAFE, 44), "ibm_cloud_api_key"),
    Kind("SoftLayer", _text(LOWER, 64), "softlayer_api_key"),
    Kind("Okta", _after("0", "0", of=URLSAFE, length=40), "okta_token"),
    Kind("Twitter secret", _text(ALNUM, 45), "twitter_api_secret"),
    Kind("Trello", _text(HEX, 32), "trello_key"),
    Kind("database password", _text(ALNUM, 12), "db_pass"),
    Kind("password", _text(ALNUM, 10), "password"),
    Kind("passphrase", _text(ALNUM, 14), "ssh_passphrase"),
    Kind("client secret", _text(ALNUM, 30), "client_secret"),
    Kind("signing key", _text(HEX, 64), "jwt_signing_key"),
    Kind("Django", _text(ALNUM + "!@^&*(-_=+)", 50), "SECRET_KEY"),
    Kind("hub token", _text(ALNUM, 20), "hub_token"),
    Kind("session token", _text(BASE64, 120), "aws_session_token"),
    Kind("LaunchDarkly", lambda rng: "sdk-" + _uuid(rng), "launchdarkly_sdk_key"),
    Kind("Kaggle", _text(HEX, 32), "kaggle_key"),
]
"""Kinds that only the name beside them tells from any other digits."""

LINES = [
    Kind("netrc", _text(ALNUM, 16), line="machine api.example.com login me password {}"),
    Kind("netrc over lines", _text(ALNUM, 16), line="machine api.example.com\n  login me\n  password {}\n"),
    Kind("pgpass", _text(ALNUM, 16), line="db.example.com:5432:app:me:{}"),
    Kind("basic authorization", _basic, line="Authorization: Basic {}"),
    Kind("bearer", _text(URLSAFE, 40), line="Authorization: Bearer {}"),
    Kind("token header", _text(HEX, 40), line="Authorization: Token {}"),
    Kind("key header", _text(ALNUM, 32), line="curl -H 'X-Api-Key: {}' https://api.example.com"),
    Kind("curl user", _text(ALNUM, 16), line="curl -u me:{} https://api.example.com"),
    Kind("ADO connection string", _text(ALNUM, 16),
         line="Server=tcp:db.example.com,1433;Database=x;User ID=me;Password={};Encrypt=True"),
    Kind("Azure connection string", _form("b86 =="),
         line="DefaultEndpointsProtocol=https;AccountName=x;AccountKey={};EndpointSuffix=core.windows.net"),
    Kind("service bus", _form("b43 ="),
         line="Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey={}"),
    Kind("JDBC", _text(ALNUM, 16), line="jdbc:postgresql://db.example.com/x?user=me&password={}"),
    Kind("npmrc", _uuid, line="//registry.npmjs.org/:_authToken={}"),
    Kind("npmrc, basic", _basic, line="_auth={}"),
    Kind("docker config", _basic, line='{{"auths": {{"registry.example.com": {{"auth": "{}"}}}}}}'),
    Kind("W&B login", _text(HEX, 40), line="wandb login {}"),
    Kind("W&B beside its name", _text(HEX, 40), line="# key for wandb: {}"),
    Kind("option", _text(ALNUM, 16), line="server --password {} --port 80"),
    Kind("PGPASSWORD", _text(ALNUM, 16), line="PGPASSWORD={} psql -h db"),
    Kind("Kubernetes", _text(ALNUM, 16), line="- name: DB_PASSWORD\n  value: {}"),
    Kind("XML", _text(ALNUM, 16), line="<password>{}</password>"),
    Kind("environ", _text(ALNUM, 24), line='os.environ["MY_API_KEY"] = "{}"'),
    Kind("setdefault", _text(ALNUM, 24), line='os.environ.setdefault("MY_API_KEY", "{}")'),
    Kind("GCP service account", lambda rng: _pem("")(rng).replace("\n", "\\n"),
         line='{{"type": "service_account", "private_key": "{}"}}'),
]  # fmt: skip
"""Kinds with a form of line of their own."""

BY_FORM = {
    "bare": "{}",
    "double quotes": 'x = "{}"',
    "single quotes": "x = '{}'",
    "in a sentence": "for the run I took {}, which still works.",
    "YAML": "seed: 42\nnote: {}\n",
    "JSON": '{{"a": 1, "note": "{}", "b": 2}}',
    "JSON in JSON": '{{"cell": "x = \\"{}\\"\\n"}}',
    "after a line break of JSON": '{{"source": "print()\\n{}\\n"}}',
    "environment": "export NOTE={}",
    "Markdown": "use `{}` there",
    "brackets": "({})",
}
BY_NAME = {
    "YAML": "seed: 42\n{}: {}\n",
    "quoted YAML": "{}: '{}'",
    "JSON": '{{"a": 1, "{}": "{}"}}',
    "JSON in JSON": '{{"cell": "{{\\"{}\\": \\"{}\\"}}"}}',
    "assignment": '{} = "{}"',
    "environment": "{}={}",
    "export": "export {}={}",
    "TOML": '[x]\n{} = "{}"',
    "argument": 'connect({}="{}")',
}


class Case(NamedTuple):
    """A fake secret as it stands in a file."""

    kind: str
    dressing: str
    text: str
    secret: str


def cases(seed: int = 0) -> Iterator[Case]:
    """Every kind in every dressing that it can have."""
    rng = random.Random(seed)
    for kind in TOKENS:
        for dressing, line in BY_FORM.items():
            secret = kind.make(rng)
            text = line.format(json.dumps(secret)[1:-1] if "JSON" in dressing else secret)
            yield Case(kind.name, dressing, text, secret)
        secret = kind.make(rng)
        yield Case(kind.name, "base64", f"blob: {base64.b64encode(secret.encode()).decode()}", secret)
        yield Case(kind.name, "capital key", f"MY_{kind.name.upper().replace(' ', '_')}: {secret}", secret)
    for kind in NAMED:
        for dressing, line in BY_NAME.items():
            for key in (kind.key, kind.key.upper()):
                secret = kind.make(rng)
                yield Case(
                    kind.name,
                    f"{dressing}, {'as is' if key == kind.key else 'capitals'}",
                    line.format(key, secret),
                    secret,
                )
        secret = kind.make(rng)
        encoded = base64.b64encode(f"{kind.key}={secret}".encode()).decode()
        yield Case(kind.name, "base64", f"blob: {encoded}", secret)
    for kind in LINES:
        secret = kind.make(rng)
        line = kind.line.format(secret)
        yield Case(kind.name, "its line", line, secret)
        yield Case(kind.name, "between lines", f"a: 1\n{line}\nb: 2", secret)
        yield Case(kind.name, "base64", base64.b64encode(line.encode()).decode(), secret)


def look_alikes(seed: int = 0) -> dict[str, str]:
    """Texts that are no secret, by what they are."""
    rng = random.Random(seed)
    h, word = _text(HEX, 40)(rng), "The quick brown fox jumps over the lazy dog, 13 times."
    encoded = base64.b64encode(word.encode()).decode()
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + rng.randbytes(90)).decode()
    hf, sk = "h" + "f_", "s" + "k-"
    return {
        "git hash": f"commit {h}",
        "revision pin": f"revision: {h}",
        "revision of a model": f"revision_of_model: {h}",
        "pinned package": f"pip install git+https://github.com/wandb/wandb@{h}",
        "commit beside a service": f"wandb: commit {h}",
        "UUID": f"id: {_uuid(rng)}",
        "run id": f"wandb_run_id: {_text(LOWER, 8)(rng)}",
        "sha256": f"sha256: {_text(HEX, 64)(rng)}",
        "digest of an image": f"image: x@sha256:{_text(HEX, 64)(rng)}",
        "digest of a tokenizer": f'"tokenizer": {{"sha256": "{_text(HEX, 64)(rng)}"}}',
        "integrity": f'"integrity": "sha512-{_text(BASE64, 86)(rng)}=="',
        "md5": f"md5 = {_text(HEX, 32)(rng)}",
        "go.sum": f"example.com/x v1.2.3 h1:{_text(BASE64, 43)(rng)}=",
        "fingerprint": f"SHA256:{_text(BASE64, 43)(rng)} me@host (ED25519)",
        "public key": f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{_text(BASE64, 43)(rng)} me@host",
        "data URI": f"![x](data:image/png;base64,{picture})",
        "model id": "base_model: meta-llama/Llama-3.3-70B-Instruct-4bit-awq-2024-12-06",
        "model ids": "Qwen/Qwen2.5-Coder-32B-Instruct-GPTQ-Int4 deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        "path of weights": "models--Qwen--Qwen3-8B-Base/snapshots/model-00001-of-00005.safetensors",
        "merge": "Ġtoken izer\nĠpass word\ns ecret\n",
        "merges as JSON": '"merges": [["Ġtoken", "ization"], ["pass", "words1"], ["api", "Keys2024"]]',
        "vocabulary": '{"password": 22019, "token": 5839, "secret": 20474, "ĠapiKey": 91432, "_key": 3097}',
        "base64 of a text": f"note: {encoded}",
        "base64 of JSON": base64.b64encode(json.dumps({"max_tokens": 8, "seed": 42, "model": "x"}).encode()).decode(),
        "placeholder, dots": f"hub_token: {hf}...",
        "placeholder, x": f"HF_TOKEN={hf}{'x' * 30}",
        "placeholder, your": f"api_key: {sk}your-api-key-here",
        "placeholder, brackets": "token: <your token>",
        "placeholder, capitals": "api_key: YOUR_API_KEY",
        "placeholder, stars": "password: ********",
        "variable": "token: ${HF_TOKEN}",
        "variable with a default": "password: ${DB_PASS:-}",
        "variable of a shell": 'curl -H "Authorization: Bearer $TOKEN" https://host',
        "variable of CI": "token: ${{ secrets.HF_TOKEN }}",
        "variable of Python": 'token = os.environ["HF_TOKEN"]',
        "call": "api_key = get_api_key(service)",
        "annotation": "def login(token: str, password: str | None = None) -> None: ...",
        "limit": "max_tokens: 8",
        "limit, long": "max_new_tokens=4096 tokens_per_second=1234.5678",
        "tokenizer": "tokenizer_type: LlamaTokenizerFast2",
        "tokenizer class": '"tokenizer_class": "Qwen2TokenizerFast"',
        "pad token": "pad_token: <|endoftext|>",
        "image token": '"image_token": "<|image_pad_0001|>", "bos_token": "begin_of_text_128000"',
        "eos": "eos_token_id: 151645",
        "method": "sftkey_method: key-tag",
        "sort key": "sort_key: question, label_key=answer1",
        "sentence": "The password: ask the administrator. The token: see above.",
        "use_auth_token": "use_auth_token: true",
        "empty": 'hub_token: ""\napi_key: null',
        "file of a secret": "password_file: /run/secrets/db_password",
        "name of a secret": "api_key_env: OPENAI_API_KEY",
        "ssh address": "git+ssh://git@github.com/me/x.git",
        "port and path": "https://host:8080/path@x",
        "docker user": "docker run -u 1000:1000 x",
        "camel case": "AutoModelForSequenceClassificationWithValueHead2Layers",
        "sk-learn": "sk-learn-compatible-estimators-for-time-series",
        "alphabet": string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/",
        "date": "results_2026-01-02T00-00-00.000000.json",
        "certificate": "-----BEGIN CERTIFICATE-----\n" + _text(BASE64, 64)(rng) + "\n-----END CERTIFICATE-----",
        "template": "{{ message['content'] | trim }}{% if add_generation_prompt %}",
        "learning rates": "learning_rate: 5.0e-06 warmup_ratio: 0.03 weight_decay: 0.0",
    }  # fmt: skip
