"""The page of an experiment: the data in it, and what a browser makes of them."""

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from browser import console_errors, open_browser
from html_report.audio import choose, open_cuts
from html_report.content import make_content
from html_report.page import render
from html_report.plots import latency_plot, learning_curves
from result_cases import make_result, write_experiment
from saved_runs import write_cut

from summarymix.configs import plain
from summarymix.data.config import DataConfig
from summarymix.data.manifests import cuts_path, write_manifest
from summarymix.decoding.words import Transcript, Word, write_hyps
from summarymix.scoring.errors import ScoredUtterance, write_recogs
from summarymix.scoring.results import append_result

EVIL = '</script><img src=x onerror=alert(1)> & "it\'s"'
REFERENCES = {
    "cut-0": "one two three",
    "cut-1": EVIL,
    "cut-2": "שלום עולם",
    "cut-3": "four",
    "cut-4": "",
}
OFFLINE = REFERENCES | {"cut-0": "one too three", "cut-4": "uh"}
STREAMING = REFERENCES | {"cut-0": "oh one three", "cut-3": "", "cut-1": f"{EVIL} <b>", "cut-4": "uh"}


def add_result(exp_dir: Path, hypotheses: dict[str, str], references=REFERENCES, **changes: Any) -> None:
    """Write what decode.py writes of a decoded split; each word lasts a quarter of a second."""
    name = f"{changes.get('split', 'test')}-{changes.get('mode', 'streaming')}-{changes.get('chunk_ms', 640)}"
    result = make_result(recogs=f"recogs-{name}.txt", hyps=f"hyps-{name}.jsonl", **changes)
    append_result(exp_dir / "results.jsonl", result)
    utterances = [ScoredUtterance(i, ref.split(), hypotheses[i].split()) for i, ref in references.items()]
    write_recogs(exp_dir / result.recogs, utterances)
    said = {
        cut_id: Transcript(
            text, 0.0, 1.0, [], [Word(word, i / 4, (i + 1) / 4, 0.875, True) for i, word in enumerate(text.split())]
        )
        for cut_id, text in hypotheses.items()
    }
    write_hyps(exp_dir / result.hyps, said)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a recipe with five test recordings of noise, and in ``exp`` an experiment decoded in two settings."""
    folder = tmp_path_factory.mktemp("recipe")
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 16000)
    cuts = []
    for i, text in enumerate(REFERENCES.values()):
        cut = write_cut(folder / f"{i}.wav", samples[: 16000 - 1000 * i], text)
        cut.supervisions[0].speaker = f"anna & {i % 2}"
        cut.recording.sources[0].source = f"{i}.wav"  # relative to the recipe's folder
        cuts.append(cut)
    write_manifest(cuts, cuts_path(folder / "data", "mini", "test"))
    exp_dir = folder / "exp"
    exp_dir.mkdir()
    write_experiment(exp_dir, [])
    with open(exp_dir / "log.jsonl", "a") as log:  # one point is a curve too
        log.write(json.dumps({"kind": "valid", "step": 70, "setting": "offline", "wer": 50.0, "ctc_wer": 50.0}) + "\n")
    config = {"seed": 42, "data": plain(DataConfig(manifest_dir="data"))}
    (exp_dir / "config.yaml").write_text(yaml.safe_dump(config))
    add_result(exp_dir, STREAMING)
    add_result(exp_dir, OFFLINE, mode="offline", chunk_ms=None, left_chunks=-1)
    return folder


@pytest.fixture(scope="module")
def content(recipe: Path) -> dict[str, Any]:
    return make_content([recipe / "exp"], None, 2)


def parse(page: Path) -> dict[str, Any]:
    """The content of a page. A browser too ends it at the first ``</script``."""
    [found] = re.findall(r'id="content">(.*?)</script', page.read_text(encoding="utf-8"), re.S)
    return json.loads(found)


def test_one_page_has_results_and_aligned_utterances(recipe: Path, run, tmp_path: Path) -> None:
    # From another folder than the recipe's, in which the paths of its manifests begin.
    done = run("tools/report.py", "--html", recipe / "exp", "--audio", 1, "--out", "page.html")
    assert done.code == 0, done.err
    assert re.fullmatch(r"page.html: 0.\d MB, 5 utterances, 2 of them with audio \(--audio 1\)\n", done.out)
    content = parse(tmp_path / "page.html")
    assert content["experiments"][0]["tables"][0]["rows"][1][:2] == ["greedy_search", "offline"]
    assert content["notes"] == []
    [split] = content["splits"]
    assert [setting["name"] for setting in split["settings"]] == ["offline", "streaming 640 ms, left 2"]
    assert dict(zip(split["ids"], split["references"], strict=True)) == REFERENCES
    offline, streaming = split["hypotheses"]
    assert offline == [["one too three", "=S="], 0, 0, 0, ["uh", "I"]]
    assert streaming == [["oh one three", "I=D="], [f"{EVIL} <b>", "=====I"], 0, ["", "D"], ["uh", "I"]]
    assert split["speakers"][:2] == ["anna & 0", "anna & 1"]
    assert split["seconds"][:2] == [1.0, 0.94]
    assert set(split["audio"]) >= {"0"}  # three errors in both settings together


def test_audio_is_exact_in_length_and_has_the_words_of_all_settings(content: dict[str, Any]) -> None:
    audio = content["splits"][0]["audio"]
    assert len(audio) == 4
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(audio[0]["ogg"])))
    assert (len(samples), rate) == (16000, 16000)
    assert np.abs(samples).mean() > 0.02
    assert [word[0] for word in audio[0]["words"][1]] == ["oh", "one", "three"]
    assert audio[0]["words"][0][1] == ("too", 0.25, 0.5, 0.88)


def test_audio_is_that_of_the_recipe_of_the_experiment(recipe: Path, tmp_path: Path, monkeypatch) -> None:
    """Not that of another copy of the recipe, in which the page is made."""
    cut = write_cut(tmp_path / "0.wav", np.zeros(16000), "other")
    write_manifest([cut], cuts_path(tmp_path / "data", "mini", "test"))
    for folder in (recipe, tmp_path, recipe / "exp"):
        monkeypatch.chdir(folder)
        assert len(open_cuts(recipe / "exp", "test")) == 5


def test_audio_is_for_the_worst_and_some_others(recipe: Path) -> None:
    class Cut:
        def __init__(self, duration: float) -> None:
            self.duration = duration

    errors = {f"u{i:02}": i for i in range(20)}
    cuts: dict[str, Any] = {cut_id: Cut(1.0) for cut_id in errors} | {"u19": Cut(1000.0)}
    chosen = choose(errors, cuts, 3)
    assert chosen[:3] == ["u18", "u17", "u16"]
    assert len({*chosen}) == 6
    assert choose(errors, cuts, 0) == []
    assert len(choose(errors, cuts, 15)) == 19
    assert choose(errors, {}, 3) == []
    assert make_content([recipe / "exp"], None, 0)["splits"][0]["audio"] == {}


def test_what_cannot_be_shown_is_named(recipe: Path, tmp_path: Path) -> None:
    exp_dir = tmp_path / "exp"
    exp_dir.mkdir()
    add_result(exp_dir, STREAMING)
    add_result(exp_dir, OFFLINE, mode="offline", chunk_ms=None)
    others = {"cut-0": "other words"}
    add_result(exp_dir, others, others, mode="simulated")
    add_result(exp_dir, OFFLINE, chunk_ms=320)
    (exp_dir / "recogs-test-streaming-320.txt").unlink()
    (exp_dir / "hyps-test-streaming-640.jsonl").unlink()
    content = make_content([exp_dir], None, 5)
    gone, references, no_audio, words = content["notes"]
    assert "recogs-test-streaming-320.txt is gone" in gone
    assert "recogs-test-simulated-640.txt has other references" in references
    assert "test: no audio, speakers and durations" in no_audio
    assert "config.yaml" in no_audio
    assert words == "test: 1 of 2 settings have no file of word times: decode again"
    assert content["splits"][0]["seconds"] == [None] * 5
    config = (recipe / "exp" / "config.yaml").read_text()
    (exp_dir / "config.yaml").write_text(config)
    manifest = cuts_path(recipe / "data", "mini", "test")
    content = make_content([exp_dir], None, 5, str(manifest.parent))
    assert content["notes"][2].startswith("test: the audio of 5 utterances is missing, of cut-0 (")
    assert "extra info" not in content["notes"][2]


def test_wrong_folders_and_options_are_refused(recipe: Path, run, tmp_path: Path) -> None:
    exp_dir = recipe / "exp"
    for options, message in [
        ([tmp_path], "No results in"),
        ([exp_dir, "--splits", "dev", "eval"], "No results of dev, eval; decoded were test: correct --splits"),
        ([exp_dir, exp_dir / "../exp"], "Several folders are called exp"),
        ([exp_dir, "--audio", -1], "--audio -1"),
    ]:
        done = run("tools/report.py", "--html", "--out", "page.html", *options)
        assert (done.code != 0, message in done.err) == (True, True), done.err
    done = run("tools/report.py", "x.json", "--out", "pages", "--splits", "test")
    assert done.code == 2
    assert "add --html" in done.err
    for options, message in [
        ([exp_dir, "--out", "pages"], "is a folder: add --html for the page of an experiment"),
        (["--html", exp_dir, "--out", tmp_path], "is a folder: give the name of the page"),
    ]:
        done = run("tools/report.py", *options)
        assert (done.code, message in done.err) == (2, True), done.err
    other = tmp_path / "other"
    append_result(other / "results.jsonl", make_result(recipe="librispeech"))
    with pytest.raises(ValueError, match="recipes librispeech, mini"):
        make_content([exp_dir, other], None, 0)


def test_characters_are_aligned_one_by_one(tmp_path: Path) -> None:
    references = {"cut-0": "ab 你好"}
    add_result(tmp_path, {"cut-0": "b 您好吗"}, references, metric="cer", cer=60.0)
    [split] = make_content([tmp_path], None, 0)["splits"]
    assert split["references"] == ["ab你好"]
    assert split["hypotheses"] == [[["b您好吗", "D=S=I"]]]
    assert split["unit"] == "characters"


def test_latency_plot_joins_chunk_sizes() -> None:
    results = [
        make_result(mode="offline", latency_ms=None, wer=1.0),
        make_result(latency_ms=1317.5, wer=1.5, interval=(1.25, 1.75)),
        make_result(latency_ms=677.5, wer=2.0),
        make_result(latency_ms=677.5, wer=2.0, mode="simulated"),
        make_result(latency_ms=677.5, wer=1.75, lookahead_ms=160),
    ]
    named = [("greedy", result) for result in results] + [("beam", results[0])]
    [plot] = latency_plot("test", named)
    lines = {line["name"]: line["points"] for line in plot["lines"]}
    assert lines == {
        "greedy, offline": [[677.5, 1.0], [1317.5, 1.0]],
        "greedy, left context 2": [[677.5, 2.0], [1317.5, 1.5, 1.25, 1.75]],
        "greedy, left context 2, look-ahead 160 ms": [[677.5, 1.75]],
    }
    assert latency_plot("test", named[:2]) == latency_plot("test", []) == []


def test_learning_curves_have_a_line_for_each_setting(tmp_path: Path) -> None:
    rates = {"cer": 50.0, "ctc_cer": 60.0}
    records = [
        *({"kind": "train", "step": step, "loss": 1 / step} for step in range(1, 1001)),
        {"kind": "valid", "step": 10, "setting": "offline"} | rates,
        {"kind": "valid", "step": 10, "setting": "640ms"} | rates,
        {"kind": "valid", "step": 10, "setting": "offline@other"} | rates,
        {"kind": "valid", "step": 20, "setting": "offline"} | rates | {"cer": 40.0},
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    rate_plot, loss_plot = learning_curves({"exp": log})
    assert rate_plot["title"] == "Dev character error rate in training"
    lines = {line["name"]: line["points"] for line in rate_plot["lines"]}
    assert lines == {
        "offline": [(10, 50.0), (20, 40.0)],
        "offline, CTC head": [(10, 60.0), (20, 60.0)],
        "640ms": [(10, 50.0)],
    }
    assert len(loss_plot["lines"][0]["points"]) <= 400
    several, _ = learning_curves({"a": log, "b": log})
    assert [line["name"] for line in several["lines"] if "CTC" not in line["name"]] == ["a, offline", "b, offline"]
    assert learning_curves({"exp": tmp_path / "none"}) == []
    text = log.read_text()
    log.write_text(text + '{"kind": "train", "step": 99990, "loss": NaN}\n{"kind": "tr')  # diverged, and killed
    assert learning_curves({"exp": log}) == [rate_plot, loss_plot]
    log.write_text("half\n" + text)
    with pytest.raises(ValueError, match=r"log.jsonl, line 1 is not a record"):
        learning_curves({"exp": log})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser("--autoplay-policy=no-user-gesture-required") as driver:
        yield driver


@pytest.fixture(scope="module")
def page(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(render("exp & <i>title</i> {{script}}", content), encoding="utf-8")
    return path


@pytest.fixture
def driver(browser: Any, page: Path) -> Iterator[Any]:
    """A browser with the page opened from disk."""
    browser.get(page.as_uri())
    yield browser
    assert console_errors(browser) == []


def texts(driver: Any, selector: str) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)", selector
    )


def wait_for(driver: Any, script: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 20, poll_frequency=0.05).until(lambda driver: driver.execute_script(f"return {script}"))


def search(driver: Any, text: str) -> None:
    script = "const query = document.getElementById('query'); query.value = arguments[0]; query.oninput()"
    driver.execute_script(script, text)


def press(driver: Any, *keys: str) -> None:
    for key in keys:
        driver.switch_to.active_element.send_keys(key)


def click(driver: Any, selector: str) -> None:
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)


def test_texts_are_shown_as_they_are(driver: Any) -> None:
    assert texts(driver, "h1") == ["exp & <i>title</i> {{script}}"]
    assert {*texts(driver, ".row .text")} == {*REFERENCES.values()}
    assert texts(driver, "img") == []
    assert len(texts(driver, "#results .results")) == 1
    assert texts(driver, "figure h3") == ["Dev word error rate in training"]


def test_errors_are_marked_in_more_than_color(driver: Any) -> None:
    assert texts(driver, "#utterance h2") == ["cut-0"]  # the first with the most errors
    rows = [texts(driver, f".aligned tr:nth-child({i}) > :not(.count)") for i in (1, 2, 3)]
    assert rows == [
        ["reference", "", "one", "two", "three"],
        ["offline", "", "one", "too", "three"],
        ["streaming 640 ms, left 2", "oh", "one", "two", "three"],
    ]
    assert texts(driver, ".aligned .count") == ["", "1", "2"]
    marked = [(tag, texts(driver, f".aligned {tag}")) for tag in ("mark", "ins", "del")]
    assert marked == [("mark", ["too"]), ("ins", ["oh"]), ("del", ["two"])]
    decoration = "return getComputedStyle(document.querySelector(arguments[0])).textDecoration"
    looks = [driver.execute_script(decoration, f".aligned {tag}") for tag in ("mark", "ins", "del")]
    assert [re.search("wavy|dotted|line-through", look)[0] for look in looks] == ["wavy", "dotted", "line-through"]


def test_utterances_are_sorted_and_filtered(driver: Any) -> None:
    def ids() -> list[str]:
        return texts(driver, ".row .id")

    # By errors of the first setting, then of all.
    assert ids() == ["cut-0", "cut-4", "cut-1", "cut-3", "cut-2"]
    click(driver, "#columns button:nth-child(4)")  # seconds
    assert ids() == ["cut-0", "cut-1", "cut-2", "cut-3", "cut-4"]
    click(driver, "#columns button:nth-child(4)")
    assert ids()[0] == "cut-4"
    click(driver, "#columns button:nth-child(2)")  # id
    search(driver, "ANNA & 1")
    assert ids() == ["cut-1", "cut-3"]
    search(driver, "xyz")
    assert texts(driver, "#count") == ["0 of 5 utterances"]
    assert texts(driver, "#utterance") == ["No utterance matches the filter."]
    search(driver, "שלום")
    assert ids() == ["cut-2"]
    assert driver.execute_script("return document.querySelector('.aligned').dir") == "rtl"
    search(driver, "")
    assert len(ids()) == 5


def test_keys_choose_and_play(driver: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    driver.execute_script("document.getElementById('list').focus()")
    press(driver, Keys.END, Keys.HOME)
    assert texts(driver, "#utterance h2") == ["cut-0"]
    wait_for(driver, "document.querySelector('canvas').width === 200")  # a second in steps of 5 ms
    press(driver, " ")
    wait_for(driver, "document.querySelector('audio').currentTime > 0")
    wait_for(driver, "!document.querySelector('.cursor').hidden")
    press(driver, Keys.ARROW_DOWN)
    assert texts(driver, "#utterance h2") == ["cut-4"]
    assert driver.execute_script("return document.activeElement.getAttribute('aria-activedescendant')") == "row-4"


def test_the_words_over_the_spectrogram_are_of_the_chosen_setting(driver: Any) -> None:
    click(driver, "#row-0")
    assert texts(driver, ".word") == ["one0.88", "too0.88", "three0.88"]
    click(driver, ".aligned tr:nth-child(3) button")
    assert texts(driver, ".word") == ["oh0.88", "one0.88", "three0.88"]
    assert texts(driver, ".word ins") == ["oh"]
    assert texts(driver, ".row[aria-selected=true] .number") == ["1.0", "2", "67", "+1"]
    click(driver, ".word[title^=three]")
    wait_for(driver, "document.querySelector('audio').currentTime >= 0.4")  # the word begins at 0.5 s


def test_settings_are_hidden_and_shown(driver: Any) -> None:
    click(driver, ".choices label:nth-child(1) input")
    assert len(texts(driver, ".aligned tr")) == 2
    click(driver, ".choices label:nth-child(1) input")
    assert len(texts(driver, ".aligned tr")) == 3


def test_without_audio_the_page_tells_how_to_get_it(driver: Any, content: dict[str, Any]) -> None:
    [silent] = {*range(5)} - {*content["splits"][0]["audio"]}
    click(driver, f"#row-{silent}")
    assert "tools/report.py --html … --audio 100 embeds more" in texts(driver, "#utterance .note")[0]
    click(driver, "#heard")
    assert len(texts(driver, ".row")) == 4
