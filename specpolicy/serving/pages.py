"""HTTP responses beside the websocket, and the library's log."""

import http
import logging

from websockets.datastructures import Headers
from websockets.http11 import Response


def page(status: http.HTTPStatus, body: str | bytes, content_type: str = "text/plain; charset=utf-8") -> Response:
    """Return a whole HTTP response."""
    data = body.encode() if isinstance(body, str) else body
    headers = Headers({"Content-Type": content_type, "Content-Length": str(len(data)), "Connection": "close"})
    if status is http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Api-Key"
    return Response(status.value, status.phrase, headers, data)


def quiet_logger() -> logging.Logger:
    """Return a logger that hides port scans, lost connections and health checks; the library's tracebacks appear in
    debug mode."""
    logger = logging.getLogger("specpolicy.serving.websockets")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
    return logger
