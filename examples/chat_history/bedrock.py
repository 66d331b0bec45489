"""Embeddings of Amazon Titan Text Embeddings V2, by Amazon Bedrock."""

import json

import boto3

client = boto3.client("bedrock-runtime")


def embed(content: str) -> list[float]:
    answer = client.invoke_model(
        modelId="amazon.titan-embed-text-v2:0",
        body=json.dumps({"inputText": content, "dimensions": 1024, "normalize": True}),
    )
    vector: list[float] = json.loads(answer["body"].read())["embedding"]
    return vector
