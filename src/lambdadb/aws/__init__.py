"""
AWS keys, and signatures of requests.

botocore has all of it too. Importing botocore takes a tenth of a second of each cold start. So it is
used only where the environment variables hold no keys.
"""
