"""Secrets that are known by what stands before them: a name such as ``api_key``, or the service that they are for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sftkey.stages.secret_forms import is_placeholder, is_random

KIND = "a value under a name such as token, password or api_key"

_VALUE = r"""(?:
    "(?![\s:,]) (?P<double>[^"\n]{4,4000})" | '(?![\s:,]) (?P<single>[^'\n]{4,4000})' | (?P<bare>[^\s"',;]{4,4000}+) )"""
# `name: value`, `"name": "value"`, `NAME=value`, `environ["NAME"] = "value"`, `name := value`, `name => value`.
_PAIR = re.compile(
    rf"""(?x) (?<![\w.-]) (?P<name>[\w.-]{{2,}}+) (?P<closed>(?:["'][\])]?)?)
    [ \t]{{0,8}} (?: := | => | : (?!//) | = ) [ \t]{{0,8}} (?:[burf@]{{1,2}}(?=["']))? {_VALUE}"""
)
_OPTION = re.compile(rf"(?x) (?<!\S) --(?P<name>[\w-]{{2,}}+) [ ] {_VALUE}")
_ELEMENT = re.compile(r"<(?P<name>[A-Za-z][\w:.-]*+)>(?P<bare>[^<>\s]{4,4000}+)</")
_NAME_AND_VALUE = re.compile(
    rf"""(?ix) \b(?:name|key)["']? \s{{0,4}} [:=] \s{{0,4}} ["']? (?P<name>[\w.-]{{2,100}}+) ["']? \s{{0,4}} ,? \s{{0,60}}
    ["']? value["']? \s{{0,4}} [:=] \s{{0,4}} {_VALUE}"""
)
# The value is looked at only: it may be the name of the next one.
_TUPLE = re.compile(r"""["'](?P<name>[\w.-]{2,100}+)["']\s{0,4},\s{0,4}(?=["'](?P<single>[^"'\n]{8,4000}+)["'])""")

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_STRONG = re.compile(
    r"""(?x) passw(?:or)?d | passwd | passphrase | \bpwd\b | pwd$ | secret | credential
    | (?: api | access | private | account | sharedaccess | auth | encryption | signing | master | client | storage | deploy
        | service | consumer | hmac | aes | license | ssh | webhook
        | integration | session | app | admin | root )key
    | (?: db | database | user | admin | root | smtp | mail | ftp | my | pg | sql | redis | mongo | ldap | proxy | sudo )pass
    | ^pass$ | ^pw$ | (?: db | user | admin | root )pw$ | authtoken | ^pat$ | ^sas$ | sastoken | ^_auth$"""
)
"""Names, in small letters and without what joins their words, whose value is a secret unless it is a placeholder."""

_NO_SECRET_TOKENS = frozenset(
    """pad eos bos unk mask cls sep special additional added image video audio vision start end stop think thinking
    answer tool role first last next new max min num per total number decoder prompt prefix suffix middle fim boi
    eoi bot eot eom sot eop sentinel header turn by of each any every extra control call language text response
    output input generation word sub assistant user system im begin message separator newline blank""".split()
)
"""What stands before ``token`` where a model's token is meant."""

_ABOUT = frozenset(
    """id ids type types url uri file files path env name names length len count counts size field column limit class
    policy ttl format var variable hint dir provider prompt usage index hash digest checksum sha fingerprint
    algorithm version minimum maximum expiry expires expiration scope scopes rotation reset strength manager store
    source ref reference enabled required iterations bits tag tags commit revision project entity run host""".split()
)
"""A name that ends with one of these says something about a secret."""

SERVICES = r"""(?: wandb | weights.?and.?biases | comet | neptune | clearml | mlflow | twilio | datadog | dd.?api | dd.?app |
    heroku | mailgun | mailchimp | sendgrid | algolia | fastly | cloudflare | new.?relic | snyk | codecov | travis |
    circleci | pagerduty | opsgenie | rollbar | bugsnag | sentry | sumo.?logic | splunk | honeycomb | logdna |
    loggly | ngrok | okta | auth0 | onelogin | zendesk | intercom | hubspot | salesforce | asana | trello | jira |
    confluence | discord | telegram | facebook | twitter | linkedin | instagram | spotify | dropbox | adafruit |
    airtable | alibaba | beamer | bittrex | coinbase | kraken | kucoin | binance | contentful | droneci | etsy |
    finicity | finnhub | flickr | freshbooks | gitter | gocardless | jfrog | artifactory | kaggle | launch.?darkly |
    lob | mapbox | mattermost | messagebird | netlify | nytimes | plaid | rapidapi | sendbird | sidekiq |
    squarespace | travisci | twitch | vonage | nexmo | yandex | softlayer | cloudant | ibm.?cloud | infura | alchemy
    | etherscan | unsplash | clearbit | mixpanel | amplitude | segment | bitly | zapier | sonar | jumpcloud |
    lastpass | doppler | pinecone | cohere | ai21 | assemblyai | deepgram | serpapi | exa | mistral | together |
    replicate | anthropic | openai | elevenlabs | private.?ai | azure | aws | gcp | digital.?ocean | linode | vultr
    | scaleway | hetzner | ovh | supabase | upstash | planetscale | mongodb | elastic | confluent | grafana )"""
"""Services whose keys look like any other digits."""

_SERVICE = re.compile(rf"(?ix) (?<![a-z]) {SERVICES}")
_HEXADECIMAL = re.compile(
    r"(?<![\w/@-])(?:[0-9a-f]{32,64}|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})(?![\w-])|(?<![\w/@-])[0-9A-F]{32,64}(?![\w-])"
)
# Of services that store neither weights nor code: whose commits and digests are not meant.
_BESIDE = re.compile(
    r"""(?ix) (?<![a-z0-9]) (?: wandb | twilio | datadog | heroku | mailgun | algolia | fastly | cloudflare | new.?relic
    | snyk | codecov | neptune | pagerduty | rollbar | sumo.?logic | softlayer | cloudant | launch.?darkly ) \W ([^\n]*) \Z"""
)
_IDENTIFIES = re.compile(
    r"(?i)\b(?:commit|revision|rev|sha\d*|hash|digest|checksum|tree|etag|version|uuid|run|id)\b|@$"
)


def named_secrets(text: str) -> Iterator[tuple[int, int, str]]:
    """Where a value stands under a name that says it is secret: start, end, kind."""
    for pattern in (_PAIR, _OPTION, _ELEMENT, _NAME_AND_VALUE, _TUPLE):
        for match in pattern.finditer(text):
            start, end = _value_of(match)
            if start < end and _is_secret(match["name"], text[start:end], match, pattern is _TUPLE):
                yield start, end, KIND
    for match in _HEXADECIMAL.finditer(text):
        beside = _BESIDE.search(text, max(0, match.start() - 80), match.start())
        if beside and not _IDENTIFIES.search(beside[1]):
            yield *match.span(), "a key beside the name of its service"


def _value_of(match: re.Match[str]) -> tuple[int, int]:
    group = next(name for name in ("double", "single", "bare") if match.groupdict().get(name) is not None)
    start, end = match.span(group)
    if group == "bare":
        while end > start and match.string[end - 1] in ")]}>\\`":
            end -= 1
    return start, end


def _is_secret(name: str, value: str, match: re.Match[str], sure_only: bool) -> bool:
    if value.isdigit() and len(value) < 8 and (match.groupdict().get("closed") or not name[-1:].isalpha()):
        return False  # the number of a token in a vocabulary
    words = [word.lower() for word in _WORD.findall(name)]
    if not words:
        return False
    joined = "".join(words)
    strength = _strength(words, joined)
    if strength == 0 or is_placeholder(value) or (value.startswith(("/", "./", "~/", "../")) and "/" in value[2:]):
        return False
    if words[-1] in _ABOUT or strength == 1 or sure_only:
        about_what = words[-1] in {"hash", "digest", "checksum", "sha", "fingerprint", "commit", "revision", "version"}
        return not about_what and _is_key(value)
    return not _is_code(name, value, match) and not _is_prose(value, match)


def _strength(words: list[str], joined: str) -> int:
    """2 where any value is secret, 1 where one that looks like it is, 0 for other names."""
    if _STRONG.search(joined) and not joined.endswith(("keyboard", "passwordless")):
        return 2
    if words[-1] == "token" or joined.endswith("token"):
        before = words[-2] if len(words) > 1 else ""
        return 0 if before in _NO_SECRET_TOKENS else 2 if before or joined == "token" else 1
    if words[-1] in (
        "key",
        "auth",
        "authorization",
        "pass",
        "pw",
        "jwt",
        "sig",
        "signature",
        "bearer",
        "dsn",
        "cookie",
    ):
        return 1
    if "token" in words[:-1] or "key" in words[:-1]:
        return 1
    return 1 if _SERVICE.search(joined) else 0


def _is_key(value: str) -> bool:
    return is_random(value) and " " not in value and "://" not in value


def _is_code(name: str, value: str, match: re.Match[str]) -> bool:
    """Whether it is a variable of a program: ``token=token``, ``secret = api.secret``."""
    bare = match.groupdict().get("bare") is not None
    return bare and (
        name.lower().endswith(value.lower()) or re.fullmatch(r"[A-Za-z_]+(?:\.[A-Za-z_]+)+", value) is not None
    )


def _is_prose(value: str, match: re.Match[str]) -> bool:
    """Whether it is the first word of a sentence: ``password: ask the administrator``."""
    after = match.string[match.end() : match.end() + 2]
    return match.groupdict().get("bare") is not None and value.isalpha() and after[:1] == " " and after[1:].isalpha()
