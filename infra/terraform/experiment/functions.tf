# The functions under test, once for each cluster; their schedules; and the function that makes the schema.

locals {
  zip    = "${var.build}/function.zip"
  layers = compact([aws_lambda_layer_version.lambdadb.arn, var.secrets_extension_layer_arn])

  clusters = {
    for type, cluster in aws_rds_cluster.this : type => {
      arn         = cluster.arn
      resource_id = cluster.cluster_resource_id
      host        = cluster.endpoint
      port        = local.port
      database    = var.database
    }
  }

  inserts = {
    for pair in setproduct(keys(var.clusters), keys(var.functions)) :
    "${pair[0]}-${replace(pair[1], "_", "-")}" => { type = pair[0], policy = pair[1] }
  }
}

resource "aws_lambda_layer_version" "lambdadb" {
  layer_name               = var.name
  filename                 = "${var.build}/layer-${var.architecture}.zip"
  source_code_hash         = filebase64sha256("${var.build}/layer-${var.architecture}.zip")
  compatible_runtimes      = [var.runtime]
  compatible_architectures = [var.architecture]
}

module "insert" {
  source   = "../modules/function"
  for_each = local.inserts

  name                 = "${var.name}-${each.key}"
  zip                  = local.zip
  layers               = local.layers
  handler              = var.functions[each.value.policy].handler
  runtime              = var.runtime
  architecture         = var.architecture
  subnet_ids           = [for subnet in aws_subnet.private : subnet.id]
  security_group_ids   = [aws_security_group.functions.id]
  cluster              = local.clusters[each.value.type]
  secret_arn           = local.secret_arns[each.value.type]
  iam_user             = var.functions[each.value.policy].iam ? var.iam_user : null
  environment          = { AURORA_TYPE = each.value.type, EXPERIMENT = var.experiment }
  reserved_concurrency = var.reserved_concurrency
  log_retention_days   = var.log_retention_days
  xray                 = var.xray
  alarm_actions        = var.alarm_actions
}

module "schema" {
  source   = "../modules/function"
  for_each = var.clusters

  name               = "${var.name}-${each.key}-schema"
  zip                = local.zip
  layers             = local.layers
  handler            = "schema.lambda_handler"
  runtime            = var.runtime
  architecture       = var.architecture
  subnet_ids         = [for subnet in aws_subnet.private : subnet.id]
  security_group_ids = [aws_security_group.functions.id]
  cluster            = local.clusters[each.key]
  secret_arn         = local.secret_arns[each.key]
  environment        = { AURORA_TYPE = each.key, EXPERIMENT = var.experiment, IAM_USER = var.iam_user }
  log_retention_days = var.log_retention_days
  xray               = var.xray
  alarm_actions      = var.alarm_actions
}

# A repeated invocation would be one more row and one more wake. The scheduler invokes asynchronously.
resource "aws_lambda_function_event_invoke_config" "once" {
  for_each = module.insert

  function_name          = each.value.name
  maximum_retry_attempts = 0
}

resource "aws_scheduler_schedule_group" "this" {
  name = var.name
}

resource "aws_scheduler_schedule" "insert" {
  for_each = local.inserts

  name                         = "${var.name}-${each.key}"
  group_name                   = aws_scheduler_schedule_group.this.name
  description                  = "One row by ${each.value.policy} into the ${each.value.type} cluster"
  schedule_expression          = var.clusters[each.value.type].schedule
  schedule_expression_timezone = "UTC"
  state                        = each.value.policy == var.scheduled ? "ENABLED" : "DISABLED"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = module.insert[each.key].arn
    role_arn = aws_iam_role.scheduler.arn

    retry_policy {
      maximum_retry_attempts       = 0
      maximum_event_age_in_seconds = 60 # the least that AWS allows
    }
  }

  depends_on = [aws_iam_role_policy.scheduler]
}

resource "aws_iam_role" "scheduler" {
  name               = "${var.name}-scheduler"
  description        = "EventBridge Scheduler invokes the functions"
  assume_role_policy = data.aws_iam_policy_document.scheduler_trust.json
}

data "aws_iam_policy_document" "scheduler_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_scheduler_schedule_group.this.arn]
    }
  }
}

resource "aws_iam_role_policy" "scheduler" {
  name   = "invoke"
  role   = aws_iam_role.scheduler.id
  policy = data.aws_iam_policy_document.scheduler.json
}

data "aws_iam_policy_document" "scheduler" {
  statement {
    actions   = ["lambda:InvokeFunction"]
    resources = [for function in module.insert : function.arn]
  }
}
