"""The page in headless Chromium: it opens, sorts, filters, copies, fits a phone, and lets no run's words act."""

import time

import pandas as pd
import pytest
from chromium import ENTER, SPACE, Browser, missing
from hostile import hostile_runs
from saved_answers import layer, network
from saved_answers import run as answers_run
from saved_facts import PRUNED, facts, grid, run

from prunebench.report import page, write_report
from prunebench.report.block import block_of
from prunebench.statistics import VERDICTS

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

SVG = ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 4"><rect width="8" height="4" fill="#0072b2"/>'
       "<script>window.hacked=1;alert(1)</script></svg>")  # fmt: skip
# What a column may hold, as it must stand after sorting upwards; words after numbers, what is missing last.
SORTED = (
    "~90 ns",
    "2.5 µs",
    "0.3 ms, 4.00× [3.9, 4.1]",
    "1.5 ms",
    "0.2 s",
    "3 s",
    "diverged",
    "none up to 99 %",
    "–",
    "",
)
RATIOS = ("0.3 ms, 0.50× [0.4, 0.6]", "0.2 ms, 0.98× [0.9, 1.1] unstable", "9 ms, 12.00× [11, 13]", "failed")
ACCURACIES = ("−1.5 points", "8.10 ± 0.40 (n=3)", "68.89 (n=1)", "97.5", "1,067.0 kB (1.0× smaller)", "1.2 MB")
ORDER = (7, 3, 8, 0, 5, 2, 9, 6, 4, 1)  # of the rows as given
DAYS = ("2025-12-31T23:59:59", "2026-01-02T00:00:00", "2026-01-10T00:00:00", "v2", "v10")
SHADE = "const c = getComputedStyle(document.querySelector(arguments[0])); return [c.color, c.backgroundColor]"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    one = Browser(tmp_path_factory.mktemp("browser"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page with a bit of everything, and a table of known columns in the place of the runs'."""
    rows = [{"mixed": SORTED[n % len(SORTED)], "accuracy": ACCURACIES[n % 6], "day": DAYS[n % 5], "batch": str(n % 2),
             "measure again": f"pytest benchmarks --seeds {n}"} for n in ORDER]  # fmt: skip
    failed = facts(PRUNED, status="diverged", reason="loss is NaN")
    runs = [run(*grid()[1:], failed), answers_run(layer(), network(), name="other")]
    path = tmp_path_factory.mktemp("page") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunebench.report.about.sources", lambda _: block_of("runs", "Runs", pd.DataFrame(rows)))
        path.write_text(page(runs, [("accuracy against sparsity", SVG)]))
    return path


def column(browser, place, block="runs"):
    texts = "return [...document.querySelectorAll(arguments[0])].map(row => row.cells[arguments[1]].textContent)"
    return browser.run(texts, f"#{block} tbody tr", place)


def press(browser, place, key=ENTER):
    browser.press(f"#runs th:nth-child({place + 1}) button", key)


def sorting(browser):
    return browser.run("return [...document.querySelectorAll('#runs th')].map(h => h.getAttribute('aria-sort'))")


def count(browser):
    return browser.run("return document.querySelector('#runs .pages span').textContent")


def until(look, wanted):
    """What `look` gives, once it is as wanted, or after five seconds."""
    deadline = time.monotonic() + 5
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_it_opens_from_a_file_without_a_word_of_complaint(browser, written):
    browser.open(written)
    assert browser.run("return document.querySelector('h1').textContent") == "What pruning gains"
    assert browser.run("return [...document.images].map(i => i.complete && i.naturalWidth > 0)") == [True]
    assert (
        browser.run("return performance.getEntriesByType('resource').filter(r => !/^data:/.test(r.name)).length") == 0
    )
    assert browser.logged() == []


@pytest.mark.parametrize("key", [ENTER, SPACE])
def test_a_heading_sorts_numbers_by_size_up_down_and_back(browser, written, key):
    browser.open(written)
    before = column(browser, 0)
    press(browser, 0, key)
    assert tuple(column(browser, 0)) == SORTED
    assert sorting(browser) == ["ascending", None, None, None, None]
    press(browser, 0, key)
    # Words and what is missing stay behind the numbers.
    assert tuple(column(browser, 0)) == (*SORTED[5::-1], *SORTED[7:5:-1], *SORTED[8:])
    assert sorting(browser)[0] == "descending"
    press(browser, 0, key)
    assert column(browser, 0) == before
    assert sorting(browser) == [None] * 5


def test_signs_spreads_thousands_and_days(browser, written):
    browser.open(written)
    press(browser, 1)
    assert list(dict.fromkeys(column(browser, 1))) == list(ACCURACIES)
    press(browser, 2)
    assert list(dict.fromkeys(column(browser, 2))) == list(DAYS)
    assert sorting(browser) == [None, None, "ascending", None, None]


def test_a_backend_s_column_sorts_by_its_speed_up(browser, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        table = pd.DataFrame({"csr": RATIOS[::-1]})
        patch.setattr("prunebench.report.about.sources", lambda _: block_of("runs", "Runs", table, "main"))
        (tmp_path / "page.html").write_text(page([run(*grid())]))
    browser.open(tmp_path / "page.html")
    press(browser, 0)
    assert tuple(column(browser, 0)) == RATIOS


def test_words_and_lists_filter(browser, written):
    browser.open(written)
    assert count(browser) == "10 rows"
    browser.press("#runs input", "2026 MS")
    wanted = [SORTED[n] for n in ORDER if "ms" in SORTED[n] and "2026" in DAYS[n % 5]]
    assert until(lambda: column(browser, 0), wanted) == wanted
    assert count(browser) == f"{len(wanted)} of 10 rows"
    browser.run("const i = document.querySelector('#runs input'); i.value = ''; i.dispatchEvent(new Event('input'))")
    assert until(lambda: count(browser), "10 rows") == "10 rows"
    browser.run("""const s = document.querySelector('#runs select');
        s.value = [...s.options].find(o => o.text === '1').value; s.dispatchEvent(new Event('change'))""")
    assert set(column(browser, 3)) == {"1"}
    assert count(browser) == "5 of 10 rows"


def test_a_command_is_copied(browser, written):
    browser.open(written)
    browser.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.press("#runs tbody tr:first-child button.copy", ENTER)
    copied = column(browser, 4)[0].removeprefix("Copy")
    said = "return document.getElementById('said').textContent"
    assert until(lambda: browser.run(said), f"Copied: {copied}") == f"Copied: {copied}"
    assert browser.logged() == []


def test_a_tucked_table_is_taken_over_when_it_is_opened(browser, written):
    browser.open(written)
    buttons = "return document.querySelectorAll('#detail-csv th button').length"
    assert browser.run(buttons) == 0
    browser.press("#numbers details:first-of-type summary", ENTER)
    assert browser.run(buttons) > 20


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_never_scrolls_sideways_and_its_tables_do(browser, written, width):
    browser.open(written, width=width)
    assert browser.run("return [document.documentElement.scrollWidth, innerWidth]") == [width, width]
    wide = "const b = document.querySelector('#main .scroll'); return [b.scrollWidth > b.clientWidth, b.tabIndex]"
    assert browser.run(wide) == [True, 0]


def test_light_and_dark_both_have_contrast(browser, written):
    pages = []
    badges = [f"badge {verdict}" for verdict in VERDICTS]
    for dark in (False, True):
        browser.open(written, dark=dark)
        browser.run("for (const kind of arguments[0]) document.body.append(Object.assign(document.createElement('b'),"
                    " {className: kind, textContent: kind}))", badges)  # fmt: skip
        pages.append(browser.run(SHADE, "body")[1])
        for selector in ("body", *("b." + kind.replace(" ", ".") for kind in badges), "th", "#runs th button"):
            ink, ground = browser.run(SHADE, selector)
            ground = pages[-1] if ground == "rgba(0, 0, 0, 0)" else ground
            assert contrast(ink, ground) >= 4.5, (dark, selector)
        assert contrast(browser.run(SHADE, ".note")[0], pages[-1]) >= 4.5
        assert contrast(browser.run(SHADE, "a[href]")[0], pages[-1]) >= 4.5
    assert pages[0] != pages[1]


def contrast(one, other):
    """The ratio of WCAG 2, 1 to 21."""

    def luminance(colour):
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")[:3]]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_control_is_reached_by_keyboard_and_has_a_name(browser, written):
    browser.open(written)
    nameless = """return [...document.querySelectorAll('button, input, select, a[href], summary, [tabindex="0"]')]
        .filter(e => e.tabIndex < 0 || !(e.textContent.trim() || e.labels?.length || e.ariaLabel
            || document.getElementById(e.getAttribute('aria-labelledby'))?.textContent)).map(e => e.outerHTML)"""
    assert browser.run(nameless) == []
    ids = browser.run("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    links = browser.run("return [...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href').slice(1))")
    assert set(links) <= set(ids)


def test_on_paper_there_are_no_controls_and_nothing_is_cut_off(browser, written):
    browser.open(written, dark=True)
    assert browser.printed().startswith(b"%PDF-")
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    browser.cdp("Emulation.setEmulatedMedia", media="print", features=[scheme])
    assert browser.run(SHADE, "body") == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert contrast(browser.run(SHADE, ".badge")[0], "rgb(255, 255, 255)") >= 4.5
    shown = """return [...document.querySelectorAll('.tools, button.copy, nav, .pages button')]
        .filter(e => e.checkVisibility()).length"""
    assert browser.run(shown) == 0
    # An A4 page on its side is about 1030 CSS pixels wide inside its margins.
    browser.cdp("Emulation.setDeviceMetricsOverride", width=1030, height=700, deviceScaleFactor=1, mobile=False)
    assert browser.run("return document.documentElement.scrollWidth") == 1030


def test_without_javascript_the_rows_are_there(browser, written):
    browser.open(written)
    with_script = [column(browser, n) for n in range(4)]
    browser.open(written, script=False)
    tree = browser.cdp("DOM.getDocument", depth=-1)["root"]
    texts = browser.cdp("DOM.getOuterHTML", nodeId=tree["nodeId"])["outerHTML"]
    assert "<button" not in texts
    assert all(f"<td>{text}</td>" in texts for text in with_script[1])


def test_words_of_a_run_do_nothing(browser, tmp_path):
    runs, _ = hostile_runs(tmp_path)
    write_report(runs, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    browser.run("document.querySelectorAll('th button').forEach(b => b.click())")
    assert not browser.alert()
    assert browser.run("return window.hacked ?? null") is None
    assert browser.run("return document.querySelectorAll('main script:not([type]), main svg, b[onclick]').length") == 0
    assert browser.logged() == []


def test_twenty_thousand_rows_neither_freeze_nor_flood_the_page(browser, tmp_path, monkeypatch):
    many = range(20_000)
    rows = pd.DataFrame({"case": [f"case {n}" for n in many], "ms": [f"{n * 7919 % 20_011} ms" for n in many],
                         **{f"more {k}": [f"{n % 97}.5 ± 0.1" for n in many] for k in range(6)}})  # fmt: skip
    monkeypatch.setattr("prunebench.report.about.sources", lambda _: block_of("runs", "Runs", rows))
    (tmp_path / "page.html").write_text(page([run(*grid())]))
    browser.open(tmp_path / "page.html")
    timed = """const start = performance.now(); document.querySelectorAll('#runs th button')[1].click();
        return [performance.now() - start, document.querySelectorAll('#runs tbody tr').length]"""
    milliseconds, shown = browser.run(timed)
    assert milliseconds < 3000  # generous: a busy core; a tenth of it is usual
    assert shown == 100
    assert column(browser, 1) == sorted(rows["ms"], key=lambda text: int(text.split()[0]))[:100]
    assert count(browser) == "rows 1–100 of 20,000"
    browser.press("#runs .pages button:last-child", ENTER)
    assert count(browser) == "rows 101–200 of 20,000"
    browser.press("#runs input", "19999")
    wanted = ["case 19999", f"case {list(rows['ms']).index('19999 ms')}"]
    assert until(lambda: sorted(column(browser, 0)), sorted(wanted)) == sorted(wanted)
