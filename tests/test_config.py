"""farthing.toml: what it says is what holds, and what it cannot say is one line with file, place and mend."""

import re
from pathlib import Path

import msgspec
import pytest

from farthing.config import MEMBERS, Account, Config, ConfigError, Privacy, Source, Team, claims, load

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
WHOLE = """
ledger = "kept/ledger"
timezone = "Europe/Berlin"
contracts = ["offer.toml", "/etc/offer.toml"]

[profiles]
"a1b2" = "eu.anthropic.claude-sonnet-5"

[[sources]]
path = "s3://logs-eu/bedrock"
role_arn = "arn:aws:iam::111122223333:role/farthing-read"
region = "eu-west-1"

[[sources]]
path = "exports/*.gz"

[accounts.111122223333]
name = "production"
regions = ["eu-west-1", "us-east-1"]

[teams.search]
owner = "Ada"
tags = ["team=search"]
accounts = ["4444*"]

[[residency]]
allow = ["in_region:eu-*", "geo:eu"]
teams = ["search", "unassigned"]
since = "2026-10-01"

[privacy]
minimum_group = 5
"""


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """An empty folder of its own, and nothing in the environment."""
    monkeypatch.delenv("FARTHING_CONFIG", raising=False)
    monkeypatch.delenv("FARTHING_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text, name="farthing.toml"):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refused(text):
    path = written(text)
    with pytest.raises(ConfigError) as error:
        load()
    said = str(error.value)
    assert len(said.splitlines()) == 1
    assert said.startswith(str(path))
    return said.removeprefix(str(path))


def test_a_whole_file():
    written(WHOLE)
    config = load()
    assert (config.timezone, config.currency, config.path) == ("Europe/Berlin", "USD", "farthing.toml")
    assert config.sources[0] == Source(
        path="s3://logs-eu/bedrock",
        role_arn="arn:aws:iam::111122223333:role/farthing-read",
        region="eu-west-1",
    )
    assert config.accounts == {"111122223333": Account("production", ("eu-west-1", "us-east-1"))}
    assert config.teams == {"search": Team(owner="Ada", tags=("team=search",), accounts=("4444*",))}
    assert config.residency[0].allow == ("in_region:eu-*", "geo:eu")
    assert config.privacy == Privacy(minimum_group=5)


def test_where_it_is_looked_for(here, monkeypatch):
    assert load() == Config()
    written('timezone = "Asia/Tokyo"')
    assert load().timezone == "Asia/Tokyo"
    other = written('timezone = "Asia/Kathmandu"', "other/costs.toml")
    monkeypatch.setenv("FARTHING_CONFIG", str(other))
    assert load().timezone == "Asia/Kathmandu"
    assert load("farthing.toml").timezone == "Asia/Tokyo"
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load("none.toml")
    monkeypatch.setenv("FARTHING_CONFIG", "gone.toml")
    with pytest.raises(ConfigError, match=r"gone\.toml: No such file"):
        load()


def test_relative_paths_count_from_the_file(here):
    config = load(written(WHOLE, "deep/down/farthing.toml"))
    assert config.ledger == "deep/down/kept/ledger"
    assert [source.path for source in config.sources] == ["s3://logs-eu/bedrock", "deep/down/exports/*.gz"]
    assert config.contracts == ("deep/down/offer.toml", "/etc/offer.toml")
    at_home = load(written('ledger = "~/costs"', "deep/farthing.toml"))
    assert at_home.ledger == str(Path("~/costs").expanduser())
    assert load(written('ledger = "s3://costs/ledger"', "deep/farthing.toml")).ledger == "s3://costs/ledger"


def test_the_environment_comes_first(monkeypatch):
    written(WHOLE)
    monkeypatch.setenv("FARTHING_LEDGER", "elsewhere")
    monkeypatch.setenv("FARTHING_PRIVACY__MINIMUM_GROUP", "9")
    monkeypatch.setenv("FARTHING_PRIVACY__PSEUDONYMS", "false")
    monkeypatch.setenv("FARTHING_TEAMS__SEARCH__OWNER", "Grace")
    monkeypatch.setenv("FARTHING_SHARED", "is none of ours")
    config = load()
    assert config.ledger == "elsewhere"  # from here, not from the folder of the file
    assert config.privacy == Privacy(pseudonyms=False, minimum_group=9)
    assert config.teams["search"] == Team(owner="Grace", tags=("team=search",), accounts=("4444*",))
    Path("farthing.toml").unlink()
    monkeypatch.delenv("FARTHING_TEAMS__SEARCH__OWNER")
    assert load() == Config(ledger="elsewhere", privacy=Privacy(pseudonyms=False, minimum_group=9))


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("FARTHING_TIMEZONE", "Mars", "unknown time zone 'Mars'"),
        ("FARTHING_PRIVACY__MINIMUM_GROUP", "few", "Expected `int`"),
        ("FARTHING_SOURCES", "logs", "no single value; write it in farthing.toml"),
        ("FARTHING_PRIVACY__COLOUR", "red", "no single value"),
        ("FARTHING_TIMEZONE__X", "red", "no single value"),
    ],
)
def test_a_bad_variable_is_named(monkeypatch, variable, text, says):
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError) as error:
        load()
    assert str(error.value).startswith(f"${variable}: ")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('leger = "x"', ":1: leger: unknown key; did you mean `ledger`?"),
        ('\n\n[teams.a]\ntags = ["a=b"]\nprincipal = []', ":5: teams.a.principal: unknown key; did you mean"),
        ("path = 'x'", ":1: path: unknown key"),
        ("[[sources]]\npath = 'a'\nbucket = 'b'", ":3: sources[1].bucket: unknown key; known here are path,"),
        ("ledger = 3", ":1: ledger: 3 is not text: write it in quotes"),
        ("[privacy]\nminimum_group = '3'", ":2: privacy.minimum_group: 3 is not a whole number"),
        ("[privacy]\npseudonyms = 1", ":2: privacy.pseudonyms: 1 is not true or false"),
        ("[privacy]\nminimum_group = -1", ":2: privacy.minimum_group: is below 0"),
        ("sources = 'logs'", ':1: sources: not a list: write ["logs"]'),
        ("[sources]\npath = 'logs'", ":1: sources: not a list: write [[sources]]"),
        ("accounts = 3", ":1: accounts: not a table: write [accounts]"),
        ("[[sources]]\npath = 'a'\n\n[[sources]]\nformat = 'b'", ":4: sources[2]: `path` is missing"),
        ("[[sources]]\npath = ' '", ":2: sources[1].path: is empty"),
        ("[[sources]]\npath = 'a'\nregion = 'mars'", ":3: sources[1].region: unknown region 'mars'"),
        ("[[sources]]\npath = 'a'\nrole_arn = 'me'", ":3: sources[1].role_arn: 'me' is no role"),
        ("timezone = 'Mars'", ":1: timezone: unknown time zone 'Mars': use a name such as Europe/Berlin"),
        ("currency = 'Dollars'", ":1: currency: 'Dollars' is no currency"),
        ("[accounts.12]\nname = 'a'", ":1: accounts.12: an account id has 12 digits"),
        ("[accounts.111122223333]\nregions = ['here']", ":2: accounts.111122223333.regions: unknown region"),
        ("[teams.a]\nowner = 'Ada'", ":1: teams.a: has no members: name some by tags, profiles"),
        ("[teams.unassigned]\ntags = ['a=b']", ":1: teams.unassigned: 'unassigned' is the team of what no"),
        ("[teams.a]\naccounts = [111122223333]", ":2: teams.a.accounts[1]: 111122223333 is not text"),
        ("[teams.a]\naccounts = ['1111']", ":2: teams.a.accounts[1]: '1111' is no account"),
        ("[teams.a]\ntags = 'a=b'", ':2: teams.a.tags: not a list: write ["a=b"]'),
        ("[teams.a]\ntags = ['x=y', 'team']", ":2: teams.a.tags[2]: 'team' is no tag: write KEY=VALUE"),
        ("[teams.a]\ntags = ['t*=y']", ":2: teams.a.tags[1]: 't*=y' is no tag"),
        ("[teams.a]\nprincipals = ['^a.*$']", ":2: teams.a.principals[1]: '^a.*$' is a regular expression"),
        ("[teams.a]\nprincipals = ['']", ":2: teams.a.principals[1]: '' is empty"),
        (
            "[teams.a]\ntags = ['team=a']\n[teams.b]\ntags = ['x=y',\n 'team=a']",
            ":4: teams.b.tags[2]: 'team=a' is claimed by team a too; take one away",
        ),
        ("[[residency]]\nallow = ['europe']", ":2: residency[1].allow[1]: 'europe' is no routing"),
        ("[[residency]]\nallow = []\nteams = ['x']", ":3: residency[1].teams[1]: no team 'x' in this file"),
        ("[[residency]]\nallow = []\nsince = 'May'", ":3: residency[1].since: 'May' is no day"),
        ("[[residency]]\nteams = []", ":1: residency[1]: `allow` is missing"),
        ("ledger = ", ": Invalid value"),
        ("a = 1\na = 2", ": Cannot overwrite a value"),
    ],
    ids=lambda text: text.replace("\n", " ")[:40],
)
def test_what_is_wrong_is_one_line_with_place_and_mend(text, says):
    assert refused(text).startswith(says)


@pytest.mark.parametrize(
    "text", ["[teams]\na.tags = 'x'", "teams = {a = {tags = 'x'}}", 'teams."a".tags = 3']
)
def test_the_place_is_named_however_the_file_is_laid_out(text):
    assert re.match(r":[12]: teams\.a\.tags: ", refused(text))


def test_a_file_that_is_no_text_is_refused(here):
    Path("farthing.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"^farthing\.toml: "):
        load()


def test_a_role_stands_for_its_sessions_and_an_id_for_its_profile():
    role = "arn:aws:iam::111122223333:role/eng/search"
    claim = claims({"a": Team(principals=(role,)), "b": Team(principals=("*search*",))}, "principals")
    assert claim("arn:aws:sts::111122223333:assumed-role/search/pod-1") == (0, "a")
    assert claim("arn:aws:sts::111122223333:assumed-role/search-2/pod-1") == (3, "b")
    assert claim("arn:aws:sts::444455556666:assumed-role/search/pod-1") == (3, "b")
    assert claim("arn:aws:iam::111122223333:user/ada") is None
    claim = claims({"a": Team(profiles=("a1b2",))}, "profiles")
    assert claim("arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/a1b2") == (0, "a")
    assert claim("") is None


@pytest.mark.parametrize("kind", MEMBERS)
def test_nothing_said_is_nobody_s(kind):
    assert claims({"a": msgspec.convert({kind: ["*"]}, Team)}, kind)("") is None


def test_the_page_shows_a_file_that_loads_and_names_every_key(here):
    page = PAGE.read_text(encoding="utf-8")
    shown = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert shown
    config = load(written(shown[1], "shown.toml"))
    assert config.teams
    assert config.sources
    for struct in (Config, Source, Account, Team, Privacy):
        for name in struct.__struct_fields__:
            assert f"`{name}`" in page or f"\n{name} = " in page or f"[{name}" in page, name
