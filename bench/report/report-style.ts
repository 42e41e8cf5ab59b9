/** Style of the report. One column on a phone, two charts abreast on a desk, no colours wasted on paper. */
export const REPORT_STYLE = `
:root { --ink: #0f172a; --soft: #64748b; --rule: #e2e8f0; --paper: #fff; --wash: #f8fafc; --warn: #b45309; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 24px 20px 48px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 26px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 32px 0 10px; }
h3 { font-size: 15px; margin: 0; }
section.run h3 { margin: 18px 0 8px; }
.note { color: var(--soft); font-size: 13px; margin: 2px 0 8px; overflow-wrap: anywhere; }
.warn { color: var(--warn); font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; margin-top: 20px; }
.card { border: 1px solid var(--rule); border-radius: 10px; padding: 12px 14px; background: var(--wash); }
.card .name { color: var(--soft); font-size: 13px; }
.card .value { font-size: 24px; font-weight: 650; font-variant-numeric: tabular-nums; white-space: nowrap; }
.card .note { margin: 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 16px; margin-top: 24px; }
figure { margin: 0; border: 1px solid var(--rule); border-radius: 10px; padding: 14px 14px 6px; min-width: 0; }
.canvas { display: none; height: 300px; width: 100%; }
.live .canvas { display: block; }
.live .svg { display: none; }
.svg svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 7px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
.text { text-align: left; }
td.wrap { white-space: normal; overflow-wrap: anywhere; min-width: 220px; }
td:first-child.text, th:first-child { position: sticky; left: 0; background: var(--paper); }
details { margin-top: 16px; }
summary { cursor: pointer; font-weight: 600; }
@media (max-width: 600px) {
  body { padding: 16px 12px 32px; }
  h1 { font-size: 21px; }
  .cards { grid-template-columns: repeat(2, 1fr); gap: 8px; }
  .card { padding: 10px; }
  .card .value { font-size: 19px; }
  figure { padding: 10px 8px 2px; }
  .canvas { height: 260px; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 11px; }
  .live .canvas { display: none; }
  .live .svg { display: block; }
  .figures { grid-template-columns: 1fr 1fr; }
  figure, .card, tr { break-inside: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 9.5px; }
  th, td { padding: 2px 5px; white-space: normal; }
}
`
