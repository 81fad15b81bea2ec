// oauth4webapi against the gateway: only the address is known.

import { end, hasScopes, refusal, settings, step, using } from './walk.mjs'
import assert from 'node:assert/strict'
import { importPKCS8 } from 'jose'
import * as oauth from 'oauth4webapi'

using('oauth4webapi', 'jose')
const { api, audience, billing, jwt_client, resource_server } = settings
const issuer = new URL(settings.issuer)
const client = { client_id: billing.client_id }
const basic = oauth.ClientSecretBasic(billing.client_secret)
const core = { client_id: resource_server.name }
const coreBasic = oauth.ClientSecretBasic(resource_server.secret)
let as

async function token(client, auth, parameters = {}) {
  const answer = await oauth.clientCredentialsGrantRequest(as, client, auth, parameters)
  return oauth.processClientCredentialsResponse(as, client, answer)
}

async function introspect(client, auth, token) {
  return oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, auth, token))
}

async function revoke(client, auth, token) {
  await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, auth, token))
}

const get = (path, token) => oauth.protectedResourceRequest(token, 'GET', new URL(api + path))

/** A refused client: by a challenge if the header was answered, by the body otherwise; the body always says so. */
async function invalidClient(promise) {
  const error = await refusal(promise)
  assert.equal(error.status, 401, error)
  if (error instanceof oauth.WWWAuthenticateChallengeError) {
    assert.equal((await error.response.json()).error, 'invalid_client')
  } else {
    assert.ok(error instanceof oauth.ResponseBodyError, error)
    assert.equal(error.error, 'invalid_client')
  }
}

async function challenged(promise, status, reason) {
  const error = await refusal(promise)
  assert.ok(error instanceof oauth.WWWAuthenticateChallengeError, error)
  assert.equal(error.status, status)
  const bearer = error.cause.find(({ scheme }) => scheme === 'bearer')
  assert.equal(bearer?.parameters.error, reason)
}

await step('discovery', async () => {
  as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' }))
  assert.equal(as.issuer, settings.issuer)
})

for (const [name, auth] of [['client_secret_basic', basic], ['client_secret_post', oauth.ClientSecretPost(billing.client_secret)]]) {
  await step(`token by ${name}`, async () => {
    const all = await token(client, auth)
    assert.equal(all.token_type, 'bearer') // As the library writes it.
    hasScopes(all.scope, 'billing', 'tasks')
    assert.ok(all.expires_in > 0)
  })
}

let access
await step('fewer scopes than granted', async () => {
  const narrow = await token(client, basic, { scope: 'billing' })
  assert.equal(narrow.scope, 'billing')
  access = narrow.access_token
})

await step('API call within the scope', async () => {
  assert.equal((await get('/billing/invoices', access)).status, 200)
})

await step('API call outside the scope', () => challenged(get('/patients', access), 403, 'insufficient_scope'))

await step('what the token says of its bearer', async () => {
  const answer = await oauth.protectedResourceRequest(access, 'GET', new URL(`${settings.issuer}/oauth/whoami`))
  assert.equal((await answer.json()).client_id, billing.client_id)
})

await step('introspection by the client', async () => {
  const state = await introspect(client, basic, access)
  assert.equal(state.active, true)
  assert.equal(state.client_id, billing.client_id)
  assert.equal(state.scope, 'billing')
})

await step('introspection by a resource server', async () => {
  const state = await introspect(core, coreBasic, access)
  assert.equal(state.active, true)
  assert.equal(state.client_id, billing.client_id)
})

await step('the token by itself', async () => {
  const request = new Request(`${api}/billing/invoices`, { headers: { authorization: `Bearer ${access}` } })
  // Type, signature by the published keys, issuer, audience, and every claim of RFC 9068.
  const claims = await oauth.validateJwtAccessToken(as, request, audience, { signingAlgorithms: ['EdDSA', 'ES256'] })
  assert.equal(claims.client_id, billing.client_id)
  assert.equal(claims.scope, 'billing')
})

for (const [algorithm, pem, kid] of [
  ['ES384', jwt_client.private_key_pem, jwt_client.kid],
  ['RS384', jwt_client.rsa_private_key_pem, jwt_client.rsa_kid],
]) {
  const signer = { client_id: jwt_client.client_id }
  const key = await importPKCS8(pem, algorithm)
  await step(`token by private_key_jwt, ${algorithm}`, async () => {
    const signed = await token(signer, oauth.PrivateKeyJwt({ key, kid }), { scope: 'billing' })
    assert.equal(signed.scope, 'billing')
    assert.equal((await get('/billing/invoices', signed.access_token)).status, 200)
  })
  await step(`an assertion is good for one time, ${algorithm}`, async () => {
    let once
    const auth = oauth.PrivateKeyJwt({ key, kid })
    const signedOnce = async (as, client, body, headers) => {
      await auth(as, client, body, headers)
      once ??= body.get('client_assertion')
      body.set('client_assertion', once)
    }
    await token(signer, signedOnce)
    await invalidClient(token(signer, signedOnce))
  })
}

for (const [name, auth] of [['client_secret_basic', oauth.ClientSecretBasic], ['client_secret_post', oauth.ClientSecretPost]]) {
  await step(`a wrong secret by ${name}`, () => invalidClient(token(client, auth(billing.client_secret.slice(0, -1)))))
}

await step('an unknown scope', async () => {
  const error = await refusal(token(client, basic, { scope: 'no-such-scope' }))
  assert.ok(error instanceof oauth.ResponseBodyError, error)
  assert.deepEqual([error.status, error.error], [400, 'invalid_scope'])
})

await step('revocation', async () => {
  await revoke(client, basic, access)
  await revoke(client, basic, access)
})

await step('a revoked token is not active', async () => {
  assert.deepEqual(await introspect(client, basic, access), { active: false })
  assert.deepEqual(await introspect(core, coreBasic, access), { active: false })
})

await step('API call with a revoked token', () => challenged(get('/billing/invoices', access), 401, 'invalid_token'))

await step('a new token after that', async () => {
  assert.equal((await get('/billing/invoices', (await token(client, basic)).access_token)).status, 200)
})

end()
