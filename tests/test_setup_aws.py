"""What `farthing setup aws` prints: parsed by the tools it is for, checked name by name, and applied to an AWS of ours.

botocore's service models tell which operations and parameters there are, cfn-lint's resource schemas which
properties. Terraform's resources are held against a table below, since its provider is no Python package.
"""

import re
import shutil
import subprocess
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

from farthing import cli, setup
from farthing.setup import FORMS, SetupError, Wanted, render
from farthing.setup import _policies as policies

US = Wanted()
WIDE = Wanted(
    accounts=("111122223333", "444455556666"),
    regions=("us-east-1", "eu-central-1", "ap-northeast-1"),
    trusted_account="999988887777",
    external_id="farthing-7",
    teams=("search", "data science"),
    models=("anthropic.claude-sonnet-5-5", "global.anthropic.claude-haiku-4-5-20251001-v1:0"),
    prefix="logs/bedrock",
    kms=True,
)
GOV = Wanted(regions=("us-gov-west-1",), bodies=False, prefix="")
FAR = Wanted(regions=(*(f"eu-west-{n}" for n in range(1, 10)), "us-west-1", "us-west-2"))
EVERY = {"us": US, "wide": WIDE, "gov": GOV, "far": FAR}
wishes = pytest.mark.parametrize("wanted", EVERY.values(), ids=EVERY)


# --- the same for every form ------------------------------------------------------------------------


@wishes
@pytest.mark.parametrize("form", FORMS)
def test_text_is_the_same_each_time_and_filled_to_the_end(form, wanted):
    text = render(form, wanted)
    assert text == render(form, wanted)
    assert re.findall(r"@[A-Z_]+@|\{(?:account|partition|region)\}(?!\")", text.replace("${", "$<")) == []
    assert max(map(len, text.splitlines())) < 1500


@pytest.mark.parametrize("form", FORMS)
def test_no_account_but_those_named_is_in_it(form):
    assert re.findall(r"\b\d{12}\b", render(form, US)) == []
    assert set(re.findall(r"\b\d{12}\b", render(form, WIDE))) == {*WIDE.accounts, WIDE.trusted_account}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_says_what_is_lost_without_bodies(form):
    assert "5 minutes" in render(form, US) or "5m, 1h" in render(form, US)


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (dict(accounts=("1234",)), "--account '1234'"),
        (dict(regions=("mars",)), "--region 'mars'"),
        (dict(regions=("us-east-1; rm -rf /",)), "--region"),
        (dict(bucket="Logs"), "--bucket 'Logs'"),
        (dict(bucket="a" * 60), "--bucket"),
        (dict(prefix="/logs/"), "--prefix"),
        (dict(prefix='x"$(id)'), "--prefix"),
        (dict(external_id="a b"), "--external-id"),
        (dict(trusted_account="root"), "--trusted-account"),
        (dict(teams=('x", "y',)), "--team"),
        (dict(teams=("a b", "a-b")), "one profile name"),
        (dict(teams=("t" * 41,), models=("anthropic.claude-haiku-4-5-20251001-v1:0",)), "longer than 64"),
        (dict(models=("Claude!",)), "--model"),
        (dict(keep_days=0), "--keep-days"),
    ],
)
def test_a_wish_that_cannot_be_is_one_line(wish, says):
    with pytest.raises(SetupError) as refused:
        Wanted(**wish)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_profiles_stay_in_the_geography_of_their_region_unless_told():
    found = {(p.region, p.model) for p in WIDE.profiles()}
    assert ("eu-central-1", "eu.anthropic.claude-sonnet-5-5") in found
    assert ("ap-northeast-1", "jp.anthropic.claude-sonnet-5-5") in found
    assert ("eu-central-1", "global.anthropic.claude-haiku-4-5-20251001-v1:0") in found


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["setup", "aws", *words])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.mark.parametrize("form", FORMS)
def test_command_prints_what_was_asked_for(capsys, form):
    words = ["--print", form, "--account", "111122223333", "--region", "eu-central-1", "--team", "search"]
    code, out, err = run(capsys, *words, "--region", "us-east-1", "--bucket", "acme", "--prefix", "p")
    wanted = Wanted(
        accounts=("111122223333",),
        regions=("eu-central-1", "us-east-1"),
        bucket="acme",
        prefix="p",
        teams=("search",),
    )
    assert (code, err) == (0, "")
    assert out == render(form, wanted)


def test_command_takes_several_names_after_one_option(capsys):
    words = [
        "--print",
        "terraform",
        "--account",
        "111122223333",
        "444455556666",
        "--region",
        "us-east-1",
        "us-west-2",
    ]
    _, out, _ = run(
        capsys, *words, "--team", "search", "data science", "--no-bodies", "--kms", "--keep-days", "7"
    )
    wanted = Wanted(
        accounts=("111122223333", "444455556666"),
        regions=("us-east-1", "us-west-2"),
        teams=("search", "data science"),
        bodies=False,
        kms=True,
        keep_days=7,
    )
    assert out == render("terraform", wanted)


def test_command_refuses_in_one_line(capsys):
    code, out, err = run(capsys, "--print", "cli", "--account", "12")
    assert (code, out) == (2, "")
    assert err == "farthing: --account '12': write 12 digits\n"


# --- policies ---------------------------------------------------------------------------------------

# Actions of IAM that are no operation of a service model, or of another name than it.
NOT_OPERATIONS = {
    "s3:ListBucket": "ListObjectsV2",
    "s3:GetBucketPolicy": "GetBucketPolicy",
    "s3:GetObject": "GetObject",
    "s3:PutObject": "PutObject",
}
READING = ("Get", "List", "Decrypt")


def statements(policy):
    return policy["Statement"]


def actions(statement):
    said = statement["Action"]
    return [said] if isinstance(said, str) else said


READ = policies.read_policy("farthing", "bedrock", WIDE.regions)
ALL = {
    "read": READ,
    "logs": policies.log_bucket_policy("farthing", "bedrock"),
    "bill": policies.bill_bucket_policy("farthing"),
    "key": policies.key_policy(),
    "trust": policies.trust_policy("999988887777", "farthing-7"),
}


def operations(service):
    return set(botocore.session.get_session().get_service_model(service).operation_names)


@pytest.mark.parametrize("name", ALL)
def test_every_action_that_is_allowed_exists(name):
    for statement in statements(ALL[name]):
        if statement["Effect"] == "Deny" or statement["Sid"] == "AccountAdministers":
            continue
        for action in actions(statement):
            service, _, operation = action.partition(":")
            assert NOT_OPERATIONS.get(action, operation) in operations(service), action


def test_the_reading_role_only_reads_and_names_resources_where_iam_lets_it():
    for statement in statements(READ):
        if statement["Effect"] == "Deny":
            continue
        assert all(action.partition(":")[2].startswith(READING) for action in actions(statement))
        assert all("*" not in action for action in actions(statement))
        if statement["Resource"] == "*":
            assert tuple(actions(statement)) == policies.NO_RESOURCE
            continue
        for arn in (
            [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
        ):
            assert arn.startswith("arn:{partition}:")
            assert "{account}" in arn  # of this account's own resources only
            assert "*" not in arn.split(":")[2]


def test_the_reading_role_has_all_that_farthing_asks_for():
    """What the package names as an action when AWS refuses, in sync and doctor alike; it writes its own ledger only."""
    named = set()
    for path in Path(setup.__file__).parent.parent.rglob("*.py"):
        if path.parent.name != "setup":
            pattern = r"\"((?:s3|bedrock|ce|bcm-data-exports|cloudwatch|kms):[A-Z]\w+)\""
            named |= set(re.findall(pattern, path.read_text(encoding="utf-8")))
    granted = {
        a for statement in statements(READ) if statement["Effect"] == "Allow" for a in actions(statement)
    }
    assert named - {"s3:PutObject"} <= granted
    assert len(named) > 8


def test_large_bodies_can_never_be_read():
    (deny,) = [statement for statement in statements(READ) if statement["Effect"] == "Deny"]
    assert deny["Action"] == "s3:GetObject"
    assert all(arn.endswith("/data/*") for arn in deny["Resource"])


def test_bedrock_writes_for_its_own_account_and_region_only():
    for name in ("logs", "key"):
        (allow,) = [
            s for s in statements(ALL[name]) if s.get("Principal") == {"Service": "bedrock.amazonaws.com"}
        ]
        assert allow["Condition"]["StringEquals"] == {"aws:SourceAccount": "{account}"}
        assert allow["Condition"]["ArnLike"] == {
            "aws:SourceArn": "arn:{partition}:bedrock:{region}:{account}:*"
        }


def test_the_role_opens_to_one_account_that_knows_the_external_id():
    (allow,) = statements(ALL["trust"])
    assert allow["Principal"] == {"AWS": "arn:{partition}:iam::999988887777:root"}
    assert allow["Condition"] == {"StringEquals": {"sts:ExternalId": "farthing-7"}}
    (own,) = statements(policies.trust_policy("", ""))
    assert own["Principal"] == {"AWS": "arn:{partition}:iam::{account}:root"}


# --- CloudFormation ---------------------------------------------------------------------------------


@wishes
def test_cloudformation_passes_its_linter(wanted, tmp_path):
    lint = pytest.importorskip("cfnlint.api")
    rules = pytest.importorskip("cfnlint.core").get_rules([], [], ["I", "W", "E"])
    for region in {wanted.regions[0], "us-east-1"}:
        found = lint.lint(render("cloudformation", wanted), rules=rules, regions=[region])
        assert [f"{match.rule.id} {match.message}" for match in found] == []


def template(wanted):
    """The template as data: the tags of CloudFormation's YAML become its functions."""
    found, faults = pytest.importorskip("cfnlint.decode").decode_str(render("cloudformation", wanted))
    assert not faults
    return found


def test_cloudformation_and_the_other_forms_share_their_policies():
    resources = template(WIDE)["Resources"]
    fill = {
        "{account}": "${AWS::AccountId}",
        "{partition}": "${AWS::Partition}",
        "{region}": "${AWS::Region}",
    }

    def filled(value):
        if isinstance(value, dict):
            return {key: filled(said) for key, said in value.items()}
        if isinstance(value, list):
            return [filled(said) for said in value]
        text = re.sub(r"\{\w+\}", lambda found: fill[found[0]], value)
        return {"Fn::Sub": text} if text != value else value

    expected = policies.read_policy("farthing", WIDE.prefix, WIDE.regions)
    assert resources["ReadRole"]["Properties"]["Policies"][0]["PolicyDocument"] == filled(expected)
    assert resources["BillBucketPolicy"]["Properties"]["PolicyDocument"] == filled(ALL["bill"])


def test_cloudformation_buckets_and_keys_outlive_the_stack():
    for name, said in template(WIDE)["Resources"].items():
        if said["Type"] in ("AWS::S3::Bucket", "AWS::KMS::Key"):
            assert said["DeletionPolicy"] == said["UpdateReplacePolicy"] == "Retain", name


# --- Terraform --------------------------------------------------------------------------------------

# Arguments of hashicorp/aws 6 that must be given, from the pages of its documentation
# (website/docs/r/*.html.markdown of hashicorp/terraform-provider-aws, read on 2026-11-22).
REQUIRED = {
    "aws_s3_bucket": set(),
    "aws_s3_bucket_public_access_block": {"bucket"},
    "aws_s3_bucket_lifecycle_configuration": {"bucket", "rule"},
    "aws_s3_bucket_policy": {"bucket", "policy"},
    "aws_s3_bucket_server_side_encryption_configuration": {"bucket", "rule"},
    "aws_kms_key": set(),
    "aws_kms_alias": {"target_key_id"},
    "aws_bedrock_model_invocation_logging_configuration": {"logging_config"},
    "aws_bcmdataexports_export": {"export"},
    "aws_ce_cost_allocation_tag": {"tag_key", "status"},
    "aws_bedrock_inference_profile": {"name", "model_source"},
    "aws_iam_role": {"assume_role_policy"},
    "aws_iam_role_policy": {"policy", "role"},
}
OPTIONAL = {
    "aws_s3_bucket": {"bucket"},
    "aws_s3_bucket_public_access_block": {
        "block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets",
    },
    "aws_kms_key": {"description", "enable_key_rotation", "policy"},
    "aws_kms_alias": {"name"},
    "aws_bedrock_inference_profile": {"tags"},
    "aws_iam_role": {"name", "description"},
    "aws_iam_role_policy": {"name"},
}  # fmt: skip
META = {"count", "for_each", "depends_on", "region"}
GLOBAL = {"aws_bcmdataexports_export", "aws_ce_cost_allocation_tag", "aws_iam_role", "aws_iam_role_policy"}


def bare(name):
    return name.strip('"')


@wishes
def test_terraform_parses_and_knows_its_resources(wanted):
    hcl2 = pytest.importorskip("hcl2")
    found = hcl2.loads(render("terraform", wanted))
    seen = set()
    for block in found["resource"]:
        ((kind, named),) = block.items()
        (body,) = named.values()
        kind = bare(kind)
        given = {bare(key) for key in body if not key.startswith("__")}
        seen.add(kind)
        assert REQUIRED[kind] <= given, kind
        assert given <= REQUIRED[kind] | OPTIONAL.get(kind, set()) | META, kind
        assert ("region" in given) == (kind not in GLOBAL), f"{kind} lives in a region, or it does not"
    assert seen == set(REQUIRED)


def test_terraform_names_only_what_it_declares():
    text = render("terraform", WIDE)
    declared = {
        f"{kind}.{name}" for kind, name in re.findall(r'^resource "(\w+)" "(\w+)"', text, re.MULTILINE)
    }
    used = set(re.findall(r"(?<!data\.)\b(aws_\w+\.\w+)\b", text))
    assert used <= declared
    assert set(re.findall(r"var\.(\w+)", text)) == set(re.findall(r'^variable "(\w+)"', text, re.MULTILINE))


@wishes
def test_terraform_is_as_its_formatter_leaves_it(wanted, tmp_path):
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not installed: its formatter cannot be asked")
    (tmp_path / "main.tf").write_text(render("terraform", wanted), encoding="utf-8")
    done = subprocess.run(
        [terraform, "fmt", "-check", "-diff"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


# --- the script -------------------------------------------------------------------------------------


def commands(text):
    """Every call of `aws` in the script, as words: the line's beginning, and what follows its backslashes."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        for found in re.finditer(
            r"(?:^|[\s(])aws (?=[a-z])", "" if line.lstrip().startswith(("#", "echo")) else line
        ):
            yield re.findall(r'"[^"]*"|\S+', line[found.end() :])


@wishes
def test_script_is_bash_and_every_option_is_one_of_the_service(wanted, tmp_path):
    text = render("cli", wanted)
    parsed = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (parsed.returncode, parsed.stderr) == (0, "")
    session = botocore.session.get_session()
    asked = list(commands(text))
    assert len(asked) > 15
    for service, operation, *words in asked:
        model = session.get_service_model("s3" if service == "s3api" else service)
        known = {xform_name(name, "-"): name for name in model.operation_names}
        shape = model.operation_model(known[operation]).input_shape
        options = {xform_name(name, "-") for name in shape.members} if shape else set()
        for word in words:
            if word.startswith("--"):
                assert word[2:].rstrip(")") in options | {"region", "query", "output"}, (operation, word)


# --- the package ------------------------------------------------------------------------------------


def test_templates_ship_with_the_package():
    """hatchling packs every file of the folder `farthing` that git does not ignore."""
    folder = Path(setup.__file__).parent
    assert all((folder / name).is_file() for name in FORMS.values())
    ignored = (folder.parent.parent / ".gitignore").read_text(encoding="utf-8").split()
    assert not {"*.tf", "*.sh", "*.yaml"} & set(ignored)
