// openid-client against the gateway: only the address is known.

import { end, hasScopes, refusal, settings, step, using } from './walk.mjs'
import assert from 'node:assert/strict'
import { createRemoteJWKSet, importPKCS8, jwtVerify } from 'jose'
import * as openid from 'openid-client'

using('openid-client', 'oauth4webapi', 'jose')
const { api, audience, billing, jwt_client, resource_server } = settings
const discover = (id, auth) => openid.discovery(new URL(settings.issuer), id, undefined, auth, { algorithm: 'oauth2' })
const get = (config, path, token) => openid.fetchProtectedResource(config, token, new URL(api + path), 'GET')

/** A refused client: by a challenge if the header was answered, by the body otherwise; the body always says so. */
async function invalidClient(promise) {
  const error = await refusal(promise)
  assert.equal(error.status, 401, error)
  if (error instanceof openid.WWWAuthenticateChallengeError) {
    assert.equal((await error.response.json()).error, 'invalid_client')
  } else {
    assert.ok(error instanceof openid.ResponseBodyError, error)
    assert.equal(error.error, 'invalid_client')
  }
}

async function challenged(promise, status, reason) {
  const error = await refusal(promise)
  assert.ok(error instanceof openid.WWWAuthenticateChallengeError, error)
  assert.equal(error.status, status)
  const bearer = error.cause.find(({ scheme }) => scheme === 'bearer')
  assert.equal(bearer?.parameters.error, reason)
}

let basic, core
await step('discovery', async () => {
  basic = await discover(billing.client_id, openid.ClientSecretBasic(billing.client_secret))
  core = await discover(resource_server.name, openid.ClientSecretBasic(resource_server.secret))
  assert.equal(basic.serverMetadata().issuer, settings.issuer)
})

for (const [name, auth] of [['client_secret_basic', openid.ClientSecretBasic], ['client_secret_post', openid.ClientSecretPost]]) {
  await step(`token by ${name}`, async () => {
    const all = await openid.clientCredentialsGrant(await discover(billing.client_id, auth(billing.client_secret)))
    assert.equal(all.token_type, 'bearer') // As the library writes it.
    hasScopes(all.scope, 'billing', 'tasks')
    assert.ok(all.expiresIn() > 0)
  })
}

let access
await step('fewer scopes than granted', async () => {
  const narrow = await openid.clientCredentialsGrant(basic, { scope: 'billing' })
  assert.equal(narrow.scope, 'billing')
  access = narrow.access_token
})

await step('API call within the scope', async () => {
  assert.equal((await get(basic, '/billing/invoices', access)).status, 200)
})

await step('API call outside the scope', () => challenged(get(basic, '/patients', access), 403, 'insufficient_scope'))

await step('introspection by the client', async () => {
  const state = await openid.tokenIntrospection(basic, access)
  assert.equal(state.active, true)
  assert.equal(state.client_id, billing.client_id)
  assert.equal(state.scope, 'billing')
})

await step('introspection by a resource server', async () => {
  const state = await openid.tokenIntrospection(core, access)
  assert.equal(state.active, true)
  assert.equal(state.client_id, billing.client_id)
})

await step('the token by itself', async () => {
  const keys = createRemoteJWKSet(new URL(basic.serverMetadata().jwks_uri))
  const { payload } = await jwtVerify(access, keys, {
    issuer: settings.issuer,
    audience,
    typ: 'at+jwt',
    algorithms: ['EdDSA', 'ES256'],
    requiredClaims: ['exp', 'sub', 'client_id', 'iat', 'jti'],
  })
  assert.equal(payload.client_id, billing.client_id)
  assert.equal(payload.scope, 'billing')
})

for (const [algorithm, pem, kid] of [
  ['ES384', jwt_client.private_key_pem, jwt_client.kid],
  ['RS384', jwt_client.rsa_private_key_pem, jwt_client.rsa_kid],
]) {
  const key = await importPKCS8(pem, algorithm)
  let signer
  await step(`token by private_key_jwt, ${algorithm}`, async () => {
    signer = await discover(jwt_client.client_id, openid.PrivateKeyJwt({ key, kid }))
    const signed = await openid.clientCredentialsGrant(signer, { scope: 'billing' })
    assert.equal(signed.scope, 'billing')
    assert.equal((await get(signer, '/billing/invoices', signed.access_token)).status, 200)
  })
  await step(`introspection and revocation by private_key_jwt, ${algorithm}`, async () => {
    const { access_token } = await openid.clientCredentialsGrant(signer)
    assert.equal((await openid.tokenIntrospection(signer, access_token)).client_id, jwt_client.client_id)
    await openid.tokenRevocation(signer, access_token)
    assert.deepEqual(await openid.tokenIntrospection(signer, access_token), { active: false })
  })
  await step(`an assertion is good for one time, ${algorithm}`, async () => {
    let once
    const auth = openid.PrivateKeyJwt({ key, kid })
    const signedOnce = await discover(jwt_client.client_id, async (as, client, body, headers) => {
      await auth(as, client, body, headers)
      once ??= body.get('client_assertion')
      body.set('client_assertion', once)
    })
    await openid.clientCredentialsGrant(signedOnce)
    await invalidClient(openid.clientCredentialsGrant(signedOnce))
  })
}

for (const [name, auth] of [['client_secret_basic', openid.ClientSecretBasic], ['client_secret_post', openid.ClientSecretPost]]) {
  await step(`a wrong secret by ${name}`, async () => {
    const wrong = await discover(billing.client_id, auth(billing.client_secret.slice(0, -1)))
    await invalidClient(openid.clientCredentialsGrant(wrong))
  })
}

await step('an unknown scope', async () => {
  const error = await refusal(openid.clientCredentialsGrant(basic, { scope: 'no-such-scope' }))
  assert.ok(error instanceof openid.ResponseBodyError, error)
  assert.deepEqual([error.status, error.error], [400, 'invalid_scope'])
})

await step('an unknown grant', async () => {
  const error = await refusal(openid.genericGrantRequest(basic, 'password', { username: 'somebody', password: 'something' }))
  assert.ok(error instanceof openid.ResponseBodyError, error)
  assert.deepEqual([error.status, error.error], [400, 'unsupported_grant_type'])
})

await step("revocation is the owner's", async () => {
  const key = await importPKCS8(jwt_client.private_key_pem, 'ES384')
  const signer = await discover(jwt_client.client_id, openid.PrivateKeyJwt({ key, kid: jwt_client.kid }))
  // What another client says is no revocation, however it is answered (RFC 7009 §2.1).
  await openid.tokenRevocation(signer, access).catch((error) => assert.ok(error instanceof openid.ResponseBodyError, error))
  assert.equal((await openid.tokenIntrospection(basic, access)).active, true)
})

await step('revocation', async () => {
  await openid.tokenRevocation(basic, access)
  await openid.tokenRevocation(basic, access)
})

await step('a revoked token is not active', async () => {
  assert.deepEqual(await openid.tokenIntrospection(basic, access), { active: false })
  assert.deepEqual(await openid.tokenIntrospection(core, access), { active: false })
})

await step('API call with a revoked token', () => challenged(get(basic, '/billing/invoices', access), 401, 'invalid_token'))

await step('a new token after that', async () => {
  const { access_token } = await openid.clientCredentialsGrant(basic)
  assert.equal((await get(basic, '/billing/invoices', access_token)).status, 200)
})

end()
