variable "region" {
  description = "Region of the cluster."
  type        = string
  default     = "us-east-1"
}

variable "cluster" {
  description = "Name of the Aurora PostgreSQL cluster. IAM authentication is on."
  type        = string
}

variable "cluster_security_group_id" {
  description = "The cluster's security group. It gets a rule that admits the function."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets of the cluster's VPC, in two zones."
  type        = list(string)
}

variable "database" {
  description = "Name of the database."
  type        = string
  default     = "shop"
}

variable "user" {
  description = "Database user of the function, who has rds_iam."
  type        = string
  default     = "orders_app"
}

variable "runtime" {
  description = "The runtime, which the layer was built for."
  type        = string
  default     = "python3.13"
}

variable "build" {
  description = "Folder with function.zip and layer-arm64.zip."
  type        = string
  default     = "../../../build/orders"
}
