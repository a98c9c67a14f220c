# Makes an AWS account known to farthing. Printed by `farthing setup aws --print terraform`; farthing applies nothing.
#
#   terraform init && terraform plan
#
# Apply it once in each account whose calls are to be known@ACCOUNTS_SAID@.
# Look first (`farthing doctor`): logging is one setting per account and region, and this overwrites what is there.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0" # one provider for many regions
    }
  }
}

provider "aws" @PROVIDER@

variable "regions" {
  description = "Regions in which Claude is called; logging is set in each."
  type        = set(string)
  default     = @REGIONS@
}

variable "log_bodies" {
  description = "Log the text of calls too. Without it the lives of cache writes (5 minutes or 1 hour) stay unknown."
  type        = bool
  default     = @BODIES@
}

variable "keep_days" {
  description = "Days after which logs are deleted; farthing has counted them by then, and keeps no text."
  type        = number
  default     = @DAYS@
}

variable "kms" {
  description = "Encrypt logs with a key of your own instead of S3's."
  type        = bool
  default     = @KMS@
}

variable "payer" {
  description = "Account that pays: the bill is exported there. Empty: the account this is applied in."
  type        = string
  default     = @PAYER@
}

variable "activate_tags" {
  description = "Make the tag a cost-allocation tag. Only works a day after the first call that carried it."
  type        = bool
  default     = false
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  pays      = var.payer == "" || var.payer == local.account
  key_in    = var.kms ? var.regions : toset([])

  # One application inference profile per team, model and region: the only way a call gets a tag on the bill.
  profiles = @PROFILES@
}

# --- logs of calls: a bucket per region, since Bedrock delivers within account and region only -----------------------

resource "aws_s3_bucket" "logs" {
  for_each = var.regions
  region   = each.key
  bucket   = "@LOG_BUCKET@"
}

resource "aws_s3_bucket_public_access_block" "logs" {
  for_each                = var.regions
  region                  = each.key
  bucket                  = aws_s3_bucket.logs[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "logs" {
  for_each = var.regions
  region   = each.key
  bucket   = aws_s3_bucket.logs[each.key].id
  rule {
    id     = "delete-logs"
    status = "Enabled"
    filter {}
    expiration {
      days = var.keep_days
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_s3_bucket_policy" "logs" {
  for_each = var.regions
  region   = each.key
  bucket   = aws_s3_bucket.logs[each.key].id
  policy = jsonencode(@LOG_BUCKET_POLICY@)
}

resource "aws_kms_key" "logs" {
  for_each            = local.key_in
  region              = each.key
  description         = "Bedrock invocation logs, read by farthing"
  enable_key_rotation = true
  policy = jsonencode(@KEY_POLICY@)
}

resource "aws_kms_alias" "logs" {
  for_each      = local.key_in
  region        = each.key
  name          = "@KEY_ALIAS@" # the reading role may decrypt with keys of this name only
  target_key_id = aws_kms_key.logs[each.key].key_id
}

resource "aws_s3_bucket_server_side_encryption_configuration" "logs" {
  for_each = local.key_in
  region   = each.key
  bucket   = aws_s3_bucket.logs[each.key].id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.logs[each.key].arn
    }
    bucket_key_enabled = true
  }
}

resource "aws_bedrock_model_invocation_logging_configuration" "logs" {
  for_each   = var.regions
  region     = each.key
  depends_on = [aws_s3_bucket_policy.logs, aws_s3_bucket_server_side_encryption_configuration.logs]
  logging_config {
    text_data_delivery_enabled      = var.log_bodies
    image_data_delivery_enabled     = false
    embedding_data_delivery_enabled = false
    video_data_delivery_enabled     = false
    s3_config {
      bucket_name = aws_s3_bucket.logs[each.key].id
      key_prefix  = @PREFIX@ # bodies over 100 kB go beside the records, under data/
    }
  }
}

# --- the bill: CUR 2.0, hourly, with resources and principals --------------------------------------------------------

resource "aws_s3_bucket" "bill" {
  count  = local.pays ? 1 : 0
  region = "@BILLING_REGION@"
  bucket = "@BILL_BUCKET@"
}

resource "aws_s3_bucket_public_access_block" "bill" {
  count                   = local.pays ? 1 : 0
  region                  = "@BILLING_REGION@"
  bucket                  = aws_s3_bucket.bill[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_policy" "bill" {
  count  = local.pays ? 1 : 0
  region = "@BILLING_REGION@"
  bucket = aws_s3_bucket.bill[0].id
  policy = jsonencode(@BILL_BUCKET_POLICY@)
}

resource "aws_bcmdataexports_export" "bill" {
  count      = local.pays ? 1 : 0
  depends_on = [aws_s3_bucket_policy.bill]
  export {
    name        = "@EXPORT@"
    description = "CUR 2.0 with resources and IAM principals, read by farthing"
    data_query {
      query_statement = @QUERY@
      table_configurations = {
        COST_AND_USAGE_REPORT = @TABLE@
      }
    }
    destination_configurations {
      s3_destination {
        s3_bucket = aws_s3_bucket.bill[0].id
        s3_prefix = "@BILL_PREFIX@"
        s3_region = "@BILLING_REGION@"
        s3_output_configurations {
          output_type = "CUSTOM"
          format      = "PARQUET"
          compression = "PARQUET"
          overwrite   = "OVERWRITE_REPORT"
        }
      }
    }
    refresh_cadence {
      frequency = "SYNCHRONOUS"
    }
  }
}

resource "aws_ce_cost_allocation_tag" "team" {
  count   = local.pays && var.activate_tags ? 1 : 0
  tag_key = "@TAG@"
  status  = "Active"
}

# --- who spends: a tagged profile per team, to be called instead of the model ----------------------------------------

resource "aws_bedrock_inference_profile" "team" {
  for_each = { for key, profile in local.profiles : key => profile if contains(var.regions, profile.region) }
  region   = each.value.region
  name     = each.value.name
  model_source {
    copy_from = "arn:${local.partition}:bedrock:${each.value.region}:${local.account}:inference-profile/${each.value.model}"
  }
  tags = {
    @TAG@ = each.value.team
  }
}

# --- the one role that farthing reads as -----------------------------------------------------------------------------

resource "aws_iam_role" "read" {
  name        = "@ROLE@"
  description = "Lets farthing read logs, bill and metrics; it can change nothing"
  assume_role_policy = jsonencode(@TRUST_POLICY@)
}

resource "aws_iam_role_policy" "read" {
  name = "read"
  role = aws_iam_role.read.id
  policy = jsonencode(@READ_POLICY@)
}

# --- for farthing.toml -----------------------------------------------------------------------------------------------

output "role_arn" {
  value = aws_iam_role.read.arn
}

output "log_paths" {
  value = [for region in sort(var.regions) : "s3://${aws_s3_bucket.logs[region].id}/@PREFIX_BARE@"]
}

output "bill_path" {
  value = local.pays ? "s3://${aws_s3_bucket.bill[0].id}/@BILL_PREFIX@" : ""
}

output "profiles" {
  value = { for key, profile in aws_bedrock_inference_profile.team : key => profile.arn }
}
