// Light, dark, or what the system says. Runs before the first paint, so that nobody is dazzled.

import { readStored, writeStored } from './stored-settings.ts'

const THEMES = ['system', 'light', 'dark'] as const
type Theme = (typeof THEMES)[number]

const NAME = 'theme'
let theme: Theme = THEMES.find((one) => one === readStored(() => localStorage, NAME)) ?? 'system'
apply()

/** Each press takes the next theme. */
export function connectThemeButton(button: HTMLButtonElement): void {
  const label = () => button.setAttribute('aria-label', `Colour theme: ${theme}`)
  label()
  button.addEventListener('click', () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] as Theme
    writeStored(() => localStorage, NAME, theme === 'system' ? null : theme)
    apply()
    label()
  })
}

function apply(): void {
  document.documentElement.dataset['theme'] = theme
}
