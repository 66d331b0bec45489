"""LlamaIndex: documents in a vector store on engines of lambdadb."""

import os
from typing import Any

from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.vector_stores.postgres import PGVectorStore

from lambdadb import PerEnvironment, create_engine, handler
from lambdadb.aio import create_async_engine

URL = os.environ["DATABASE_URL"]
engine = create_engine(URL, policy=PerEnvironment(checkout_timeout=5.0))
async_engine = create_async_engine(URL)
store = PGVectorStore(
    engine=engine,
    async_engine=async_engine,
    connection_string=URL,
    async_connection_string=URL,
    table_name="note",
    embed_dim=3,
)


@handler(engine)
def lambda_handler(event: dict[str, Any], context: object) -> list[str]:
    store.add([TextNode(text=text, embedding=vector) for text, vector in event["notes"]])
    query = VectorStoreQuery(query_embedding=event["near"], similarity_top_k=1)
    return [node.get_content() for node in store.query(query).nodes or ()]
