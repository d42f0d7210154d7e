"""Secrets that are known by their form: what a token begins with, a key file's first line, a URL with a password in it.

The forms are those that the services document and that gitleaks, detect-secrets and trufflehog know. Every pattern is
linear: it starts with fixed text, and what may repeat is bounded or never given back.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Form(NamedTuple):
    """How a kind of secret looks.

    Attributes:
        kind: Its name, for the user.
        literals: The pattern can match only where one of these is in the text; small letters are looked for in any case.
        pattern: Finds it; what is secret is the group ``secret``, or all of it.
        check: Whether what is secret is more than a placeholder.
    """

    kind: str
    literals: tuple[str, ...]
    pattern: re.Pattern[str]
    check: Callable[[str], bool]


_PLACEHOLDER = re.compile(
    r"""(?ix)
    (?: true | false | yes | no | on | off | null | none | nil | undefined | ~ | \.{2,} | (.)\1*
      | change.?me | placeholder | redacted | removed | hidden | required | optional | todo | tbd | n/a
      | str(?:ing)? | int(?:eger)? | bool(?:ean)? | any | bytes | text | object | secretstr | self
      | (?: insert | put | enter | add | replace | set | use | see | paste )[-_ ].*
      | (?: your | the | an? | some )[-_ ].* | (?:[a-z]{1,8}[-_]){0,3}your.* | example.*
      | <.* | \*\*.* | \[.* | \{.* | \(.* | &\w+ | \*\w+ | !\w+.*
      | \$\{.* | \$\(.* | \$\w+ | %\w+% | \#\{.* | @\w+@ | __\w+__ | `.*
      | (?: os\.|env\b|environ|getenv|process\.|secrets\.|vars\.|config\.|cfg\.|args\.|self\.|settings\.|request\.
          |file:|vault:|op://|arn:|ssm:|keyring).*
      | [a-z_.]{3,}[\[(].*
    )\Z"""
)
_ENVIRONMENT = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_(?:TOKEN|KEY|SECRET|PASS(?:WORD)?|PAT|CREDENTIALS)\Z")


def is_placeholder(value: str) -> bool:
    """Whether a value only stands where a secret would: ``...``, ``<your token>``, ``${HF_TOKEN}``, a type, a call."""
    lowered = value.lower()
    if any(part in lowered for part in ("...", "xxxxxx", "****")) or lowered.endswith(("example", "examplekey")):
        return True
    return bool(_PLACEHOLDER.match(value) or _ENVIRONMENT.match(value))


def _real(value: str) -> bool:
    return not is_placeholder(value)


def is_mixed(word: str) -> bool:
    """Whether a word is letters and digits in no order: some of both, or changing between capitals and small ones."""
    if any(c.isdigit() for c in word) and any(c.isalpha() for c in word):
        return True
    return switches(word) >= 0.35 * len(word)


def switches(word: str) -> int:
    """How often a word changes between capitals, small letters and digits; in names seldom, in random text often."""
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in word]
    return sum(one != other for one, other in itertools.pairwise(kinds))


def is_random(value: str, least: int = 16) -> bool:
    """Whether a value was made by a machine: one of its words is long, and `is_mixed`."""
    if len(value) < least or is_placeholder(value) or len(set(value)) < 6:
        return False
    return any(len(word) >= 8 and is_mixed(word) for word in re.split(r"[^A-Za-z0-9]+", value))


def _form(kind: str, literals: str, pattern: str, check: Callable[[str], bool] = _real) -> Form:
    return Form(kind, tuple(literals.split()), re.compile(pattern, re.VERBOSE), check)


def _token(kind: str, prefixes: str, least: int = 16) -> Iterator[Form]:
    """One form for each prefix of a token."""
    for prefix in prefixes.split():
        text = re.escape(prefix)
        yield _form(kind, prefix, rf"{text}(?<![A-Za-z0-9]{text})[\w.~+/=-]{{{least},}}+", lambda t: is_random(t[2:]))


def _is_basic(value: str) -> bool:
    """Whether it is the base64 of a name, a colon and a password."""
    try:
        plain = base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return False
    return plain.isprintable() and ":" in plain[:-1]


TOKENS: tuple[Form, ...] = tuple(
    form
    for group in (
        _token("a Hugging Face token", "hf_ api_org_"),
        _token("an API key (sk-...)", """
            sk- csk- gsk_ xai- pplx- sk_ pk-lf- nvapi- r8_ tgp_v1_ fw_ jina_ tvly- fc- pcsk_"""),
        _token("an API key of a model's provider", """
            lsv2_pt_ lsv2_sk_ ABSK bedrock-api-key- aimlapi_ re_ esecret_ rf_ KGAT_"""),
        _token("a Weights & Biases key", "wandb_v1_"),
        _token("a GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_"),
        _token("a GitLab token", """
            glpat- gldt- glrt- glrtr- glcbt- glptt- glft- glsoat- glimt- glagent- glffct- gloas- GR1348941"""),
        _token("a Bitbucket or Atlassian token", "ATATT3 ATCTT3 ATBB"),
        _token("a Google secret", "GOCSPX- ya29. 1//0 AQ.Ab"),
        _token("a Slack token", "xapp- xwfp- xoxe. xoxe-"),
        _token("a Stripe key", "sk_live_ sk_test_ sk_prod_ rk_live_ rk_test_ rk_prod_ whsec_", 10),
        _token("a payment provider's key", """
            sq0csp- sq0atp- EAAAE EAAAl rzp_live_ rzp_test_ FLWSECK_TEST- FLWSECK- shippo_live_ shippo_test_"""),
        _token("a payment provider's key", """
            access_token$production$ access_token$sandbox$ EZAK EZTK duffel_live_ duffel_test_ live_ test_""", 24),
        _token("a package registry's token", """
            npm_ pypi- rubygems_ dckr_pat_ dckr_oat_ oy2 CLOJARS_ cio AKC cmVmd cmVmdGtu hackage_"""),
        _token("a Shopify token", "shpat_ shpca_ shppa_ shpss_ shptka_"),
        _token("a cloud provider's token", """
            doo_v1_ dop_v1_ dor_v1_ LTAI HRKU- fo1_ fm1_ fm1r_ fm1a_ fm2_ FlyV1 nfp_ nfc_ nfo_ tk-us- vcp_ vci_ vca_"""),
        _token("a cloud provider's token", """
            t1. AQVN YC v1.0- cfut_ cfat_ cfk_ vercel_blob_rw_ rnd_ linode_ scw- IBMCLOUD- EVH- ocid1.key."""),
        _token("a database provider's token", """
            pscale_tkn_ pscale_pw_ pscale_oauth_ sbp_ sb_secret_ napi_ AVNS_ 4b1d dbtc_ dbtu_ cfd_ tskey- xau_"""),
        _token("a Databricks token", "dapi dkea dose"),
        _token("a token of a build or deploy service", """
            CCIPAT_ CCIPRJ_ bkua_ bkct_ pul- dp.pt. dp.st. dp.ct. dp.scim. dp.audit. dp.sa. API- pnu_ pnb_"""),
        _token("a token of a build or deploy service", """
            pat. sat. squ_ sqp_ sqa_ sgp_ slk_ tfp_ ico- dnkey- pat_ rdme_ rdme_xn8s9h infracost_ octopus_"""),
        _token("a Vault or Terraform token", "hvs. hvb. hvr. s.", 20),
        _token("an observability token", """
            NRAK- NRII- NRJS- NRAA- NRRA- NRSP- NRBR- glsa_ glc_ eyJrIjoi sntrys_ sntryu_ sntrya_ dt0c01. dt0s01.
            phc_ phx_ lsv2_"""),
        _token("an e-mail or message service's key", """
            SG. xkeysib- xsmtpsib- key- pubkey- mlsn. sib- postmark- EAAC EAAB EAAM EAACEdEose0cBA EAAG"""),
        _token("a token of a work service", """
            lin_api_ lin_oauth_ secret_ ntn_ PMAK- PMAT- figd_ figo_ pat-na1- pat-eu1- fio-u- CFPAT- EAK sl.
            secret-token:"""),
        _token("a token of a work service", """
            sc_ ext_ scauth_ authress_ s-s4t2ud- p8e- b_ sdk- mob- api- cptt- patm_ sgp_local_ tines_ ops_ ola_
            apify_api_"""),
        _token("an Age key", "AGE-SECRET-KEY-1 AGE-PLUGIN-"),
    )
    for form in group
)  # fmt: skip

_NAME = r"[A-Za-z][A-Za-z0-9+.-]{0,20}"

FORMS: tuple[Form, ...] = (
    *TOKENS,
    _form("a private key", "PRIVATE", r"-{4,5}\ ?BEGIN\ [A-Z0-9 ]{0,40}PRIVATE\ KEY(?:[\w+/=\s\\-]{0,4000}+)"),
    _form("a private key", "PuTTY-User-Key-File-", r"PuTTY-User-Key-File-\d"),
    _form("a private key", '"kty"', r'"d"\s{0,4}:\s{0,4}"(?P<secret>[\w-]{40,}+)"'),
    _form("an AWS access key", "AKIA ASIA ABIA ACCA A3T", r"\b(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}\b"),
    _form("a Google API key", "AIza", r"\bAIza[\w-]{30}"),
    _form("a Slack token", "xox", r"\bxox[a-z]-[\w-]{10,}+"),
    _form("a webhook", "hooks.slack.com/", r"hooks\.slack\.com/(?:services|workflows|triggers)/\w{3}"),
    _form("a webhook", "/api/webhooks/", r"discord(?:app)?\.com/api/webhooks/\d{1,30}/[\w-]{10}"),
    _form("a webhook", "webhook", r"office\.com/webhook(?:b2)?/[\w@-]{10}"),
    _form("a webhook", "hooks.zapier.com/", r"hooks\.zapier\.com/hooks/catch/\d{1,20}/\w"),
    _form("a webhook", "maker.ifttt.com/", r"maker\.ifttt\.com/(?:use|trigger/\w{1,60}/(?:json/)?with/key)/[\w-]{10}"),
    _form("a Telegram token", ":", r"(?<![A-Za-z0-9])(?:bot)?\d{8,10}:[\w-]{35}(?![\w-])", lambda t: is_mixed(t[11:])),
    _form("a Discord token", ".", r"(?<![\w-])[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,40}(?![\w-])"),
    _form("a Twilio key", "AC SK", r"\b(?:AC|SK)[0-9a-f]{32}\b"),
    _form("a Mailchimp key", "-us", r"\b[0-9a-f]{32}-us\d{1,2}\b"),
    _form("an Azure key", "==", r"(?<!sha512-)(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{86}=="),
    _form("an Azure key", "Q~", r"(?<![\w.~-])[\w.~-]{3}\dQ~[\w.~-]{31,34}(?![\w.~-])"),
    _form("an Azure key", "AzFu AzSe AzCa ACR AEh AIoT ABa AMC AST ASB ACDb JQQJ AZDO APIM",
          r"(?<![\w+/-])[A-Za-z0-9+/_-]{30,80}(?:AzFu|AzSe|AzCa|\+ACR|\+AEh|AIoT|\+ABa|\+AMC|\+ASt|\+ASb|ACDb|JQQJ99|AZDO|APIM)"
          r"[A-Za-z0-9+/_=-]{4,20}"),
    _form("a New Relic key", "NRAL", r"\b[0-9a-f]{36}NRAL\b"),
    _form("a MaxMind key", "_mmk", r"\b\w{6}_\w{29}_mmk\b"),
    _form("a Terraform token", ".atlasv1.", r"\b\w{14}\.atlasv1\.[\w-]{40}"),
    _form("an OpenAI key", "T3BlbkFJ", r"\w{10}T3BlbkFJ\w{10}"),
    _form("an Airtable token", "pat", r"\bpat[A-Za-z0-9]{14}\.[0-9a-f]{64}\b"),
    _form("an Asana token", "/", r"(?<![\w/])[12]/\d{10,20}(?:/\d{10,20})?:[0-9a-f]{32}\b"),
    _form("a Plaid token", "access-", r"\baccess-(?:sandbox|development|production)-[0-9a-f-]{36}\b"),
    _form("an OpenShift token", "sha256~", r"\bsha256~[\w-]{43}(?![\w-])"),
    _form("a Twitter token", "AAAAAAAAAAAAA", r"\bA{16,25}[\w%-]{60}"),
    _form("a Mapbox token", "sk.eyJ", r"\bsk\.eyJ[\w-]{20,}+\.[\w-]{10}"),
    _form("an Okta token", "SSWS", r"\bSSWS\s{1,4}(?P<secret>[\w=-]{30,}+)"),
    _form("a JSON web token", "eyJ", r"\beyJ[\w-]{8,2000}\.(?:eyJ)?[\w-]{8,}"),
    _form("a password in a URL", "://", rf"(?<![A-Za-z0-9]){_NAME}://[^\s/@:'\"]{{0,200}}:(?P<secret>[^\s/@'\"]{{1,200}})@"),
    _form("a token in a URL", "://", rf"(?<![A-Za-z0-9]){_NAME}://(?P<secret>[^\s/@:'\"]{{16,300}})@", is_random),
    _form("a token in a URL", "=", r"""(?ix) [?&;] (?: [\w.-]{0,30}?token | api[_-]?key | [\w.-]{0,20}?key | sig | signature
        | password | passwd | pwd | secret | client_secret | auth | code | x-amz-(?:signature|security-token|credential) )
        = (?P<secret>[^\s&'"<>]{8,}+)"""),
    _form("a bearer token", "bearer", r"(?i:\bbearer)[\s:'\"=]{1,4}(?P<secret>[\w.~+/=-]{16,}+)", is_random),
    _form("a token in a header", "authorization", r"""(?i:\bauthorization)['"]?\s{0,4}[:=]\s{0,4}['"]?
        (?i:token|apikey|api-key|key|basic|bot|genie[kK]ey|splunk)[ =:"]{1,3}(?P<secret>[\w.~+/=-]{12,}+)""", is_random),
    _form("a name and password in a header", "basic", r"(?i:\bbasic)\s{1,4}(?P<secret>[A-Za-z0-9+/]{6,}+={0,2})", _is_basic),
    _form("a name and password", "auth", r"""(?ix)["']?\b_?auth["']?\s{0,4}[:=]\s{0,4}["']?
        (?P<secret>[A-Za-z0-9+/]{8,}+={0,2})""", _is_basic),
    _form("a password for a machine", "login", r"\blogin\s{1,40}\S{1,200}\s{1,40}password\s{1,40}(?P<secret>\S{1,200})"),
    _form("a password for a database", ":",
          r"(?m:^)[\w.*-]{1,200}:(?:\d{4,5}|\*):[\w*-]{1,60}:[\w*-]{1,60}:(?P<secret>\S{4,200})(?m:$)"),
    _form("a name and password", "-u --user", r"""(?:(?<=\s)-u|--(?:proxy-)?user)[ =]{0,2}['"]?[^\s:'"$]{1,80}:
        (?P<secret>[^\s'"]{4,200})""", lambda value: _real(value) and not value.isdigit()),
)  # fmt: skip
