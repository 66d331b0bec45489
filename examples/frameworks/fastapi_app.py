"""FastAPI: one ORM session for each request, which background tasks use too."""

import os
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Request
from mangum import Mangum
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from lambdadb import PerEnvironment
from lambdadb.aio import create_async_engine
from lambdadb.asgi import InvocationMiddleware

engine = create_async_engine(os.environ["DATABASE_URL"], policy=PerEnvironment(checkout_timeout=5.0))
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")
NOTE = text("INSERT INTO audit (note) VALUES (:note)")


class SessionMiddleware:
    """ASGI middleware that keeps one session open for a request and what runs after its answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        async with AsyncSession(engine) as session:
            scope.setdefault("state", {})["session"] = session
            await self.app(scope, receive, send)


def get_session(request: Request) -> AsyncSession:
    session: AsyncSession = request.state.session
    return session


app = FastAPI()
app.add_middleware(SessionMiddleware)
app.add_middleware(InvocationMiddleware, engines=[engine])  # added last: it is the outermost
lambda_handler = Mangum(app, lifespan="off")
Session = Annotated[AsyncSession, Depends(get_session)]


@app.post("/orders/{item}")
async def store(item: str, session: Session, tasks: BackgroundTasks) -> dict[str, int]:
    async with session.begin():
        number: int = (await session.execute(INSERT, {"item": item})).scalar_one()
    tasks.add_task(write_note, session, f"order {number}")
    return {"id": number}


async def write_note(session: AsyncSession, note: str) -> None:
    async with session.begin():
        await session.execute(NOTE, {"note": note})
