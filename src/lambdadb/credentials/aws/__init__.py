"""
HTTP requests of the AWS stores, and the secrets in their answers. Keys are in `lambdadb.aws`.
"""
