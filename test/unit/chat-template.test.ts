import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChatTemplate } from '../../src/tokenizer/chat-template.ts'

const SPECIALS = { bosToken: '<s>', eosToken: '</s>' }
const OPTIONS = { addGenerationPrompt: true, continueFinalMessage: false, documents: null, variables: {} }
const CHATML = `{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message.content | trim }}</s>
{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`
const user = (content: string) => ({ role: 'user', content, extra: {} })

test('renders messages, special tokens and the generation prompt', () => {
  const template = new ChatTemplate(CHATML, SPECIALS)
  assert.equal(template.render([user('hi')], OPTIONS), '<s><|user|>hi</s>\n<|assistant|>')
  assert.equal(template.render([user('hi')], { ...OPTIONS, addGenerationPrompt: false }), '<s><|user|>hi</s>\n')
})

test('parts are joined for templates that take text and kept for those that walk them', () => {
  const parts = {
    role: 'user',
    content: [
      { type: 'text', text: 'a' },
      { type: 'text', text: 'b' },
    ] as const,
    extra: {},
  }
  assert.equal(new ChatTemplate(CHATML, SPECIALS).render([parts], OPTIONS), '<s><|user|>a\nb</s>\n<|assistant|>')
  const walking = "{% for m in messages %}{% for part in m['content'] %}[{{ part.text }}]{% endfor %}{% endfor %}"
  assert.equal(new ChatTemplate(walking, SPECIALS).render([parts], OPTIONS), '[a][b]')
})

test('continue_final_message ends the prompt inside the last message', () => {
  const template = new ChatTemplate(CHATML, SPECIALS)
  const messages = [user('go on'), { role: 'assistant', content: 'go on and', extra: {} }]
  const options = { ...OPTIONS, addGenerationPrompt: false, continueFinalMessage: true }
  assert.equal(template.render(messages, options), '<s><|user|>go on</s>\n<|assistant|>go on and')
  const shouting = new ChatTemplate('{% for m in messages %}{{ m.content | upper }}{% endfor %}', SPECIALS)
  assert.throws(() => shouting.render(messages, options), { code: 'FIELD_INVALID', field: 'continue_final_message' })
})

test("what a template refuses is the client's fault, in the template's words", () => {
  const template = new ChatTemplate("{{ raise_exception('roles must alternate') }}", SPECIALS)
  assert.throws(() => template.render([user('x')], OPTIONS), {
    code: 'FIELD_INVALID',
    field: 'messages',
    message: /roles must alternate/,
  })
})

test('variables of the request reach the template but cannot replace the messages', () => {
  const template = new ChatTemplate('{{ mood }}{{ messages | length }}', SPECIALS)
  assert.equal(template.render([user('x')], { ...OPTIONS, variables: { mood: 'calm', messages: [] } }), 'calm1')
})
