"""LlamaIndex's vector store, which knows lambdadb by the URL alone."""

import os
from typing import Any

from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.vector_stores.postgres import PGVectorStore

URL = os.environ["DATABASE_URL"]
store = PGVectorStore(connection_string=URL, async_connection_string=URL, table_name="note", embed_dim=3)


def lambda_handler(event: dict[str, Any], context: object) -> list[str]:
    store.add([TextNode(text=text, embedding=vector) for text, vector in event["notes"]])
    query = VectorStoreQuery(query_embedding=event["near"], similarity_top_k=1)
    return [node.get_content() for node in store.query(query).nodes or ()]
