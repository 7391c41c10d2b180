"""Postroom mounted inside a FastAPI application: STOMP at /chat/ws, SockJS at /chat/chat-websocket.

uvicorn --app-dir examples fastapi_app:app
"""

import argparse

import uvicorn
from fastapi import FastAPI

from postroom import Postroom

chat = Postroom()
app = FastAPI(lifespan=chat.lifespan)
app.mount("/chat", chat)


@app.get("/")
async def index() -> dict[str, str]:
    """A page of the application itself."""
    return {"chat": "/chat/ws"}


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    uvicorn.run(app, host=options.host, port=options.port)


if __name__ == "__main__":
    main()
