"""What a client asks of the server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from davy.protocols.mlflow import VERSION
from davy.protocols.mlflow.api import JSON, streaming

if TYPE_CHECKING:
    from davy.protocols.mlflow.api import Exchange

_INFO: dict[str, Any] = {
    "store_type": "SqlStore", "workspaces_enabled": False, "trace_archival_enabled": False, "multipart_uploads_enabled": False,
    "multipart_downloads_enabled": False, "presigned_upload_run_id_supported": False,
}


@streaming("GET", "/version")
async def version(exchange: Exchange) -> None:
    exchange.answer(200, [("content-type", "text/plain; charset=utf-8")], VERSION.encode())


@streaming("GET", "/api/3.0/mlflow/server-info")
async def server_info(exchange: Exchange) -> None:
    exchange.answer(200, JSON, msgspec.json.encode(_INFO))


@streaming("GET", "/ajax-api/3.0/mlflow/server-info")
async def server_info_of_pages(exchange: Exchange) -> None:
    await server_info(exchange)
