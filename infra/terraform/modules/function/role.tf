# What the function may do: write its log, keep its network interfaces, log in, and write traces.

locals {
  # AWS's managed policy AWSLambdaVPCAccessExecutionRole has the same six.
  network_actions = [
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
  ]
  cluster = provider::aws::arn_parse(var.cluster.arn)
}

resource "aws_iam_role" "this" {
  name               = var.name
  description        = "What the function ${var.name} may do"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy" "log" {
  name   = "log"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.log.json
}

data "aws_iam_policy_document" "log" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.this.arn}:*"] # the streams of this group, which Lambda names
  }
}

resource "aws_iam_role_policy" "network" {
  name   = "network"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.network.json
}

data "aws_iam_policy_document" "network" {
  statement {
    sid     = "LambdaKeepsTheNetworkInterfaces"
    actions = local.network_actions
    # The interfaces have no ids yet, and the Describe actions cannot be restricted to a resource.
    resources = ["*"]
  }
}

# Lambda uses the rights above itself. The function's own code may not.
resource "aws_iam_role_policy" "no_network" {
  name   = "no-network-from-the-code"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.no_network.json
}

data "aws_iam_policy_document" "no_network" {
  statement {
    effect    = "Deny"
    actions   = local.network_actions
    resources = ["*"]

    condition {
      test     = "ArnEquals"
      variable = "lambda:SourceFunctionArn"
      values   = [aws_lambda_function.this.arn]
    }
  }
}

resource "aws_iam_role_policy" "login" {
  name   = "login"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.login.json
}

data "aws_iam_policy_document" "login" {
  dynamic "statement" {
    for_each = var.iam_user == null ? [var.secret_arn] : []

    content {
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = var.iam_user == null && var.secret_key_arn != null ? [var.secret_key_arn] : []

    content {
      actions   = ["kms:Decrypt"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["secretsmanager.${local.cluster.region}.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = var.iam_user == null ? [] : [var.iam_user]

    content {
      actions = ["rds-db:connect"]
      resources = [join(":", [
        "arn", local.cluster.partition, "rds-db", local.cluster.region, local.cluster.account_id,
        "dbuser", "${var.cluster.resource_id}/${statement.value}",
      ])]
    }
  }
}

resource "aws_iam_role_policy" "trace" {
  count = var.xray ? 1 : 0

  name   = "trace"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.trace.json
}

data "aws_iam_policy_document" "trace" {
  statement {
    actions   = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
    resources = ["*"] # X-Ray has no resource for these actions
  }
}
