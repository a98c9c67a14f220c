"""Every command that the docs show is run, page by page, on made-up data; and what they say is printed is printed.

Read are fenced blocks of a shell or console, and indented ones. A synopsis (`NAME [--team T]`) and what a comment
above a block marks is not run, but its words must be known to the command line. So


    <!-- not run, a job of AWS is waited for: farthing batch run -->

says what the machine has not, and for which commands; without any behind the colon all of the block is meant. What
takes long is run by `make docs-long` alone. In a console block what stands below a command is its output, which
`pytest --golden` writes anew; a line `...` leaves some of it out.
"""

import ast
import doctest
import importlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cyclopts import CycloptsError

import farthing
from farthing import cli
from tests import documented
from tools import docs

ROOT = Path(__file__).resolve().parent.parent
PAGES = [  # examples of README.md are run by test_docs.py
    path
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
    if path.name != "reference.md" and path.parent.name != "decisions"
]
LONG = os.environ.get("DOCS") == "long"
MARK = re.compile(r"<!-- not run, (?P<reason>[^:>]+?)(?:: (?P<of>[^>]+?))? -->")
SHELLS = ("sh", "console", "")
LONG_COMMANDS = (("demo", "live"), ("web", "--demo"))  # a day twice; a month of 12,000 calls
SERVERS = ("web", "gateway", "emulate", "watch")
SECONDS = 60  # for one command
NOT_RUN_AT_MOST = 12  # commands; a page that adds one asks here why


@dataclass
class Shown:
    """A command as a page shows it: its line, what is printed below it, and why it is not run, if it is not."""

    page: Path
    line: int
    text: str
    output: list[str] = field(default_factory=list)
    console: bool = False
    mark: re.Match[str] | None = None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def reason(self) -> str:
        """Why it is not run; empty if it is."""
        of = self.mark["of"] or "farthing" if self.mark else ""
        meant = any(self.text.startswith(start.strip()) for start in of.split(";") if start)
        return self.mark["reason"] if self.mark and meant else ""

    @property
    def synopsis(self) -> bool:
        return bool(re.search(r"\[[-A-Z]|\[\w+\.json|\| rotate|(^| )FILE( |$)", self.text))

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of farthing in the line, without what a shell does beside it."""
        found = []
        for part in self.text.split("&&"):
            words = shlex.split(re.split(r" [|>] ", part)[0], comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)
            if words[:1] == ["farthing"]:
                found.append(words[1:])
        return found


def shown(page: Path) -> list[Shown]:
    """Every command of a page, in the order in which a reader meets them."""
    found: list[Shown] = []
    fence, mark, current = None, None, None
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        opened = re.match(r"\s*```(\w*)", line)
        if marked := MARK.search(line):
            mark = marked
        elif opened:
            fence, current = (opened[1] if fence is None else None), None
            mark = mark if fence is not None else None
        elif current and current.text.endswith("\\"):
            current.text = current.text[:-1] + line.strip()
        elif fence in SHELLS or (fence is None and line.startswith("    ")):
            said = re.match(r"(?:    |\s*)(\$ )?((?:[A-Z_]+=\S+ )*farthing\b.*)", line)
            if said and (said[1] or fence != "console"):
                current = Shown(page, number, said[2], console=fence == "console")
                current.mark = mark
                found.append(current)
            elif current and current.console:
                current.output.append(line)
        elif fence is None and line.strip():
            mark, current = None, None
    return found


ALL = [command for page in PAGES for command in shown(page)]


# --- what is not run must be known all the same ------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_known(page):
    for command in shown(page):
        for words in command.commands:
            if command.synopsis:
                _known_words(command)
            else:
                try:
                    cli.app.parse_args(words, exit_on_error=False, print_error=False)
                except CycloptsError as error:
                    raise AssertionError(f"{command.place}: {command.text}: {error}") from error


def _known_words(command: Shown) -> None:
    """Of a synopsis, the command and its options."""
    words = re.findall(r"[\w-]+", command.text)[1:]
    name = next(" ".join(words[:n]) for n in (3, 2, 1) if " ".join(words[:n]) in docs.commands())
    group = name.rpartition(" ")[0] if "|" in command.text else name  # a line may be of several
    said = "".join(docs.help_of(each) for each in docs.commands() if each.startswith(group or name))
    for option in re.findall(r"--[a-z][a-z0-9-]*", command.text):
        assert option in said, f"{command.place}: {option} is no option of {name}"


def test_little_is_not_run():
    """Each with its reason; the number may fall, and does not grow by itself."""
    left = [f"{one.place}: {one.reason}" for one in ALL if one.reason]
    assert len(left) <= NOT_RUN_AT_MOST, "\n".join(left)
    assert len(ALL) > 120


# --- run ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documented")
    documented.build(folder)
    return folder


@pytest.fixture(scope="module")
def services(moto, world):
    documented.fill(moto, world)
    with documented.bedrock() as bedrock:
        yield moto, bedrock


@pytest.mark.xdist_group("documented")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if shown(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_do_what_their_page_says(page, world, services, tmp_path, monkeypatch, capfd, accepts):
    empty = page.name == "tour.md"  # it makes all it needs
    documented.sandbox(world, tmp_path, str(page.relative_to(ROOT)), empty=empty)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("AWS_", "FARTHING_", "XDG_"))]:
        monkeypatch.delenv(name)
    for name, value in documented.environment(tmp_path, *services).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))  # nobody is there to ask
    wrong = []
    for command in shown(page):
        if empty and (settings := _settings_above(command)):
            Path("farthing.toml").write_text(settings, encoding="utf-8")
        if command.reason or command.synopsis:
            continue
        for words in command.commands:
            if not LONG and any(set(long) <= set(words) for long in LONG_COMMANDS):
                continue
            code, out, err = run(words, capfd)
            if code not in (0, 1):
                wrong.append(f"{command.place}: {command.text}\n  exit code {code}: {err.strip()[-400:]}")
            elif command.console:
                wrong += compared(command, out, golden=accepts)
    assert not wrong, "\n".join(wrong)


def _settings_above(command: Shown) -> str:
    """The farthing.toml that a page has told its reader to write by then."""
    above = "\n".join(command.page.read_text(encoding="utf-8").splitlines()[: command.line])
    return "".join(re.findall(r"```toml\n(.*?)```", above, flags=re.DOTALL)[-1:])


def run(words: list[str], capfd) -> tuple[int, str, str]:
    """In this process, or, of what goes on until it is ended, as a program."""
    words = [_here(word) for word in words]
    if words[:1] == ["init"] and "--force" not in words:
        Path("farthing.toml").unlink(missing_ok=True)  # else it is kept, and that is said
    if words and words[0] in SERVERS and words[1:2] != ["key"] and not {"--test", "--dry-run"} & set(words):
        return serve(words)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
    except TimeoutError as error:
        return 3, "", str(error)
    finally:
        signal.alarm(0)
    out, err = capfd.readouterr()
    return int(str(ended.value.code or 0)), out, err


def _too_long(*_) -> None:
    raise TimeoutError(f"it took more than {SECONDS} s")


def _here(word: str) -> str:
    """A shell's home, and folders of a server's, in this test's own."""
    if not word.startswith(("~/", "/var/lib/")):
        return word
    path = Path.cwd() / word.replace("~/", "home/", 1).lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path)


def serve(words: list[str]) -> tuple[int, str, str]:
    """Until its first line is there; on a free port of this machine, and without a browser."""
    words = [word if word != "0.0.0.0" else "127.0.0.1" for word in words]
    if words[0] != "watch":
        words += ["--port", "0"] if "--port" not in words else []
        words[words.index("--port") + 1] = "0"
    words += ["--no-open"] if words[0] == "web" else []
    with subprocess.Popen(
        [sys.executable, "-m", "farthing", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        assert server.stderr
        first = server.stdout.readline()
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=60)
    began = first if words[0] == "watch" else "listening" in first and server.returncode == 0
    return 0 if began else 2, first + out, err


def compared(command: Shown, out: str, *, golden: bool) -> list[str]:
    """What is wrong with the output that a page shows; with --golden the page is written anew instead."""
    out = re.sub(r"price book \w{12}", "price book ...", out)  # with the next price it is another
    made = [line.rstrip() for line in out.rstrip().splitlines()]
    if fits(command.output, made):
        return []
    if not golden:
        return [f"{command.place}: {command.text}\n  prints\n" + "\n".join(made)]
    lines = command.page.read_text(encoding="utf-8").splitlines()
    before = sum(
        one.text == command.text for one in ALL if one.page == command.page and one.line < command.line
    )
    at = [n for n, line in enumerate(lines) if line == f"$ {command.text}"][before]
    lines[at + 1 : at + 1 + len(command.output)] = [*made, ""] if command.output[-1:] == [""] else made
    command.page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return []


def fits(said: list[str], made: list[str]) -> bool:
    """Whether the lines are these; `...` stands for any number of lines, and at a line's end for the rest of it."""
    text = "\n".join(line.rstrip() for line in said).rstrip()
    pattern = re.escape(text).replace(re.escape("\n...\n"), r"\n(?:.*\n)*?").replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, "\n".join(made), flags=re.DOTALL) is not None


# --- Python ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if "```python" in page.read_text(encoding="utf-8")],
                         ids=lambda page: str(page.relative_to(ROOT)))  # fmt: skip
def test_python_of_a_page_is_true(page):
    """Examples with their answers are run; of the others, every name of farthing's must be there."""
    text = page.read_text(encoding="utf-8")
    failed, _ = doctest.testfile(str(page), module_relative=False)
    assert not failed
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        if ">>>" in block:
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("farthing"):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "farthing":
                assert hasattr(farthing, node.attr), ast.unparse(node)
