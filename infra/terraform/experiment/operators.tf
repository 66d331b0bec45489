# The operators' way in is the Data API: with the AWS CLI, or with the query editor of the RDS console.
#
# It needs no bastion, no open port and no VPN, costs nothing while nobody uses it, and leaves no session
# behind that would keep a cluster awake. Attach this policy to the people who operate the clusters.

resource "aws_iam_policy" "operator" {
  name        = "${var.name}-operator"
  description = "Run SQL as the master user, by the Data API"
  policy      = data.aws_iam_policy_document.operator.json
}

data "aws_iam_policy_document" "operator" {
  statement {
    actions = [
      "rds-data:BatchExecuteStatement",
      "rds-data:BeginTransaction",
      "rds-data:CommitTransaction",
      "rds-data:ExecuteStatement",
      "rds-data:RollbackTransaction",
    ]
    resources = [for cluster in aws_rds_cluster.this : cluster.arn]
  }

  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = values(local.secret_arns)
  }
}
