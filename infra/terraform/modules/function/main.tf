# A function on Lambda with a database in Aurora: the function, its log and its alarms. Its role is in role.tf.

locals {
  login = (
    var.iam_user == null
    ? { SECRET_NAME = var.secret_arn }
    : { AURORA_IAM = "true", AURORA_USER = var.iam_user }
  )
}

resource "aws_lambda_function" "this" {
  function_name    = var.name
  role             = aws_iam_role.this.arn
  filename         = var.zip
  source_code_hash = filebase64sha256(var.zip)
  layers           = var.layers
  handler          = var.handler
  runtime          = var.runtime
  architectures    = [var.architecture]
  memory_size      = var.memory_size
  timeout          = var.timeout

  reserved_concurrent_executions = var.reserved_concurrency

  environment {
    variables = merge(
      {
        AURORA_HOST   = var.cluster.host
        AURORA_PORT   = tostring(var.cluster.port)
        AURORA_DBNAME = var.cluster.database
      },
      local.login,
      var.environment,
    )
  }

  vpc_config {
    subnet_ids         = var.subnet_ids
    security_group_ids = var.security_group_ids
  }

  logging_config {
    log_format            = "JSON"
    log_group             = aws_cloudwatch_log_group.this.name
    application_log_level = "INFO"
    system_log_level      = "INFO" # the platform's reports, which have the duration and the time of INIT
  }

  tracing_config {
    mode = var.xray ? "Active" : "PassThrough"
  }

  # Lambda checks these rights when it creates the function.
  depends_on = [aws_iam_role_policy.network, aws_iam_role_policy.log, aws_iam_role_policy.trace]

  lifecycle {
    precondition {
      condition     = var.iam_user != null || var.secret_arn != null
      error_message = "${var.name} has no login: give secret_arn or iam_user."
    }
  }
}

# The function does not create its log group, so the log has a retention and is deleted with the function.
resource "aws_cloudwatch_log_group" "this" {
  name              = "/aws/lambda/${var.name}"
  retention_in_days = var.log_retention_days
}

# Metrics, thresholds and reasons are those of lambdadb.operate.alarms, unless a variable says otherwise.
locals {
  alarms = jsondecode(file("${path.module}/alarms.json")).function
  thresholds = {
    errors    = coalesce(var.errors_threshold, local.alarms.errors.threshold)
    throttles = coalesce(var.throttles_threshold, local.alarms.throttles.threshold)
    # The metric is in milliseconds.
    duration = coalesce(var.duration_threshold, local.alarms.duration.threshold) * var.timeout * 1000
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/Lambda"
  metric_name         = each.value.metric
  dimensions          = { FunctionName = aws_lambda_function.this.function_name }
  statistic           = each.value.statistic
  period              = coalesce(var.alarm_period, each.value.period)
  evaluation_periods  = each.value.evaluation_periods
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = local.thresholds[each.key]
  treat_missing_data  = "notBreaching" # no invocation is no fault
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
}
