# The clusters that are compared, alike but for their capacity.

locals {
  port        = 5432
  secret_arns = { for type, cluster in aws_rds_cluster.this : type => cluster.master_user_secret[0].secret_arn }
}

resource "aws_db_subnet_group" "this" {
  name        = var.name
  description = "The private subnets"
  subnet_ids  = [for subnet in aws_subnet.private : subnet.id]
}

resource "aws_rds_cluster_parameter_group" "this" {
  name        = "${var.name}-${split(".", var.engine_version)[0]}"
  description = "Idle sessions end, and TLS is required"
  family      = "aurora-postgresql${split(".", var.engine_version)[0]}"

  parameter {
    name  = "idle_session_timeout"
    value = var.idle_session_timeout * 1000
  }

  parameter {
    name  = "idle_in_transaction_session_timeout"
    value = var.idle_in_transaction_session_timeout * 1000
  }

  # Before version 17 Aurora also accepts connections without TLS by default.
  parameter {
    name         = "rds.force_ssl"
    value        = 1
    apply_method = "pending-reboot" # a new cluster has it from its start
  }
}

resource "aws_rds_cluster" "this" {
  for_each = var.clusters

  cluster_identifier = "${var.name}-${each.key}"
  engine             = "aurora-postgresql"
  engine_mode        = "provisioned" # AWS's word for serverless v2 too
  engine_version     = var.engine_version
  database_name      = var.database
  port               = local.port

  db_subnet_group_name            = aws_db_subnet_group.this.name
  vpc_security_group_ids          = [aws_security_group.clusters.id]
  db_cluster_parameter_group_name = aws_rds_cluster_parameter_group.this.name

  master_username                     = var.master_username
  manage_master_user_password         = true
  iam_database_authentication_enabled = true
  enable_http_endpoint                = true # the Data API: the operators' way in

  storage_encrypted = true
  kms_key_id        = var.kms_key_arn

  deletion_protection       = var.deletion_protection
  skip_final_snapshot       = !var.deletion_protection
  final_snapshot_identifier = var.deletion_protection ? "${var.name}-${each.key}-final" : null
  backup_retention_period   = 1 # the least that AWS allows
  copy_tags_to_snapshot     = true
  apply_immediately         = true

  serverlessv2_scaling_configuration {
    min_capacity             = each.value.min_capacity
    max_capacity             = each.value.max_capacity
    seconds_until_auto_pause = each.value.seconds_until_auto_pause
  }
}

resource "aws_rds_cluster_instance" "writer" {
  for_each = var.clusters

  identifier                 = "${var.name}-${each.key}-1"
  cluster_identifier         = aws_rds_cluster.this[each.key].id
  engine                     = aws_rds_cluster.this[each.key].engine
  engine_version             = aws_rds_cluster.this[each.key].engine_version
  instance_class             = "db.serverless"
  db_subnet_group_name       = aws_db_subnet_group.this.name
  publicly_accessible        = false
  auto_minor_version_upgrade = false # what is measured stays the same
  apply_immediately          = true
}
