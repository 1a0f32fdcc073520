"""Signing in, in a real browser: by address, by form, by another site's link; what another site cannot do; errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from page_scene import PATIENCE_MS, PageAt, assert_accessible
from playwright.sync_api import Browser, Page, expect

from federation_scene import Federation


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A central node whose pages need signing in."""
    fed = Federation(tmp_path_factory.mktemp("guarded"))
    fed.start_central("--public-url", fed.url)
    yield fed
    fed.stop_all()


@pytest.fixture
def another_site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Another site's address, and the folder that it serves."""
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    site = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=tmp_path))
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://localhost:{site.server_address[1]}", tmp_path        # 127.0.0.1 is another site than localhost
    site.shutdown()
    site.server_close()
    thread.join()


def sign_in_url(fed: Federation) -> str:
    return fed.log("central").partition("with: ")[2].split()[0]


def operator_token(fed: Federation) -> str:
    return sign_in_url(fed).partition("token=")[2]


def test_the_printed_address_signs_in_and_leaves_no_token_in_sight(guarded: Federation, page: Page) -> None:
    page.goto(sign_in_url(guarded))
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    assert page.url == f"{guarded.url}/"
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert operator_token(guarded).removeprefix("op_") not in cookie["value"]
    assert page.evaluate("document.cookie") == ""
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")


def test_the_form_by_keyboard_leads_back_and_signing_out_ends_it(guarded: Federation, page: Page) -> None:
    page.goto(f"{guarded.url}/runs?q=a")
    field = page.get_by_label("Operator token")
    field.focus()
    page.keyboard.type("join_nothing")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("a join token")
    page.get_by_label("Operator token").focus()
    page.keyboard.type(operator_token(guarded))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Runs")
    assert page.url == f"{guarded.url}/runs?q=a"
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.goto(guarded.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_a_link_on_another_site_lands_signed_in(
    guarded: Federation, page: Page, another_site: tuple[str, Path]
) -> None:
    address, folder = another_site
    (folder / "index.html").write_text(
        f'<a href="{sign_in_url(guarded)}">sign in</a> <a href="{guarded.url}/runs?q=b">runs</a>'
    )
    page.goto(address)
    page.get_by_text("runs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.goto(address)
    page.get_by_text("sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    page.goto(address)
    page.get_by_text("runs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Runs")
    assert page.url == f"{guarded.url}/runs?q=b"


def test_another_site_can_neither_act_nor_read_nor_frame(
    guarded: Federation, browser: Browser, another_site: tuple[str, Path]
) -> None:
    address, folder = another_site
    (folder / "index.html").write_text(f"""
        <form method="post" action="{guarded.url}/sign-out"><button>press</button></form>
        <iframe src="{guarded.url}/" title="frame"></iframe>
    """)
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(sign_in_url(guarded))
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    page.goto(address)
    read = "url => fetch(url, {credentials: 'include'}).then(answer => answer.text(), error => 'refused')"
    assert page.evaluate(read, f"{guarded.url}/api/v1/tokens/join") == "refused"
    expect(page.frame_locator("iframe").locator("body")).to_be_attached()
    assert page.frame_locator("iframe").get_by_role("link", name="fednode").count() == 0
    page.get_by_role("button").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Not signed in")
    page.goto(guarded.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")       # still signed in
    page.context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_the_form_and_the_errors_are_for_everybody(
    guarded: Federation, page_at: PageAt, width: int, scheme: str
) -> None:
    page = page_at(width, scheme)
    page.goto(f"{guarded.url}/sign-in")
    assert_accessible(page)
    page.get_by_label("Operator token").fill("op_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not valid here")
    assert_accessible(page)
    page.goto(sign_in_url(guarded))
    page.goto(f"{guarded.url}/nothing")
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing here")
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.get_by_role("main").get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
