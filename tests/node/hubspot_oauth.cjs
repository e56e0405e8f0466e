// Exchanges a code, refreshes and lists contacts by HubSpot's own client, directly against a stand-in.
'use strict';

const { readFileSync } = require('node:fs');
const hubspot = require('@hubspot/api-client');

const given = JSON.parse(readFileSync(0, 'utf8'));

async function main() {
  const { client_id: id, client_secret: secret } = given;
  const client = new hubspot.Client({ basePath: given.base_url });
  const tokens = client.oauth.tokensApi;
  const first = await tokens.create('authorization_code', given.code, given.redirect_uri, id, secret);
  const refresh = (token) => tokens.create('refresh_token', undefined, undefined, id, secret, token);
  const second = await refresh(first.refreshToken);
  const refusal = await refresh('no-such-token').catch((error) => error);
  const who = await client.oauth.accessTokensApi.get(second.accessToken);
  client.setAccessToken(second.accessToken);
  const page = await client.crm.contacts.basicApi.getPage(10);
  const answer = {
    expires_in: second.expiresIn,
    refresh_token: second.refreshToken,
    new_access_token: first.accessToken !== second.accessToken,
    account: who.hubId,
    contacts: page.results.length,
    refused: refusal.body?.status ?? null,
  };
  process.stdout.write(JSON.stringify(answer));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
