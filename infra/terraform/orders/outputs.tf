output "function" {
  description = "Name of the function."
  value       = module.orders.name
}

output "database_url" {
  description = "What the function connects to. It holds no password."
  value       = local.url
}
