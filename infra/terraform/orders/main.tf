# A function of your own on a cluster that exists: its layer, its network and its login by IAM.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

provider "aws" {
  region = var.region
}

data "aws_rds_cluster" "this" {
  cluster_identifier = var.cluster
}

data "aws_subnet" "first" {
  id = var.subnet_ids[0]
}

locals {
  cluster = data.aws_rds_cluster.this
  url     = "postgresql+psycopg://${var.user}@${local.cluster.endpoint}:${local.cluster.port}/${var.database}?lambdadb_iam=true"
}

resource "aws_lambda_layer_version" "lambdadb" {
  layer_name               = "lambdadb"
  filename                 = "${var.build}/layer-arm64.zip"
  source_code_hash         = filebase64sha256("${var.build}/layer-arm64.zip")
  compatible_runtimes      = [var.runtime]
  compatible_architectures = ["arm64"]
}

module "orders" {
  source = "../modules/function"

  name               = "orders"
  zip                = "${var.build}/function.zip"
  layers             = [aws_lambda_layer_version.lambdadb.arn]
  handler            = "orders.lambda_handler"
  runtime            = var.runtime
  timeout            = 60 # a resume takes 15 s, and 30 s or more after a day of pause
  subnet_ids         = var.subnet_ids
  security_group_ids = [aws_security_group.function.id]
  iam_user           = var.user
  environment        = { DATABASE_URL = local.url }

  cluster = {
    arn         = local.cluster.arn
    resource_id = local.cluster.cluster_resource_id
    host        = local.cluster.endpoint
    port        = local.cluster.port
    database    = var.database
  }
}

# The function may reach the cluster and nothing else. A login by IAM needs no other service.
resource "aws_security_group" "function" {
  name        = "orders"
  description = "The function orders"
  vpc_id      = data.aws_subnet.first.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "to_cluster" {
  security_group_id            = aws_security_group.function.id
  referenced_security_group_id = var.cluster_security_group_id
  description                  = "To the database"
  ip_protocol                  = "tcp"
  from_port                    = local.cluster.port
  to_port                      = local.cluster.port
}

resource "aws_vpc_security_group_ingress_rule" "from_function" {
  security_group_id            = var.cluster_security_group_id
  referenced_security_group_id = aws_security_group.function.id
  description                  = "From the function orders"
  ip_protocol                  = "tcp"
  from_port                    = local.cluster.port
  to_port                      = local.cluster.port
}
