output "experiment" {
  description = "What the benchmark and the pages read: `terraform output -json experiment`."
  value = {
    experiment = var.experiment
    region     = var.region
    scheduled  = var.scheduled
    database   = var.database
    operator   = aws_iam_policy.operator.arn

    clusters = {
      for type, cluster in aws_rds_cluster.this : type => {
        identifier               = cluster.cluster_identifier
        instance                 = aws_rds_cluster_instance.writer[type].identifier
        arn                      = cluster.arn
        resource_id              = cluster.cluster_resource_id
        endpoint                 = cluster.endpoint
        port                     = local.port
        secret_arn               = local.secret_arns[type]
        min_capacity             = var.clusters[type].min_capacity
        max_capacity             = var.clusters[type].max_capacity
        seconds_until_auto_pause = var.clusters[type].seconds_until_auto_pause
        schedule                 = var.clusters[type].schedule
        schema_function          = module.schema[type].name
      }
    }

    functions = [
      for key, insert in local.inserts : {
        name        = module.insert[key].name
        log_group   = module.insert[key].log_group
        aurora_type = insert.type
        policy      = insert.policy
        handler     = var.functions[insert.policy].handler
        schedule    = aws_scheduler_schedule.insert[key].name
      }
    ]
  }
}
