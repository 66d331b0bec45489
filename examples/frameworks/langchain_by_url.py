"""langchain's vector store, which knows lambdadb by the URL alone."""

import os
from typing import Any

from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_postgres import PGEngine, PGVectorStore

engine = PGEngine.from_connection_string(os.environ["DATABASE_URL"])
embeddings = DeterministicFakeEmbedding(size=8)  # in place of a model's


def lambda_handler(event: dict[str, Any], context: object) -> list[str]:
    if "create" in event:
        engine.init_vectorstore_table("note", 8)
    store = PGVectorStore.create_sync(engine, embeddings, "note")
    store.add_texts(event.get("texts", []))
    found = store.similarity_search(event["question"], k=1)
    return [document.page_content for document in found]
