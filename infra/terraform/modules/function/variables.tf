variable "name" {
  description = "Name of the function, of its role and of its alarms. lambdadb shows it as application_name."
  type        = string
}

variable "zip" {
  description = "Path of the zip with the function's code."
  type        = string
}

variable "layers" {
  description = "ARNs of layers, for example of lambdadb and of the Parameters and Secrets extension."
  type        = list(string)
  default     = []
}

variable "handler" {
  description = "The handler, as in \"insert.per_invocation\"."
  type        = string
}

variable "runtime" {
  description = "The runtime. The bytecode and the wheels of a layer are for one version of Python."
  type        = string
  default     = "python3.13"
}

variable "architecture" {
  description = "arm64 or x86_64: that of the layers."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture is arm64 or x86_64."
  }
}

variable "memory_size" {
  description = "MiB. Lambda gives processor time in proportion."
  type        = number
  default     = 512
}

variable "timeout" {
  description = <<-E
    Seconds. A cluster that was paused for over a day needs more than 30 s to resume (Aurora User Guide), and
    two minutes have been reported.
  E
  type        = number
  default     = 150
}

variable "subnet_ids" {
  description = "Private subnets with a route to the cluster."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Security groups of the function's network interfaces."
  type        = list(string)
}

variable "cluster" {
  description = "The Aurora cluster, or an RDS Proxy: what the function connects to. resource_id is cluster-... or prx-..."
  type = object({
    arn         = string
    resource_id = string
    host        = string
    port        = number
    database    = string
  })
}

variable "secret_arn" {
  description = "The secret with the login. Without iam_user, the function may read this secret and no other."
  type        = string
  default     = null
}

variable "secret_key_arn" {
  description = "The KMS key of the secret, if it is a key of your own and not aws/secretsmanager."
  type        = string
  default     = null
}

variable "iam_user" {
  description = "The database user of an IAM login, instead of a secret. The function may log in as this user and no other."
  type        = string
  default     = null
}

variable "environment" {
  description = "Environment variables, besides AURORA_HOST, AURORA_PORT, AURORA_DBNAME and the login's."
  type        = map(string)
  default     = {}
}

variable "reserved_concurrency" {
  description = <<-E
    The most environments at a time, each with a connection. -1 is no limit. A new AWS account may have too
    small a quota to reserve anything.
  E
  type        = number
  default     = -1
}

variable "log_retention_days" {
  description = "Days that CloudWatch keeps the log."
  type        = number
  default     = 30
}

variable "xray" {
  description = "Whether X-Ray traces invocations. lambdadb's tracer XRay() writes into these traces."
  type        = bool
  default     = false
}

variable "alarm_actions" {
  description = "ARNs that are told of an alarm and of its end, for example of an SNS topic."
  type        = list(string)
  default     = []
}

variable "alarm_period" {
  description = "Seconds over which an alarm counts; by default those of alarms.json, 300. A function that runs rarely needs no shorter period."
  type        = number
  default     = null
}

variable "errors_threshold" {
  description = "Failed invocations in a period that raise the alarm; by default that of alarms.json, which has the reason too."
  type        = number
  default     = null
}

variable "throttles_threshold" {
  description = "Throttled invocations in a period that raise the alarm; by default that of alarms.json."
  type        = number
  default     = null
}

variable "duration_threshold" {
  description = "The longest invocation of a period that raises no alarm, as a share of timeout; by default that of alarms.json."
  type        = number
  default     = null

  validation {
    condition     = var.duration_threshold == null || try(var.duration_threshold > 0 && var.duration_threshold <= 1, false)
    error_message = "duration_threshold is a share of the timeout, above 0 and at most 1."
  }
}
