// simple-oauth2 against the gateway: only the address is known, and nothing but its defaults is used for the rest. It
// knows no discovery, no introspection and no assertions.

import { call, end, hasScopes, refusal, settings, step, using } from './walk.mjs'
import assert from 'node:assert/strict'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { ClientCredentials } from 'simple-oauth2'

using('simple-oauth2', 'jose')
const { audience, billing, issuer, resource_server } = settings

const app = (options, secret = billing.client_secret) =>
  new ClientCredentials({ client: { id: billing.client_id, secret }, auth: { tokenHost: issuer }, options })

async function introspect(token, id, secret) {
  const authorization = `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`
  const body = new URLSearchParams({ token })
  const answer = await fetch(`${issuer}/oauth/introspect`, { method: 'POST', body, headers: { authorization } })
  assert.equal(answer.status, 200)
  return answer.json()
}

/** How the library tells that the gateway refused a request. */
async function refused(promise, status, error) {
  const { output, data } = await refusal(promise)
  assert.equal(output?.statusCode, status)
  assert.equal(data.payload.error, error)
}

await step('its defaults are what the gateway publishes', async () => {
  const metadata = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json()
  assert.equal(metadata.token_endpoint, `${issuer}/oauth/token`)
  assert.equal(metadata.revocation_endpoint, `${issuer}/oauth/revoke`)
})

for (const [name, options] of [
  ['client_secret_basic', {}],
  ['client_secret_basic, not encoded', { credentialsEncodingMode: 'loose' }],
  ['client_secret_post', { authorizationMethod: 'body' }],
]) {
  await step(`token by ${name}`, async () => {
    const { token } = await app(options).getToken({})
    assert.equal(token.token_type, 'Bearer')
    hasScopes(token.scope, 'billing', 'tasks')
    assert.ok(token.expires_in > 0)
  })
}

let narrow
await step('fewer scopes than granted', async () => {
  narrow = await app().getToken({ scope: ['billing'] })
  assert.equal(narrow.token.scope, 'billing')
  assert.equal(narrow.expired(), false)
})
const access = narrow.token.access_token

await step('API call within the scope', async () => {
  assert.equal((await call('/billing/invoices', access)).status, 200)
})

await step('API call outside the scope', async () => {
  const { status, error } = await call('/patients', access)
  assert.deepEqual([status, error], [403, 'insufficient_scope'])
})

await step('introspection by the client', async () => {
  const state = await introspect(access, billing.client_id, billing.client_secret)
  assert.deepEqual([state.active, state.client_id, state.scope], [true, billing.client_id, 'billing'])
})

await step('introspection by a resource server', async () => {
  const state = await introspect(access, resource_server.name, resource_server.secret)
  assert.deepEqual([state.active, state.client_id], [true, billing.client_id])
})

await step('the token by itself', async () => {
  const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`))
  const { payload } = await jwtVerify(access, keys, { issuer, audience, typ: 'at+jwt', algorithms: ['EdDSA', 'ES256'] })
  assert.equal(payload.client_id, billing.client_id)
})

for (const [name, options] of [['client_secret_basic', {}], ['client_secret_post', { authorizationMethod: 'body' }]]) {
  await step(`a wrong secret by ${name}`, () =>
    refused(app(options, billing.client_secret.slice(0, -1)).getToken({}), 401, 'invalid_client'))
}

await step('an unknown scope', () => refused(app().getToken({ scope: 'no-such-scope' }), 400, 'invalid_scope'))

await step('revocation', async () => {
  // The library takes no answer that is not said to be JSON, not even an empty one.
  await narrow.revoke('access_token')
  await narrow.revoke('access_token')
})

await step('a revoked token is not active', async () => {
  assert.deepEqual(await introspect(access, billing.client_id, billing.client_secret), { active: false })
  assert.deepEqual(await introspect(access, resource_server.name, resource_server.secret), { active: false })
})

await step('API call with a revoked token', async () => {
  const { status, error } = await call('/billing/invoices', access)
  assert.deepEqual([status, error], [401, 'invalid_token'])
})

await step('a new token after that', async () => {
  const { token } = await app().getToken({})
  assert.equal((await call('/billing/invoices', token.access_token)).status, 200)
})

end()
