// What the walks of the libraries have in common: the settings (see ../python/walk.py), and how steps are told. No OAuth in here.

import assert from 'node:assert/strict'
import { webcrypto } from 'node:crypto'
import { readFileSync } from 'node:fs'

// Node 18, which Debian 12 has, keeps these to itself; the libraries expect them where later versions have them.
globalThis.crypto ??= webcrypto
globalThis.CryptoKey ??= webcrypto.CryptoKey

export const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'))
let passed = 0

export function using(...libraries) {
  // The tests lay `node_modules` beside the walks.
  const read = (name) => JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url), 'utf8'))
  console.log('using', libraries.map((name) => `${name} ${read(name).version}`).join(', '))
}

/** One promise. The first that is not kept ends the walk. */
export async function step(name, walk) {
  try {
    await walk()
  } catch (error) {
    console.error(error)
    console.error(`failed ${name}: ${error}`)
    process.exit(1)
  }
  passed += 1
  console.log('ok', name)
}

export function end() {
  console.log('passed', passed)
}

/** A promise that has to be refused; what it was refused with. */
export async function refusal(promise) {
  const value = await promise.then((value) => ({ value }), (error) => ({ error }))
  assert.ok('error' in value, 'it was not refused')
  return value.error
}

export function hasScopes(scope, ...wanted) {
  assert.deepEqual(scope.split(' ').sort(), wanted)
}

/** An API call without any library: only its token is looked at. */
export async function call(path, token) {
  const answer = await fetch(settings.api + path, { headers: { authorization: `Bearer ${token}` } })
  const [, error] = /\bBearer .*error="([^"]*)"/.exec(answer.headers.get('www-authenticate')) ?? []
  return { status: answer.status, error, json: answer.headers.get('content-type')?.includes('json') ? await answer.json() : null }
}
