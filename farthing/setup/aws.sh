#!/usr/bin/env bash
# Makes an AWS account known to farthing. Printed by `farthing setup aws --print cli`; farthing runs nothing of it.
#
#   farthing setup aws --print cli ... > setup.sh    then read it, then: bash setup.sh
#
# Run it once with the credentials of each account whose calls are to be known@ACCOUNTS_SAID@.
# Run twice, it changes nothing more. It stops where invocation logging is on already with other settings.
set -euo pipefail

regions=(@REGIONS@)
accounts=(@ACCOUNTS@)  # empty: any
payer=@PAYER@  # the account that pays; empty: this one
log_bodies=@BODIES@  # false leaves prompts and answers out; then the lives of cache writes (5m, 1h) stay unknown
keep_days=@DAYS@  # after which logs are deleted; farthing has counted them by then, and keeps no text
kms=@KMS@  # true encrypts logs with a key of your own instead of S3's

caller=$(aws sts get-caller-identity --query Arn --output text)
account=$(aws sts get-caller-identity --query Account --output text)
partition=$(cut -d: -f2 <<<"$caller")
if ((${#accounts[@]})) && [[ " ${accounts[*]} " != *" $account "* ]]; then
  echo "these are credentials of $account, which is not among: ${accounts[*]}" >&2
  exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

make_bucket() { # NAME REGION: private, made if there is none
  if ! aws s3api head-bucket --bucket "$1" --region "$2" >/dev/null 2>&1; then
    if [[ $2 == us-east-1 ]]; then
      aws s3api create-bucket --bucket "$1" --region "$2"
    else
      aws s3api create-bucket --bucket "$1" --region "$2" --create-bucket-configuration "LocationConstraint=$2"
    fi
  fi
  aws s3api put-public-access-block --bucket "$1" --region "$2" --public-access-block-configuration \
    "BlockPublicAcls=true,BlockPublicPolicy=true,IgnorePublicAcls=true,RestrictPublicBuckets=true"
}

# --- logs of calls: a bucket per region, since Bedrock delivers within account and region only -----------------------

for region in "${regions[@]}"; do
  bucket="@LOG_BUCKET@"
  configured=$(aws bedrock get-model-invocation-logging-configuration --region "$region" \
    --query "loggingConfig.[s3Config.bucketName, cloudWatchConfig.logGroupName][?@]" --output text)
  if [[ $configured != "" && $configured != None && $configured != "$bucket" ]]; then
    echo "$region: invocation logging is on already, to $configured. Point farthing there, or turn it off first:" >&2
    echo "  aws bedrock delete-model-invocation-logging-configuration --region $region" >&2
    exit 1
  fi
  make_bucket "$bucket" "$region"
  cat >"$work/log-policy.json" <<JSON
@LOG_BUCKET_POLICY@
JSON
  aws s3api put-bucket-policy --bucket "$bucket" --region "$region" --policy "file://$work/log-policy.json"
  cat >"$work/lifecycle.json" <<JSON
{"Rules": [{"ID": "delete-logs", "Status": "Enabled", "Filter": {"Prefix": ""},
            "Expiration": {"Days": $keep_days}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}]}
JSON
  aws s3api put-bucket-lifecycle-configuration --bucket "$bucket" --region "$region" \
    --lifecycle-configuration "file://$work/lifecycle.json"
  if [[ $kms == true ]]; then
    key=$(aws kms list-aliases --region "$region" \
      --query "Aliases[?AliasName=='@KEY_ALIAS@'].TargetKeyId | [0]" --output text)
    if [[ $key == None ]]; then
      cat >"$work/key-policy.json" <<JSON
@KEY_POLICY@
JSON
      key=$(aws kms create-key --region "$region" --description "Bedrock invocation logs, read by farthing" \
        --policy "file://$work/key-policy.json" --query KeyMetadata.KeyId --output text)
      # the reading role may decrypt with keys of this name only
      aws kms create-alias --region "$region" --alias-name @KEY_ALIAS@ --target-key-id "$key"
      aws kms enable-key-rotation --region "$region" --key-id "$key"
    fi
    cat >"$work/encryption.json" <<JSON
{"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms",
            "KMSMasterKeyID": "arn:${partition}:kms:${region}:${account}:key/$key"}, "BucketKeyEnabled": true}]}
JSON
    aws s3api put-bucket-encryption --bucket "$bucket" --region "$region" \
      --server-side-encryption-configuration "file://$work/encryption.json"
  fi
  cat >"$work/logging.json" <<JSON
{"s3Config": {"bucketName": "$bucket", "keyPrefix": @PREFIX@}, "textDataDeliveryEnabled": $log_bodies,
 "imageDataDeliveryEnabled": false, "embeddingDataDeliveryEnabled": false, "videoDataDeliveryEnabled": false,
 "audioDataDeliveryEnabled": false}
JSON
  # bodies over 100 kB go beside the records, under data/
  aws bedrock put-model-invocation-logging-configuration --region "$region" \
    --logging-config "file://$work/logging.json"
done

# --- the one role that farthing reads as -----------------------------------------------------------------------------

cat >"$work/trust.json" <<JSON
@TRUST_POLICY@
JSON
cat >"$work/read.json" <<JSON
@READ_POLICY@
JSON
if aws iam get-role --role-name @ROLE@ >/dev/null 2>&1; then
  aws iam update-assume-role-policy --role-name @ROLE@ --policy-document "file://$work/trust.json"
else
  aws iam create-role --role-name @ROLE@ --assume-role-policy-document "file://$work/trust.json" \
    --description "Lets farthing read logs, bill and metrics; it can change nothing" >/dev/null
fi
aws iam put-role-policy --role-name @ROLE@ --policy-name read --policy-document "file://$work/read.json"

# --- who spends: a tagged profile per team, to be called instead of the model ----------------------------------------

make_profile() { # NAME REGION MODEL TEAM: the only way a call gets a tag on the bill
  local known
  known=$(aws bedrock list-inference-profiles --region "$2" --type-equals APPLICATION \
    --query "inferenceProfileSummaries[?inferenceProfileName=='$1'].inferenceProfileArn | [0]" --output text)
  if [[ $known == None ]]; then
    known=$(aws bedrock create-inference-profile --region "$2" --inference-profile-name "$1" \
      --model-source "copyFrom=arn:${partition}:bedrock:$2:${account}:inference-profile/$3" \
      --tags "key=@TAG@,value=$4" --query inferenceProfileArn --output text)
  fi
  echo "$4, $3, $2: call $known"
}
@PROFILES@
# --- the bill: CUR 2.0, hourly, with resources and principals; in the account that pays ------------------------------

if [[ $payer == "" || $payer == "$account" ]]; then
  bucket="@BILL_BUCKET@"
  make_bucket "$bucket" @BILLING_REGION@
  cat >"$work/bill-policy.json" <<JSON
@BILL_BUCKET_POLICY@
JSON
  aws s3api put-bucket-policy --bucket "$bucket" --region @BILLING_REGION@ --policy "file://$work/bill-policy.json"
  known=$(aws bcm-data-exports list-exports --region @BILLING_REGION@ \
    --query "Exports[?ExportName=='@EXPORT@'].ExportArn | [0]" --output text)
  if [[ $known == None ]]; then
    cat >"$work/export.json" <<JSON
@EXPORT_JSON@
JSON
    aws bcm-data-exports create-export --region @BILLING_REGION@ --export "file://$work/export.json"
  fi
  # A tag can be activated a day after the first call that carried it, and counts from then on.
  aws ce update-cost-allocation-tags-status --region @BILLING_REGION@ \
    --cost-allocation-tags-status "TagKey=@TAG@,Status=Active" ||
    echo "the tag @TAG@ is not known to billing yet: run this again a day after the first call" >&2
fi

echo "farthing reads as: arn:${partition}:iam::${account}:role/@ROLE@"
