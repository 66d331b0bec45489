"""langchain: documents in a vector store on an engine of lambdadb."""

import os
from typing import Any

from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_postgres import PGEngine, PGVectorStore

from lambdadb import handler
from lambdadb.aio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])
embeddings = DeterministicFakeEmbedding(size=8)  # in place of a model's


@handler(engine)
async def lambda_handler(event: dict[str, Any], context: object) -> list[str]:
    tables = PGEngine.from_engine(engine)
    if "create" in event:
        await tables.ainit_vectorstore_table("note", 8)
    store = await PGVectorStore.create(tables, embeddings, "note")
    await store.aadd_texts(event.get("texts", []))
    found = await store.asimilarity_search(event["question"], k=1)
    return [document.page_content for document in found]
