"""Gets a token by grpcio, and opens the contacts with it by HubSpot's own client.

Reads what `tokenward dev --ready-file` wrote; answers with the token's scopes and the count of contacts.
"""

import importlib
import json
import os
import sys
import tempfile

import grpc
import hubspot
from grpc_tools import protoc


def generated(proto, folder):
    """Compiles the API's definitions and imports what comes out."""
    files = ["tokenward/v1/token_service.proto"]
    arguments = ["protoc", f"-I{proto}", f"--python_out={folder}", f"--grpc_python_out={folder}", *files]
    well_known = os.path.join(os.path.dirname(protoc.__file__), "_proto")
    if protoc.main([*arguments, f"-I{well_known}"]) != 0:
        sys.exit("the API's definitions do not compile")
    sys.path.insert(0, folder)
    modules = (file.removesuffix(".proto").replace("/", ".") for file in files)
    return [(importlib.import_module(f"{m}_pb2"), importlib.import_module(f"{m}_pb2_grpc")) for m in modules][0]


def main():
    ready = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        messages, services = generated(os.environ["PROTO"], folder)
        request = messages.GetTokenRequest(
            tenant_id=ready["tenant_id"], provider=ready["provider"], scopes=ready["scopes"]
        )
        metadata = [("authorization", f"Bearer {ready['caller_token']}")]
        with grpc.insecure_channel(ready["grpc"]) as channel:
            service = services.TokenServiceStub(channel)
            token = service.GetToken(request, metadata=metadata, timeout=30)
            try:
                service.GetToken(request, timeout=30)
                without = "OK"
            except grpc.RpcError as error:
                without = error.code().name

    client = hubspot.Client.create(access_token=token.access_token, host=ready["hubspot"])
    page = client.crm.contacts.basic_api.get_page(limit=10)
    everyone = client.crm.contacts.get_all()
    json.dump(
        {
            "connection_id": token.connection_id,
            "scopes": list(token.scopes),
            "ttl": token.ttl.seconds,
            "page": len(page.results),
            "everyone": len(everyone),
            "first": page.results[0].properties,
            "without_caller_token": without,
        },
        sys.stdout,
    )


main()
