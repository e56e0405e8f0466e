"""Exchanges a code, refreshes and lists contacts by HubSpot's own client, directly against a stand-in."""

import json
import sys

import hubspot
from hubspot.oauth.exceptions import ApiException


def main():
    given = json.load(sys.stdin)
    app = {"client_id": given["client_id"], "client_secret": given["client_secret"]}
    client = hubspot.Client.create(host=given["base_url"])
    tokens = client.oauth.tokens_api
    first = tokens.create(
        grant_type="authorization_code", code=given["code"], redirect_uri=given["redirect_uri"], **app
    )
    second = tokens.create(grant_type="refresh_token", refresh_token=first.refresh_token, **app)
    client.access_token = second.access_token
    try:
        tokens.create(grant_type="refresh_token", refresh_token="no-such-token", **app)
        refused = None
    except ApiException as error:
        refused = json.loads(error.body)["status"]
    json.dump(
        {
            "expires_in": second.expires_in,
            "refresh_token": second.refresh_token,
            "new_access_token": first.access_token != second.access_token,
            "account": client.oauth.access_tokens_api.get(second.access_token).hub_id,
            "contacts": len(client.crm.contacts.basic_api.get_page(limit=10).results),
            "refused": refused,
        },
        sys.stdout,
    )


main()
