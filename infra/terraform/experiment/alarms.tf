# Alarms of the clusters. Metrics, thresholds and reasons are those of lambdadb.operate.alarms.

locals {
  cluster_alarms = jsondecode(file("${path.module}/../modules/function/alarms.json")).cluster

  # Connections of Aurora PostgreSQL at each maximum capacity (Aurora User Guide), less 5 reserved ones.
  connections = { for type, cluster in var.clusters : type => min(2000, floor(189 * cluster.max_capacity)) - 5 }

  alarms = {
    for pair in setproduct(keys(var.clusters), keys(local.cluster_alarms)) :
    "${pair[0]}-${pair[1]}" => {
      type  = pair[0]
      alarm = local.cluster_alarms[pair[1]]
    }
    # Only a cluster that can pause is expected to.
    if pair[1] != "awake" || var.clusters[pair[0]].min_capacity == 0
  }
}

resource "aws_cloudwatch_metric_alarm" "cluster" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.alarm.description
  namespace           = "AWS/RDS"
  metric_name         = each.value.alarm.metric
  dimensions          = { DBClusterIdentifier = aws_rds_cluster.this[each.value.type].cluster_identifier }
  statistic           = each.value.alarm.statistic
  period              = each.value.alarm.period
  evaluation_periods  = each.value.alarm.evaluation_periods
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = each.value.alarm.threshold * (lookup(each.value.alarm, "of", "") == "connections" ? local.connections[each.value.type] : 1)
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
}
