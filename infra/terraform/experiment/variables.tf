variable "region" {
  description = "The AWS region."
  type        = string
  default     = "us-east-1"
}

variable "zones" {
  description = "The letters of two Availability Zones of the region that have Aurora serverless. docs/deploy.md shows how to list them."
  type        = list(string)
  default     = ["a", "b"]

  validation {
    condition     = length(var.zones) == 2 && length(distinct(var.zones)) == 2
    error_message = "zones are the letters of two different Availability Zones, as in [\"a\", \"b\"]."
  }
}

variable "name" {
  description = "Everything that is created has a name that begins with this one, and the tag project."
  type        = string
  default     = "lambdadb-experiment"

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.name)) && length(var.name) <= 30
    error_message = "name has lower-case letters, digits and single hyphens, begins with a letter, and has at most 30 characters."
  }
}

variable "tags" {
  description = "More tags for everything that can have them."
  type        = map(string)
  default     = {}
}

variable "experiment" {
  description = "The value of `experiment` in each log line: choose a new one for a new series of measurements."
  type        = string
  default     = "experiment_01"
}

variable "functions" {
  description = <<-E
    The policies under test, by the name that is in their log lines. Each is deployed once for each cluster.
    With `iam`, a function logs in by IAM as the database user of iam_user, otherwise with the master user's secret.
  E
  type = map(object({
    handler = string
    iam     = optional(bool, false)
  }))
  default = {
    hand_written       = { handler = "insert.hand_written" }
    sqlalchemy_default = { handler = "insert.sqlalchemy_default" }
    per_environment    = { handler = "insert.per_environment" }
    per_invocation     = { handler = "insert.per_invocation" }
  }

  validation {
    condition     = alltrue([for policy in keys(var.functions) : can(regex("^[a-z][a-z_]{0,22}$", policy))])
    error_message = "The names of functions have lower-case letters and underscores, at most 23."
  }
}

variable "scheduled" {
  description = <<-E
    The policy whose functions are invoked on schedule, or null for none. It is one at a time, because a
    function that keeps its connection keeps the cold cluster awake for the others.
  E
  type        = string
  default     = null

  validation {
    condition     = var.scheduled == null || contains(keys(var.functions), coalesce(var.scheduled, "none"))
    error_message = "scheduled is the name of one of the functions, or null."
  }
}

variable "clusters" {
  description = <<-E
    The clusters, by the value of `aurora_type` in the log lines. Capacities are in ACU. A cluster with a
    min_capacity of 0 pauses after seconds_until_auto_pause without a connection.
  E
  type = map(object({
    min_capacity             = number
    max_capacity             = number
    seconds_until_auto_pause = optional(number)
    schedule                 = string
  }))
  default = {
    hot  = { min_capacity = 0.5, max_capacity = 1, schedule = "rate(10 minutes)" }
    cold = { min_capacity = 0, max_capacity = 1, seconds_until_auto_pause = 300, schedule = "rate(12 minutes)" }
  }

  validation {
    condition     = alltrue([for type in keys(var.clusters) : can(regex("^[a-z]{1,8}$", type))])
    error_message = "The names of clusters have 1 to 8 lower-case letters."
  }

  validation {
    condition     = alltrue([for cluster in var.clusters : (cluster.min_capacity == 0) == (cluster.seconds_until_auto_pause != null)])
    error_message = "seconds_until_auto_pause is for a cluster with a min_capacity of 0, and only for it."
  }

  validation {
    condition = alltrue([
      for cluster in var.clusters :
      cluster.seconds_until_auto_pause == null ? true :
      cluster.seconds_until_auto_pause >= 300 && cluster.seconds_until_auto_pause <= 86400
    ])
    error_message = "seconds_until_auto_pause is from 300 to 86400: AWS's range."
  }

  validation {
    condition     = alltrue([for cluster in var.clusters : cluster.max_capacity >= 1 && cluster.max_capacity >= cluster.min_capacity])
    error_message = "max_capacity is at least 1 ACU, and at least min_capacity."
  }
}

variable "engine_version" {
  description = <<-E
    Aurora PostgreSQL's version. Auto-pause needs 13.15, 14.12, 15.7, 16.3 or later. 16.8 is a release with
    long-term support; the published experiment had 16.6. Whether your region offers a version is for you to
    check: docs/deploy.md.
  E
  type        = string
  default     = "16.8"

  validation {
    condition = try(
      tonumber(split(".", var.engine_version)[0]) >= 17 ||
      tonumber(split(".", var.engine_version)[1]) >= { "13" = 15, "14" = 12, "15" = 7, "16" = 3 }[split(".", var.engine_version)[0]],
      false
    )
    error_message = "Auto-pause needs Aurora PostgreSQL 13.15, 14.12, 15.7, 16.3, 17 or later, written as in \"16.8\"."
  }
}

variable "database" {
  description = "The database."
  type        = string
  default     = "experiment"
}

variable "master_username" {
  description = "The master user. RDS makes its password, keeps it in a secret of Secrets Manager, and rotates it every seven days."
  type        = string
  default     = "experiment_owner"
}

variable "iam_user" {
  description = "The database user of functions that log in by IAM. The schema function makes it."
  type        = string
  default     = "experiment_app"
}

variable "kms_key_arn" {
  description = "The KMS key that encrypts the clusters, or null for aws/rds."
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Whether the clusters refuse to be deleted. false, because an experiment ends."
  type        = bool
  default     = false
}

variable "idle_session_timeout" {
  description = <<-E
    Seconds after which the server ends an idle session of any client. A frozen function that keeps a session
    would keep the cluster awake for ever. 900: longer than the schedules, so that it changes nothing that the
    experiment measures. lambdadb's own sessions end after 60 s.
  E
  type        = number
  default     = 900
}

variable "idle_in_transaction_session_timeout" {
  description = "Seconds after which the server ends a session that is idle in a transaction. 60: a killed function keeps its locks for a minute."
  type        = number
  default     = 60
}

variable "build" {
  description = "The folder with function.zip and the layers, from `nox -s package`."
  type        = string
  default     = "../../../build/experiment"

  validation {
    condition     = fileexists("${var.build}/function.zip") && fileexists("${var.build}/layer-${var.architecture}.zip")
    error_message = "There is no function.zip, or no layer for this architecture, in ${var.build}. Build them: nox -s package -- --python ${trimprefix(var.runtime, "python")}. Run terraform in infra/terraform/experiment, or with -chdir."
  }
}

variable "runtime" {
  description = "The functions' runtime: the Python that the layer was built for."
  type        = string
  default     = "python3.13"
}

variable "architecture" {
  description = "arm64 or x86_64. arm64 costs a fifth less."
  type        = string
  default     = "arm64"
}

variable "secrets_extension_layer_arn" {
  description = <<-E
    ARN of the AWS Parameters and Secrets Lambda Extension for the region and the architecture, or null for
    functions without it. lambdadb reads the secret through it if it is there.
  E
  type        = string
  default     = null
}

variable "xray" {
  description = "Whether X-Ray traces invocations."
  type        = bool
  default     = true
}

variable "reserved_concurrency" {
  description = "The most environments of each function at a time. -1 is no limit; a new AWS account may be unable to reserve."
  type        = number
  default     = -1
}

variable "log_retention_days" {
  description = "Days that CloudWatch keeps the logs."
  type        = number
  default     = 30
}

variable "alarm_actions" {
  description = "ARNs that are told of alarms, for example of an SNS topic."
  type        = list(string)
  default     = []
}
