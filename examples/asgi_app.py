"""Postroom under any ASGI server.

uvicorn --app-dir examples asgi_app:app
hypercorn examples/asgi_app:app
granian --interface asgi --working-dir examples asgi_app:app
postroom serve asgi_app:app
"""

import argparse
import logging

import uvicorn

from postroom import Postroom, Request

app = Postroom()


@app.handler("/orders/{id}")
async def order(request: Request) -> None:
    """A SEND to /app/orders/7."""
    logging.warning("%s orders %s: %r", request.principal.name, request.variables["id"], request.body)


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    uvicorn.run(app, host=options.host, port=options.port)


if __name__ == "__main__":
    main()
