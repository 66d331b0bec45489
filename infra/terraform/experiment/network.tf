# A network without a way to the internet or from it: two private subnets and a way to Secrets Manager.

resource "aws_vpc" "this" {
  cidr_block           = "10.20.0.0/24"
  enable_dns_support   = true
  enable_dns_hostnames = true # the private name of Secrets Manager's endpoint needs it
  tags                 = { Name = var.name }
}

resource "aws_subnet" "private" {
  for_each = toset(var.zones)

  vpc_id            = aws_vpc.this.id
  availability_zone = "${var.region}${each.key}"
  cidr_block        = cidrsubnet(aws_vpc.this.cidr_block, 2, index(var.zones, each.key))
  tags              = { Name = "${var.name}-${each.key}" }
}

# The VPC's own route table has the route within the VPC and no other.
resource "aws_default_route_table" "this" {
  default_route_table_id = aws_vpc.this.default_route_table_id
  route                  = []
  tags                   = { Name = var.name }
}

# A new VPC's default security group lets its members talk to each other. This one lets nobody.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.name}-closed" }
}

resource "aws_security_group" "functions" {
  name        = "${var.name}-functions"
  description = "The functions: out to the clusters and to Secrets Manager, nothing in"
  vpc_id      = aws_vpc.this.id
  tags        = { Name = "${var.name}-functions" }
}

resource "aws_security_group" "clusters" {
  name        = "${var.name}-clusters"
  description = "The clusters: in from the functions, nothing out"
  vpc_id      = aws_vpc.this.id
  tags        = { Name = "${var.name}-clusters" }
}

resource "aws_security_group" "secrets" {
  name        = "${var.name}-secrets"
  description = "Secrets Manager's endpoint: in from the functions, nothing out"
  vpc_id      = aws_vpc.this.id
  tags        = { Name = "${var.name}-secrets" }
}

locals {
  reachable = {
    clusters = { group = aws_security_group.clusters.id, port = local.port }
    secrets  = { group = aws_security_group.secrets.id, port = 443 }
  }
}

resource "aws_vpc_security_group_egress_rule" "functions" {
  for_each = local.reachable

  security_group_id            = aws_security_group.functions.id
  referenced_security_group_id = each.value.group
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = "To ${each.key}"
}

resource "aws_vpc_security_group_ingress_rule" "functions" {
  for_each = local.reachable

  security_group_id            = each.value.group
  referenced_security_group_id = aws_security_group.functions.id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = "From the functions"
}

# Without a NAT gateway this is the functions' way to Secrets Manager. It is paid by the hour and zone.
resource "aws_vpc_endpoint" "secrets" {
  vpc_id              = aws_vpc.this.id
  service_name        = "com.amazonaws.${var.region}.secretsmanager"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = [for subnet in aws_subnet.private : subnet.id]
  security_group_ids  = [aws_security_group.secrets.id]
  policy              = data.aws_iam_policy_document.endpoint.json
  tags                = { Name = "${var.name}-secrets" }
}

# Nothing but these secrets can be read through the endpoint, whoever asks.
data "aws_iam_policy_document" "endpoint" {
  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = values(local.secret_arns)

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
  }
}
