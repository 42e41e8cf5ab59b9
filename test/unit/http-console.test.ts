import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Harness, startHarness } from '../support/http-harness.ts'

let harness: Harness
before(async () => {
  harness = await startHarness({ server: { apiKeys: ['secret'] } })
})
after(() => harness.close())

test('the page is open although the server has a key, and allows nothing from elsewhere', async () => {
  const page = await harness.get('/')
  assert.equal(page.status, 200)
  assert.equal(page.headers['content-type'], 'text/html; charset=utf-8')
  const policy = String(page.headers['content-security-policy'])
  assert.match(policy, /default-src 'none'/)
  assert.doesNotMatch(policy, /unsafe|\*|http/)
  assert.equal(page.headers['x-content-type-options'], 'nosniff')
})

test('the page holds nothing inline and names no other host', async () => {
  const { text } = await harness.get('/')
  assert.doesNotMatch(text, /<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)/)
  const links = [...text.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, link]) => String(link))
  assert.ok(links.length > 5)
  assert.deepEqual(
    links.filter((link) => /^(?:[a-z]+:|\/)/.test(link)),
    [],
    'a proxy may mount the server below a path: links are relative',
  )
})

test('every style sheet and picture of the page is served with its type', async () => {
  const { text } = await harness.get('/')
  const files = [...text.matchAll(/(?:src|href)="(console\/[^"]+\.(css|svg))"/g)]
  assert.ok(files.length >= 5)
  for (const [, file, kind] of files) {
    const asset = await harness.get(`/${file}`)
    assert.equal(asset.status, 200, file)
    assert.match(String(asset.headers['content-type']), kind === 'css' ? /^text\/css/ : /^image\/svg/)
  }
})

test('what a browser has is not sent again', async () => {
  const first = await harness.get('/')
  assert.equal(first.headers['cache-control'], 'no-cache')
  const etag = String(first.headers['etag'])
  const again = await harness.get('/', { 'if-none-match': etag })
  assert.deepEqual([again.status, again.text, again.headers['etag']], [304, '', etag])
  assert.equal((await harness.get('/', { 'if-none-match': `"other", W/${etag}` })).status, 304)
  assert.equal((await harness.get('/', { 'if-none-match': '"other"' })).status, 200)
})

test('only the files of the page are served', async () => {
  for (const path of ['app.ts', '..%2fconsole-assets.ts', '%2e%2e/%2e%2e/package.json', 'nothing.js', '']) {
    const { status } = await harness.get(`/console/${path}`)
    assert.ok(status === 404 || status === 401, `${path} answers ${status}`)
  }
})

test('the open page opens nothing else', async () => {
  assert.equal((await harness.post('/', { inputs: 'a' })).status, 401)
  assert.equal((await harness.get('/v1/models')).status, 401)
  assert.equal((await harness.post('/console/app.js', {})).status, 401)
})
