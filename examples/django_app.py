"""Postroom beside a Django application: STOMP at /chat/ws, SockJS at /chat/chat-websocket, all else is Django's.

uvicorn --app-dir examples django_app:app
"""

import argparse

import django
import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from postroom import Postroom, mount

# In a project of yours, this is what DJANGO_SETTINGS_MODULE names.
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="only an example: choose your own")
django.setup()


def index(request: HttpRequest) -> HttpResponse:
    """A page of the application itself."""
    return HttpResponse("chat is at /chat/ws")


urlpatterns = [path("", index)]

chat = Postroom()
app = mount(chat, at="/chat", beside=get_asgi_application())


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    uvicorn.run(app, host=options.host, port=options.port)


if __name__ == "__main__":
    main()
