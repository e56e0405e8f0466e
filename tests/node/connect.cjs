// Walks the connect flow in a browser as a customer does, and tells what each page said and whether the browser complained.
//
// Input: {chromium, link, javascript, decisions: ["grant"|"cancel", …], account, width, pictures?: folder}. After "cancel"
// the link is opened again.
'use strict';

const { readFileSync } = require('node:fs');
const path = require('node:path');
const { chromium } = require('playwright-core');

const input = JSON.parse(readFileSync(0, 'utf8'));
const pages = [];
const complaints = [];

async function look(page, name) {
  const headings = await page.locator('h1').allInnerTexts();
  pages.push({
    name,
    url: page.url(),
    title: await page.title(),
    lang: await page.locator('html').getAttribute('lang'),
    headings,
    mains: await page.locator('main').count(),
    text: await page.locator('body').innerText(),
    overflow: await page.locator('html').evaluate((html) => html.scrollWidth > html.clientWidth),
  });
  if (input.pictures) {
    const number = String(pages.length).padStart(2, '0');
    await page.screenshot({ path: path.join(input.pictures, `${number}-${name}.png`), fullPage: true });
  }
}

async function walk(page, decision) {
  await page.goto(input.link);
  await look(page, 'link');
  await page.getByRole('button', { name: /^Continue to/ }).click();
  await page.waitForURL(/oauth\/authorize/);
  await look(page, 'consent');
  if (decision === 'grant') {
    await page.locator(`input[name=hub_id][value="${input.account}"]`).check();
    await page.getByRole('button', { name: 'Grant access' }).click();
  } else {
    await page.getByRole('button', { name: 'Cancel' }).click();
  }
  await page.waitForURL(/connect\/result/);
  await look(page, `result-${decision}`);
}

async function main() {
  // Chromium's own sandbox does not start as root, as which CI runs it.
  const browser = await chromium.launch({ executablePath: input.chromium, args: ['--no-sandbox'] });
  try {
    const context = await browser.newContext({
      javaScriptEnabled: input.javascript,
      viewport: { width: input.width, height: 800 },
    });
    const page = await context.newPage();
    page.on('console', (message) => complaints.push(`console: ${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => complaints.push(`script: ${error}`));
    page.on('requestfailed', (request) => complaints.push(`failed: ${request.url()}: ${request.failure().errorText}`));
    page.on('response', (response) => {
      if (response.status() >= 400) complaints.push(`${response.status()}: ${response.url()}`);
    });
    await page.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) => console.error(`policy: ${event.violatedDirective}`));
    });
    for (const decision of input.decisions) await walk(page, decision);
    const cookies = await context.cookies();
    process.stdout.write(JSON.stringify({ pages, complaints, cookies: cookies.map((cookie) => cookie.name) }));
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error, pages, complaints);
  process.exitCode = 1;
});
