// Gets a token by grpc-js, and opens the contacts with it by HubSpot's own client.
//
// Reads what `tokenward dev --ready-file` wrote; answers with the token's scopes and the count of contacts.
'use strict';

const { readFileSync } = require('node:fs');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const hubspot = require('@hubspot/api-client');

const ready = JSON.parse(readFileSync(0, 'utf8'));

function getToken(service, metadata) {
  const request = { tenant_id: ready.tenant_id, provider: ready.provider, scopes: ready.scopes };
  return new Promise((resolve, reject) => {
    service.GetToken(request, metadata, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

async function main() {
  const options = { includeDirs: [process.env.PROTO], keepCase: true, longs: Number };
  const definition = protoLoader.loadSync('tokenward/v1/token_service.proto', options);
  const { tokenward } = grpc.loadPackageDefinition(definition);
  const service = new tokenward.v1.TokenService(ready.grpc, grpc.credentials.createInsecure());
  const metadata = new grpc.Metadata();
  metadata.set('authorization', `Bearer ${ready.caller_token}`);
  const token = await getToken(service, metadata);
  const refusal = await getToken(service, new grpc.Metadata()).catch((error) => error);
  service.close();

  const client = new hubspot.Client({ accessToken: token.access_token, basePath: ready.hubspot });
  const page = await client.crm.contacts.basicApi.getPage(10);
  const everyone = await client.crm.contacts.getAll();
  const answer = {
    connection_id: token.connection_id,
    scopes: token.scopes,
    ttl: token.ttl.seconds,
    page: page.results.length,
    everyone: everyone.length,
    first: page.results[0].properties,
    without_caller_token: grpc.status[refusal.code],
  };
  process.stdout.write(JSON.stringify(answer));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
